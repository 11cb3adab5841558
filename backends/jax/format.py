"""The format ``jax``: weights in an npz file, and Python source with functions that use them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, read_array_header_1_0, read_array_header_2_0, read_magic

from harness.extend import Array, Arrays, Program, UsageError, hookimpl, shorten
from harness.extend.formats import (
    FLOATS,
    MAX_WEIGHTS,
    Archive,
    Damaged,
    Declared,
    Exported,
    Format,
    Script,
    archive,
    opened,
    read_arrays,
    reading,
    run_file,
    whole,
)
from harness.extend.program import index_names, local_of, owner_of
from harness.extend.source import literals, vetted

from . import platforms

if TYPE_CHECKING:
    import jax

# The largest size of an array's header in bytes; numpy's own limit is lower.
HEADER = 1 << 14


class JaxFormat(Format):
    """The implementation of the format ``jax``: a file of arrays with names such as ``rnn/W``, and
    Python source."""

    name = "jax"
    suffix = ".npz"

    def write(self, exported: Exported, path: Path) -> list[Path]:
        from .module import Writer
        from .primitives_export import WORDS

        arrays = {**exported.parameters, **exported.statistics}
        module = path.with_suffix(".py")
        source = vetted(Writer(exported, module.name).source(), WORDS, module.name)
        with whole(path) as new, new.open("wb") as file:
            named: dict[str, Any] = {_key(name): array for name, array in arrays.items()}
            np.savez(file, **named)
        with whole(module) as new:
            new.write_text(source, encoding="utf-8")
        return [path, module]

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        ports = (*training.parameters, *training.statistics)
        with _arrays(path) as declared:
            expected_shapes = {_key(port.name): training.shape(port) for port in ports}
            integers = {_key(name) for name in index_names(training)}
            arrays = read_arrays(path, declared, expected_shapes, integers)
        parameters = {port.name: arrays[_key(port.name)] for port in training.parameters}
        statistics = {port.name: arrays[_key(port.name)] for port in training.statistics}
        return parameters, statistics

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        from .primitives_export import WORDS

        with _arrays(path) as declared:
            dtypes = (a.dtype for a in declared.values() if a.dtype in FLOATS)
            dtype = np.dtype(next(dtypes, "float32"))
        cpu = platforms.start(jax, "cpu")  # otherwise, JAX would use a GPU
        jax.config.update("jax_enable_x64", dtype == np.float64)
        file = run_file(path.with_suffix(".py"), WORDS)

        kinds: dict[str, Any] = {"f": dtype, "b": bool}

        def array(numbers: Array) -> Array:
            return numbers.astype(kinds.get(numbers.dtype.kind, np.int32))

        arguments: list[Any] = [array(inputs[name]) for name in file.INPUTS]
        if file.STATE:
            arguments.append({name: array(state[name]) for name in file.STATE})
        with jax.default_device(cpu), jax.default_matmul_precision("highest"):
            loaded = file.load(path)
            loaded = loaded if isinstance(loaded, tuple) else (loaded,)
            result = jax.jit(file.apply)(*loaded, *arguments)
        results, after = result if file.STATE else (result, {})
        by_name = {f"output.{n}": a for n, a in results.items()}
        by_name |= {f"state.{n}": a for n, a in after.items()}
        return {n: np.array(a) for n, a in by_name.items()}

    def script(self, path: Path, exported: Exported, gradients: Arrays) -> Script:
        from .module import Writer
        from .primitives_export import SCRIPT, WORDS

        module = path.with_suffix(".py")
        writer = Writer(exported, module.name)
        source = vetted(writer.source(), WORDS, module.name)
        # The source does not import jax if all its functions are in jax.numpy.
        module_text = source if "\nimport jax\n" in source else f"{source}\nimport jax\n"
        wide, weights = exported.dtype == "float64", literals.text(path.name)
        options = {"weights": weights, "dtype": exported.dtype, "loaded": writer.loaded}
        text = SCRIPT.format(wide=wide, **options)
        return Script(module_text, text, gradients)

    def versions(self) -> Mapping[str, str]:
        return {**super().versions(), "jax": version("jax"), "jaxlib": version("jaxlib")}


def _key(name: str) -> str:
    return f"{owner_of(name)}/{local_of(name)}"


@contextmanager
def _arrays(path: Path) -> Iterator[dict[str, Declared]]:
    hint = "write one with numpy.savez, with keys such as rnn/W"
    with reading(path, "an npz file", hint), opened(path, MAX_WEIGHTS, "an npz file") as file:
        if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
            raise UsageError(f"{path} is a single array; expected an npz file of named arrays")
    with reading(path, "an npz file", hint), archive(path, "an npz file") as parts:
        yield {name.removesuffix(".npy"): _declared(parts, name) for name in parts.names}


def _declared(parts: Archive, name: str) -> Declared:
    """Read the header of the array ``name`` in an archive; return its shape and dtype, and a
    function that loads the array."""
    head = io.BytesIO(parts.start(name, HEADER))
    try:
        version = read_magic(head)
        reader = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[version]
        shape, is_fortran, dtype = reader(head)
    # A header is Python text: a damaged one can raise any exception.
    except Exception as error:
        raise Damaged(f"{shorten(name)} has no valid array header: {error}") from None
    if dtype.hasobject:
        raise Damaged(f"{shorten(name)} contains Python objects, which are never read")
    start = head.tell()

    def load() -> Array:
        count = math.prod(shape)
        data = parts.part(name, start + count * dtype.itemsize)
        try:
            numbers = np.frombuffer(data, dtype, count, start)
        except ValueError as error:
            raise Damaged(f"{shorten(name)} is truncated: {error}") from None
        ordered = numbers.reshape(shape, order="F" if is_fortran else "C")
        return ordered.astype(dtype.newbyteorder("="))

    return Declared(tuple(shape), str(dtype.newbyteorder("=")), load)


@hookimpl
def harness_format(name: str) -> Format:
    # Import here, because listing the formats must be fast.
    global jax
    import jax

    return JaxFormat()
