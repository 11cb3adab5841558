"""Weights: what goes into a file comes out of it, whole, and of which model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SPECS
from safetensors import safe_open
from wording import Wording

import harness
from harness.convert.weights import Weights, WeightsError, check, load, save
from harness.language.model import Spec, fingerprint

NAME = "lesson6/stateful_lstm"
FILE = SPECS / "models" / f"{NAME}.yaml"


def weights(**arrays: npt.NDArray[Any]) -> Weights:
    return Weights("my/model", "f" * 64, {"hidden": 3}, arrays, {})


def assert_same(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    """The same dtype, shape and bits, NaN's included."""
    assert (found.dtype, found.shape) == (wanted.dtype.newbyteorder("="), wanted.shape)
    assert found.tobytes() == np.ascontiguousarray(wanted.astype(found.dtype)).tobytes()
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.fixture(scope="module")
def spec() -> Spec:
    return harness.load(NAME)


def drawn(spec: Spec, **sizes: int) -> Weights:
    """Weights that fit a spec."""
    program = spec.program("training", **sizes)
    random = np.random.default_rng(0)
    groups = (
        {p.name: random.normal(size=program.shape(p)) for p in ports}
        for ports in (program.parameters, program.statistics)
    )
    return Weights(spec.name, fingerprint(spec), program.sizes, *groups)


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8"])
    def test_arrays_of_any_layout(self, tmp_path: Path, dtype: str) -> None:
        base = np.random.default_rng(1).normal(size=(4, 6, 5)).astype(dtype)
        special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, np.finfo(dtype).max], dtype)
        arrays = {
            "plain": base,
            "transposed": base.T,
            "fortran": np.asfortranarray(base),
            "strided": base[::2, 1::3, ::-1],
            "broadcast": np.broadcast_to(base[0, 0], (3, 5)),
            "of_one": np.broadcast_to(base[0, 0, 0], (2, 3)),
            "scalar": np.array(2.5, dtype),
            "scalar_view": base[1, 2, 3, ...],
            "none": np.zeros((0, 3), dtype),
            "special": special,
        }
        save(tmp_path / "w", weights(**arrays))
        found = load(tmp_path / "w").parameters
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert_same(found[name], array)

    def test_dtypes_side_by_side(self, tmp_path: Path) -> None:
        arrays = {"a": np.ones(3, np.float32), "b": np.ones(2), "c": np.ones(1, np.float32)}
        save(tmp_path / "w", weights(**arrays))
        for name, array in load(tmp_path / "w").parameters.items():
            assert_same(array, arrays[name])

    def test_every_bit_of_a_nan(self, tmp_path: Path) -> None:
        bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0xFFFFFFFF], np.uint32)
        save(tmp_path / "w", weights(a=bits.view(np.float32)))
        np.testing.assert_array_equal(load(tmp_path / "w").parameters["a"].view(np.uint32), bits)

    def test_all_that_is_not_an_array(self, tmp_path: Path) -> None:
        history = {"backend": "torch", "losses": [2.5, 1e-300], "text": {"name": "builtin"}}
        wanted = Weights(
            "my/model",
            "0123" * 16,
            {"vocab": 86, "hidden": 3},
            {"rnn.W": np.ones((2, 3))},
            {"norm.mean": np.zeros(3)},
            ("\0", "\n", '"', "\\", "é", "\u2028", "\uffff", "😀"),
            history,
        )
        save(str(tmp_path / "w"), wanted)
        found = load(str(tmp_path / "w"))
        for name in ("spec", "fingerprint", "sizes", "vocabulary", "history"):
            assert getattr(found, name) == getattr(wanted, name)
        assert (list(found.parameters), list(found.statistics)) == (["rnn.W"], ["norm.mean"])

    def test_losses_that_are_no_numbers(self, tmp_path: Path) -> None:
        history = {"losses": [math.inf, math.nan]}
        save(tmp_path / "w", replace(weights(), history=history))
        found = load(tmp_path / "w").history["losses"]
        assert found[0] == math.inf
        assert math.isnan(found[1])

    text = st.text(max_size=5)

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(
        names=st.lists(text.filter(lambda n: n != "__metadata__"), unique=True, max_size=4),
        letters=st.sets(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
        spec=text,
    )
    def test_any_unicode(
        self, tmp_path_factory: Any, names: list[str], letters: set[str], spec: str
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any_unicode"
        vocabulary = ("\0", *sorted(letters))
        arrays = {n: np.full(2, i, np.float32) for i, n in enumerate(names)}
        half = len(names) // 2
        groups = ({n: arrays[n] for n in part} for part in (names[:half], names[half:]))
        save(path, Weights(spec, "", {}, *groups, vocabulary))
        found = load(path)
        assert (found.spec, found.vocabulary) == (spec, vocabulary)
        assert set(found.parameters) == set(names[:half])
        assert set(found.statistics) == set(names[half:])
        for name, array in (found.parameters | found.statistics).items():
            assert_same(array, arrays[name])


class TestFile:
    def test_other_programs_read_it(self, tmp_path: Path) -> None:
        array = np.arange(6.0).reshape(2, 3).T
        save(tmp_path / "w", replace(weights(), statistics={"norm.mean": array}))
        with safe_open(tmp_path / "w", "numpy") as file:
            assert list(file.keys()) == ["norm.mean"]
            np.testing.assert_array_equal(file.get_tensor("norm.mean"), array)
            metadata = file.metadata()
        assert metadata["spec"] == "my/model"
        assert json.loads(metadata["sizes"]) == {"hidden": 3}
        assert json.loads(metadata["statistics"]) == ["norm.mean"]

    def test_the_same_bytes_in_another_process_and_order(self, tmp_path: Path) -> None:
        program = (
            "import numpy as np; from harness.convert.weights import Weights, save\n"
            "arrays = {n: np.ones(2, np.float32) for n in sorted('abcdefgh', reverse=%s)}\n"
            "sizes = {n: 1 for n in arrays}\n"
            "statistics = {n * 2: a for n, a in arrays.items()}\n"
            "save(%r, Weights('s', 'f', sizes, arrays, statistics, ('\\0', 'é')))"
        )
        found = set()
        for seed in range(4):
            path = tmp_path / str(seed)
            environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
            command = [sys.executable, "-c", program % (bool(seed % 2), str(path))]
            subprocess.run(command, check=True, env=environment)
            found.add(path.read_bytes())
        assert len(found) == 1

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (weights(a=np.ones(2, np.int64)), "'a' ... int64 ... float32 ... float64"),
            (weights(a=np.ones(2, np.float16)), "'a' ... float16"),
            (weights(a=np.ones(2, np.longdouble)), "'a' ... float128"),
            (weights(a=np.ones(2, np.complex128)), "'a' ... complex128"),
            (weights(__metadata__=np.ones(2)), "'__metadata__'"),
            (weights(**{"\ud800": np.ones(2)}), ""),
            (replace(weights(a=np.ones(2)), statistics={"a": np.ones(2)}), "'a'"),
            (replace(weights(), history={"loss": np.float32(1)}), "float32 ... JSON"),
            (replace(weights(), vocabulary=("\0", "\ud800")), "JSON"),
            (replace(weights(), vocabulary=("ab",)), "vocabulary.0 ... 1"),
            (replace(weights(), vocabulary=("a", "b")), ""),
            (replace(weights(), vocabulary=("\0", "b", "a")), ""),
            (replace(weights(), sizes={"hidden": 0}), "sizes.hidden ... 0"),
        ],
    )
    def test_what_cannot_be_written(
        self, tmp_path: Path, wrong: Weights, message: str, wording: Wording
    ) -> None:
        with wording.raises(WeightsError, message):
            save(tmp_path / "w", wrong)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("absent/w", "No such file"), (".", "this is a folder"), ("\0", "a NUL character")],
    )
    def test_where_nothing_can_be_written(
        self, tmp_path: Path, name: str, reason: str, wording: Wording
    ) -> None:
        with wording.raises(WeightsError, f"{reason}"):
            save(f"{tmp_path}/{name}", weights())


class TestCheck:
    def test_right_ones(self, spec: Spec) -> None:
        check(drawn(spec), spec)
        check(drawn(spec, vocab=100, hidden=7), spec)

    def test_of_another_model(self, spec: Spec) -> None:
        other = harness.load("lesson6/keras_gru")
        with pytest.raises(
            WeightsError, match=r"of 'lesson6/stateful_lstm', not of 'lesson6/keras_gru"
        ):
            check(drawn(spec), other)

    def test_of_another_form_of_the_model(self, spec: Spec, wording: Wording) -> None:
        old = replace(drawn(spec), fingerprint="0123456789abcdef" * 4)
        now = fingerprint(spec)[:12]
        with wording.raises(WeightsError, f"0123456789ab ... {now}"):
            check(old, spec)

    def test_all_that_differs_at_once(self, spec: Spec) -> None:
        found = drawn(spec)
        parameters = dict(found.parameters)
        parameters["lstm.W_x"] = parameters.pop("lstm.W_i")
        parameters["out.b"] = parameters["out.b"][:, None]
        statistics = dict(found.statistics)
        del statistics["norm.moving_mean"]
        wrong = replace(found, parameters=parameters, statistics=statistics, fingerprint="0" * 64)
        with pytest.raises(WeightsError) as caught:
            check(wrong, spec)
        for part in (
            "fingerprint was 000000000000",
            "parameter 'lstm.W_i' is missing",
            "parameter 'lstm.W_x' is unknown; did you mean 'lstm.W_",
            "'out.b' has shape [86, 1], expected [86] at vocab=86, factors=42, hidden=256",
            "statistic 'norm.moving_mean' is missing",
            "harness train lesson6/stateful_lstm",
        ):
            assert part in str(caught.value)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({"vocab": 86, "factors": 42, "hidden": 255}, "'lstm.W_i' ... [42, 256]"),
            ({"vocab": 86, "factors": 42}, ""),
            ({"vocab": 86, "factors": 42, "hidden": 256, "hiden": 1}, "'hiden'"),
            ({"vocab": 86, "factors": 42, "hidden": 0}, "'hidden' ... 1"),
            ({"vocab": 86, "factors": 42, "hidden": 256.0}, "'hidden' ... 1"),
        ],
    )
    def test_other_sizes(
        self, spec: Spec, sizes: dict[str, int], message: str, wording: Wording
    ) -> None:
        with wording.raises(WeightsError, message):
            check(replace(drawn(spec), sizes=sizes), spec)

    def test_a_parameter_is_no_statistic(self, spec: Spec) -> None:
        found = drawn(spec)
        both = {**found.parameters, **found.statistics}
        with pytest.raises(WeightsError, match=r"'norm.moving_mean' is unknown.*'norm.moving_mean"):
            check(replace(found, parameters=both, statistics={}), spec)
