"""``harness.check``: who agrees with the oracle."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from harness.api.arguments import Folders, Models, Names
    from harness.api.check_report import CheckReport
    from harness.given.files import Source
    from harness.oracle.given import Numbers as Arrays


def check(
    specs: Models = (),
    backends: Names = (),
    *,
    dtypes: Names = ("float64", "float32"),
    paths: Names = "native",
    device: str = "cpu",
    checks: Names = "*",
    thorough: bool = False,
    repeat: int = 0,
    deterministic: bool = False,
    sizes: Mapping[str, int] | None = None,
    weights: Source = None,
    inputs: Source = None,
    state: Arrays = None,
    targets: Arrays = None,
    seed: int = 0,
    records: str | PathLike[str] | None = None,
    resume: bool = False,
    folders: Folders = (),
    pythons: Mapping[str, str] | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    timeout: float = 120.0,
    start_timeout: float | None = None,
    memory_limit: int | None = None,
    jobs: int = 0,
    fail_fast: bool = False,
) -> CheckReport:
    """Check backends against the float64 oracle, each in a process of its own.

    Where several are meant one is enough: ``checks="loss"``, ``backends="torch"``.

    Args:
        specs: Names, paths of files, or specs that are loaded; all of Lesson 6 if left out.
        backends: Names of ``harness list``; all that are installed if left out.
        dtypes: ``float64``, ``float32``, or both.
        paths: ``native`` (the framework's own layers where it has them), ``equations``, or
            ``derived`` (the equations with the derived gradient).
        device: As the backend names it.
        checks: Patterns of checks.
        thorough: The expensive checks too.
        repeat: A pass is repeated so often.
        deterministic: Every framework is to give the same bits for the same call.
        sizes: Sizes that differ from the spec's, by name.
        weights: Parameters to check at, by name or as a ``.safetensors`` file; drawn if left out.
        inputs: A batch to check at, by name or as an ``.npz`` file; drawn if left out.
        state: The state before the batch, by name.
        targets: The targets of the batch, by name.
        seed: Of the numbers that are drawn.
        records: The file that records are appended to.
        resume: Keep the cells that ``records`` holds already.
        folders: Folders of further definitions.
        pythons: Interpreters of other environments, by backend.
        environment: Variables of a backend's process, by backend.
        timeout: Seconds for one cell.
        start_timeout: Seconds that a backend may take to start; None for the usual number.
        memory_limit: Bytes that a worker may take.
        jobs: Backends that run at a time; 0 for as many as there are cores.
        fail_fast: Begin no further cell after the first that does not pass.

    Returns:
        A report. ``print`` shows the table of the command line, a notebook an HTML table;
        ``exit_code`` is that of ``harness check``, and ``to_pandas()`` has a row for each finding.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec, or a file, is wrong.
    """
    import time

    from harness.api import arguments
    from harness.api.check_report import CheckReport
    from harness.check.request import Request
    from harness.check.run import Engine

    names, all_folders = arguments.models(specs, folders)
    asked = arguments.mapping(sizes, "sizes")
    given = None
    if any(numbers is not None for numbers in (weights, inputs, state, targets)):
        from harness.given.files import gather_for

        sources = {"parameters": weights, "inputs": inputs, "state": state, "targets": targets}
        given = gather_for(names, all_folders, asked, **sources)
    request = Request(
        specs=names,
        backends=arguments.names(backends, "backends"),
        dtypes=arguments.names(dtypes, "dtypes"),
        paths=arguments.names(paths, "paths"),
        device=device,
        folders=all_folders,
        sizes=asked,
        pythons=arguments.mapping(pythons, "pythons"),
        environment=arguments.mapping(environment, "environment"),
        timeout=timeout,
        start_timeout=start_timeout,
        memory_limit=memory_limit,
        checks=arguments.names(checks, "checks"),
        thorough=thorough,
        repeat=repeat,
        deterministic=deterministic,
        records=arguments.path(records, "records"),
        resume=resume,
        seed=seed,
        jobs=jobs,
        fail_fast=fail_fast,
        given=given,
    )
    started = time.monotonic()
    with Engine(request) as engine:
        report = engine.run()
    return CheckReport.of(report, time.monotonic() - started)
