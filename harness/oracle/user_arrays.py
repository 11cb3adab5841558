"""The user's own arrays (parameters, inputs, targets), which replace the random test arrays."""

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
from harness.language.initial_values import listed_constants, reset_state
from harness.language.model import Spec
from harness.program.ir import Port, Program
from harness.program.signature import (
    batch_ports,
    check_arrays,
    check_batch,
    check_entries,
    noise_ports,
    port_shapes,
)
from harness.runtime.answers import NUMBERS, Arguments

# The user's arrays of a group (e.g. the parameters) by name; None if the user gives no arrays.
Numbers = Mapping[str, Any] | None
# Arrays by name, or the path of a file that holds them.
Source = Mapping[str, Any] | str | Path | None


@dataclass(frozen=True, eq=False)
class UserArrays:
    """The user's arrays for a spec, in groups (e.g. parameters). If the user gave no array of a
    group, the group is empty.

    Arrays are float64, int64 (indices) or bool (masks), and their shapes fit the spec at ``sizes``.
    ``batch`` and ``time`` are the sizes of the arrays. If no array has such an axis, they are the
    sizes that the user asked for, or None. ``files`` maps options of the command line, e.g.
    ``--weights``, to the files of the arrays.
    """

    spec: str
    sizes: Mapping[str, int]
    arrays: Arguments
    batch: int | None = None
    time: int | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def over(self, drawn: Arguments, program: Program) -> Arguments:
        """Return the arrays ``drawn`` for a program, with the user's arrays in place of the drawn
        arrays of the same group. If the user gives inputs but no state, the state is the initial
        state."""
        groups = {group: array or getattr(drawn, group) for group, array in self.groups().items()}
        # Inputs of the user may lack the noise, which is then drawn.
        groups["inputs"] = {**drawn.inputs, **self.arrays.inputs}
        if self.arrays.inputs and not self.arrays.state:
            groups["state"] = reset_state(program, drawn.state)
        return Arguments(**groups)

    @property
    def digests(self) -> dict[str, str]:
        """A dictionary from the name of each group that the user gave, e.g. ``parameters``, to the
        sha256 checksum (hexadecimal) of its arrays; see :func:`digest_of`."""
        return {group: digest_of(arrays) for group, arrays in self.groups().items() if arrays}

    @property
    def decides_forward(self) -> bool:
        """True if the user gives parameters and inputs, which together determine the results of a
        forward pass."""
        return bool(self.arrays.parameters and self.arrays.inputs)

    def groups(self) -> dict[str, ArrayDict]:
        """Return the user's arrays: group (e.g. ``parameters``) -> name -> array. If the user gave
        no array of a group, its dictionary is empty."""
        return {f.name: getattr(self.arrays, f.name) for f in fields(Arguments)}


def check_user_arrays(
    spec: Spec,
    sizes: Mapping[str, int],
    *,
    parameters: Numbers = None,
    statistics: Numbers = None,
    inputs: Numbers = None,
    state: Numbers = None,
    targets: Numbers = None,
    files: Mapping[str, Path] | None = None,
) -> UserArrays:
    """Check the user's arrays against a spec, and convert them to a :class:`UserArrays`.

    Each group (``parameters``, ``inputs`` etc.) maps names to values that numpy can convert to
    arrays. A group must be None or complete, except that random noise may be missing from the
    inputs, and constants with a ``value`` in the spec from the statistics. ``sizes`` has the sizes
    that differ from the spec. The arrays determine the sizes batch and time.

    Raises:
        UsageError: a name is unknown or missing, an array has a wrong shape or does not contain
            numbers, an index is out of range, or two arrays have different batch sizes or lengths.
        SpecError: the spec has no size with a name in ``sizes``.
    """
    model_sizes = {n: size for n, size in sizes.items() if n not in FREE_SIZES}
    program = spec.program("training", **model_sizes)
    weights = _weights("parameter", program, program.parameters, parameters)
    constants = listed_constants(program)
    buffers = _weights("statistic", program, program.statistics, statistics, constants)
    batch = {
        group: _arrays(group, program, batch_ports(program)[group], numbers)
        for group, numbers in (("input", inputs), ("state", state), ("target", targets))
        if numbers is not None
    }
    array_sizes = check_batch(_without_missing_noise(program, batch.get("input")), batch)
    for name in FREE_SIZES:
        if name in sizes and array_sizes.get(name, sizes[name]) != sizes[name]:
            raise UsageError(
                f"the arrays have {name} {array_sizes[name]}, but {name}={sizes[name]} was given: "
                "omit this size"
            )
    free_sizes = {n: array_sizes.get(n, sizes.get(n)) for n in FREE_SIZES}
    return UserArrays(
        spec.name,
        dict(program.sizes),
        Arguments(
            weights,
            buffers,
            *(
                {n: a.astype(np.int64) if a.dtype.kind in "iu" else a for n, a in arrays.items()}
                for arrays in (batch.get(group, {}) for group in batch_ports(program))
            ),
        ),
        free_sizes["batch"],
        free_sizes["time"],
        dict(files or {}),
    )


def _weights(
    group: str,
    program: Program,
    ports: Sequence[Port],
    numbers: Numbers,
    defaults: Arrays | None = None,
) -> ArrayDict:
    """Check the arrays of one group that has no batch axis. Return them with the arrays of
    ``defaults`` that are missing, or an empty dictionary if ``numbers`` is None."""
    if numbers is None:
        return {}
    arrays = {**(defaults or {}), **_arrays(group, program, ports, numbers)}
    _check_shapes(group, program, ports, arrays)
    for port in ports:
        check_entries(program, port, f"{group} {port.name}", arrays[port.name], {})
    return arrays


def _without_missing_noise(program: Program, inputs: ArrayDict | None) -> Program:
    """Return the program without those inputs of random noise for which the user gives no array. If
    the user gives no inputs at all, return the program unchanged."""
    if inputs is None:
        return program
    missing = {port.name for port in noise_ports(program)} - inputs.keys()
    return replace(program, inputs=tuple(p for p in program.inputs if p.name not in missing))


def _arrays(group: str, program: Program, ports: Sequence[Port], numbers: Any) -> ArrayDict:
    """Convert the values of one group to a dictionary from name to array. The arrays of float ports
    are float64; all other arrays keep their dtype.

    Raises:
        UsageError: ``numbers`` is not a mapping from names to arrays of numbers.
    """
    if not isinstance(numbers, Mapping):
        raise UsageError(
            f"{group}s must be a mapping from names to arrays, found {type(numbers).__name__}"
        )
    floats = {port.name for port in ports if program.type_of(port).kind == "float"}
    arrays: ArrayDict = {}
    for name, value in numbers.items():
        try:
            array = np.asarray(value)
        except ValueError as error:  # lists of different lengths
            raise UsageError(f"{group} {name!r} is not an array: {error}") from None
        if array.dtype.kind not in NUMBERS:
            raise UsageError(f"{group} {name!r} is not an array of numbers, found {array.dtype}")
        arrays[name] = array.astype(np.float64) if name in floats else array
    return arrays


def _check_shapes(group: str, program: Program, ports: Sequence[Port], arrays: ArrayDict) -> None:
    try:
        check_arrays(group, port_shapes(program, ports), arrays)
    except UsageError as error:
        sizes = ", ".join(f"{name}={size}" for name, size in program.sizes.items())
        raise UsageError(
            f"{error} (at {sizes}: if the arrays have other sizes, give these sizes)"
        ) from None


def digest_of(arrays: Arrays) -> str:
    """Return the sha256 checksum (hexadecimal) of arrays: of their names, dtypes, shapes and bytes
    (in C order)."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
