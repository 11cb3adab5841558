"""``--jobs`` and ``--fail-fast`` in real runs: what is run beside what, and what not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import report_files
from click.testing import CliRunner
from installed_plugins import install_plugin
from wording import Wording

from harness.cli import cli

# Two backends that wait for each other when they open a session: alone, each gives up.
PLUGIN = """
import os, time
from pathlib import Path

from harness.extend import hookimpl
from harness.runtime import plugins

PLACE, SECONDS = Path({place!r}), {seconds}

@hookimpl
def harness_backend(name):
    backend = plugins.load("numpy")
    backend.name = name
    (PLACE / f"{{name}}.begun").touch()
    other = PLACE / ("meet-b.begun" if name == "meet-a" else "meet-a.begun")
    end = time.monotonic() + SECONDS
    while not other.exists() and time.monotonic() < end:
        time.sleep(0.05)
    (PLACE / f"{{name}}.{{'met' if other.exists() else 'alone'}}").touch()
    return backend
"""
SPECS = ("lesson6/simple_rnn", "lesson6/theano_rnn")


def met(folder: Path, jobs: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run both; who met the other, and all verdicts."""
    place = folder / f"jobs-{jobs}"
    source = PLUGIN.format(place=str(place), seconds=seconds)
    with monkeypatch.context() as patch:
        install_plugin(patch, place, "harness_meet", source, "meet-a", "meet-b")
        words = ["--backend", "meet-a,meet-b", "--check", "inference", "--jobs", str(jobs)]
        records = place / "run.jsonl"
        run = CliRunner().invoke(cli, ["check", *SPECS, *words, "--records", str(records)])
    assert run.exit_code == 0, run.output
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    verdicts = {
        (line["backend"], line["spec"], line["dtype"], line["check"]): (
            line["verdict"],
            line["error"],
        )
        for line in lines
        if line["kind"] == "result"
    }
    return {path.name for path in place.glob("meet-*.*") if path.suffix != ".begun"} - {
        "meet-1.0.dist-info"
    }, verdicts


def test_jobs_run_beside_each_other_and_change_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, verdicts = met(tmp_path, 2, 60.0, monkeypatch)
    assert together == {"meet-a.met", "meet-b.met"}
    one_by_one, alone = met(tmp_path, 1, 1.0, monkeypatch)
    # The first has ended before the second begins, which finds its mark.
    assert one_by_one in ({"meet-a.alone", "meet-b.met"}, {"meet-b.alone", "meet-a.met"})
    assert verdicts == alone
    assert len(verdicts) >= 8


def failing(records: Path, *options: str) -> tuple[int, str, list[dict[str, Any]]]:
    """The planted fault is in what the second of three models alone uses."""
    specs = ("lesson6/simple_rnn", "lesson6/first_rnn", "lesson6/theano_rnn")
    words = ["--dtype", "float64", "--check", "values", "--records", str(records), *options]
    with report_files.installed():
        run = CliRunner().invoke(
            cli,
            ["check", *specs, "--backend", "mutants-1", "--device", report_files.WRONG, *words],
        )
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    return run.exit_code, run.output, lines


def test_fail_fast_begins_nothing_after_the_first_cell_that_differs(
    tmp_path: Path, wording: Wording
) -> None:
    code, output, lines = failing(tmp_path / "fast.jsonl", "--fail-fast")
    assert code == 1
    ends = {line["spec"]: line["verdict"] for line in lines if line["kind"] == "end"}
    assert ends == {"lesson6/simple_rnn": "agree", "lesson6/first_rnn": "differ"}
    assert [line["kind"] for line in lines].count("begin") == 2
    wording.line(output, "2 cells ... 1 differ; 1")
    # Without it all are run, and the verdicts of those that were are the same.
    code, output, lines = failing(tmp_path / "all.jsonl")
    assert code == 1
    whole = {line["spec"]: line["verdict"] for line in lines if line["kind"] == "end"}
    assert whole == {**ends, "lesson6/theano_rnn": "agree"}
    assert "not run" not in output
    # A program that reads the output is told, too.
    with report_files.installed():
        words = ["--backend", "mutants-1", "--device", report_files.WRONG, "--dtype", "float64"]
        words += ["--check", "values", "--fail-fast", "--json"]
        run = CliRunner().invoke(cli, ["check", "lesson6/first_rnn", SPECS[0], *words])
    content = json.loads(run.stdout)
    assert (run.exit_code, content["exit_code"], content["left_out"]) == (1, 1, 1)
    # What is left of the first run is taken up.
    code, output, lines = failing(tmp_path / "fast.jsonl", "--resume")
    assert [line["kind"] for line in lines].count("begin") == 3
