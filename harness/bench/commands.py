"""The command ``bench``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.errors import UsageError
from harness.interrupts import stoppable
from harness.options import (
    DEVICE,
    ENVIRONMENT,
    PYTHONS,
    SPECS,
    number,
    pairs,
    seed,
    timeout,
    variables,
)
from harness.ranges import ROUNDS, SIZES, THREADS, THRESHOLD

Command = Callable[..., Any]
FILE = click.Path(path_type=Path, dir_okay=False)
SHARE = click.option(
    "--threshold",
    default="10%",
    show_default=True,
    metavar="SHARE",
    help="How much slower a cell may get.",
)
MARKDOWN = click.option("--markdown", is_flag=True, help="Print Markdown tables.")


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(bench))


@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@click.option("--backend", "backends", multiple=True, help="Backend to time; all if left out.")
@DEVICE
@click.option("--dtype", default="float32", show_default=True, help="Or tf32, bfloat16, float64.")
@click.option("--batch", default="64", show_default=True, metavar="N,N", help="Sizes of a batch.")
@click.option("--time", metavar="T,T", help="Lengths of a sequence; the spec's own if left out.")
@click.option(
    "--size", "sizes", multiple=True, metavar="NAME=N,N", help="Other sizes than the spec's."
)
@click.option("--mode", default="forward,train", show_default=True, help="What to time.")
@click.option(
    "--path",
    default="fastest",
    show_default=True,
    help="fastest: of all that are right; or native, equations, derived.",
)
@click.option(
    "--threads",
    type=number(THREADS),
    default=0,
    help="Threads of each backend; all cores if left out.",
)
@click.option(
    "--rounds",
    type=number(ROUNDS),
    default=5,
    show_default=True,
    help="Rounds of interleaved measurement.",
)
@click.option("--json", type=FILE, help="Write the results, as pytest-benchmark does.")
@click.option(
    "--relative-to", metavar="BACKEND", help="Also tell how many times as fast as this one."
)
@click.option("--compare", type=FILE, help="Compare with the results in this file.")
@SHARE
@PYTHONS
@ENVIRONMENT
@click.option("--tune", is_flag=True, help="Try known settings of the environment beside.")
@MARKDOWN
@click.option("--verbose", is_flag=True, help="All figures of every cell.")
@seed("Of the numbers and of the order.")
@timeout(600.0, "Seconds for one call.")
@SPECS
def bench(**options: Any) -> None:
    """Time backends side by side: all that are installed, on all of Lesson 6, if left out.

    A cell whose results differ from the oracle's, or whose backend does not prove that it did the
    work, gets no speed.

    Exit code 0: all have a speed; 1: one was refused, or --compare found a regression; 2: wrong
    usage or a wrong spec; 3: a backend could not be run.
    """
    from harness.bench.console import run_bench

    request = request_of(options)
    given = {**options, "threshold": share(options["threshold"])}
    sys.exit(stoppable(partial(run_bench, request, given), lambda: "nothing was written"))


def request_of(options: Mapping[str, Any]) -> Any:
    """The request that options stand for; :class:`UsageError` for one that cannot be."""
    from harness.bench.request import BenchRequest

    sizes = pairs("--size", options["sizes"])
    return BenchRequest(
        specs=tuple(options["specs"]),
        backends=tuple(options["backends"]),
        device=options["device"],
        dtype=options["dtype"],
        batches=numbers("--batch", options["batch"]),
        times=numbers("--time", options["time"]) if options["time"] else (),
        sizes={name: numbers(f"--size {name}", value) for name, value in sizes.items()},
        modes=tuple(dict.fromkeys(options["mode"].split(","))),
        path=options["path"],
        threads=options["threads"],
        rounds=options["rounds"],
        pythons=pairs("--python", options["pythons"]),
        environment=variables(options["environment"]),
        tune=options["tune"],
        folders=tuple(options["folders"]),
        seed=options["seed"],
        timeout=options["timeout"],
    )


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Positive whole numbers with commas between them; each once.

    Raises:
        UsageError: a part is none, or outside of what is allowed.
    """
    found = []
    for part in text.split(","):
        try:
            found.append(int(SIZES.read(part)))
        except UsageError:
            raise UsageError(
                f"{option} takes positive whole numbers, found {part!r} in {text!r} "
                f"(allowed: 1 to {SIZES.most:,})"
            ) from None
    return tuple(dict.fromkeys(found))


def share(text: str) -> float:
    """A share as a number, from ``10%`` or ``0.1``.

    Raises:
        UsageError: it is none, or outside of what is allowed.
    """
    percent = text.endswith("%")
    try:
        found = float(THRESHOLD.read(text.removesuffix("%"))) / (100 if percent else 1)
    except UsageError as error:
        raise UsageError(
            f"--threshold takes a share such as 10% or 0.1, found {text!r}: {error}"
        ) from None
    if found >= 1 and not percent:
        raise UsageError(
            f"--threshold takes a share such as 10% or 0.1, found {text!r}: write {text}% for "
            f"{text} percent (a share without % is below 1)"
        )
    return found
