"""The command ``bench``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import click

from harness.cluster.options import machines
from harness.command import options
from harness.command.interrupts import stoppable
from harness.command.options import FILE, JSON, MARKDOWN, listed, number, pairs, seed, timeout
from harness.command.ranges import ROUNDS, SIZES, THREADS, THRESHOLD
from harness.errors import UsageError
from harness.runs.shards import Shard

Command = Callable[..., Any]
SHARE = click.option(
    "--threshold",
    default="10%",
    show_default=True,
    metavar="SHARE",
    help="How much slower a cell may get.",
)


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(bench))


@options.specs
@options.BACKENDS
@options.DEVICE
@options.dtype("float32", "tf32, bfloat16, float16 and float64")
@listed("--batch", "batches", default=("64",), show_default=True, metavar="N", help="Batch sizes.")
@listed("--time", "times", metavar="T", help="Lengths of a sequence; the spec's own if left out.")
@listed(
    "--size",
    "sizes",
    pairs=True,
    kind="size",
    metavar="NAME=N,N",
    help="Sizes that differ from the spec's own.",
)
@listed(
    "--mode",
    "modes",
    kind="mode",
    default=("forward", "train"),
    show_default=True,
    help="What to time.",
)
@options.path("fastest", options.COMPILED, "or whichever is right and fastest (fastest)")
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
@click.option("--records", type=FILE, help="File to keep the results in; replaced.")
@click.option(
    "--relative-to",
    metavar="BACKEND",
    type=options.WordList("backend"),
    help="Also print how many times as fast as this one each is.",
)
@click.option("--baseline", "compare", type=FILE, help="Compare with the results in this file.")
@SHARE
@machines
@options.PYTHONS
@options.ENVIRONMENT
@click.option("--tune", is_flag=True, help="Also try environment settings that are known to help.")
@JSON
@MARKDOWN
@options.VERBOSE
@seed("Seed of the numbers and of the order.")
@timeout(600.0)
@options.SPECS
def bench(**given: Any) -> None:
    """Time backends side by side: all that are installed, on all of Lesson 6, if left out.

    Lesson 6 is the twelve small character models of fast.ai's notebook that ship as lesson6/NAME

    A cell whose results differ from the oracle's, or whose backend does not prove that it did the
    work, gets no speed. A quick look: 'harness bench SPEC --path native --rounds 2'.

    Exit code 0: all have a speed; 1: one was refused, or --baseline found a regression; 2: wrong
    usage or a wrong spec; 3: a backend could not be run.
    """
    from harness.timing.console import run_bench

    request = request_of(given)
    given = {**given, "threshold": share(given["threshold"])}
    sys.exit(stoppable(partial(run_bench, request, sys.argv[1:], given)))


def request_of(given: Mapping[str, Any]) -> Any:
    """The request that options stand for; :class:`UsageError` for one that cannot be."""
    from harness.environments.columns import names_of, of_options
    from harness.language.library import Library
    from harness.timing.request import BenchRequest

    for name in given["specs"] if given["as_json"] else ():
        if name.endswith(".json"):
            raise UsageError(
                f"--json prints to standard output; to keep the results, give --records {name}"
            )
    sizes = pairs("--size", given["sizes"], "NAME=N,N")
    backends = given["backends"]
    columns = of_options(backends, given["pythons"])
    return BenchRequest(
        specs=Library(given["folders"]).matching(given["specs"]),
        backends=columns.names if backends else (),
        device=given["device"],
        dtype=given["dtype"],
        batches=numbers("--batch", given["batches"]),
        times=numbers("--time", given["times"]),
        sizes={name: numbers(f"--size {name}", v.split(",")) for name, v in sizes.items()},
        modes=tuple(dict.fromkeys(given["modes"])),
        path=given["path"],
        threads=given["threads"],
        rounds=given["rounds"],
        pythons=columns.pythons,
        environment=options.variables(given["environment"], partial(names_of, backends)),
        tune=given["tune"],
        folders=given["folders"],
        seed=given["seed"],
        timeout=given["timeout"],
        shard=Shard.read(given["shard"]) if given["shard"] else None,
        on=given["on"],
    )


def numbers(option: str, parts: Sequence[str]) -> tuple[int, ...]:
    """Positive whole numbers, each once.

    Raises:
        UsageError: a part is none, or outside of what is allowed.
    """
    found = []
    for part in parts:
        try:
            found.append(int(SIZES.read(part)))
        except UsageError:
            raise UsageError(
                f"{option} takes positive whole numbers, found {part!r} in {','.join(parts)!r} "
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
