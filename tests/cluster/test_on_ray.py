"""Checks on a real Ray cluster of several node processes: whatever is killed, no cell is lost and
none is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from record_lines import lines_of
from wording import Wording

from harness.cluster.on_ray import address_of
from harness.errors import UsageError
from harness.language.library import lesson6
from harness.results.cell import CELL_FIELDS
from harness.results.environment import machine_identity
from harness.results.file import read_records
from harness.timing import json_file

HARNESS = Path(sys.executable).parent / "harness"
# Seconds for what takes one: a process of Ray's starts in ten on two busy cores.
LONG = 150.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without processors, and two nodes of one each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made
    made.shutdown()


def command(cluster: Any, *more: object) -> list[str]:
    words = ["check", "--backend", "numpy", "--check", "values", "--on", f"ray://{cluster.address}"]
    return [str(HARNESS), *words, *map(str, more)]


def actors() -> list[int]:
    """The processes on the nodes of this cluster that run cells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_Host") and is_ours(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:  # it has just ended
            continue
    return found


def is_ours(pid: int) -> bool:
    """Whether a process descends from this one, as all nodes do."""
    while pid > 1 and pid != os.getpid():
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
    return pid == os.getpid()


def until(reached: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + LONG
    while not reached():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def cells(path: Path, kind: str) -> Counter[tuple[str, ...]]:
    """How often each cell is there; of the lines that are whole."""
    if not path.exists():
        return Counter()
    lines = lines_of(path, kind)
    return Counter(tuple(line[name] for name in CELL_FIELDS) for line in lines)


def started(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.alone
def test_kills_of_an_actor_a_node_and_the_driver_cost_no_cell(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    driver = started(command(cluster, "--records", path))
    done = lambda count: lambda: len(cells(path, "end")) >= count  # noqa: E731
    until(done(2), driver)
    os.kill(actors()[0], signal.SIGKILL)
    until(done(5), driver)
    cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)
    until(done(9), driver)
    driver.kill()
    driver.communicate()
    before = cells(path, "end")
    assert 9 <= len(before) < 24, "the driver was killed too late"
    until(lambda: not actors())
    cluster.nodes.append(cluster.add_node(num_cpus=1))
    again = started(command(cluster, "--records", path, "--resume"))
    output, errors = again.communicate(timeout=LONG)
    assert again.returncode == 0, output + errors
    assert f"({len(before)} kept: " in " ".join(output.split())
    # Nothing of Ray's own between the lines of the harness.
    assert "ray" not in (output + errors).lower().replace("array", "")
    found = cells(path, "end")
    assert len(found) == 2 * len(lesson6())
    assert set(found.values()) == {1}
    begun = cells(path, "begin")
    assert sum((begun - found).values()) <= 3
    results = read_records(path).ended
    assert {result.verdict for result in results.values()} == {"agree"}
    assert {cell.backend for cell in results} == {"numpy"}


@pytest.mark.slow
@pytest.mark.alone
def test_a_cell_that_costs_two_processes_is_told(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    words = ["lesson6/three_char", "--dtype", "float64", "--records", path]
    driver = started(command(cluster, *words))
    for count in (1, 2):
        until(lambda count=count: sum(cells(path, "begin").values()) == count, driver)  # type: ignore[misc]
        for pid in actors():
            os.kill(pid, signal.SIGKILL)
    output, errors = driver.communicate(timeout=LONG)
    assert driver.returncode == 3, output + errors
    assert "this cell ended, and then a second process too" in " ".join(output.split())
    (result,) = read_records(path).ended.values()
    assert result.verdict == "crashed"


@pytest.mark.slow
@pytest.mark.alone
def test_an_interrupt_leaves_a_whole_record_and_no_process(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    driver = started(command(cluster, "--records", path))
    until(lambda: cells(path, "end"), driver)
    driver.send_signal(signal.SIGINT)
    output, errors = driver.communicate(timeout=LONG)
    assert driver.returncode == 130, output + errors
    assert errors.rstrip().endswith(f"interrupted; finished cells are in {path}")
    assert read_records(path).torn is None
    until(lambda: not actors())


@pytest.mark.slow
@pytest.mark.alone
def test_speeds_are_those_of_one_timing_at_a_time(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    words = ["bench", "lesson6/three_char", "lesson6/sequence_rnn", "--backend", "numpy"]
    words += ["--mode", "forward", "--rounds", "1", "--batch", "8", "--records", str(path)]
    address = f"ray://{cluster.address}"
    driver = started([str(HARNESS), *words, "--on", address])
    most = 0
    while driver.poll() is None:
        most = max(most, len(actors()))
        time.sleep(0.1)
    output, errors = driver.communicate()
    # Two nodes of one machine, and a cell may be refused on a busy one: but never two at once.
    assert driver.returncode in (0, 1), output + errors
    assert most == 1
    content = json_file.read(path).plain()
    names = [c["params"]["spec"] for c in json_cells(content)]
    assert sorted(names) == ["lesson6/sequence_rnn", "lesson6/three_char"]
    assert content["machine_info"]["harness"]["machine"]["id"] == machine_identity()
    assert content["harness"]["plans"][0]["cells"] == 2


def json_cells(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [*content["benchmarks"], *content["harness"]["without_speed"]]


def test_without_ray_the_extra_is_named(wording: Wording) -> None:
    code = (
        "import sys; sys.modules['ray'] = None; sys.argv = ['harness', 'check', '--on', 'ray'];"
        "from harness.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    wording(told, "--on ... 'backend-comparison-harness[ray]'")


@pytest.mark.parametrize("text", ["dask", "ray:", "ray://", "http://a:1", ""])
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"--on takes ray .* found"):
        address_of(text)


def test_where_nobody_listens_is_told_at_once() -> None:
    words = [str(HARNESS), "check", "--backend", "numpy", "--on", "ray://127.0.0.1:9"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "no cluster answers" in told
    assert "at ray://127.0.0.1:9" in told
