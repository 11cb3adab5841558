"""Real weights of a port: the form of the large model, its file of weights, and one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from wording import Wording

from harness.arrays import Arrays
from harness.errors import HarnessError, UsageError
from harness.porting.large import check_form, load_weights
from harness.porting.spec import PortedSpec

SMALL = """
model: small
layers:
  embed: {layer: embedding, rows: 40, units: 32}
  blocks: {layer: block, repeat: 3}
equations: |
  y = mean(blocks(embed(chars)), axis=1) * 0.25
"""


def spec(text: str, **sizes: int) -> PortedSpec:
    return PortedSpec(text, (), (), sizes, frozenset())


class Process:
    """A stand-in for the process of a model whose framework is numpy."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)

    def call(self, verb: str, **arguments: Any) -> Any:
        if verb == "put_arrays":
            self.arrays |= arguments["arrays"]
        return dict(self.arrays)


def values(seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    matrices = {n: draw.normal(size=(3, 4)).astype("f4") for n in ("a.weight", "b.weight")}
    return {**matrices, "a.bias": np.zeros(4, "f4")}


def test_a_large_model_may_differ_from_the_small_one_in_numbers_only() -> None:
    large = SMALL.replace("40", "50257").replace("32", "768").replace("3}", "12}")
    check_form(spec(SMALL), spec(large.replace("0.25", "0.125").replace("small", "large")))
    with pytest.raises(UsageError, match="layer_norm"):
        check_form(
            spec(SMALL), spec(SMALL.replace("  blocks", "  n: {layer: layer_norm}\n  blocks"))
        )


def test_named_sizes_count_as_numbers_in_the_form() -> None:
    named = SMALL.replace("layers:", "sizes: {vocab: 40, depth: 3}\nlayers:", 1)
    named = named.replace("rows: 40", "rows: vocab").replace("repeat: 3", "repeat: depth")
    sizes = {"vocab": 40, "depth": 3}
    check_form(spec(SMALL), spec(named.replace("units: 32", "units: features"), **sizes))
    with pytest.raises(UsageError, match="blocks"):
        check_form(spec(SMALL), spec(named.replace("blocks:", "parts:"), **sizes))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_swapped_weights_in_a_file_are_named(tmp_path: Path, suffix: str) -> None:
    path, right = tmp_path / f"large{suffix}", values(0)

    def write(arrays: Arrays) -> None:
        more = {**arrays, "steps": np.zeros(1, "i8")}
        if suffix == ".npz":
            np.savez(path, **{n.replace(".", "/"): a for n, a in more.items()})
        else:
            save_file(more, path)

    write(right)
    process: Any = Process(right)
    assert load_weights(process, path).differing == []
    random: Any = Process(values(1))
    loaded = load_weights(random, path)
    assert (dict(loaded.before), list(loaded.differing)) == ({}, [])
    assert np.array_equal(random.arrays["b.weight"], right["b.weight"])
    # The planted fault. A third matrix is right, so the model is known to have these weights.
    right["c.weight"] = right["a.weight"] + 1
    write({**right, "a.weight": right["b.weight"], "b.weight": right["a.weight"]})
    loaded = load_weights(Process(right), path)  # type: ignore[arg-type]
    assert loaded.differing == ["a.weight", "b.weight"]
    assert loaded.before["a.weight"] is not None


def test_files_that_do_not_fit_the_model_are_refused(tmp_path: Path, wording: Wording) -> None:
    np.savez(tmp_path / "w.npz", **{"a.weight": np.ones((5, 4), "f4"), "a.bias": np.ones(4, "f4")})
    process: Any = Process(values(0))
    with wording.raises(UsageError, "b.weight [3, 4] ... a.weight ... [5, 4] ... [3, 4]"):
        load_weights(process, tmp_path / "w.npz")
    (tmp_path / "w.safetensors").write_bytes(b"damaged")
    for name in ("w.safetensors", "none.npz", "none.pt"):
        with pytest.raises(HarnessError, match=name):
            load_weights(process, tmp_path / name)
