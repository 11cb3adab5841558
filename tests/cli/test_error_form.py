"""Every error looks alike on standard error: the message first, nothing before it, exit code 2."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import warm_commands

SPEC = "lesson6/first_rnn"
# The words of a command, and how its message begins.
ERRORS = {
    "command": ("chek", "no such command 'chek'; did you mean 'check'?"),
    "option": ("check --backed numpy", "no such option '--backed'"),
    "former option": ("compare --markdown a b", "there is no --markdown; use --print-markdown"),
    "help of a command": (
        "help check",
        "no such command 'help'; did you mean 'harness check --help'?",
    ),
    "spec for a command": (
        "a.yaml",
        "no such command 'a.yaml'; did you mean 'harness check a.yaml'?",
    ),
    "name to explain": (
        "list lstm",
        "got unexpected extra argument (lstm); did you mean 'harness explain lstm'?",
    ),
    "backends to choose from": (f"train {SPEC}", "missing option '--backend'. Installed: "),
    "argument": ("explain", "missing argument 'SPEC'"),
    "further argument": ("compare a b c", "got unexpected extra argument"),
    "required option": (f"run {SPEC}", "missing option '--backend'"),
    "no value": ("check --seed", "option '--seed' requires an argument"),
    "choice": ("schema modle", "unknown kind 'modle'; did you mean 'model'?"),
    "number": (
        "check --seed x",
        "invalid value for '--seed': a seed must be a whole number, found 'x'",
    ),
    "backend": (f"check {SPEC} --backend nump", "unknown backend 'nump'"),
    "model": ("check lesson6/first_rn", "unknown model 'lesson6/first_rn'"),
    "file": ("check absent.yaml", "absent.yaml: no such file"),
    "spec": ("check wrong.yaml", "wrong.yaml:1:1: "),
    "folder": ("check --specs absent", "there is no folder 'absent' of definitions"),
    "spec for records": (
        f"check {SPEC} --baseline spec.yaml",
        "spec.yaml:1: this is a spec, not a record file of 'harness check'",
    ),
    "model of a file": ("check spec", "unknown model 'spec'; did you mean the file 'spec.yaml'?"),
    "model of one's own": (
        "check --against a.py:A",
        "--against needs exactly one SPEC to compare the model with, found none",
    ),
    "records": (f"check {SPEC} --baseline absent", "cannot read records from absent: no such file"),
    "results": ("compare absent absent", "cannot read absent: no such file"),
    "report": ("report absent -o x.html", "cannot read absent: no such file"),
    "output": ("report absent -o x.pdf", "x.pdf: unknown format; use a name that ends in"),
    "reproducer": ("replay absent", "absent holds no reproducer"),
    "weights": (f"check {SPEC} --weights absent", "cannot read the weights 'absent': no such file"),
    "settings": ("list", "{folder}/pyproject.toml:2:1: there is no option 'backed'"),
    "variable": ("check", "the harness has no environment variable HARNESS_BACKND"),
}
# Those for which the command line's own form is wrong: its usage is told, too.
USAGES = frozenset(
    {
        *("command", "option", "former option", "argument", "further argument", "required option"),
        *("number", "help of a command", "spec for a command", "name to explain"),
        "backends to choose from",
    }
)


@pytest.mark.parametrize("case", ERRORS)
def test_all_errors_have_one_form(case: str, tmp_path: Path) -> None:
    words, begins = ERRORS[case]
    (tmp_path / "wrong.yaml").write_text("modle: x\n")
    (tmp_path / "spec.yaml").write_text("model: spec\n")
    (tmp_path / ".git").mkdir()
    if case == "settings":
        (tmp_path / "pyproject.toml").write_text("[tool.harness]\nbacked = 'numpy'\n")
    variables = {**os.environ, **({"HARNESS_BACKND": "x"} if case == "variable" else {})}
    done = warm_commands.run(words.split(), cwd=tmp_path, env=variables)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    first, *further = done.stderr.splitlines()
    assert first.startswith(begins.replace("{folder}", str(tmp_path))), done.stderr
    assert not first.endswith(".")
    for part in ("Error", "Usage:", "Try ", "Traceback"):
        assert part not in done.stderr
    usage = [line for line in further if line.startswith("usage: harness")]
    assert len(usage) == (case in USAGES)
    assert not usage or re.search(r" --help(-all)?' lists all options", usage[0])
