"""Numbers of a user's own, in the place of those that would be drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.errors import UsageError
from harness.language.axes import FREE_SIZES
from harness.language.initial_values import started
from harness.language.model import Spec
from harness.program.ir import Port, Program
from harness.program.signature import (
    batch_ports,
    check_arrays,
    check_batch,
    noise_ports,
    port_shapes,
)
from harness.runtime.answers import NUMBERS, Arguments

# What is not given of a batch: nothing at all of a group.
Numbers = Mapping[str, Any] | None
# Arrays by name, or a file of them.
Source = Mapping[str, Any] | str | Path | None


@dataclass(frozen=True, eq=False)
class Given:
    """What is given of a spec's arguments; a group that is not given is empty.

    Arrays are float64, or int64 indices, and fit the program at ``sizes``. ``batch`` and ``time``
    are those of the arrays, None where no array has such an axis. ``files`` are the files that
    they came from, by option of the command line.
    """

    spec: str
    sizes: Mapping[str, int]
    arrays: Arguments
    batch: int | None = None
    time: int | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def over(self, drawn: Arguments, program: Program) -> Arguments:
        """These numbers in the place of those that were drawn. State is as before the first batch
        where inputs are given without it."""
        found = {group: array or getattr(drawn, group) for group, array in self.groups().items()}
        # Of inputs that are given only noise may be left out.
        found["inputs"] = {**drawn.inputs, **self.arrays.inputs}
        if self.arrays.inputs and not self.arrays.state:
            found["state"] = started(program, drawn.state)
        return Arguments(**found)

    @property
    def digests(self) -> dict[str, str]:
        """By group, the sha256 (hex) of its arrays: of names, dtypes, shapes and bytes in C order,
        sorted by name. The same numbers have the same, whatever file they came in."""
        return {group: digest_of(arrays) for group, arrays in self.groups().items() if arrays}

    @property
    def decides_forward(self) -> bool:
        """Whether nothing is left to be drawn that a forward pass depends on."""
        return bool(self.arrays.parameters and self.arrays.inputs)

    def groups(self) -> dict[str, ArrayDict]:
        """All groups by name, those that are not given too."""
        return {f.name: getattr(self.arrays, f.name) for f in fields(Arguments)}


def given_numbers(
    spec: Spec,
    sizes: Mapping[str, int],
    *,
    parameters: Numbers = None,
    statistics: Numbers = None,
    inputs: Numbers = None,
    state: Numbers = None,
    targets: Numbers = None,
    files: Mapping[str, Path] | None = None,
) -> Given:
    """Arrays by name, or whatever numpy makes arrays of, checked against a spec.

    ``sizes`` are those that differ from the spec's; batch and time are those of the arrays. Of a
    group all arrays are given, or none (None); noise among the inputs may be left out.

    Raises:
        UsageError: a name is unknown or missing, an array has another shape or is none of numbers,
            an index is out of range, or two arrays have different batches or lengths.
        SpecError: the spec has no size of that name.
    """
    own = {n: size for n, size in sizes.items() if n not in FREE_SIZES}
    program = spec.program("training", **own)
    kept: dict[str, ArrayDict] = {}
    for group, ports, numbers in (
        ("parameter", program.parameters, parameters),
        ("statistic", program.statistics, statistics),
    ):
        kept[group] = {}
        if numbers is not None:
            kept[group] = _arrays(group, program, ports, numbers)
            _check_kept(group, program, ports, kept[group])
    batch = {
        group: _arrays(group, program, batch_ports(program)[group], numbers)
        for group, numbers in (("input", inputs), ("state", state), ("target", targets))
        if numbers is not None
    }
    bound = check_batch(_without_missing_noise(program, batch.get("input")), batch)
    for name in FREE_SIZES:
        if name in sizes and bound.get(name, sizes[name]) != sizes[name]:
            raise UsageError(
                f"the arrays have {name} {bound[name]}, and {name}={sizes[name]} is asked for: "
                "leave it out"
            )
    chosen = {n: bound.get(n, sizes.get(n)) for n in FREE_SIZES}
    return Given(
        spec.name,
        dict(program.sizes),
        Arguments(
            kept["parameter"],
            kept["statistic"],
            *(
                {n: a.astype(np.int64) if a.dtype.kind in "iu" else a for n, a in own.items()}
                for own in (batch.get(group, {}) for group in batch_ports(program))
            ),
        ),
        chosen["batch"],
        chosen["time"],
        dict(files or {}),
    )


def _without_missing_noise(program: Program, inputs: ArrayDict | None) -> Program:
    """The program without noise that is left to be drawn, where other inputs are given."""
    if inputs is None:
        return program
    left = {port.name for port in noise_ports(program)} - inputs.keys()
    return replace(program, inputs=tuple(p for p in program.inputs if p.name not in left))


def _arrays(group: str, program: Program, ports: Sequence[Port], numbers: Any) -> ArrayDict:
    """Arrays by name: float64 where the port holds floats, and else as they are.

    Raises:
        UsageError: these are not arrays of numbers by name.
    """
    if not isinstance(numbers, Mapping):
        raise UsageError(f"{group}s are arrays by name, found {type(numbers).__name__}")
    floats = {port.name for port in ports if program.type_of(port).kind == "float"}
    found: ArrayDict = {}
    for name, value in numbers.items():
        try:
            array = np.asarray(value)
        except ValueError as error:  # lists of different lengths
            raise UsageError(f"{group} {name!r} is not an array: {error}") from None
        if array.dtype.kind not in NUMBERS:
            raise UsageError(f"{group} {name!r} is not an array of numbers, found {array.dtype}")
        found[name] = array.astype(np.float64) if name in floats else array
    return found


def _check_kept(group: str, program: Program, ports: Sequence[Port], arrays: ArrayDict) -> None:
    try:
        check_arrays(group, port_shapes(program, ports), arrays)
    except UsageError as error:
        at = ", ".join(f"{name}={size}" for name, size in program.sizes.items())
        raise UsageError(f"{error} (at {at}: give other sizes if they are others)") from None


def digest_of(arrays: Arrays) -> str:
    """The sha256 (hex) of arrays: of names, dtypes, shapes and bytes in C order, sorted by name."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
