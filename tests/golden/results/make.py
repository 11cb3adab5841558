"""Make the result files of this folder, or with ``--outputs`` only what commands print of them.

The files were written by an early version of the harness. Later versions must read them and print
the same. Make the outputs anew if a command is meant to print something else::

    python tests/golden/results/make.py --outputs
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
OUTPUTS = FOLDER / "outputs"
# By the name of the file with the expected output, the words of a command. {to} is a file that the
# command writes: then its content is expected, not what is printed.
COMMANDS: Mapping[str, str] = {
    "report.md": "report faults.jsonl speeds.json -o {to}",
    "report.xml": "report faults.jsonl -o {to}",
    "report-base.md": "report wrong.jsonl slower.json --base agree.jsonl --base speeds.json "
    "-o {to}",
    "report-against.md": "report against.jsonl -o {to}",
    "compare.txt": "compare agree.jsonl wrong.jsonl",
    "compare.json": "compare wrong.jsonl agree.jsonl --json",
    "compare.md": "compare agree.jsonl wrong.jsonl --print-markdown",
    "compare-against.txt": "compare faults.jsonl against.jsonl",
    "between.json": "compare faults.jsonl --between numpy faulty-numpy --json",
    "compare-speeds.json": "compare speeds.json slower.json --json",
    "compare-speeds.md": "compare speeds.json slower.json --print-markdown",
    "between-speeds.txt": "compare speeds.json --between numpy torch",
    "merge.txt": "merge faults.jsonl wrong.jsonl agree.jsonl unsupported.jsonl -o one.jsonl",
    "merge.json": "merge faults.jsonl wrong.jsonl agree.jsonl -o two.jsonl --json",
    "merged.jsonl": "merge wrong.jsonl agree.jsonl -o {to}",
    "merge-speeds.json": "merge speeds.json slower.json -o three.json --json",
    "merged-speeds.json": "merge speeds.json slower.json -o {to}",
    "report-merged.md": "report outputs/merged.jsonl outputs/merged-speeds.json -o {to}",
}


def output(name: str, folder: Path) -> str:
    """Return the output of a command in ``folder``, the current one and a copy of this one."""
    from click.testing import CliRunner

    from harness.cli import cli

    written = folder / f"made-{name}"
    words = [word.replace("{to}", written.name) for word in COMMANDS[name].split()]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code in (0, 1, 3), done.output
    assert not done.stderr, done.stderr
    return written.read_text() if written.exists() else f"{done.stdout}exit code {done.exit_code}\n"


def make_outputs() -> None:
    """Write what each command prints or writes."""
    OUTPUTS.mkdir(exist_ok=True)
    os.chdir(FOLDER)
    for name in COMMANDS:
        (OUTPUTS / name).write_text(output(name, FOLDER))
    for path in (
        *FOLDER.glob("made-*"),
        *map(FOLDER.joinpath, ("one.jsonl", "two.jsonl", "three.json")),
    ):
        path.unlink()


def make_records() -> None:
    """Run small checks: every verdict, a wrong layer with its first difference, a user's model."""
    import tempfile

    import plugin_faulty_cells
    import pytest
    from report_files import WRONG, installed
    from small_models import ONE_LAYER
    from users_models import GRU, NET, RULES, model_file

    from harness.checking.engine import Engine
    from harness.checking.own_model.against import parse_against
    from harness.checking.request import Request

    checks = ("values", "training")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.chdir(folder)
        (folder / "models").mkdir()
        (folder / "known_differences.yaml").write_text(KNOWN)
        names = [f"m{number}" for number in range(4)]
        for each in names:
            (folder / "models" / f"{each}.yaml").write_text(ONE_LAYER.format(name=each))
        patch.syspath_prepend(plugin_faulty_cells.FOLDER)
        faults = {"m1 float32": "segfault", "m2 float32": "hang_with_gil", "m3 float32": "nan"}
        faults["m0 float32"] = "lose_modules"
        run: dict[str, Any] = {"specs": names, "folders": (Path(),), "checks": checks, "jobs": 1}
        request = Request(
            **run,
            backends=("numpy", "torch", "faulty-numpy"),
            dtypes=("float32",),
            environment={"faulty-numpy": plugin_faulty_cells.variables(faults)},
            timeout=4.0,
            records=folder / "faults.jsonl",
        )
        with Engine(request) as engine:
            engine.run(["check", "m*", "--specs", "."])
        request = Request(**run, backends=("numpy",), records=folder / "unsupported.jsonl")
        with Engine(request) as engine:
            hello = engine.workers["numpy"].start().value
            patch.setattr(engine.workers["numpy"], "_hello", {**hello, "dtypes": ["float64"]})
            engine.run(["check", "m*"])
        with installed():
            for file, backend, device in (
                ("agree.jsonl", "numpy", "cpu"),
                ("wrong.jsonl", "mutants-1", WRONG),
            ):
                request = Request(
                    specs=("lesson6/first_rnn",),
                    backends=(backend,),
                    device=device,
                    checks=checks,
                    records=folder / file,
                )
                with Engine(request) as engine:
                    engine.run(["check", "lesson6/first_rnn", "--backend", backend])
        model_file(folder, NET)
        model_file(folder, GRU, "gru_lm.yaml")
        request = Request(
            specs=("gru_lm.yaml",),
            against=parse_against("model.py:Net", maps=RULES),
            dtypes=("float32",),
            records=folder / "against.jsonl",
        )
        with Engine(request) as engine:
            engine.run(["check", "gru_lm.yaml", "--against", "model.py:Net"])
        for path in folder.glob("*.jsonl"):
            (FOLDER / path.name).write_text(_neutral(path.read_text(), folder))
    # The planted fault stands on the same device under the same name, as a later run.
    wrong = (FOLDER / "wrong.jsonl").read_text()
    wrong = wrong.replace('"device":"leaky-relu"', '"device":"cpu"').replace("mutants-1", "numpy")
    (FOLDER / "wrong.jsonl").write_text(_sealed(wrong))


KNOWN = """\
differences:
  nan-of-m3:
    summary: The outputs of m3 are NaN.
    reason: A planted fault.
    versions: all
    link: none
    match: {backend: faulty-numpy, spec: m3}
"""


def _neutral(text: str, folder: Path) -> str:
    """Leave out what tells of the machine and of its paths; the checksums are made anew."""
    import platform

    from places import ROOT

    from harness.results.environment import machine_identity

    text = text.replace(str(folder), "/folder").replace(str(ROOT), "/harness")
    text = text.replace(sys.executable, "/usr/bin/python3").replace(platform.node(), "host")
    text = text.replace(sys.base_prefix, "/usr").replace(machine_identity(), "0123456789abcdef")
    return _sealed(text.replace(os.path.realpath(sys.executable), "/usr/bin/python3"))


def _sealed(text: str) -> str:
    from history_runs import renew_checksums

    lines = renew_checksums([json.loads(line) for line in text.splitlines()])
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def make_speeds() -> None:
    """Write results of three backends, and the same as slower ones of another version."""
    import platform

    from bench_results import REQUEST, refused, result, speed_file

    from harness.results.speeds import encode_speeds
    from harness.timing.json_file import document

    found = [result("numpy", 0.001), result("torch", 0.002), refused("jax")]
    text = encode_speeds(document(REQUEST, found)).decode().replace(platform.node(), "host")
    content = json.loads(text)
    del content["commit_info"]["project"], content["commit_info"]["branch"]
    (FOLDER / "speeds.json").write_bytes(encode_speeds(speed_file(content)))
    found = [result("torch", 0.003, ratio=8.0), result("jax", 0.0005), refused("numpy")]
    content["benchmarks"], content["harness"] = (
        document(REQUEST, found).plain()[name] for name in ("benchmarks", "harness")
    )
    info = content["machine_info"]["harness"]
    info["machine"]["cpu"] = "another processor"
    info["workers"]["torch"]["versions"]["torch"] = "2.0"
    (FOLDER / "slower.json").write_bytes(encode_speeds(speed_file(content)))


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parents[1] / "support"))
    if "--outputs" not in sys.argv:
        if not (FOLDER / "agree.jsonl").exists():
            make_records()
        make_speeds()
    make_outputs()
