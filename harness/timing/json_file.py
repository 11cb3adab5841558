"""Reader and writer of the results of ``bench``, in the JSON format of pytest-benchmark.

Each measured cell is a benchmark of this format. Its data are the seconds per step, one number per
round. Values for which the format has no field are in ``extra_info`` of each cell, in
``machine_info["harness"]`` (the environment), and in ``harness`` at the top (cells without a speed,
fitted slopes, compared tunings).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from pytest_benchmark.plugin import (
    pytest_benchmark_generate_json,
    pytest_benchmark_generate_machine_info,
)
from pytest_benchmark.stats import Metadata
from pytest_benchmark.utils import get_commit_info

from harness.errors import HarnessError
from harness.files import kinds
from harness.files.atomic import write_whole
from harness.files.forms import Malformed, formed, plain, read_json
from harness.files.system import load_averages
from harness.files.user_file import MAX_RESULTS, FileFault, displayed, read_bytes, read_head, why
from harness.results.environment import describe_machine as this_machine
from harness.results.speeds import SpeedFile, encode_speeds
from harness.runs.plans import RunPlan
from harness.timing.contestant import TimedResult
from harness.timing.request import BenchRequest
from harness.timing.sweep import compare_tunings, fit_slopes
from harness.worker.cards import cards

# The fields of the record that are stored for a cell without a speed.
STORED_PROOFS = (
    *("path", "values", "clock", "waits", "pace", "unseen", "handing_over", "timed_way"),
    *("rounds_again", "later_step", "hardware"),
)


class DocumentError(HarnessError):
    """Error: a file of results cannot be read or written."""


def document(
    request: BenchRequest,
    results: Sequence[TimedResult],
    planned: int | None = None,
    plan: RunPlan | None = None,
) -> SpeedFile:
    """Return the content of the file of results.

    ``planned`` is the number of cells to time; it is given only if the run was interrupted.
    ``plan`` describes the whole run, with the cells of all shards.
    """
    measured = [_make_benchmark(request, result) for result in results if result.measured]
    machine = {**_describe_machine(), "harness": environment(request, results)}
    content = pytest_benchmark_generate_json(None, measured, True, machine, get_commit_info())
    content["harness"] = {
        "without_speed": [_without_speed(request, r) for r in results if not r.measured],
        "slopes": fit_slopes(results),
        "tunings": compare_tunings(results),
        **({} if plan is None else {"plans": [plan.model_dump()]}),
        **({} if planned is None else {"incomplete": {"done": len(results), "planned": planned}}),
    }
    return formed(plain(content), SpeedFile)


@cache
def _describe_machine() -> Mapping[str, object]:
    """Return pytest-benchmark's description of the machine, a dictionary. It is cached, because
    making it starts a process."""
    found: Mapping[str, object] = pytest_benchmark_generate_machine_info()
    return found


def environment(request: BenchRequest, results: Iterable[TimedResult]) -> dict[str, object]:
    """Return a dictionary with the machine, the settings of the request, and each worker's
    description of itself (e.g. its versions)."""
    return {
        "harness": version("backend-comparison-harness"),
        "machine": this_machine(timed=True).model_dump(exclude_unset=True),
        "gpus": cards(),
        "device": request.device,
        "dtype": request.dtype,
        "path": request.path,
        "threads": request.thread_count,
        "rounds": request.rounds,
        "seed": request.seed,
        "load": list(load_averages()),
        "workers": workers(results),
    }


def workers(results: Iterable[TimedResult]) -> dict[str, object]:
    """Return a dictionary from a backend's label to its worker's versions, interpreter, environment
    variables and backend settings."""
    descriptions: dict[str, object] = {}
    for result in results:
        hello = result.record.hello
        if not hello or result.entry.label in descriptions:
            continue
        descriptions[result.entry.label] = {
            "versions": dict(hello.get("versions", {})),
            "python": hello.get("python", ""),
            "environment": {**hello.get("environment", {}), **result.entry.launch.environment},
            "settings": dict(result.record.settings),
        }
    return descriptions


def cell_name(request: BenchRequest, result: TimedResult) -> str:
    """Return the name of a cell, e.g. ``spec[backend-mode-b64-t8]``.

    The dtype, device and path are added if they are not the default.
    """
    name = str(result.cell)
    usual = {"float32", "cpu", "fastest"}
    further = [v for v in (request.dtype, request.device, request.path) if v not in usual]
    return name if not further else f"{name[:-1]}-{'-'.join(further)}]"


def parameters(request: BenchRequest, result: TimedResult) -> dict[str, object]:
    """Return a dictionary with the values that identify a cell. The keys are spec, backend, mode,
    batch, time, sizes, dtype, device and path."""
    cell = result.cell
    return {
        "spec": cell.spec,
        "backend": cell.backend,
        "mode": cell.mode,
        "batch": cell.batch,
        "time": cell.time,
        **cell.sizes,
        "dtype": request.dtype,
        "device": request.device,
        "path": request.path,
    }


def _make_benchmark(request: BenchRequest, result: TimedResult) -> Metadata:
    name, cell = cell_name(request, result), result.cell
    fixture = SimpleNamespace(
        name=name,
        fullname=name,
        group=name.replace(f"[{cell.backend}-", "["),
        param=name[name.index("[") + 1 : -1],
        params=parameters(request, result),
        extra_info=result.record.plain(),
        cprofile_stats=None,
        has_error=False,
    )
    options = {"timer": "time.perf_counter", "min_rounds": request.rounds, "warmup": True}
    benchmark = Metadata(fixture, iterations=result.steps, options=options)
    for seconds in result.seconds:
        benchmark.update(seconds * result.steps)
    return benchmark


def _without_speed(request: BenchRequest, result: TimedResult) -> dict[str, object]:
    return {
        "name": cell_name(request, result),
        "params": parameters(request, result),
        "status": result.status,
        "reason": result.reason,
        "traceback": result.traceback,
        **{n: v for n, v in result.record.plain().items() if n in STORED_PROOFS},
    }


def check_writable(path: Path) -> None:
    """Raise :class:`DocumentError` if results cannot be written to ``path``. It is called before
    the measurement, so that no results are lost."""
    try:
        kinds.check_place(path, kinds.RESULTS)
    except FileFault as fault:
        raise DocumentError(f"cannot write {displayed(path)}: {fault.reason}") from None


def write(path: Path, content: SpeedFile) -> None:
    """Write a file of results, or replace an older one. Readers see either the complete old file or
    the complete new file.

    Raises:
        DocumentError: the file cannot be written, or it exists and is not a file of results.
    """
    data = encode_speeds(content)
    try:
        kinds.check_kind(path, kinds.RESULTS)
        write_whole(path, data)
    except (OSError, FileFault) as error:
        raise DocumentError(f"cannot write {displayed(path)}: {why(error)}") from None


def read(path: Path) -> SpeedFile:
    """Read a file of results; raise :class:`DocumentError` for any other file."""
    try:
        head = read_head(path, kinds.HEAD)
        if head and kinds.RECORDS.matches(path, head):
            raise DocumentError(
                f"{displayed(path)}: this is {kinds.RECORDS.name}, not {kinds.RESULTS.name}"
            )
        data = read_bytes(path, MAX_RESULTS, "a file of results")
        content = read_json(data, displayed(path))
    except FileFault as fault:
        raise DocumentError(f"cannot read {fault}") from None
    except Malformed as error:
        raise DocumentError(str(error)) from None
    try:
        return formed(content, SpeedFile)
    except Malformed as error:
        raise DocumentError(
            f"{displayed(path)} was not written by 'harness bench --records': {error}"
        ) from None
