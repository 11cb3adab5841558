"""``harness.bench`` and ``harness.compare``: how fast, and what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from harness.api import arguments
from harness.api.bench_report import BenchReport
from harness.api.comparison import Comparison
from harness.api.signature import takes_options
from harness.timing.options import BenchOptions
from harness.timing.request import BenchRequest
from harness.timing.run import Bench

if TYPE_CHECKING:
    from os import PathLike

    from harness.api.arguments import Models, Names
    from harness.api.keywords import BenchKeywords


@takes_options(BenchOptions)
def bench(
    specs: Models = (), backends: Names = (), **options: Unpack[BenchKeywords]
) -> BenchReport:
    """Time backends side by side; only what agrees with the oracle gets a speed.

    Where several are meant one is enough: ``modes="train"``, ``batches=64``.

    Returns:
        A report. ``print`` shows the tables of the command line, a notebook an HTML table;
        ``save(path)`` writes the file that :func:`compare` reads.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec is wrong.
    """
    given = {"specs": specs, "backends": backends, **options}
    request = BenchRequest.of(arguments.of(BenchOptions, given))
    with Bench(request) as run:
        return BenchReport(request, run.run(), run.document())


def compare(
    old: str | PathLike[str] | BenchReport,
    new: str | PathLike[str] | BenchReport | None = None,
    *,
    between: tuple[str, str] | None = None,
    threshold: float | str = "10%",
) -> Comparison:
    """Show what changed from one run to another, of checks or of speeds: after an upgrade, on
    another machine; or from one column of a file to another.

    Args:
        old: A record file of ``harness check``, a file of results of ``harness bench``, or a report
            of :func:`bench`.
        new: The same of the later run; left out with ``between``.
        between: Two columns of the file ``old``, such as ``("torch@2.14.1", "torch@2.15.0")``.
        threshold: The share by which a speed must change to be spoken of: ``"10%"`` or ``0.1``.

    Returns:
        The changes. ``exit_code`` is that of ``harness compare``: 1 if something is worse.

    Raises:
        UsageError: the threshold is no share, the two are not of one kind, there is no such column,
            or neither or both of ``new`` and ``between`` are given.
        HarnessError: a file cannot be read, or is of another kind.
    """
    return Comparison.of(old, new, between, threshold)
