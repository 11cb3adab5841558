"""Weights as a file that every backend reads: safetensors, with what they are weights of.

The tensors have their neutral names (``rnn.W``). The header's metadata are strings: ``format``,
``spec`` and ``fingerprint`` as they are; ``sizes``, ``statistics`` (which tensors those are),
``vocabulary`` and ``history`` as JSON; and ``sha256``, first of all, of the whole file with zeros
in its own place, because safetensors itself would not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from harness.atomic import write_whole
from harness.errors import HarnessError, SpecError, did_you_mean
from harness.program import Node, Program

if TYPE_CHECKING:
    from harness.spec.lower import Spec

Array = npt.NDArray[Any]

FORMAT = "backend-comparison-harness weights 1"
# How a file starts, after the 8 bytes with the header's length; the checksum follows.
OPENING = b'{"__metadata__":{"sha256":"'
DIGEST = slice(8 + len(OPENING), 8 + len(OPENING) + 64)
ZEROS = "0" * 64
GIVE = "give a file that 'harness train' or 'harness import' wrote"
# What is not in a program's meaning: the model's name, numbers that the arrays decide, places in
# files, and the names of values, for messages; those of inputs and outputs are in the ports.
PROSE = {Program: {"name", "sizes", "names"}, Node: {"place"}}
MALFORMED = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class WeightsError(HarnessError):
    """Weights cannot be read or written, or are those of another model."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The arrays of a model that was trained, and what it needs to be run.

    ``sizes`` are the program's, as the arrays have them. ``parameters`` and ``statistics`` have
    neutral names, and are float32 or float64. ``vocabulary`` are the characters by index.
    ``history`` is plain JSON: how the weights came about.
    """

    spec: str
    fingerprint: str
    sizes: Mapping[str, int]
    parameters: Mapping[str, Array]
    statistics: Mapping[str, Array]
    vocabulary: tuple[str, ...] = ()
    history: Mapping[str, Any] = field(default_factory=dict)


def fingerprint(spec: Spec) -> str:
    """The sha256 (hex) of what a spec means.

    That is its programs at both phases, with the laws of the initial values and the loss, and its
    optimizer; not its sizes, comments and prose, nor the names of values inside a definition.
    """
    meaning = _meaning([spec.programs["training"], spec.programs["inference"], spec.update])
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def save(path: str | Path, weights: Weights) -> None:
    """Write weights, whole or not at all; the same weights give the same bytes.

    Raises:
        WeightsError: the file cannot be written, or cannot hold these weights.
    """
    content = _content(weights)
    try:
        write_whole(Path(path), content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WeightsError(f"cannot write the weights {str(path)!r}: {reason}") from None


def load(path: str | Path) -> Weights:
    """Read weights; their arrays are C-contiguous and may be written to.

    Raises:
        WeightsError: the file cannot be read, is no file of weights, or is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WeightsError(f"cannot read the weights {str(path)!r}: {reason}; {GIVE}") from None
    _check_bytes(str(path), data)
    try:
        return _weights(data)
    except MALFORMED as error:
        raise WeightsError(
            f"{str(path)!r} was not written as weights are: {type(error).__name__}, {error}; {GIVE}"
        ) from None


def check(weights: Weights, spec: Spec) -> None:
    """Check that weights are those of a spec, at the sizes that the weights have.

    Raises:
        WeightsError: they are another model's, or of another form of it; says all that differs.
    """
    if weights.spec != spec.name:
        raise WeightsError(
            f"these are weights of {weights.spec!r}, not of {spec.name!r}; "
            f"name that model, or make weights with 'harness train {spec.name}'"
        )
    found = list(_differences(weights, spec))
    now = fingerprint(spec)
    if weights.fingerprint != now:
        found.insert(
            0,
            f"its equations, layers, loss or optimizer have changed since (the fingerprint was "
            f"{weights.fingerprint[:12]}, now it is {now[:12]})",
        )
    if found:
        raise WeightsError(
            f"the weights do not fit {spec.name}: {'; '.join(found)}. Take the spec that they "
            f"were made with, or make others with 'harness train {spec.name}'"
        )


def _differences(weights: Weights, spec: Spec) -> Iterator[str]:
    """What of the sizes and the arrays is not as the spec has it."""
    known = spec.programs["training"].sizes
    missing = [name for name in known if name not in weights.sizes]
    if missing:
        yield f"they have no number for the size {', '.join(missing)}"
        return
    try:
        program = spec.program("training", **weights.sizes)
    except SpecError as error:
        yield error.message
        return
    for kind, ports, arrays in (
        ("parameter", program.parameters, weights.parameters),
        ("statistic", program.statistics, weights.statistics),
    ):
        shapes = {port.name: program.shape(port) for port in ports}
        for name, shape in shapes.items():
            if name not in arrays:
                yield f"{kind} {name!r} is missing"
            elif arrays[name].shape != shape:
                yield (
                    f"{kind} {name!r} has shape {list(arrays[name].shape)}, expected "
                    f"{list(shape)} at {', '.join(f'{n}={v}' for n, v in weights.sizes.items())}"
                )
        for name in arrays:
            if name not in shapes:
                yield f"{kind} {name!r} is unknown{did_you_mean(name, shapes)}"


def _content(weights: Weights) -> bytes:
    """The file of weights."""
    both = sorted(set(weights.parameters) & set(weights.statistics))
    if both:
        raise WeightsError(f"{both[0]!r} is both a parameter and a statistic")
    arrays = {**weights.parameters, **weights.statistics}
    try:
        metadata = {
            "sha256": ZEROS,
            "format": FORMAT,
            "spec": weights.spec,
            "fingerprint": weights.fingerprint,
            "sizes": json.dumps(dict(sorted(weights.sizes.items()))),
            "statistics": json.dumps(sorted(weights.statistics)),
            "vocabulary": json.dumps(weights.vocabulary),
            "history": json.dumps(dict(weights.history)),
        }
        data = to_safetensors({name: _plain(name, array) for name, array in arrays.items()})
    except MALFORMED as error:
        raise WeightsError(f"weights of {weights.spec!r} cannot be written: {error}") from None
    header, tensors = _split(data)
    # safetensors writes metadata in a random order, so that the bytes would differ each time.
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = bytearray(len(text).to_bytes(8, "little") + text + tensors)
    content[DIGEST] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def _plain(name: str, array: Array) -> Array:
    """The array as safetensors must have it: of any other order it stores wrong values."""
    found = np.asarray(array)
    if found.dtype.kind != "f" or found.dtype.itemsize not in (4, 8):
        raise WeightsError(f"{name!r} is {found.dtype}; weights are float32 or float64")
    if name == "__metadata__":
        raise WeightsError(f"no array can be named {name!r} in a safetensors file")
    # Not ascontiguousarray, which makes shape [] into [1].
    return np.asarray(found, order="C")


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _check_bytes(path: str, data: bytes) -> None:
    """:class:`WeightsError` for what is not a whole file as :func:`_content` makes it."""
    if data[8 : DIGEST.start] != OPENING:
        what = "it is empty" if not data else "it does not begin as they do"
        raise WeightsError(f"{path!r} is no file of weights, or damaged: {what}; {GIVE}")
    stated = data[DIGEST].decode("ascii", "replace")
    actual = hashlib.sha256(data[: DIGEST.start] + ZEROS.encode() + data[DIGEST.stop :])
    if stated != actual.hexdigest():
        raise WeightsError(
            f"the weights {path!r} are damaged or cut off: {len(data):,} bytes with sha256 "
            f"{actual.hexdigest()}, and their header says {stated}; take another copy, or {GIVE}"
        )


def _weights(data: bytes) -> Weights:
    """The weights in a file whose checksum is right; raises what :data:`MALFORMED` lists."""
    metadata = _split(data)[0]["__metadata__"]
    if metadata["format"] != FORMAT:
        raise ValueError(f"the format is {metadata['format']!r}, and only {FORMAT!r} is known")
    arrays = from_safetensors(data)
    moving = json.loads(metadata["statistics"])
    return Weights(
        metadata["spec"],
        metadata["fingerprint"],
        dict(json.loads(metadata["sizes"])),
        {name: array for name, array in arrays.items() if name not in moving},
        {name: arrays[name] for name in moving},
        tuple(json.loads(metadata["vocabulary"])),
        dict(json.loads(metadata["history"])),
    )


def _meaning(value: Any) -> Any:
    """What a program, or a part of one, says to do, as JSON with maps in any order."""
    if is_dataclass(value) and not isinstance(value, type):
        told = [f.name for f in fields(value) if f.name not in PROSE.get(type(value), ())]
        return [type(value).__name__, *(_meaning(getattr(value, name)) for name in told)]
    if isinstance(value, Mapping):
        return {str(key): _meaning(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_meaning(item) for item in value]
    return value
