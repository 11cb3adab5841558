"""``harness.check``, and its cells one by one: who agrees with the oracle."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from harness.api.arguments import Folders, Models, Names
    from harness.api.check_report import CheckReport
    from harness.checking.task import CellReport, Task, Workers
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
    against: str | PathLike[str] | None = None,
    maps: Names | Mapping[str, str] = (),
    takes: Names = (),
    returns: Names = (),
    seed: int = 0,
    records: str | PathLike[str] | None = None,
    resume: bool = False,
    history: str | PathLike[str] | None = None,
    fresh: bool = False,
    folders: Folders = (),
    pythons: Mapping[str, str] | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    timeout: float = 120.0,
    start_timeout: float | None = None,
    memory_limit: int | None = None,
    jobs: int = 0,
    fail_fast: bool = False,
    shard: str | None = None,
    on: str | None = None,
) -> CheckReport:
    """Check backends against the float64 oracle, each in a process of its own.

    Where several are meant one is enough: ``checks="loss"``, ``backends="torch"``.

    Args:
        specs: Names, paths of files, or specs that are loaded; all of Lesson 6 if left out.
        backends: Names of ``harness list``; all that are installed if left out.
        dtypes: Of ``float64``, ``float32``, ``bfloat16`` and ``float16``.
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
        against: A model of your own in the place of a backend: ``"FILE.py:NAME"``, or a ``.onnx``
            or ``.keras`` file; ``backends`` says then which framework runs it.
        maps: Which of its weights is which of the spec's, where names differ: ``"rnn=gru"``.
        takes: What it takes, in order.
        returns: What it returns, in order.
        seed: Of the numbers that are drawn.
        records: The file that records are appended to.
        resume: Keep the cells that ``records`` holds already.
        history: A folder of records: what agreed when all was as it is now is not run again.
        fresh: Run it all the same.
        folders: Folders of further definitions.
        pythons: Interpreters of other environments, by backend.
        environment: Variables of a backend's process, by backend.
        timeout: Seconds for one cell.
        start_timeout: Seconds that a backend may take to start; None for the usual number.
        memory_limit: Bytes that a worker may take.
        jobs: Backends that run at a time; 0 for as many as there are cores.
        fail_fast: Begin no further cell after the first that does not pass.
        shard: The part of the run to take, ``"2/4"`` for the second of four; all if left out.
        on: ``"ray"`` or ``"ray://HOST:PORT"`` to run on a cluster; this machine if left out.

    Returns:
        A report. ``print`` shows the table of the command line, a notebook an HTML table;
        ``exit_code`` is that of ``harness check``, and ``to_pandas()`` has a row for each finding.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec, or a file, is wrong.
    """
    from harness.api.check_report import CheckReport
    from harness.api.check_request import check_request
    from harness.checking.run import Engine

    request = check_request(
        specs,
        backends,
        dtypes=dtypes,
        paths=paths,
        device=device,
        checks=checks,
        thorough=thorough,
        repeat=repeat,
        deterministic=deterministic,
        sizes=sizes,
        numbers={"parameters": weights, "inputs": inputs, "state": state, "targets": targets},
        model={"against": against, "maps": maps, "takes": takes, "returns": returns},
        seed=seed,
        records=records,
        resume=resume,
        history=history,
        fresh=fresh,
        folders=folders,
        pythons=pythons,
        environment=environment,
        timeout=timeout,
        start_timeout=start_timeout,
        memory_limit=memory_limit,
        jobs=jobs,
        fail_fast=fail_fast,
        shard=shard,
        on=on,
    )
    with Engine(request) as engine:
        report = engine.run()
    return CheckReport.of(report)


def cells(
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
    seed: int = 0,
    folders: Folders = (),
    pythons: Mapping[str, str] | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    timeout: float = 120.0,
    start_timeout: float | None = None,
    memory_limit: int | None = None,
) -> list[Task]:
    """The cells that :func:`check` would run with these arguments, each on its own.

    A cell holds no arrays: it can be hashed, pickled, and written as JSON (``record()``, and
    ``Task.of`` for the way back), and :func:`run_cell` runs it wherever the harness, its folders
    and its interpreters are.

    Args:
        specs: As of :func:`check`, and so are all others.
        backends: Names of ``harness list``.
        dtypes: Of ``float64``, ``float32``, ``bfloat16`` and ``float16``.
        paths: ``native``, ``equations`` or ``derived``.
        device: As the backend names it.
        checks: Patterns of checks.
        thorough: The expensive checks too.
        repeat: A pass is repeated so often.
        deterministic: Every framework is to give the same bits for the same call.
        sizes: Sizes that differ from the spec's, by name.
        seed: Of the numbers that are drawn.
        folders: Folders of further definitions.
        pythons: Interpreters of other environments, by backend.
        environment: Variables of a backend's process, by backend.
        timeout: Seconds for one cell.
        start_timeout: Seconds that a backend may take to start; None for the usual number.
        memory_limit: Bytes that a worker may take.

    Returns:
        The cells, in the order of the run.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec is wrong.
    """
    from harness.api.check_request import check_request
    from harness.checking.runner import CellRunner
    from harness.checking.task import tasks

    request = check_request(
        specs,
        backends,
        dtypes=dtypes,
        paths=paths,
        device=device,
        checks=checks,
        thorough=thorough,
        repeat=repeat,
        deterministic=deterministic,
        sizes=sizes,
        seed=seed,
        folders=folders,
        pythons=pythons,
        environment=environment,
        timeout=timeout,
        start_timeout=start_timeout,
        memory_limit=memory_limit,
    )
    with CellRunner(request) as runner:
        return tasks(runner)


def run_cell(cell: Task, workers: Workers | None = None) -> CellReport:
    """Run one cell as :func:`check` does.

    Args:
        cell: One of :func:`cells`.
        workers: Processes that stay warm from cell to cell; new ones, for this cell only, if left
            out.

    Returns:
        What came of it: ``verdict``, ``findings``, and ``lines`` as a record file has them; all
        that the backend did is in there, and nothing of it raises.

    Raises:
        UsageError: the cell has options that there are not, or is nothing of :func:`cells`.
        HarnessError: its spec is wrong, or the records of the workers cannot be written.
    """
    from harness.api.arguments import refused
    from harness.checking.task import Task, Workers

    if not isinstance(cell, Task):
        raise refused("run_cell", "a cell of harness.cells", cell)
    if workers is not None:
        return workers.run(cell)
    with Workers() as own:
        return own.run(cell)
