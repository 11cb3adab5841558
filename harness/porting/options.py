"""The options of ``port``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import KEEP, PRINT, option
from harness.command.ranges import CALL_SECONDS


@dataclass(frozen=True)
class PortRequest:
    """The options of a port."""

    model: str = option(
        "", "Model: FILE.py:NAME, or a file with a whole model.", word="model", kind="file"
    )
    inputs: tuple[str, ...] = option(
        (),
        "Input of the model: NAME=LENGTHS, such as x=batch,3,32,32, or ids=batch,time:86 for "
        "integers below 86. Names are free sizes. Default: the inputs in the model's config.",
        word="--input",
        metavar="NAME=LENGTHS",
    )
    formats: tuple[str, ...] = option(
        (), "Also write code: torch, keras, jax or onnx.", word="--to", kind="format"
    )
    output: Path = shared.output("Folder to write. Default: port.", default=Path("port"))
    name: str | None = option(None, "Name of the spec. Default: the name of the model's class.")
    weights: Path | None = option(
        None,
        "File with the values of the model's weights, by the model's names: .safetensors, .npz, "
        ".pt, .keras or .onnx. Default: the model's own values.",
    )
    large: str | None = option(
        None,
        "Model to port, if MODEL is a small one of the same form for the proof: FILE.py:NAME.",
        kind="file",
    )
    large_inputs: tuple[str, ...] = option(
        (),
        "Input of the large model, if its lengths differ from --input.",
        word="--large-input",
        metavar="NAME=LENGTHS",
    )
    loss: str | None = option(
        None,
        "Loss of the spec, such as sparse_cross_entropy. Three steps of SGD and Adam are compared.",
        kind="loss",
    )
    backend: str | None = option(
        None,
        "Framework of the model. Default: the framework that its file imports.",
        kind="backend",
    )
    checked: tuple[str, ...] = option(
        (),
        "Backends that check the spec. Default: all that are installed.",
        word="--check-on",
        kind="backend",
    )
    python: str | None = shared.python()
    timeout: float = shared.timeout(CALL_SECONDS)
    force: bool = option(
        False,
        "Also write a spec that is not proved; replace files of an earlier port.",
        section=KEEP,
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class PortOptions(PortRequest):
    """Write a spec of a model, with proof that both compute the same.

    The command traces the model, writes a spec, its weights and the map of names, and compares the
    outputs and all gradients of the spec and the model. With --to, it also writes code for other
    frameworks and compares its outputs and gradients with the spec.

    The exit code is 0 if everything agrees, 1 if something differs (then nothing is written without
    --force), 2 for wrong usage or a model that cannot be ported, and 3 if a check could not run.
    """

    operators: bool = option(
        False, "List the operators that have a rule, by framework.", section=PRINT
    )
    as_json: bool = shared.as_json()
