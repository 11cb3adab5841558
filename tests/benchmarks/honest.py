"""How often an honest backend is refused a speed: many runs of ``harness bench`` beside other work.

``python tests/benchmarks/honest.py --runs 50`` times some systems on all backends, in training and
forward, while busy loops take processors away, and prints each refusal and the counts. Not a test:
50 runs take hours.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from harness.bench.contestant import TimedResult
from harness.bench.events import BenchEvents
from harness.bench.request import BenchRequest
from harness.bench.run import Bench

SYSTEMS = ("lesson6/sequence_rnn", "lesson6/stateful_lstm", "lesson6/three_char")


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that do nothing but take a processor."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


class Told(BenchEvents):
    """A line for each cell."""

    def ended(self, result: TimedResult) -> None:
        click.echo(f"{result.cell}: {result.status} {result.reason}")


@click.command()
@click.option("--runs", default=50, show_default=True)
@click.option("--load", default=1, show_default=True, help="Busy loops beside the runs.")
@click.option("--spec", "systems", multiple=True, default=SYSTEMS, show_default=True)
@click.option("--backend", "backends", multiple=True, help="All that are installed if left out.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--path", default="fastest", show_default=True)
def main(
    runs: int, load: int, systems: Sequence[str], backends: Sequence[str], rounds: int, path: str
) -> None:
    """Count the cells that got a speed and those that did not; exit code 1 if any was refused."""
    counts: Counter[str] = Counter()
    for number in range(runs):
        request = BenchRequest(
            specs=tuple(systems),
            backends=tuple(backends),
            rounds=rounds,
            path=path,
            seed=number,
        )
        with busy(load), Bench(request, events=Told()) as bench:
            counts.update(result.status for result in bench.run())
        click.echo(f"after {number + 1} runs under {load} busy loops: {dict(counts)}")
    sys.exit(any(status != "measured" for status in counts))


if __name__ == "__main__":
    main()
