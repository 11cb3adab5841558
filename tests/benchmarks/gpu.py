"""Everything that a card can show: ``python tests/benchmarks/gpu.py check``, and then ``bench``.

``check`` holds all of Lesson 6 on the card against the oracle, on every path, and keeps a record.
``bench`` times each backend's fastest path and its framework's own layers, in every dtype, and
makes docs/gpu/CARD.md of it. Both end at once, with a word why, where there is no card.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from gpu_page import BEST, OWN, counted, render, slug, without_names

from harness.files.forms import formed
from harness.results.file import read_records
from harness.results.speeds import SpeedFile
from harness.timing.json_file import document, write
from harness.timing.request import BenchRequest
from harness.timing.run import Bench
from harness.worker.cards import cards
from harness.worker.launch import Launch
from harness.worker.worker import Worker

FOLDER = Path(__file__).parents[2] / "docs" / "gpu"
BACKENDS = ("torch", "jax", "keras", "keras-torch", "keras-jax")
# Those whose layers frameworks have on cuDNN: a plain RNN, a GRU and an LSTM.
SYSTEMS = ("lesson6/sequence_rnn", "lesson6/keras_gru", "lesson6/stateful_lstm")
DTYPES = ("float32", "tf32", "bfloat16")
BATCHES = (64, 1024, 8192)
DEVICE = "cuda"
NO_CARD = (
    "No GPU was found: nvidia-smi, which comes with NVIDIA's driver, lists none on this machine. "
    "Run this where it lists one, with builds of the frameworks for CUDA; docs/gpu.md says how."
)
NO_BUILD = (
    "{card} was found, but no framework that is installed here can use it (asked: {names}): "
    "install their builds for CUDA, as docs/gpu.md says, and run this again."
)


def card_and_backends() -> tuple[dict[str, str], tuple[str, ...]]:
    """The card that is timed, and the backends that can use it; ends the command without one."""
    found = cards()
    if not found:
        raise click.ClickException(NO_CARD)
    able = tuple(name for name in BACKENDS if offers(name))
    if not able:
        raise click.ClickException(
            NO_BUILD.format(card=found[0]["name"], names=", ".join(BACKENDS))
        )
    left = [name for name in BACKENDS if name not in able]
    if left:
        click.echo(f"left out, as they offer no {DEVICE}: {', '.join(left)}", err=True)
    return found[0], able


def offers(backend: str) -> bool:
    """Whether a backend can be started here and offers a card."""
    with Worker(Launch(backend)) as worker:
        return worker.start().ok and DEVICE in (worker.hello or {}).get("devices", ())


@click.group()
def main() -> None:
    """Check and time the backends on a card."""


@main.command()
def check() -> None:
    """Check all of Lesson 6 on the card, on every path; the exit code is that of harness check."""
    card, backends = card_and_backends()
    folder = FOLDER / slug(card["name"])
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("harness")), "check", "--device", DEVICE]
    command += ["--path", "all", "--records", str(folder / "check.jsonl")]
    command += [word for name in backends for word in ("--backend", name)]
    sys.exit(subprocess.run(command, check=False).returncode)


def _numbers(_context: Any, _parameter: Any, text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


@main.command()
@click.option("--spec", "systems", multiple=True, default=SYSTEMS, show_default=True)
@click.option("--dtype", "dtypes", multiple=True, default=DTYPES, show_default=True)
@click.option(
    "--batch", "batches", callback=_numbers, default=",".join(map(str, BATCHES)), show_default=True
)
@click.option("--rounds", default=5, show_default=True)
def bench(
    systems: Sequence[str], dtypes: Sequence[str], batches: Sequence[int], rounds: int
) -> None:
    """Time the backends on the card, and write its page."""
    card, backends = card_and_backends()
    folder = FOLDER / slug(card["name"])
    folder.mkdir(parents=True, exist_ok=True)
    documents = {}
    for dtype in dtypes:
        for path in (BEST, OWN):
            request = BenchRequest(
                specs=tuple(systems),
                backends=backends,
                device=DEVICE,
                dtype=dtype,
                batches=tuple(batches),
                path=path,
                rounds=rounds,
            )
            with Bench(request) as timing:
                content = without_names(document(request, timing.run()).plain())
            documents[dtype, path] = content
            write(folder / f"{dtype}-{path}.json", formed(content, SpeedFile))
            click.echo(f"{dtype}, {path}: {len(content['benchmarks'])} speeds", err=True)
    records = folder / "check.jsonl"
    verdicts = (
        counted([line.plain() for line in read_records(records).lines]) if records.exists() else {}
    )
    page = folder.with_suffix(".md")
    page.write_text(render(card, documents, verdicts), encoding="utf-8")
    click.echo(f"written: {page.relative_to(FOLDER.parents[1])}")


if __name__ == "__main__":
    main()
