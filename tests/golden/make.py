"""Writes the golden vectors anew: ``python tests/golden/make.py``. Run by hand, never by a test.

Needs torch, keras, jax, optax, onnx and onnxruntime in one environment. Material comes from seeds,
so another run with the same versions gives the same files; read the difference before keeping it.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from golden import keras_kernels as in_keras  # first: it chooses Keras' backend
from golden import onnx_kernels as in_onnx
from golden import optax_kernels as in_optax
from golden import recipes
from golden import torch_kernels as in_torch
from golden.tiny import draw, draw_cotangents, tiny

HERE = Path(__file__).parent
PACKAGES = {"torch": "torch", "keras": "keras tensorflow", "optax": "optax jax"}
PACKAGES |= {"onnxruntime": "onnxruntime onnx", "numpy": "numpy"}


def material(recipe: recipes.Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments and cotangents; for a float32 kernel, numbers that a float32 holds exactly."""
    case = tiny(recipe.kind, recipe.name, recipe.attributes, recipe.phase)
    seed = zlib.crc32(recipe.title.encode())
    given = draw(case, seed)
    given |= {name: np.asarray(value) for name, value in recipe.given.items()}
    if recipe.dtype == "float32":
        given = {
            n: a.astype(np.float32).astype(np.float64) if a.dtype.kind == "f" else a
            for n, a in given.items()
        }
    if not recipe.gradients or recipe.dtype == "float32":
        return given, {}
    return given, draw_cotangents(case, seed)


def record(recipe: recipes.Recipe) -> dict[str, Any]:
    """One case: who computed what from what."""
    package = recipe.source.split(".")[0]
    entry: dict[str, Any] = {
        "definition": recipe.name,
        "source": recipe.source,
        "versions": {name: version(name) for name in PACKAGES[package].split()},
        "dtype": recipe.dtype,
        "attributes": dict(recipe.attributes),
    }
    if recipe.kind == "optimizer":
        given = {n: np.asarray(v) for n, v in recipe.given.items()}
        return {**entry, "given": given, "expected": recipe.kernel(given)}
    given, cotangents = material(recipe)
    if package == "onnxruntime":
        expected = recipe.kernel(given)
    elif package == "optax":
        expected = recipe.kernel(given, cotangents["y"])
    else:
        case = tiny(recipe.kind, recipe.name, recipe.attributes, recipe.phase)
        module = in_keras if package == "keras" else in_torch
        expected = module.evaluate(recipe.kernel, given, case.against, cotangents)
    return {
        **entry,
        "phase": recipe.phase,
        "given": given,
        "cotangents": cotangents,
        "expected": expected,
    }


def lines(value: Any, indent: int = 0) -> Iterator[str]:
    """JSON with one array a line, so that a difference can be read."""
    pad = " " * indent
    if isinstance(value, Mapping):
        yield "{\n"
        for n, (key, item) in enumerate(value.items()):
            yield f"{pad} {json.dumps(key)}: "
            yield from lines(item, indent + 1)
            yield ",\n" if n + 1 < len(value) else "\n"
        yield pad + "}"
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield "["
        for n, item in enumerate(value):
            yield ", " if n else ""
            yield from lines(item, indent)
        yield "]"
    else:
        plain = np.asarray(value).tolist() if hasattr(value, "__array__") else value
        yield json.dumps(plain, separators=(",", ":"), allow_nan=False)


def main() -> None:
    """Write one file a kind."""
    for kind, made in recipes.all_recipes(in_torch, in_keras, in_onnx, in_optax).items():
        path = HERE / f"{kind}.json"
        path.write_text("".join(lines({"cases": [record(r) for r in made]})) + "\n")
        print(f"{path.name}: {len(made)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
