"""Weights as an npz file of JAX, with functions in Python source beside it that take them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.convert.checked import check_arrays
from harness.convert.generated import run_file
from harness.errors import UsageError
from harness.formats import Array, Arrays, Exported, Format, whole
from harness.hookspecs import hookimpl
from harness.program import Program

if TYPE_CHECKING:
    import jax


class JaxFormat(Format):
    """``NAME.npz``, arrays by path (``rnn/W``), and ``NAME.py``, source that imports JAX alone."""

    name = "jax"
    suffix = ".npz"

    def write(self, exported: Exported, path: Path) -> list[Path]:
        from .jax_module import Writer

        arrays = {**exported.parameters, **exported.statistics}
        module = path.with_suffix(".py")
        with whole(path) as new, new.open("wb") as file:
            named: dict[str, Any] = {_key(name): array for name, array in arrays.items()}
            np.savez(file, **named)
        with whole(module) as new:
            new.write_text(Writer(exported, module.name).source(), encoding="utf-8")
        return [path, module]

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        found = _load(path)
        ports = (*training.parameters, *training.statistics)
        check_arrays(path, found, {_key(port.name): training.shape(port) for port in ports})
        parameters = {port.name: found[_key(port.name)] for port in training.parameters}
        statistics = {port.name: found[_key(port.name)] for port in training.statistics}
        return parameters, statistics

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        dtype = next((a.dtype for a in _load(path).values()), np.dtype("float32"))
        jax.config.update("jax_enable_x64", dtype == np.float64)
        file = run_file(path.with_suffix(".py"))

        def array(given: Array) -> Array:
            return given.astype(dtype) if given.dtype.kind == "f" else given.astype(np.int32)

        given: list[Any] = [array(inputs[name]) for name in file.INPUTS]
        if file.STATE:
            given.append({name: array(state[name]) for name in file.STATE})
        with jax.default_matmul_precision("highest"):
            made = jax.jit(file.apply)(file.load(path), *given)
        results, after = made if file.STATE else (made, {})
        found = {f"output.{n}": a for n, a in results.items()}
        found |= {f"state.{n}": a for n, a in after.items()}
        return {n: np.array(a) for n, a in found.items()}

    def versions(self) -> Mapping[str, str]:
        return {**super().versions(), "jax": version("jax"), "jaxlib": version("jaxlib")}


def _key(name: str) -> str:
    return name.replace(".", "/")


def _load(path: Path) -> dict[str, Array]:
    """The arrays of an npz file by key."""
    try:
        found = np.load(path, allow_pickle=False)
        single = isinstance(found, np.ndarray)
        arrays = {} if single else {key: np.array(found[key], order="C") for key in found.files}
    except Exception as error:  # bytes that are no archive make the reader raise anything
        raise UsageError(
            f"{path} cannot be read as an npz file: {error}; write one with numpy.savez, its keys "
            "as in rnn/W"
        ) from error
    if single:
        raise UsageError(f"{path} is one array; an npz file with arrays by name is wanted")
    found.close()
    return arrays


@hookimpl
def harness_format(name: str) -> Format:
    # Imported here and not above: listing formats must stay cheap.
    global jax
    import jax

    return JaxFormat()
