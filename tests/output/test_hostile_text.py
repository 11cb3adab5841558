"""Text of strangers in every field that is shown: it is text in every form of output, and nothing
of it runs, links, colours or commands."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as Tree
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_files
from markdown_it import MarkdownIt
from places import ROOT

from harness.cli import _command
from harness.errors import HarnessError
from harness.output import markdown, printing, shell
from harness.output.printing import CommandFilter, visible
from harness.results.file import read_records

HOSTILE = {
    "shell": "`$(touch PWNED)`'\"$(touch PWNED)\\",
    "github": "::set-output name=a::b\n  ::add-mask::c\r##[error]d",
    "html": "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>]]></failure><x/>--><!--",
    "terminal": "\x1b]0;t\x07\x1b[31m\u202e\x00 [red]x[/red] {{ 7 * 7 }} %s ${x}",
    "markdown": "](javascript:x) ![i](//h/i) | b |\n|---|\n```\n# h\n- *i*\n<b>",
}
# What is put in their place to see which form the output has.
HARMLESS = "word"
# What GitHub obeys: https://github.com/actions/runner, ActionCommand.cs.
COMMAND = re.compile(r"^\s*::\S|##\[", re.MULTILINE)
ANNOTATION = re.compile(r"::(error|warning) (file=[^,]*,line=\d+,)?title=[^:,]*::.*")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as ``main`` does, with its standard streams guarded: code, output, errors."""

    def run(*arguments: str | Path, github: bool) -> tuple[int, str, str]:
        monkeypatch.setenv("GITHUB_ACTIONS", str(github).lower())
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        raws = io.BytesIO(), io.BytesIO()
        streams = [io.TextIOWrapper(raw, encoding="utf-8") for raw in raws]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        printing.guard_streams()
        code = _command()
        sys.stdout.flush()
        sys.stderr.flush()
        out, errors = (raw.getvalue().decode() for raw in raws)
        assert "Traceback" not in errors
        return code, out, errors

    return run


def assert_text(out: str, errors: str = "", github: bool = True) -> None:
    """Nothing acts on a terminal, nor on GitHub but for the harness' own annotations."""
    for text in (out, errors):
        assert visible(text) == text
    if github:
        assert not COMMAND.search(out)
        kept = [line for line in errors.split("\n") if not ANNOTATION.fullmatch(line)]
        assert not COMMAND.search("\n".join(kept))


# --- The forms of output -----------------------------------------------------------------------


class Tags(HTMLParser):
    """The kinds of elements and attributes of a page, and the texts of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"@{name}" for name, _ in attrs)}
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_comment(self, data: str) -> None:
        self.found.add("comment")

    def handle_data(self, data: str) -> None:
        # The data of a page are JSON in an element of their own.
        if self._in_script and not data.lstrip().startswith("{"):
            self.scripts.append(data)


def html_structure(page: str) -> tuple[set[str], list[str]]:
    tags = Tags(page)
    return tags.found, tags.scripts


def xml_structure(text: str) -> list[tuple[str, list[str]]]:
    return [(element.tag, sorted(element.attrib)) for element in Tree.fromstring(text).iter()]


def _tokens(text: str) -> Iterator[Any]:
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        yield from [token, *(token.children or ())]


def markdown_structure(text: str) -> object:
    words = ("text", "text_special", "inline", "softbreak")
    return [t.type for t in _tokens(text) if t.type not in words and "<br>" not in t.content]


def commands(text: str) -> list[str]:
    """The commands that a text of Markdown shows as code."""
    return [t.content for t in _tokens(text) if t.type == "code_inline" and "harness" in t.content]


def assert_pasted(command: str, folder: Path) -> list[str]:
    """The words of a command as bash takes them; nothing else may come of it."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], cwd=folder, capture_output=True, check=True
    )
    assert list(folder.iterdir()) == []
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_one_function_of_each_form(text: str, tmp_path: Path) -> None:
    assert markdown_structure(f"a {markdown.escaped(text)} b") == markdown_structure("a b")
    assert markdown_structure(markdown.escaped(text)) == markdown_structure("a")
    assert markdown_structure(f"a {markdown.code(text)} b") == markdown_structure("a `b` b")
    rows = markdown.table(["a", "b"], [[text, text]])
    assert markdown_structure(rows) == markdown_structure(markdown.table(["a", "b"], [["c", "c"]]))
    block = "\n".join(markdown.fenced(text, "text"))
    assert markdown_structure(block) == markdown_structure("```text\na\n```")
    word = text.replace("\0", "")
    line = shell.command_line(["harness", word])
    assert visible(line) == line
    assert "\n" not in line
    (shown,) = commands(markdown.code(line))
    assert shown == line
    assert assert_pasted(shown, tmp_path) == ["harness", word]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::set-output name=a::b", ":\\u003aset-output name=a::b"),
        ("a\n \u00a0\u200b::add-mask::b", "a\n \u00a0\u200b:\\u003aadd-mask::b"),
        ("a\r::b", "a\r:\\u003ab"),
        ("a ##[error]b", "a ##\\u005berror]b"),
        ("##\u200b[error]", "##\u200b\\u005berror]"),
        ("a::b\n: : #[ # [ a:: #", "a::b\n: \\u003a #[ # [ a:: #"),
        ("a: :b, ::c\n\n: b", "a: :b, ::c\n\n: b"),
    ],
)
def test_commands_are_found_in_pieces_of_any_size(text: str, shown: str, size: int) -> None:
    taken = CommandFilter()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert "".join(map(taken, pieces)) == shown


def test_only_annotations_pass_the_standard_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert printing.shown("::x::\x07") == ":\\u003ax::\\x07"
    printing.guard_streams()
    print("::a::b\n ", file=sys.stderr, end="")
    printing.console(error=True).print("::c::d ##[x]", end="", markup=False)
    printing.annotate("::error title=a::b")
    printing.say("::e::f", error=True)
    assert stream.buffer.getvalue().decode() == (
        ":\\u003aa::b\n :\\u003ac::d ##\\u005bx]\n::error title=a::b\n:\\u003ae::f\n"
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert printing.shown("::x::") == "::x::"


# --- Records -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    return report_files.records(folder / "run.jsonl")


Place = tuple[str, ...]


def _changed(value: Any, text: str, at: Place, wanted: Callable[[Place], bool]) -> Any:
    """The value with a text in front of those strings and keys whose places are wanted."""
    if isinstance(value, dict):
        return {
            (text + key if wanted((*at, key, "key")) else key): _changed(
                part, text, (*at, key), wanted
            )
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_changed(part, text, (*at, "*"), wanted) for part in value]
    return text + value if isinstance(value, str) and wanted(at) else value


def _places(value: Any, at: Place) -> Iterator[Place]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*at, key, "key")
            yield from _places(part, (*at, key))
    elif isinstance(value, list):
        for part in value:
            yield from _places(part, (*at, "*"))
    elif isinstance(value, str):
        yield at


# Fields of all lines of a cell: those change together, or nothing belongs together any more.
OF_CELLS = ("spec", "backend", "device", "dtype", "path")


def _written(records: Path, path: Path, text: str, wanted: Callable[[Place], bool]) -> Path:
    def together(place: Place) -> bool:
        return wanted(("cell", *place[1:]) if place[1] in OF_CELLS else place)

    lines = [
        json.dumps(_changed(line, text, (line["kind"],), together))
        for line in map(json.loads, records.read_text().splitlines())
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def free(records: Path, tmp_path_factory: pytest.TempPathFactory) -> set[Place]:
    """The places of records in which any text is taken, and so may come from anybody."""
    lines = list(map(json.loads, records.read_text().splitlines()))
    every = {place for line in lines for place in _places(line, (line["kind"],))}
    every = {place for place in every if place[-1] != "kind"}
    every = {("cell", *p[1:]) if p[1] in OF_CELLS else p for p in every}
    found, path = set(), tmp_path_factory.mktemp("fields") / "r.jsonl"
    for place in every:
        _written(records, path, HARMLESS, lambda p, place=place: p == place)
        try:
            read_records(path)
        except HarnessError:
            continue
        # A field without its name is a field that is missing, or one that nobody reads.
        if place[-1] != "key" or len(place) > 3:
            found.add(place)
    assert len(found) > 40
    return found


@pytest.mark.parametrize("keys", [False, True], ids=["values", "keys"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_field_of_records_in_every_form(
    text: str, keys: bool, records: Path, free: set[Place], tmp_path: Path, run: Run
) -> None:
    structures: dict[str, list[object]] = {}
    wanted = {place for place in free if (place[-1] == "key") is keys}
    for name, put in (("harmless", HARMLESS), ("hostile", text)):
        changed = _written(records, tmp_path / f"{name}.jsonl", put, wanted.__contains__)
        for form, structure in (
            ("html", html_structure),
            ("md", markdown_structure),
            ("xml", xml_structure),
        ):
            output = tmp_path / f"{name}.{form}"
            code, out, errors = run("report", changed, "-o", output, github=True)
            assert code == 0, errors
            structures.setdefault(form, []).append(structure(output.read_text()))
            assert visible(output.read_text()) == output.read_text()
            assert_text(out, errors)
    for form, (harmless, hostile) in structures.items():
        assert harmless == hostile, form
    empty = tmp_path / "empty"
    empty.mkdir()
    assert commands((tmp_path / "hostile.md").read_text())
    for command in commands((tmp_path / "hostile.md").read_text()):
        assert_pasted(command, empty)
    for github in (False, True):
        for words in (
            ("compare", records, changed),
            ("compare", changed, records),
            ("compare", records, changed, "--print-markdown"),
            ("compare", records, changed, "--json"),
            ("merge", records, changed, "-o", tmp_path / "merged.jsonl"),
            ("merge", records, changed, "-o", tmp_path / "merged.jsonl", "--json"),
        ):
            code, out, errors = run(*words, github=github)
            # Runs with other options are not merged, and the message names those.
            assert code in (0, 1) or "merge only runs with the same options" in errors, (
                words,
                errors,
            )
            assert_text(out, errors, github)
            # One line of a text stays one: no stranger's begins as those of the harness do.
            assert not re.search(r"^\s*(::add-mask|\|---)", out, re.MULTILINE)
            if words[-1] == "--json" and code != 2:
                json.loads(out)


# --- A check -----------------------------------------------------------------------------------

BACKEND = """
import json, os
from harness.backends.numpy.backend import Numpy
from harness.runtime.hookspecs import hookimpl

@hookimpl
def harness_backend(name):
    text = json.loads(os.environ["HOSTILE"])
    backend = Numpy()
    backend.name = name
    backend.versions = lambda: {"numpy": text}
    tanh = backend.primitives["tanh"]
    def wrong(x):
        print(text)
        if x.dtype == "float32":
            raise ValueError(text)
        return tanh(x) * 1.001
    backend.primitives = {**backend.primitives, "tanh": wrong}
    return backend
"""
KNOWN = {
    "summary": "{text}",
    "reason": "{text}",
    "versions": "{text}",
    "link": "https://example.org/{text}",
    "match": {"backend": "odd", "check": "outputs"},
}


def _plugin(folder: Path) -> None:
    (folder / "odd.py").write_text(BACKEND)
    info = folder / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.backends]\nodd = odd\n")


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_check_of_hostile_files_and_backends(
    kind: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spec's file, the folder of specs, a known difference, and what the backend prints,
    raises and calls its version."""
    text = HOSTILE[kind]
    name = re.sub("[/\0]", "", text)
    plugins, folder = tmp_path / "plugins", tmp_path / name
    plugins.mkdir()
    folder.mkdir()
    _plugin(plugins)
    spec = folder / f"{name}.yaml"
    model = (ROOT / "specs/models/lesson6/simple_rnn.yaml").read_text()
    spec.write_text(model.replace("model: lesson6/simple_rnn", "model: own"))
    # No YAML has control characters.
    said = visible(text.replace("\r", ""))
    entry = json.loads(json.dumps(KNOWN).replace("{text}", json.dumps(said)[1:-1]))
    (folder / "known_differences.yaml").write_text(json.dumps({"differences": {said: entry}}))
    monkeypatch.syspath_prepend(plugins)
    monkeypatch.setenv("PYTHONPATH", str(plugins))
    monkeypatch.setenv("HOSTILE", json.dumps(text))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    reports = [tmp_path / f"r.{form}" for form in ("html", "md", "xml")]
    options = zip(("--html", "--markdown", "--junit"), reports, strict=True)
    code, out, errors = run(
        *("check", spec, "--specs", folder, "--backend", "odd"),
        *("--check", "outputs", "--check", "batch-independence", "--verbose"),
        *(word for option in options for word in option),
        github=True,
    )
    assert code == 1, errors
    assert "known difference" in out
    assert_text(out, errors)
    assert any(map(ANNOTATION.fullmatch, errors.split("\n")))
    page, report, xml = (path.read_text() for path in reports)
    assert not {"img", "x", "@onerror", "@src"} & html_structure(page)[0]
    assert {tag for tag, _ in xml_structure(xml)} <= {
        *("testsuites", "testsuite", "testcase", "failure", "error", "skipped"),
    }
    # The report's one fence holds the equations of the one model.
    for text, fences in ((report, 1), ((tmp_path / "step.md").read_text(), 0)):
        assert visible(text) == text
        kinds = [token.type for token in _tokens(text)]
        assert not {"link_open", "image", "em_open", "hr"} & set(kinds)
        assert kinds.count("fence") == fences
    empty = tmp_path / "empty"
    empty.mkdir()
    (shown, *_) = commands(report)
    assert assert_pasted(shown, empty)[2] == str(spec)
