"""Numbers out of their range: the same words at every entrance, and no traceback."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from places import SPECS
from wording import Wording

import harness
from harness.cli import cli
from harness.command import ranges
from harness.command.options import numbers
from harness.command.ranges import Range
from harness.errors import HarnessError, UsageError
from harness.timing.request import BenchRequest, check_request
from harness.training.generate.request import GenerateRequest
from harness.training.generate.writing import chooser
from harness.training.generate.writing import prepare as prepare_generation
from harness.training.request import TrainRequest, prepare

HARNESS = Path(sys.executable).with_name("harness")
SPEC = "lesson6/simple_rnn"
ALL = {name: found for name, found in vars(ranges).items() if isinstance(found, Range)}
NEVER: tuple[Any, ...] = (math.nan, math.inf, -math.inf, 10**30, -1, 1e300, None, "3", True, [1])
TEXTS = ("nan", "inf", "-inf", "1e300", "-1", str(10**30), "9" * 5000, "", "x", "1_0", "٣", "0x10")


@pytest.mark.parametrize("name", ALL)
def test_a_range_takes_its_edges_and_nothing_beyond(name: str) -> None:
    allowed = ALL[name]
    for edge in (allowed.least, allowed.most):
        number = int(edge) if allowed.whole else edge
        assert allowed.check(number) == number
        assert allowed.read(repr(number)) == number
    for value in NEVER:
        with pytest.raises(UsageError, match=r", found .* \(allowed: "):
            allowed.check(value)
    for text in TEXTS:
        with pytest.raises(UsageError, match=r", found .* \(allowed: "):
            allowed.read(text)


def numeric_options() -> list[tuple[str, str]]:
    """Every option of every command that takes a number."""
    return [
        (name, option.opts[0])
        for name, command in cli.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and option.type.name in ("integer", "float")
    ]


REQUIRED: dict[str, tuple[str, ...]] = {
    "check": (SPEC,),
    "bench": (SPEC,),
    "train": (SPEC, "--backend", "numpy"),
    "generate": (SPEC, "--backend", "numpy", "--weights", "w", "--prompt", "a"),
    "run": (SPEC, "--backend", "numpy"),
    "localise": (SPEC, "--backend", "numpy"),
    "fuzz": (),
    "reduce": ("folder",),
    "upgrade": ("torch@2.0", "torch@2.1"),
    "export": (SPEC, "--weights", "w", "--to", "torch"),
    "import": (SPEC, "f", "--from", "torch", "--weights", "w"),
    "port": ("net.py:Net",),
}


def test_all_numbers_have_a_range() -> None:
    options = numeric_options()
    assert len(options) >= 18
    for name, option in options:
        found = next(o for o in cli.commands[name].params if option in o.opts)
        assert isinstance(found.type, click.types.FuncParamType), (name, option)


@pytest.mark.parametrize(("command", "option"), numeric_options())
def test_options_out_of_range(command: str, option: str) -> None:
    for text in TEXTS:
        run = CliRunner().invoke(cli, [command, *REQUIRED[command], option, text])
        assert run.exit_code == 2, (text, run.output)
        assert f"Invalid value for '{option}'" in run.output, (text, run.output)
        assert "allowed: " in run.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--size", f"hidden={10**30}"),
        ("check", "--size", "hidden=1e3"),
        ("bench", "--batch", str(10**30)),
        ("bench", "--time", "-1"),
        ("bench", "--size", f"hidden=4,{10**30}"),
        ("bench", "--threshold", "nan"),
        ("bench", "--threshold", "-5%"),
        ("bench", "--threshold", "1e300"),
        ("train", "--size", "hidden=-1"),
        ("import", "--size", f"hidden={10**30}"),
    ],
)
def test_numbers_within_texts(arguments: tuple[str, ...]) -> None:
    command, *rest = arguments
    run = CliRunner().invoke(cli, [command, *REQUIRED[command], *rest])
    assert run.exit_code == 2, run.output
    assert "allowed: " in run.output


ENTRANCES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "check": (
        lambda **given: harness.check(SPEC, "numpy", **given),
        ("timeout", "memory_limit", "seed", "jobs"),
    ),
    "bench": (
        lambda **given: check_request(BenchRequest((SPEC,), ("numpy",), **given)),
        ("threads", "rounds", "seed", "timeout"),
    ),
    "train": (
        lambda **given: prepare(TrainRequest(SPEC, "numpy", **given)),
        ("epochs", "batch", "seed", "held_out", "every", "threads", "timeout"),
    ),
    "generate": (
        lambda **given: prepare_generation(
            GenerateRequest(SPEC, ("numpy",), Path("w"), "a", **given)
        ),
        ("length", "temperature", "top_k", "seed"),
    ),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_requests_from_python(entrance: str) -> None:
    enter, names = ENTRANCES[entrance]
    for name in names:
        for value in NEVER:
            optional = name in ("memory_limit", "epochs", "batch")
            if value is None and optional:
                continue
            with pytest.raises(UsageError, match=r"\(allowed: "):
                enter(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3", 2**31, None])
def test_sizes_from_python(value: Any, wording: Wording) -> None:
    for enter in (
        lambda: harness.check(SPEC, "numpy", sizes={"hidden": value}),
        lambda: prepare(TrainRequest(SPEC, "numpy", sizes={"hidden": value})),
        lambda: check_request(BenchRequest((SPEC,), ("numpy",), sizes={"hidden": (value,)})),
        lambda: check_request(BenchRequest((SPEC,), ("numpy",), batches=(value,))),
    ):
        with wording.raises(UsageError):
            enter()


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", SPEC, "--backend", "numpy", "--size", "hidden=2147483647"),
        ("bench", SPEC, "--backend", "numpy", "--batch", "2147483647"),
        ("bench", SPEC, "--backend", "numpy", "--time", "2147483647"),
        ("train", SPEC, "--backend", "numpy", "--size", "hidden=2147483647"),
    ],
)
def test_what_cannot_fit_is_told_before_memory_is_taken(arguments: tuple[str, ...]) -> None:
    run = subprocess.run([HARNESS, *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2, run.stderr
    assert re.search(r"GiB of memory or more|half of this machine's memory", run.stderr)
    assert "smaller sizes" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_size_that_is_given_twice(wording: Wording) -> None:
    with wording.raises(UsageError, "--size ... 'hidden' ... '4' ... '5'"):
        numbers(["hidden=4", "vocab=7", "hidden=5"])


@pytest.mark.parametrize("size", ["hidden", "vocab", "batch"])
def test_what_cannot_fit_costs_a_check_its_own_cells_only(size: str) -> None:
    command = [HARNESS, "check", SPEC, "--backend", "numpy", "--size", f"{size}=2147483647"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 3, run.stderr
    assert run.stdout.count("oracle: out-of-memory: the oracle needs ") == 2


def test_explain_needs_no_memory_for_large_sizes() -> None:
    run = subprocess.run(
        [HARNESS, "explain", SPEC, "--size", "hidden=2147483647"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "4,611,686,014,132,420,609" in run.stdout


def test_the_epochs_of_a_spec_are_bounded_too(tmp_path: Path) -> None:
    text = (SPECS / "models/lesson6/simple_rnn.yaml").read_text()
    path = tmp_path / "long.yaml"
    text = text.replace("model: lesson6/simple_rnn", "model: long")
    path.write_text(text.replace("epochs: 8,", "epochs: 1000000000,"))
    with pytest.raises(HarnessError, match="1000000000"):
        prepare(TrainRequest(str(path), "numpy"))


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-300, 1e-3, 1.0, 1e6])
def test_any_temperature_gives_a_character(temperature: float) -> None:
    import numpy as np

    request = GenerateRequest(SPEC, ("numpy",), Path("w"), "a", temperature=temperature)
    choose = chooser(request, 4)
    found = {choose(np.array([0.7, 0.0, 0.1, 0.2])) for _ in range(50)}
    assert found <= {2, 3}
    if temperature < 1e-3:
        assert found == {3}, "what is likeliest, as temperature 0 takes it"
