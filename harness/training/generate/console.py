"""The command ``generate``: its output and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from harness.command.declared import build
from harness.command.outcome import CommandResult
from harness.environments.columns import complete_options
from harness.errors import EXIT_FAILED, EXIT_PASSED
from harness.language.model import notes_on
from harness.output.printing import console, emit, tell
from harness.output.progress import Progress
from harness.training.generate.request import GenerateOptions, GenerateRequest
from harness.training.generate.writing import ALL, KEPT, ReadingPace, prepare

# The least number of equal characters at the end of a text that count as a repetition.
REPEATED = 10


def run_generate(options: GenerateOptions) -> CommandResult:
    """Continue the prompt on every backend, and compare the texts. The first backend's characters
    are printed as soon as they are chosen.

    Raises:
        GenerateError: a backend failed.
    """
    request, as_json = request_of(vars(options)), options.as_json
    writer = prepare(request)
    for note in notes_on([writer.spec]):
        tell(note, error=True)
    texts: dict[str, str] = {}
    paces: dict[str, ReadingPace] = {}
    for backend in request.backends:
        prints = not texts and not as_json
        # On a terminal, the progress bar is shown until the text begins.
        draws_bar = prints and sys.stdout.isatty()
        characters: list[str] = []
        paces[backend] = ReadingPace()
        bar = Progress(console(error=True), f"writing on {backend}")
        try:
            with bar:
                bar.step(f"starting {backend}")
                for character in writer.write(backend, paces[backend]):
                    if not characters:
                        bar.plan(request.length)
                        bar.doing("")
                        if draws_bar:
                            bar.stop()
                        if prints:
                            emit(request.prompt)
                    characters.append(character)
                    bar.at(len(characters), f"{len(characters):,}/{request.length:,} characters")
                    if prints:
                        emit(character)
        finally:
            if prints and characters:
                emit("\n")
        texts[backend] = "".join(characters)
        if note := monotonous(texts[backend], request):
            tell(f"{backend}: {note}", error=True)
        if not as_json and (line := pace_line(paces[backend])):
            tell(f"{backend}: {line}", error=True)
    difference = differences(texts)
    if not as_json and len(texts) > 1:
        tell(difference or f"the same text on {', '.join(texts)}", error=True)
    pace_records = {backend: pace.record() for backend, pace in paces.items()}
    data = {"prompt": request.prompt, "texts": texts, "same": not difference, "pace": pace_records}
    return CommandResult(data, exit_code=EXIT_FAILED if difference else EXIT_PASSED)


def request_of(given: Mapping[str, Any]) -> GenerateRequest:
    """Return a request with the options ``given``, a mapping from option name to value."""
    return build(GenerateRequest, complete_options(given, "environments"))


def monotonous(text: str, request: GenerateRequest) -> str:
    """Return advice if a text generated at temperature 0 ends in one repeated character; else an
    empty string."""
    last = text[-1:]
    if request.temperature or len(text) - len(text.rstrip(last)) < max(REPEATED, len(text) / 2):
        return ""
    return (
        f"the most likely character is always {last!r}: train longer, or sample with "
        "--temperature 0.8"
    )


def pace_line(pace: ReadingPace) -> str:
    """Describe two speeds: of characters computed with stored values of earlier characters, and of
    characters computed from the whole window. The result is empty if no values were stored."""
    record = pace.record()
    if KEPT not in record:
        return ""
    ways = {
        KEPT: "computed with stored values of earlier characters",
        ALL: "computed from the whole window",
    }
    return "; ".join(
        f"{reading['characters']:,} {'character' if reading['characters'] == 1 else 'characters'} "
        f"{words}, {reading['characters_per_second']:,.0f}/s"
        for way, words in ways.items()
        if (reading := record.get(way))
    )


def differences(texts: Mapping[str, str]) -> str:
    """Describe where each backend's text first differs from the text of the first backend. Return
    "" if all texts are equal. ``texts`` maps backends to texts."""
    (first, base), *others = texts.items()
    lines = []
    for backend, text in others:
        if text != base:
            at = next(i for i, (a, b) in enumerate(zip(base, text, strict=True)) if a != b)
            lines.append(
                f"{backend} differs from {first} at character {at + 1}: "
                f"{text[at : at + 20]!r} instead of {base[at : at + 20]!r}"
            )
    return "\n".join(lines)
