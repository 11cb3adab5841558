"""A command that is printed stays one line that can be copied, at every width."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import plugin_faulty_cells
import pytest
from terminals import plain, shown
from time_limits import computed_within

from harness.output.folding import width, wrap

SPEC = "lesson6/simple_rnn"
BARE = os.path.realpath(sys.executable)
REPLAY = "harness replay 'a folder of  reproducers/simple_rnn-faulty-numpy-float32-native'"
RUN = "harness check 'my model.yaml' --backend torch,jax --dtype float64 --check outputs"
MESSAGES = {
    "at the end": (
        f"no reproducer for a difference in outputs, loss, gradients; instead run {RUN}",
        RUN,
    ),
    "after a colon": (f"reproducer: {REPLAY}", REPLAY),
    "with more behind it": (
        "--on ray needs Ray: pip install 'backend-comparison-harness[ray]' (or leave it out)",
        "pip install 'backend-comparison-harness[ray]'",
    ),
    "another interpreter's": (
        "that interpreter has no harness; install it with: env/bin/python -m pip install x==1.0",
        "env/bin/python -m pip install x==1.0",
    ),
    "in quotation marks": (
        "there is no environment torch@2.6.0: make it with 'harness env torch==2.6.0', or not",
        "harness env torch==2.6.0",
    ),
    "in backticks": (
        "which backend is to be checked? `harness list --backends` shows what is installed here",
        "harness list --backends",
    ),
    "an option": (
        "or name an interpreter of your own with that version: --backend torch@2.6=/path/to/python",
        "--backend torch@2.6=/path/to/python",
    ),
    "in a column": (f"Check it again:           {RUN}", RUN),
    "in a list": (f"  what differs\n    {RUN}", RUN),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_command_is_never_broken(name: str) -> None:
    text, command = MESSAGES[name]
    for columns in range(8, 120):
        lines = wrap(text, columns).splitlines()
        assert any(command in line for line in lines), (columns, lines)
        assert "".join("".join(lines).split()) == "".join(text.split())
        # Nothing else is past the edge.
        past = [line.split() for line in lines if width(line) > columns]
        assert all(" ".join(words) in " ".join(text.split()) for words in past)
        assert all(len(words) == 1 or command in text for words in past)


def test_prose_that_only_begins_like_a_command_is_broken() -> None:
    text = "the environment has another harness than runs here, and run is what it is told to"
    assert all(width(line) <= 24 for line in wrap(text, 24).splitlines())


ONE = ("--dtype", "float32", "--check", "outputs")
CHECK = ("check", SPEC, *ONE, "--backend")
# By name: what is run, whether its errors are read, and what of it is to be copied.
PRINTED: dict[str, tuple[tuple[str, ...], bool, str]] = {
    "check": (
        (*CHECK, "faulty-numpy", "--reproducers", "a folder of reproducers"),
        False,
        r"harness replay '.*'",
    ),
    "an interpreter without the harness": (
        (*CHECK, f"numpy@bare={BARE}"),
        False,
        r"\S+ -m pip install \S+$",
    ),
    "no environment": ((*CHECK, "numpy@9.9.9"), True, "'harness env .*?'"),
    "its other way": ((*CHECK, "numpy@9.9.9"), True, r"numpy@9\.9\.9=\S+"),
    "env": (("env", "--list"), False, "'harness env .*?'"),
    "env --help": (("env", "--help"), False, "'harness env .*?'"),
    "upgrade --help": (("upgrade", "--help"), False, "'harness env'"),
    "wrong usage": (("check", "--bakend", "numpy"), True, "'harness check --help-all'"),
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_to_be_copied_is_the_same_at_every_width(name: str, tmp_path: Path) -> None:
    arguments, errors, pattern = PRINTED[name]
    variables = {
        **plugin_faulty_cells.variables({f"{SPEC} float32": "wrong_shape"}),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    if BARE in " ".join(arguments):
        variables["PYTHONPATH"] = ""  # else the harness is found by it

    def text(columns: int | None, **more: str) -> str:
        env = {**variables, **more}
        code, found = shown(arguments, tmp_path, columns=columns, errors=errors, env=env)
        assert code in (0, 1, 2, 3), found
        return plain(found)

    command = re.search(pattern, text(None), re.MULTILINE)
    assert command is not None, text(None)
    for found in (text(40), text(60), text(None, COLUMNS="36")):
        assert any(command[0] in line for line in found.splitlines()), found


@pytest.mark.parametrize("quote", ["`", "'"])
def test_a_text_of_quotes_takes_time_by_its_length(quote: str) -> None:
    with computed_within(5.0):
        assert plain(wrap(quote * 60_000, 80)) == quote * 60_000
