"""Readers of a user's arrays, from Python mappings, weight files and ``.npz`` files with a
batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.arrays import ArrayDict, Arrays
from harness.convert import weights
from harness.errors import UsageError
from harness.files.npz import read_npz
from harness.files.user_file import MAX_INPUTS, FileFault, displayed, read_bytes
from harness.language.model import Spec, load_spec
from harness.oracle.user_arrays import Numbers, Source, UserArrays, check_user_arrays
from harness.program.signature import group_of, index_names

# In a file of inputs, the names of states and targets have these prefixes. Names of inputs have no
# prefix.
STATE, TARGET = "state.", "target."


def gather(
    spec: Spec,
    sizes: Mapping[str, int],
    *,
    parameters: Source = None,
    inputs: Source = None,
    state: Numbers = None,
    targets: Numbers = None,
) -> UserArrays:
    """Read a user's arrays from mappings and files, and check that they fit a spec.

    ``sizes`` has sizes that replace the spec's own sizes. ``parameters`` must include all moving
    statistics or none. A weight file from ``harness train`` also states sizes, which are used too.
    If ``inputs`` is a file, it may also contain arrays named ``state.NAME`` and ``target.NAME``.

    Raises:
        UsageError: the user gave a group of arrays or a size twice, or a file of inputs cannot be
            read.
        HarnessError: another file cannot be read, or the arrays do not fit the spec, as in
            :func:`~harness.oracle.user_arrays.check_user_arrays`.
    """
    files = {
        option: Path(source)
        for option, source in (("--weights", parameters), ("--inputs", inputs))
        if isinstance(source, str | Path)
    }
    own_sizes, arrays = _read_parameters(spec, parameters)
    for name, size in own_sizes.items():
        if sizes.get(name, size) != size:
            raise UsageError(
                f"the weights have {name}={size}, but the size {name}={sizes[name]} was given: "
                "leave this size out"
            )
    if isinstance(inputs, str | Path):
        inputs, state, targets = _read_batch(spec, inputs, state, targets)
    statistic_names = [port.name for port in spec.programs["training"].statistics]
    statistics = {n: arrays[n] for n in statistic_names if n in arrays} if arrays else None
    parameter_arrays = (
        {n: a for n, a in arrays.items() if n not in statistic_names}
        if arrays is not None
        else None
    )
    return check_user_arrays(
        spec,
        {**own_sizes, **sizes},
        parameters=parameter_arrays,
        statistics=statistics or None,
        inputs=inputs,
        state=state,
        targets=targets,
        files=files,
    )


def _read_batch(
    spec: Spec, path: str | Path, state: Numbers, targets: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Return the inputs, the state and the targets of a file. ``state`` and ``targets`` are given
    separately; the file must not have them, too."""
    arrays = read_inputs(path)
    for group, prefix, given in (("state", STATE, state), ("targets", TARGET, targets)):
        if given is not None and group_of(arrays, prefix):
            raise UsageError(f"{group} are given twice: separately and in the file of inputs")
    inputs = {n: a for n, a in arrays.items() if not n.startswith((STATE, TARGET))}
    _check_prefixes(spec, inputs)
    return (
        inputs,
        state if state is not None else group_of(arrays, STATE) or None,
        targets if targets is not None else group_of(arrays, TARGET) or None,
    )


def gather_for(
    specs: Sequence[str],
    folders: Sequence[str | Path],
    sizes: Mapping[str, int],
    texts: Mapping[str, str] = MappingProxyType({}),
    **sources: Any,
) -> UserArrays | None:
    """Read a user's arrays for a request that must have exactly one spec. Return None if the user
    gave no arrays. ``sources`` are the arrays and files, with the argument names of :func:`gather`.
    ``texts`` has the YAML of traced specs by name.

    Raises:
        UsageError: the request does not have exactly one spec.
        HarnessError: a file cannot be read, or the arrays do not fit the spec.
    """
    if all(source is None for source in sources.values()):
        return None
    if len(specs) != 1:
        found_text = f"found {', '.join(map(str, specs))}" if specs else "found none"
        raise UsageError(f"weights and inputs need exactly one spec: name one; {found_text}")
    overrides = {("model", name): text for name, text in texts.items()}
    return gather(load_spec(specs[0], folders, overrides), sizes, **sources)


def read_inputs(path: str | Path) -> ArrayDict:
    """Return the arrays of an ``.npz`` file by name. Both the file and the uncompressed arrays may
    have at most :data:`MAX_INPUTS` bytes.

    Raises:
        UsageError: the file cannot be read, or contains anything but numeric arrays.
    """
    try:
        return read_npz(read_bytes(path, MAX_INPUTS, "inputs"), MAX_INPUTS)
    except FileFault as fault:
        raise UsageError(f"cannot read the inputs {displayed(path)!r}: {fault.reason}") from None
    except ValueError as error:
        raise UsageError(
            f"{displayed(path)!r} is not a file of inputs: {error}; write it with numpy.savez"
        ) from None


def _check_prefixes(spec: Spec, inputs: Arrays) -> None:
    """Raise :class:`UsageError` if an array in a file of inputs has the name of a target or state
    without the prefix ``target.`` or ``state.``. The user has probably forgotten the prefix."""
    program = spec.programs["training"]
    input_names = {port.name for port in program.inputs}
    for prefix, ports in ((STATE, program.state), (TARGET, program.targets)):
        for name in (port.name for port in ports if port.name in inputs.keys() - input_names):
            raise UsageError(
                f"unknown input {name!r}: {name} is a {prefix[:-1]} of {spec.name}; in a file of "
                f"inputs name it {prefix}{name}"
            )


def _read_parameters(spec: Spec, source: Source) -> tuple[Mapping[str, int], Any]:
    """Return two things: the sizes that a weight file declares, and the arrays of all parameters
    and statistics by name. The sizes are empty if ``source`` is not a weight file of the harness.
    """
    if not isinstance(source, str | Path):
        return {}, source
    if weights.is_plain(source):
        return {}, weights.load_plain(source, index_names(spec.programs["training"]))
    weights_file = weights.load(source)
    weights.check(weights_file, spec)
    return weights_file.sizes, {**weights_file.parameters, **weights_file.statistics}
