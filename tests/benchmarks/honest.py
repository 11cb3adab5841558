"""How often an honest backend is refused a speed: many runs of ``harness bench`` beside other work.

``python tests/benchmarks/honest.py --runs 50`` times a system on all backends, in training and
forward, while busy loops take processors away, and prints each refusal and the counts. The runs
take the systems, and their numbers of examples, in turn. Not a test: 50 runs take an hour or more.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import click

from harness.timing.contestant import BenchEvents, TimedResult
from harness.timing.request import BenchRequest
from harness.timing.run import Bench

SYSTEMS = ("lesson6/sequence_rnn", "lesson6/stateful_lstm", "lesson6/three_char", "mlp", "vae")
BATCHES = (64, 7)


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
@click.option("--batch", "batches", multiple=True, type=int, default=BATCHES, show_default=True)
@click.option("--backend", "backends", multiple=True, help="All that are installed if left out.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--path", default="fastest", show_default=True)
def main(
    runs: int,
    load: int,
    systems: Sequence[str],
    batches: Sequence[int],
    backends: Sequence[str],
    rounds: int,
    path: str,
) -> None:
    """Count the cells that got a speed and those that did not; exit code 1 if any was refused."""
    counts: Counter[str] = Counter()
    cases = [(system, batch) for batch in batches for system in systems]
    for number, (system, batch) in zip(range(runs), cycle(cases), strict=False):
        request = BenchRequest(
            specs=(system,),
            batches=(batch,),
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
