"""A port at its real size: the form of a large model, its file of weights, and one batch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.checking.own_model.process import ModelProcess
from harness.convert import weights
from harness.convert.agreement import Agreement, Batch, agreement
from harness.errors import UsageError, did_you_mean, shorten
from harness.files.user_file import displayed
from harness.porting.spec import PortedSpec, size_lines

# Numbers of a spec that may differ between a small and a large model.
NUMBER = re.compile(r"(?<![\w.])\d+(\.\d+)?(e[+-]?\d+)?(?![\w.])")
# The keys of a spec that name its model.
ABOUT = re.compile(r"^ *(-? *summary|source|model):.*$", re.MULTILINE)
SHOWN = 60


def check_form(small: PortedSpec, large: PortedSpec) -> None:
    """Check that the specs of two models differ in numbers only, so that the proof of the small
    model covers the equations of the large one.

    Raises:
        UsageError: something else differs, e.g. the number of stages.
    """
    texts = [ABOUT.sub("", _without_size_names(spec)) for spec in (small, large)]
    first, second = (NUMBER.sub("#", " ".join(text.split())) for text in texts)
    if first == second:
        return
    pairs = zip(first, second, strict=False)
    at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    shown = [text[max(0, at - SHOWN // 2) :][:SHOWN] for text in (first, second)]
    raise UsageError(
        "the small and the large model have different equations, so the proof of the small model "
        f"does not cover the large one: '{shown[0]}' (small), '{shown[1]}' (large; # is a number): "
        "give the small model the same layers, and at least two blocks where the large one repeats"
    )


def _without_size_names(spec: PortedSpec) -> str:
    """Return a spec's text with numbers in place of named sizes and of units like the input,
    because the same number may have a name in one of two models only."""
    numbers = {**spec.sizes, "units: features": "units: 0", "units: channels": "units: 0"}
    declared = size_lines(spec.sizes)
    words = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in numbers))
    text = "".join(line for line in spec.text.splitlines(True) if line.strip() not in declared)
    return words.sub(lambda word: str(numbers[word[0]]), text)


@dataclass(frozen=True)
class LoadedWeights:
    """The values of a file that a model now has. ``before`` are the model's own values, and
    ``differing`` the names of the arrays in which they differ from the file. If all of them differ,
    the model had random weights: then both are empty."""

    before: Arrays = field(default_factory=dict)
    differing: Sequence[str] = ()


def load_weights(process: ModelProcess, path: Path) -> LoadedWeights:
    """Set the arrays of the attached model to the values in a file, which has the model's names.

    Raises:
        UsageError: the file cannot be read, or has not all of the model's arrays.
    """
    own: Arrays = process.call("read_arrays")
    values = _read_file(process, path)
    _check_arrays(path, own, values)
    put = {n: np.asarray(values[n], a.dtype) for n, a in own.items()}
    equal = {n for n, array in put.items() if np.array_equal(array, own[n])}
    process.call("put_arrays", arrays=put)
    # Arrays of one value, such as biases of zeros, are often equal by chance.
    if not any(np.ptp(put[n]) > 0 for n in equal if put[n].size):
        return LoadedWeights()
    return LoadedWeights(own, [n for n in put if n not in equal])


def compare_batch(process: ModelProcess, batch: Batch) -> Agreement:
    """Compare the outputs of the attached model for one batch with the spec's."""

    def run(inputs: Arrays, state: Arrays) -> Arrays:
        outputs: Arrays = process.call("forward", phase="inference", inputs=inputs, state=state)
        return outputs

    return agreement([batch], "float32", run)


def _read_file(process: ModelProcess, path: Path) -> ArrayDict:
    if path.suffix == ".safetensors":
        return weights.load_plain(path, None)
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name.replace("/", "."): arrays[name] for name in arrays.files}
        # A damaged file may raise any exception.
        except Exception as error:
            reason = shorten(str(error), 200)
            raise UsageError(f"cannot read the weights {displayed(path)}: {reason}") from None
    if not path.is_file():
        raise UsageError(f"cannot read the weights {displayed(path)}: there is no such file")
    return dict(process.call("read_file", path=str(path.absolute())))


def _check_arrays(path: Path, own: Arrays, values: Arrays) -> None:
    problems = [
        f"it has no {name} {list(array.shape)}{did_you_mean(name, values)}"
        for name, array in own.items()
        if name not in values
    ]
    problems += [
        f"{name} is {list(values[name].shape)}, but {list(array.shape)} in the model"
        for name, array in own.items()
        if name in values and values[name].shape != array.shape
    ]
    if problems:
        raise UsageError(
            f"the weights {displayed(path)} do not fit the model: "
            f"{shorten('; '.join(problems), 600)}; give the model of this size with --large"
        )
