"""Numbers given by the user, in place of drawn ones."""

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

# Arrays of a group by name; None if the user gives none.
Numbers = Mapping[str, Any] | None
# Arrays by name, or a file of them.
Source = Mapping[str, Any] | str | Path | None


@dataclass(frozen=True, eq=False)
class Given:
    """The user's numbers for a spec's arguments; a group that is not given is empty.

    Arrays are float64, int64 (indices) or bool (masks), and fit the program at ``sizes``. ``batch``
    and ``time`` come from the arrays, or are the wanted sizes; None if neither says. ``files`` maps
    options of the command line to the files of the arrays.
    """

    spec: str
    sizes: Mapping[str, int]
    arrays: Arguments
    batch: int | None = None
    time: int | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def over(self, drawn: Arguments, program: Program) -> Arguments:
        """Return the drawn numbers with the given ones in their place. If inputs are given without
        a state, the state is that before the first batch."""
        found = {group: array or getattr(drawn, group) for group, array in self.groups().items()}
        # Only noise may be missing among given inputs.
        found["inputs"] = {**drawn.inputs, **self.arrays.inputs}
        if self.arrays.inputs and not self.arrays.state:
            found["state"] = started(program, drawn.state)
        return Arguments(**found)

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 (hex) of each given group; see :func:`digest_of`. The source file does not
        matter."""
        return {group: digest_of(arrays) for group, arrays in self.groups().items() if arrays}

    @property
    def decides_forward(self) -> bool:
        """True if parameters and inputs are given: a forward pass then needs no drawn numbers."""
        return bool(self.arrays.parameters and self.arrays.inputs)

    def groups(self) -> dict[str, ArrayDict]:
        """Return all groups by name, also those that are not given."""
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
    """Check the user's arrays by name against a spec, and return them.

    Values may be anything that numpy converts. ``sizes`` are those that differ from the spec's;
    batch and time come from the arrays. A group is given whole or not at all (None); only noise may
    be missing among the inputs.

    Raises:
        UsageError: a name is unknown or missing, an array has another shape or holds no numbers,
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
    """Return the program without the noise that is still to be drawn, if other inputs are given."""
    if inputs is None:
        return program
    left = {port.name for port in noise_ports(program)} - inputs.keys()
    return replace(program, inputs=tuple(p for p in program.inputs if p.name not in left))


def _arrays(group: str, program: Program, ports: Sequence[Port], numbers: Any) -> ArrayDict:
    """Convert values to arrays: float64 for ports of floats, others as they are.

    Raises:
        UsageError: the values are not arrays of numbers by name.
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
    """Return the sha256 (hex) of arrays by name: names, dtypes, shapes and bytes in C order."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
