"""What of a backend nobody will ever call is told, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from installed_plugins import install_plugin
from wording import Wording

from harness.backends.numpy.backend import Numpy
from harness.cli import cli
from harness.errors import UsageError
from harness.runtime import service
from harness.runtime.backend import misspelling_warnings
from harness.runtime.plugins import available
from harness.worker.launch import Launch
from harness.worker.worker import Worker

PLUGIN = """
from harness.extend import hookimpl
from harness.runtime import plugins

@hookimpl
def harness_backend(name):
    right = type(plugins.load("numpy"))

    class Misspelt(right):
        name = "misspelt"

        def value_and_gradients(self, function):
            return None

        @property
        def primitives(self):
            return {**super().primitives, "tahn": max}

    return Misspelt()
"""


class Misspelt(Numpy):
    """Names that are nearly those of the contract, and helpers of its own."""

    name = "misspelt"
    fused: Mapping[str, Any] = {"sigmoyd": max}

    def value_and_gradients(self, function: Any) -> None: ...

    def flush_denormal(self) -> None: ...

    def tensors(self) -> None: ...

    def my_own_helper(self) -> None: ...


def test_near_misses_are_told_and_helpers_are_not(wording: Wording) -> None:
    told = misspelling_warnings(Misspelt())
    wording(
        told,
        "'flush_denormal' ... 'flush_denormals' ... 'value_and_gradients'"
        " ... 'value_and_gradient' ... 'sigmoyd' ... 'sigmoid'",
    )
    assert misspelling_warnings(object()) == []


def test_a_misspelt_primitive_is_told_with_what_is_lacking(wording: Wording) -> None:
    class Lacking(Numpy):
        name = "lacking"

        @property
        def primitives(self) -> Mapping[str, Any]:
            table = dict(super().primitives)
            return {"tahn": table.pop("tanh"), **table}

    with wording.raises(UsageError, "; 'tahn' ... 'tanh'"):
        service.handler(Lacking())


# But flax, which is tested in an environment of its own.
OWN = {n for n, o in available().items() if o.module.startswith("harness.backends.")}
SHIPPED = sorted(OWN - {"flax"})


@pytest.mark.parametrize("name", SHIPPED)
def test_the_backends_that_ship_have_none(name: str) -> None:
    with Worker(Launch(name)) as worker:
        started = worker.start()
        assert started.ok, started.cause
        assert (worker.hello or {})["doubts"] == []


def test_a_check_and_a_training_say_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(monkeypatch, tmp_path, "harness_misspelt", PLUGIN, "misspelt")
    words = ["--backend", "misspelt", "--size", "hidden=5"]
    for command in (
        ["check", "lesson6/simple_rnn", "--check", "inference"],
        ["train", "lesson6/simple_rnn", "--epochs", "1", "--batch", "2000"],
    ):
        run = CliRunner().invoke(cli, [*command, *words])
        assert run.exit_code == 0, run.output
        for told in (
            "misspelt: 'value_and_gradients' is not a method of a backend, so it is "
            "never called; did you",
            "misspelt: 'tahn' in the table of primitives is not an operation, so it is "
            "never called",
        ):
            assert run.output.count(told) == 1, run.output
