"""The ratios to hand-written code: what is measured, what counts as a miss, the page."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peaks import set_shares, told
from performance_page import limit, render, rows
from places import TESTS
from ratio_record import of_machine
from ratio_systems import BACKENDS, MODELS, NUMPY_MODELS, SYSTEMS, wanted
from ratio_targets import cells, missed, other_ways, outcome
from ratios import PAGE, RECORD, TABLE, by_hand, lacks

SCRIPT = TESTS / "benchmarks" / "ratios.py"
LESSON6 = "lesson6/sequence_rnn"
MACHINE = {"machine": {"cpu": "one"}, "threads": 2, "rounds": 3, "versions": {"torch": "2.0"}}


def side(step: float, **more: Any) -> dict[str, Any]:
    """One side of a pair, whose steps take so many seconds."""
    return {
        "status": "measured",
        "reason": "",
        "seconds": [step * f for f in (0.99, 1.0, 1.01)],
        "path": "derived",
        "many": 1,
        "rate": {"median": 512 / step, "unit": "characters"},
        "overhead": {"seconds": 1e-6, "share": 0.001},
        "share_of_peak": 0.9,
        "share_of_own_peak": 0.87,
        "share_of_bandwidth": 0.1,
        **more,
    }


def record(spec: str = LESSON6, **pairs: dict[str, Any]) -> dict[str, Any]:
    """A record of one spec with pairs under ``backend_mode_batch``."""
    named = {}
    for short, pair in pairs.items():
        backend, mode, batch, *path = short.split("_")
        named[" ".join([f"{spec}[{backend}-{mode}-b{batch}-t8]", *path])] = pair
    return {
        "pairs": named,
        "commands": {"--help": 0.1, "list": 0.2},
        "machines": [MACHINE],
    }


def pair(ratio: float, others: Any = None, **ours: Any) -> dict[str, Any]:
    """A pair of that ratio; without ``others`` as in a record from before there were any."""
    found = {"ours": side(0.001, **ours), "native": side(0.001 * ratio), "machine": 0}
    return found if others is None else {**found, "others": others}


def test_the_page_and_the_table_are_those_of_the_record() -> None:
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    for place in range(len(found["machines"])):
        set_shares(of_machine(found["pairs"], place))
    assert PAGE.read_text(encoding="utf-8") == render(found), "run ratios.py page"
    with TABLE.open(newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)] == list(rows(found)), "run ratios.py page"


def test_a_ratio_is_that_of_the_medians() -> None:
    (cell,) = cells(record(torch_train_64=pair(1.5)))
    assert cell.ratio == pytest.approx(1.5)
    assert (cell.system, cell.backend, cell.mode, cell.batch) == (
        *("sequence_rnn", "torch", "train"),
        64,
    )


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        ({"torch_train_64": pair(0.98)}, 0),
        ({"torch_train_64": pair(0.96)}, 1),
        ({"numpy_train_64": pair(0.96)}, 0),
        ({"numpy_train_64": pair(0.94)}, 1),
        ({"torch_train_1024_derived": pair(1.45)}, 1),
        ({"jax_train_1024_derived": pair(1.45)}, 0),
        ({"python_train_64": pair(31)}, 0),
        ({"python_train_1024": pair(31)}, 1),
        ({"numpy_train_1024": pair(1, share_of_own_peak=0.8)}, 1),
        ({"numpy_train_1024": pair(1, share_of_own_peak=0.9)}, 0),
        ({"jax_forward_64": pair(1, overhead={"share": 0.02})}, 1),
    ],
)
def test_what_counts_as_a_miss(found: dict[str, Any], lines: int) -> None:
    assert len(missed(record(**found))) == lines


def test_a_ratio_is_to_the_best_and_the_claim_to_layers() -> None:
    found = record(
        torch_train_64=pair(2.0, others={"torch-compile": side(0.00093)}),
        torch_train_1024_derived=pair(1.6, others={"torch-compile": side(0.0012)}),
        torch_forward_64=pair(1.1, others={"onnxruntime": side(0.0005, status="refused")}),
    )
    ratios = [(cell.ratio, cell.layers_ratio, cell.best) for cell in cells(found)]
    assert ratios == [
        (pytest.approx(0.93), pytest.approx(2.0), "torch-compile"),
        (pytest.approx(1.2), pytest.approx(1.6), "torch-compile"),
        (pytest.approx(1.1), pytest.approx(1.1), "layers"),
    ]
    (line,) = missed(found)
    assert "train at batch 64, ratio 0.93" in line
    page = render(found)
    assert "| sequence_rnn | **0.93** |" in page
    assert "| sequence_rnn | 1.10 |" in page
    assert "train at batch 1024, path derived | 1.60 | 1.20 (torch-compile) | 1.5: holds |" in page
    assert "Not timed yet, and in no ratio: torch-compile in 1 cells." in page


def test_the_page_says_where_the_claim_does_not_hold() -> None:
    assert "| 1.49 | 1.49 (layers) | 1.5: missed |" in render(
        record(torch_train_64=pair(2), torch_train_64_derived=pair(1.49))
    )


def test_a_target_of_one_cell_has_one_figure() -> None:
    page = render(record(python_train_64=pair(67.33)))
    assert "at batch 64 | 67.33 | holds |" in page
    both = render(record(torch_train_64=pair(2), torch_train_1024=pair(1.5)))
    assert "| 1.50 to 2.00, median 1.75 | holds |" in both


def test_a_record_from_before_other_ways_lacks_those_cells_only() -> None:
    (group, _), *_ = wanted(["torch"], ["sigmoid_lstm"], [64], ["train"])
    old, new = pair(1), pair(1, others={"torch-compile": side(0.001)})
    assert lacks({}, group, "name", "torch")
    assert lacks({"name": old}, group, "name", "torch")
    assert not lacks({"name": new}, group, "name", "torch")
    assert not lacks({"name": old}, group, "name", "jax")


def test_a_slow_command_is_a_miss() -> None:
    found = record(torch_train_64=pair(1))
    found["commands"]["--help"] = 0.6
    (line,) = missed(found)
    assert "harness --help" in line


def test_a_pair_without_a_speed_is_a_miss_and_says_why() -> None:
    bad = pair(2, status="refused", reason="differs: loss", seconds=[])
    found = record(torch_train_64=bad)
    assert missed(found)
    assert outcome(bad) == "ours: refused: differs: loss"
    assert "| sequence_rnn | no speed |" in render(found)
    assert list(rows(found))[1][-1] == "ours: refused: differs: loss"


def test_the_page_marks_misses() -> None:
    page = render(record(torch_train_64=pair(0.95), torch_forward_64=pair(0.85)))
    assert "| sequence_rnn | **0.95** |" in page
    assert "| sequence_rnn | **0.85** |" in page
    assert "missed in 2" in page


def test_the_path_is_native_only_where_something_native_ran() -> None:
    def ran(short: str, **paths: str) -> str:
        (cell,) = cells(record(**{short: pair(1, path="native", paths=paths)}))
        return cell.ran

    assert ran("torch_train_64", rnn="torch.nn.RNN", out="equations") == "native"
    assert ran("jax_train_64", rnn="equations", optimizer="optax.sgd") == "equations"
    assert ran("numpy_train_64", rnn="equations") == "derived"


def test_the_page_names_what_limits() -> None:
    found = record(
        torch_train_64=pair(1, share_of_own_peak=0.8),
        torch_train_1024=pair(1, share_of_own_peak=0.1, share_of_bandwidth=0.5),
    )
    assert ["matrix products" in limit(c) for c in cells(found)] == [True, False]
    assert "memory" in limit(cells(found)[1])


def test_all_systems_are_measured_on_all_backends() -> None:
    keys = [
        key for _, pairs in wanted(BACKENDS, SYSTEMS, (), ("train", "forward")) for key in pairs
    ]
    usual = [name for name, backend, path in keys if path == "fastest" and backend != "python"]
    assert len(set(usual)) == len(usual) == len(SYSTEMS) * 6 * 2 * 2
    assert len(SYSTEMS) == 12 + 2
    derived = [name for name, _, path in keys if path == "derived"]
    assert derived == [
        f"{system}[{backend}-train-b{batch}-t8] derived"
        for system in ("lesson6/sequence_rnn", "lesson6/keras_gru", "sigmoid_lstm", "index_gru")
        for batch in (64, 1024)
        for backend in ("torch", "jax")
    ]
    assert [name for name, backend, _ in keys if backend == "python"] == [
        "lesson6/pure_python_rnn[python-train-b64-t8]",
        "lesson6/pure_python_rnn[python-train-b1024-t8]",
    ]


def test_all_models_are_measured_at_two_sizes_of_their_own() -> None:
    keys = [
        key for _, pairs in wanted(BACKENDS, [*MODELS], (), ("train", "forward")) for key in pairs
    ]
    assert {path for _, _, path in keys} == {"fastest"}
    of_numpy = [name for name, backend, _ in keys if backend == "numpy"]
    assert len(set(keys)) == len(keys) == 4 * (5 * len(MODELS) + len(NUMPY_MODELS))
    assert {name.partition("[")[0] for name in of_numpy} == NUMPY_MODELS
    gpt = [name for name, backend, _ in keys if backend == "torch" and name.startswith("gpt")]
    assert gpt == [f"gpt[torch-{m}-b{b}-t64]" for b in (8, 64) for m in ("train", "forward")]
    (small,) = wanted(["torch"], ["gpt", "mlp"], [8], ["train"])
    assert small[1] == [("gpt[torch-train-b8-t64]", "torch", "fastest")]


def test_every_model_that_ships_has_a_ratio() -> None:
    shipped = {path.stem for path in (TESTS.parent / "specs" / "models").glob("*.yaml")}
    assert shipped == MODELS.keys()


def test_models_have_tables_and_a_target_of_their_own() -> None:
    found = record("gpt", torch_train_8=pair(0.93), torch_forward_64=pair(1.2))
    found["pairs"] |= record(torch_train_64=pair(1.1))["pairs"]
    page = render(found)
    lesson6, models = page.split("## Models")
    assert "| sequence_rnn | 1.10 |" in lesson6
    assert "| gpt | **0.93** |" in models
    assert "| gpt | 1.20 |" in models
    assert "| torch: at least 0.97 | 1.10 |" in page
    (line,) = missed(found)
    assert line.startswith("torch, models: at least 0.97")


def test_models_are_beside_no_onnxruntime() -> None:
    assert other_ways("torch", "forward", LESSON6) == ("torch-compile", "onnxruntime")
    assert other_ways("torch", "forward", "gpt") == ("torch-compile",)


def test_the_hand_written_keras_runs_on_the_engine_of_its_backend() -> None:
    assert by_hand("keras-jax", 2).launch.environment["KERAS_BACKEND"] == "jax"


def test_a_pair_is_measured_once(tmp_path: Path) -> None:
    kept = tmp_path / "record.json"
    options = ["--spec", "lesson6/three_char", "--backend", "numpy", "--batch", "64"]
    command = [sys.executable, str(SCRIPT), "measure", "--record", str(kept), "--rounds", "1"]
    command += [*options, "--mode", "forward"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    name = "lesson6/three_char[numpy-forward-b64-t3]"
    assert name in run.stderr
    (found,) = json.loads(kept.read_text())["pairs"].values()
    assert found["ours"]["status"] == found["native"]["status"] == "measured", found
    again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert name not in again.stderr
    page = [sys.executable, str(SCRIPT), "page", "--record", str(kept)]
    page += ["--output", str(tmp_path / "page.md")]
    subprocess.run(page, check=False, capture_output=True, timeout=60)
    assert "| three_char |" in (tmp_path / "page.md").read_text()


def test_the_page_says_on_which_machine_a_cell_was_measured() -> None:
    found = record(torch_train_64=pair(1.5), torch_forward_64=pair(1.4))
    found["machines"].append({**MACHINE, "machine": {"cpu": "another"}})
    forward = found["pairs"][f"{LESSON6}[torch-forward-b64-t8]"]
    forward |= {"machine": 1, "load": 0.25}
    page = render(found)
    assert "Versions on A, B: torch 2.0." in page
    assert "| A | 2 threads of one | 1 |" in page
    assert "| B | 2 threads of another | 1 |" in page
    train, forward = list(rows(found))[1:]
    assert train[:8] == ("sequence_rnn", "torch", "train", "64", "", "A", "", "512.0")
    assert forward[:8] == ("sequence_rnn", "torch", "forward", "64", "", "B", "0.2", "512.0")
    found["machines"][1]["versions"] = {"torch": "2.1"}
    assert "Versions on B: torch 2.1." in render(found)


def test_a_share_of_a_peak_is_of_the_best_of_any_backend_and_never_above_it() -> None:
    def peak(backend: str, rate: float) -> dict[str, Any]:
        own = {"own": rate, "own_by": backend, "own_size": [512, 256, 86]}
        return {"large": 1.5 * rate, "large_by": backend, **own}

    # Steps of a millisecond: 8 GFLOP/s, of a peak that its own backend sees at 5, another at 10.
    found = record(
        keras_train_64=pair(1, products=8_000_000, peak=peak("keras", 5e9)),
        torch_train_64=pair(1, products=4_000_000, peak=peak("torch", 1e10)),
    )
    set_shares(found["pairs"])
    ours = [p["ours"] for p in found["pairs"].values()]
    assert [side["share_of_own_peak"] for side in ours] == pytest.approx([0.8, 0.4])
    assert [side["share_of_peak"] for side in ours] == pytest.approx([8 / 15, 4 / 15])
    assert "2048 x 2048 x 2048: 15 (" in told(found["pairs"])
    assert "512 x 256 x 86: 10 (torch)" in render(found)
    ours[0]["products"] = 20_000_000
    set_shares(found["pairs"])
    assert ours[0]["share_of_own_peak"] == ours[0]["share_of_peak"] == 1
