"""``harness.bench`` and ``harness.compare``: how fast, and what has changed."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from harness.api.arguments import Folders, Models, Names, Numbers
    from harness.api.bench_report import BenchReport
    from harness.api.comparison import Comparison


def bench(
    specs: Models = (),
    backends: Names = (),
    *,
    modes: Names = ("forward", "train"),
    batches: Numbers = 64,
    times: Numbers = (),
    sizes: Mapping[str, Numbers] | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    path: str = "fastest",
    threads: int = 0,
    rounds: int = 5,
    tune: bool = False,
    seed: int = 0,
    folders: Folders = (),
    pythons: Mapping[str, str] | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    timeout: float = 600.0,
    shard: str | None = None,
    on: str | None = None,
) -> BenchReport:
    """Time backends side by side; only what agrees with the oracle gets a speed.

    Where several are meant one is enough: ``modes="train"``, ``batches=64``.

    Args:
        specs: Names, paths of files, or specs that are loaded; all of Lesson 6 if left out.
        backends: Names of ``harness list``; all that are installed if left out.
        modes: ``forward``, ``train``, or both.
        batches: Sizes of a batch.
        times: Lengths of a sequence; the spec's own if left out.
        sizes: Sizes that differ from the spec's, by name: one, or several to be timed.
        dtype: ``float32``, ``tf32``, ``bfloat16``, ``float16`` or ``float64``.
        device: As the backends name it.
        path: ``fastest`` of those that are right, ``native``, ``equations`` or ``derived``.
        threads: Threads of each backend; 0 for all cores.
        rounds: Rounds of interleaved measurement.
        tune: Time each backend under known settings of its environment, too.
        seed: Of the numbers, and of the order.
        folders: Folders of further definitions.
        pythons: Interpreters of other environments, by backend.
        environment: Variables of a backend's process, by backend.
        timeout: Seconds for one call.
        shard: The part of the run to take, ``"2/4"`` for the second of four; all if left out.
        on: ``"ray"`` or ``"ray://HOST:PORT"`` to run on a cluster; this machine if left out.

    Returns:
        A report. ``print`` shows the tables of the command line, a notebook an HTML table;
        ``save(path)`` writes the file that :func:`compare` reads.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec is wrong.
    """
    from harness.api import arguments
    from harness.api.bench_report import BenchReport
    from harness.runs.shards import Shard
    from harness.timing.request import BenchRequest
    from harness.timing.run import Bench

    names, all_folders = arguments.models(specs, folders)
    asked = arguments.mapping(sizes, "sizes")
    request = BenchRequest(
        specs=names,
        backends=arguments.names(backends, "backends"),
        device=arguments.text(device, "device"),
        dtype=dtype,
        batches=arguments.numbers(batches, "batches"),
        times=arguments.numbers(times, "times"),
        sizes={name: arguments.numbers(size, f"size {name!r}") for name, size in asked.items()},
        modes=arguments.names(modes, "modes"),
        path=path,
        threads=threads,
        rounds=rounds,
        pythons=arguments.interpreters(pythons),
        environment=arguments.variables(environment, "environment"),
        tune=tune,
        folders=all_folders,
        seed=seed,
        timeout=timeout,
        shard=None if shard is None else Shard.read(str(shard)),
        on=None if on is None else arguments.text(on, "on"),
    )
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
    from harness.api.comparison import Comparison

    return Comparison.of(old, new, between, threshold)
