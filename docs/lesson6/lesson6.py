"""Write docs/lesson6.md from real results: train all Lesson 6 systems and generate text with them.

``python docs/lesson6/lesson6.py run`` trains the systems on all backends, generates text, measures
the mistakes of the notebook, and stores the results in a record. Results that the record already
has are kept unless ``--again`` is given. ``page`` writes docs/lesson6.md and its pictures from the
record. The script runs the ``harness`` commands that a user would type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from lesson6_commands import harness
from lesson6_mistakes import measure_mistakes
from lesson6_page import render
from lesson6_pictures import draw
from lesson6_speed import measure_speed
from rich.console import Console

from harness.errors import HarnessError
from harness.files.atomic import write_whole
from harness.language.library import lesson6
from harness.results.environment import describe_machine

FOLDER = Path(__file__).parent
RECORD, PAGE = FOLDER / "record.json", FOLDER.parent / "lesson6.md"
WORK = FOLDER.parents[1] / "build" / "lesson6"
SYSTEMS = tuple(name.removeprefix("lesson6/") for name in lesson6())
BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")
LENGTH, TEMPERATURE = 160, 0.6

Record = dict[str, Any]


def train(system: str, backend: str, weights: Path, text: str, epochs: int | None) -> Any:
    """Train a system by the phases in its spec, or for ``epochs``; return the command's JSON."""
    few = ("--epochs", str(epochs)) if epochs else ()
    return harness(
        *("train", f"lesson6/{system}", "--backend", backend, "--text", text),
        *("--weights", str(weights), "--force", *few),
    )


def write_on(system: str, weights: Path, prompt: str, backends: Sequence[str]) -> Any:
    """Generate text from a prompt: greedily on all backends, which must agree, and by sampling on
    the first backend."""
    common = ("generate", f"lesson6/{system}", "--weights", str(weights), "--prompt", prompt)
    length = ("--length", str(LENGTH))
    every = [argument for b in backends for argument in ("--backend", b)]
    greedy = harness(*common, *length, *every)
    chance = ("--temperature", str(TEMPERATURE), "--backend", backends[0])
    sampled = harness(*common, *length, *chance)
    return {"greedy": greedy, "sampled": sampled, "temperature": TEMPERATURE}


def mistakes(text: str) -> Any:
    """Measure the notebook's mistakes on a text; end the command if the text is not available."""
    try:
        return {"text": text, **measure_mistakes(text)}
    except HarnessError as error:
        raise click.ClickException(str(error)) from error


def read(record: Path) -> Record:
    """Read the results so far from a record file."""
    if not record.exists():
        return {"systems": {}}
    found: Record = json.loads(record.read_text())
    return found


def keep(record: Path, found: Record) -> None:
    """Write the record file, with the systems in the order of the notebook."""
    systems = found["systems"]
    found["systems"] = {name: systems[name] for name in SYSTEMS if name in systems}
    write_whole(record, (json.dumps(found, indent=1) + "\n").encode())


@click.group()
def main() -> None:
    """Lesson 6, retold from real runs."""


@main.command()
@click.option("--text", default="builtin", show_default=True, help="As for harness train.")
@click.option(
    "--notebook-text", default="nietzsche", show_default=True, help="To measure mistakes on."
)
@click.option("--prompt", default="The value of ", show_default=True)
@click.option("--backend", "backends", multiple=True, type=click.Choice(BACKENDS))
@click.option("--system", "systems", multiple=True, type=click.Choice(SYSTEMS))
@click.option("--epochs", type=int, help="The specs' own phases if left out.")
@click.option("--again", is_flag=True, help="Run again what the record has.")
@click.option("--work", default=WORK, type=click.Path(path_type=Path), help="For the weights.")
@click.option("--record", default=RECORD, type=click.Path(path_type=Path))
def run(
    text: str,
    notebook_text: str,
    prompt: str,
    backends: Sequence[str],
    systems: Sequence[str],
    epochs: int | None,
    again: bool,
    work: Path,
    record: Path,
) -> None:
    """Train and write on with all systems on all backends; then the notebook's mistakes."""
    console = Console(stderr=True)
    backends, systems = backends or BACKENDS, systems or SYSTEMS
    work.mkdir(parents=True, exist_ok=True)
    found = read(record)
    if found.get("text", text) != text and not again:
        raise click.UsageError(
            f"{record} has runs on the text {found['text']!r}, not {text!r}: run it --again, or "
            "keep another --record"
        )
    found |= {
        "text": text,
        "machine": describe_machine().model_dump(exclude={"host"}, exclude_unset=True),
    }
    for number, system in enumerate(systems):
        entry = found["systems"].setdefault(system, {"trained": {}})
        speeds = entry.setdefault("speed", {})
        for backend in backends:
            if again or backend not in speeds:
                console.print(f"timing steps of {system} on {backend}")
                speeds[backend] = measure_speed(system, backend, text)
                keep(record, found)
            weights = work / f"{system}-{backend}.safetensors"
            if again or backend not in entry["trained"]:
                console.print(f"training {system} on {backend}")
                entry["trained"][backend] = train(system, backend, weights, text, epochs)
                keep(record, found)
        # Each system uses the weights from the next backend; all backends generate text with them.
        maker = backends[number % len(backends)]
        if again or "written" not in entry:
            console.print(f"writing on with {system} as {maker} trained it")
            weights = work / f"{system}-{maker}.safetensors"
            entry["written"] = write_on(system, weights, prompt, backends)
            entry["written"]["maker"] = maker
            keep(record, found)
    if again or "mistakes" not in found:
        console.print("measuring the notebook's mistakes")
        found["mistakes"] = mistakes(notebook_text)
        keep(record, found)


@main.command()
@click.option("--record", default=RECORD, type=click.Path(path_type=Path))
@click.option("--output", default=PAGE, type=click.Path(path_type=Path))
def page(record: Path, output: Path) -> None:
    """Write the page and its pictures."""
    found = read(record)
    pictures = output.with_suffix("")
    pictures.mkdir(exist_ok=True)
    for system, entry in found["systems"].items():
        draw(entry["trained"], pictures / f"{system}.svg")
    output.write_text(render(found, pictures.name))


if __name__ == "__main__":
    main()
