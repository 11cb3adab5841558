"""Parts of a page: each cell over the runs, what is accepted, baselines, runs that were stopped."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
import report_files
import yaml
from report_pages import HOSTILE, Tags, commands, made, page
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.report.inputs import EpochFigures, Inputs, TrainedHistory, TrainedWeights
from harness.report.page import page as report_page
from harness.report.svg_pictures import COLOURS, choose_looks, lines, trend


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run.jsonl and bench.json."""
    folder = tmp_path_factory.mktemp("report")
    report_files.records(folder / "run.jsonl")
    report_files.speeds(folder / "bench.json")
    return folder


def test_each_cell_has_a_line_over_the_runs_with_its_upgrades(files: Path, tmp_path: Path) -> None:
    """Planted: an upgrade of numpy, and the fault in the later run only."""
    history = tmp_path / "history"
    history.mkdir()
    old = report_files.changed(
        files / "run.jsonl", history / "old.jsonl", {"started": "2020-01-01T00:00:00Z"}, kind="head"
    )
    report_files.changed(old, old, {"verdict": "agree"}, kind="result")
    report_files.changed(old, old, {"verdict": "agree"}, kind="end")
    report_files.changed(old, old, {"backend_version": HOSTILE}, kind="result", backend="numpy")
    (history / "now.jsonl").write_bytes((files / "run.jsonl").read_bytes())
    (history / "bench.json").write_bytes((files / "bench.json").read_bytes())
    text = page(tmp_path, files / "run.jsonl", "--history", history)
    assert not Tags(text).open
    assert "<b>lesson6/first_rnn</b> 4 cells, 2 worse than before</summary>" in text
    rows = re.findall(r'<tr><th scope="row">(\S+ float\d+ native).*?</tr>', text, re.S)
    # What got worse stands first.
    assert [row.split()[0] for row in rows] == ["mutants-1"] * 2 + ["numpy"] * 2
    lines = re.search(r'<details class="past" open>.*?</details>', text, re.S)
    assert lines is not None
    shown = lines[0]
    assert shown.count("<polyline") == 4
    assert shown.count('class="wrong"') == 2
    assert len(re.findall(r'class="dash"[^>]*><title>[^<]* became numpy', shown)) == 2
    assert "<img" not in shown


@pytest.mark.parametrize(
    ("log", "values", "least"),
    [
        (False, (6.71, 6.73), 0.5),
        (False, (3, 7), 3.5),
        (True, (990, 1010), 150),
        (True, (1, 1), 0.2),
    ],
)
def test_what_hardly_moves_does_not_fill_a_picture(
    log: bool, values: tuple[float, float], least: float
) -> None:
    pytest.importorskip("matplotlib")
    drawn = trend("run", {"numpy": list(enumerate(values, 1))}, [], log=log)
    upright = drawn.partition('id="matplotlib.axis_2"')[2]
    ticks = [
        float(tick.replace(" k", "e3")) for tick in re.findall(r">([\d.]+(?: k)?)</text>", upright)
    ]
    assert max(ticks) - min(ticks) >= least


# What failed, which the command of a cell runs again.
FAILED = "".join(f" --check {check}" for check in ("outputs", "loss", "gradients"))


def test_a_difference_is_accepted_as_the_page_says(files: Path, tmp_path: Path) -> None:
    """The text of the page as it is makes known differences of the planted fault."""
    text = page(tmp_path, files / "run.jsonl")
    entries = [
        unescape(found) for found in re.findall(r"<pre><code>(.*?)</code></pre>", text, re.S)
    ]
    assert len(entries) == 2
    mine = tmp_path / "mine"
    mine.mkdir()
    parts = [yaml.safe_load(entry)["differences"] for entry in entries]
    assert all("SAY WHERE" in one["link"] for part in parts for one in part.values())
    (mine / "known_differences.yaml").write_text(
        yaml.safe_dump({"differences": parts[0] | parts[1]})
    )
    with report_files.installed():
        request = Request(
            specs=("lesson6/first_rnn",),
            backends=("mutants-1",),
            device=report_files.WRONG,
            checks=report_files.CHECKS,
            folders=(mine,),
            records=tmp_path / "accepted.jsonl",
        )
        with Engine(request) as engine:
            report = engine.run()
    assert {result.verdict for result in report.results} == {"known-difference"}
    # The command that repeats a cell has the folder, whatever its name.
    odd = tmp_path / "my specs"
    report_files.changed(
        files / "run.jsonl", tmp_path / "odd.jsonl", {"folders": [str(odd)]}, kind="head"
    )
    text = page(tmp_path, tmp_path / "odd.jsonl")
    command = "harness check lesson6/first_rnn --backend mutants-1 --dtype float32"
    command += f" --device {report_files.WRONG} --specs '{odd}'{FAILED}"
    assert command in commands(text)
    assert f"{command} --reproducers reproducers" in commands(text)


def test_the_commands_of_a_run_are_those_of_all_its_files(files: Path, tmp_path: Path) -> None:
    """Also of speeds, and of several that wrote to one file; a run from Python has none."""
    bench = json.loads((files / "bench.json").read_text())
    assert 'id="reproduce"' not in page(tmp_path, files / "bench.json")
    bench["harness"]["commands"] = [["bench", "my model.yaml", "--shard", "1/2"], ["bench", "b"]]
    (tmp_path / "b.json").write_text(json.dumps(bench))
    assert commands(page(tmp_path, tmp_path / "b.json")) == [
        "harness bench 'my model.yaml' --shard 1/2",
        "harness bench b",
    ]
    first, *rest = (files / "run.jsonl").read_text().splitlines(keepends=True)
    heads = [
        json.dumps({**json.loads(first), "arguments": words}) + "\n"
        for words in ([], ["check", "--shard", "1/2"], ["check", "--shard", "2/2"])
    ]
    (tmp_path / "run.jsonl").write_text("".join([*heads, *rest]))
    found = commands(page(tmp_path, tmp_path / "run.jsonl", tmp_path / "b.json"))
    assert "harness" not in found
    at = found.index("harness check --shard 1/2")
    assert found[at + 1] == "harness check --shard 2/2"
    assert "harness bench 'my model.yaml' --shard 1/2" in found[at + 2 :]


def test_a_long_message_is_folded_and_whole(files: Path, tmp_path: Path) -> None:
    detail = 400 * "word " + "the end"
    long = report_files.changed(
        files / "run.jsonl", tmp_path / "long.jsonl", {"detail": detail}, verdict="differ"
    )
    assert f"...</summary>{detail}</details>" in page(tmp_path, long)


def test_a_model_of_a_users_own_is_checked_again_as_it_was(files: Path, tmp_path: Path) -> None:
    """And is offered no reproducer and no known difference: neither is there for one."""
    own = {"model": "net.py:Net", "sha256": "0", "map": ["out=fc"], "takes": [], "returns": []}
    mine = report_files.changed(
        files / "run.jsonl",
        tmp_path / "own.jsonl",
        {
            "request": lambda request: {**request, "against": own},
            "sources": {"lesson6/first_rnn": "mine/first.yaml"},
            "files": {"--against": "mine/net.py:Net"},
        },
        kind="head",
    )
    report_files.changed(mine, mine, {"backend": "torch@net.Net"}, backend="mutants-1")
    # A later run of another spec says nothing of this one.
    lines = (files / "run.jsonl").read_text().splitlines(keepends=True)
    later = [line.replace("first_rnn", "second_rnn") for line in lines]
    mine.write_text(mine.read_text() + "".join(later))
    command = (
        "harness check mine/first.yaml --backend torch --dtype float32 --device leaky-relu "
        f"--against mine/net.py:Net --map out=fc{FAILED}"
    )
    text = page(tmp_path, mine)
    found = re.search(r"<h3>lesson6/first_rnn on torch@net\.Net, float32.*?</details>", text, re.S)
    assert found is not None
    assert commands(found[0]) == [command]
    assert made(mine, "-o", tmp_path / "out.md").exit_code == 0
    assert f"`{command}`" in (tmp_path / "out.md").read_text()


@pytest.mark.parametrize("form", ["html", "md"])
def test_a_baseline_without_speeds_is_refused(
    form: str, files: Path, tmp_path: Path, wording: Wording
) -> None:
    output = tmp_path / f"out.{form}"
    for name, told in (
        ("jax", "--relative-to 'jax' is not timed (timed: numpy, torch)"),
        ("nunpy", "--relative-to 'nunpy' is not timed; did you mean 'numpy'?"),
    ):
        found = made(files / "bench.json", "--relative-to", name, "-o", output)
        assert found.exit_code == 2
        assert told in found.output
    found = made(files / "run.jsonl", "--relative-to", "numpy", "-o", output)
    assert found.exit_code == 2
    wording.line(found.output, "--relative-to ... 'harness bench'")
    assert not output.exists()


def test_a_run_that_was_stopped_is_told_to_be(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    content = json.loads((files / "bench.json").read_text())
    content["harness"]["incomplete"] = {"done": 3, "planned": 9}
    (tmp_path / "cut.json").write_text(json.dumps(content))
    text = page(tmp_path, tmp_path / "cut.json", "--base", files / "bench.json")
    wording.line(text, "cut.json ... 3 ... 9")
    wording.line(text, "3 of 9")
    assert '<header class="headline broken">' in text
    cut = tmp_path / "cut.jsonl"
    report_files.changed(files / "run.jsonl", cut, {"planned": 7}, kind="head")
    report_files.changed(cut, cut, {"verdict": "agree"}, verdict="differ")
    text = page(tmp_path, cut)
    wording.line(text, "<h1>4 ... agree ... stopped</h1>")
    wording.line(text, "2 of 7")


def test_metrics_of_what_is_held_out_have_a_curve_and_a_column() -> None:
    epochs = [
        EpochFigures(epoch=n, loss=1.0, curve=[1.0], held_out_loss=2.0, held_out_metrics=metrics)
        for n, metrics in ((1, {"accuracy": 0.25}), (2, {"accuracy": 0.5}))
    ]
    history = TrainedHistory(backend="numpy", epochs=epochs)
    shown = report_page(Inputs(trainings=[TrainedWeights("a.safetensors", "digit", history)]))
    assert "accuracy of digit on numpy (a.safetensors)" in shown
    assert "<th>held-out metrics</th>" in shown
    assert "<td>accuracy 0.5</td>" in shown
    plain = history.model_copy(update={"epochs": [EpochFigures(epoch=1, loss=1.0, curve=[1.0])]})
    shown = report_page(Inputs(trainings=[TrainedWeights("a.safetensors", "digit", plain)]))
    assert "metrics on held-out data" not in shown


def test_no_two_of_many_series_look_alike() -> None:
    names = [f"backend {number}" for number in range(32)]
    assert len(set(choose_looks(names).values())) == 32
    pytest.importorskip("matplotlib")
    drawn = lines("step", {name: [(1, 1.0), (2, 2.0)] for name in names[:12]})
    strokes = re.findall(r'style="fill: none; (stroke-dasharray[^"]*)?[^"]*(#\w+)[^"]*"', drawn)
    found = {(bool(dashes), colour) for dashes, colour in strokes if colour in COLOURS}
    assert len(found) == 12
