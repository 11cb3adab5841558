"""Packings: every piece there and back, and two layers written out with numpy."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.backends.numpy.backend import Numpy
from harness.language.model import load_spec
from harness.runtime.claimed_calls import claims
from harness.runtime.native import ClaimableCall, Layout, Native
from harness.runtime.packing import FrozenZeros, Join, Packing, Part, Piece, Stack
from harness.runtime.session import Session

RANDOM = np.random.default_rng(5)
SHAPES = {"W": (3, 4), "V": (3, 5), "U": (4, 4), "S": (4, 4), "b": (4,), "c": (4,)}
SHAPES |= {"K": (2, 3, 4, 5), "s": ()}
NEUTRAL = {n: np.asarray(RANDOM.normal(size=s), np.float32) for n, s in SHAPES.items()}


def at(axis: int, *names: str, transpose: bool = False) -> Join:
    return Join(tuple(Part(n, transpose) for n in names), axis)


W, V, U, S, b, c, K, s = (NEUTRAL[n] for n in SHAPES)
PIECES: dict[str, tuple[Piece, Any]] = {
    "part": (Part("W"), W),
    "a number without axes": (Part("s"), s),
    "transposed": (Part("W", transpose=True), W.T),
    "axes in another order": (Part("K", axes=(3, 2, 0, 1)), K.transpose(3, 2, 0, 1)),
    "in another shape": (Part("W", shape=(3, 2, 2)), W.reshape(3, 2, 2)),
    "axes in another order, then in another shape": (
        Part("K", axes=(2, 3, 0, 1), shape=(20, 1, 2, 3)),
        K.transpose(2, 3, 0, 1).reshape(20, 1, 2, 3),
    ),
    "joined columns of another shape": (
        Join((Part("U", shape=(4, 2, 2)), Part("S", True, shape=(4, 2, 2))), 1),
        np.concatenate([U.reshape(4, 2, 2), S.T.reshape(4, 2, 2)], 1),
    ),
    "joined columns": (at(1, "W", "V"), np.concatenate([W, V], 1)),
    "joined columns last": (at(-1, "W", "V"), np.concatenate([W, V], -1)),
    "joined rows, transposed": (at(0, "W", "V", transpose=True), np.concatenate([W.T, V.T])),
    "joined vectors": (at(0, "b", "c"), np.concatenate([b, c])),
    "mixed": (Join((Part("W", True), Part("U")), 1), np.concatenate([W.T, U], 1)),
    "stacked": (Stack((Part("b"), Part("c"))), np.stack([b, c])),
    "stacked joins": (
        Stack((at(0, "b", "c"), at(0, "c", "b"))),
        np.stack([np.concatenate([b, c]), np.concatenate([c, b])]),
    ),
    "stacked matrices": (Stack((Part("U"), Part("S", True))), np.stack([U, S.T])),
}


def names_of(piece: Piece) -> set[str]:
    if isinstance(piece, Part):
        return {piece.name}
    if isinstance(piece, FrozenZeros):
        return set()
    inner = piece.parts if isinstance(piece, Join) else piece.rows
    return {n for part in inner for n in names_of(part)}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_packs_as_written_and_comes_back_bit_by_bit(name: str) -> None:
    piece, written = PIECES[name]
    packing = Packing({"t": piece})
    packed = packing.pack(NEUTRAL)["t"]
    assert packed.flags.c_contiguous
    assert packed.dtype == np.float32
    assert np.array_equal(packed, written)
    back = packing.unpack({"t": packed}, SHAPES)
    assert set(back) == names_of(piece)
    for local, array in back.items():
        assert array.shape == SHAPES[local]
        assert array.tobytes() == NEUTRAL[local].tobytes()
    assert packing.frozen == frozenset()


@pytest.mark.parametrize("name", PIECES)
def test_tensors_are_packed_as_arrays_are(name: str) -> None:
    """In a backend's primitives, for what a framework compiles."""
    piece, written = PIECES[name]
    shapes = {"b": SHAPES["b"], **{f"own.{n}": SHAPES[n] for n in names_of(piece)}}
    ports = [SimpleNamespace(name=name) for name in shapes]
    program: Any = SimpleNamespace(parameters=ports, shape=lambda port: shapes[port.name])
    layout = Layout(program, {"own": Native("", lambda *_: (), Packing({"t": piece}))})
    table = Numpy().primitives
    given = {"b": b, **{f"own.{n}": NEUTRAL[n] for n in names_of(piece)}}
    tensors = layout.packed(table, given)
    assert set(tensors) == {"b", "own/t"}
    np.testing.assert_array_equal(tensors["own/t"], written)
    back = layout.unpacked(table, tensors)
    assert set(back) == set(given)
    for local, array in back.items():
        np.testing.assert_array_equal(array, given[local])


def test_nan_payloads_and_signed_zeros_survive() -> None:
    odd = np.array([[0.0, -0.0, np.nan, np.inf]] * 3, np.float32)
    odd.view(np.uint32)[0, 2] = 0x7FC01234
    packing = Packing({"t": at(0, "W", "V", transpose=True)})
    back = packing.unpack(packing.pack({"W": odd, "V": V}), SHAPES)
    assert back["W"].tobytes() == odd.tobytes()


@pytest.mark.parametrize(
    ("piece", "packed"),
    [
        (Join((Part("a"), Part("b")), 1), (2, 5)),
        (Stack((Part("a"), Part("b"))), (3, 2, 2)),
        (Part("a", axes=(0, 1)), (2, 2, 2)),
    ],
)
def test_a_packed_tensor_of_another_shape_is_an_error(
    piece: Join | Stack | Part, packed: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"shape|axes"):
        Packing({"k": piece}).unpack({"k": np.zeros(packed)}, {"a": (2, 2), "b": (2, 2)})


def test_frozen_zeros_are_made_and_never_unpacked() -> None:
    packing = Packing({"b_hh": FrozenZeros((2, 4)), "b_ih": Part("b")})
    packed = packing.pack(NEUTRAL)
    assert packed["b_hh"].dtype == np.float32
    assert packed["b_hh"].shape == (2, 4)
    assert not packed["b_hh"].any()
    assert packing.frozen == {"b_hh"}
    back = packing.unpack({**packed, "b_hh": np.ones((2, 4), np.float32)}, SHAPES)
    assert set(back) == {"b"}


def test_absent_tensors_are_skipped_and_plain_is_the_identity() -> None:
    packing = Packing.plain(["W", "b"])
    assert set(packing.unpack({"b": b}, SHAPES)) == {"b"}
    assert packing.pack(NEUTRAL)["W"].tobytes() == W.tobytes()


# --- Two layers, as torch and Keras hold them -------------------------------------------------

TORCH_LSTM = Packing(
    {
        "weight_ih_l0": at(0, *(f"W_{g}" for g in "ifgo"), transpose=True),
        "weight_hh_l0": at(0, *(f"U_{g}" for g in "ifgo"), transpose=True),
        "bias_ih_l0": at(0, *(f"b_{g}" for g in "ifgo")),
        "bias_hh_l0": FrozenZeros((28,)),
    }
)
KERAS_GRU = Packing(
    {
        "kernel": at(1, *(f"W_{g}" for g in "zrn")),
        "recurrent_kernel": at(1, *(f"U_{g}" for g in "zrn")),
        "bias": at(0, *(f"b_{g}" for g in "zrn")),
    }
)


class Claiming(Numpy):
    """Claims one definition with a packing; its layers are never run here."""

    def __init__(self, definition: str, packing: Packing) -> None:
        self.definition, self.packing = definition, packing

    def claim(self, layer: ClaimableCall) -> Native | None:
        if layer.definition != self.definition:
            return None
        return Native("test", lambda values, packed: [], self.packing)


def layout_of(model: str, definition: str, packing: Packing) -> tuple[Layout, dict[str, Any]]:
    program = load_spec(f"lesson6/{model}").program("training", hidden=7, vocab=11)
    layout = Layout(program, claims(Claiming(definition, packing), program, "training"))
    neutral = {n: RANDOM.normal(size=s) for n, s in layout.shapes.items()}
    return layout, neutral


def check(layout: Layout, neutral: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    packed = layout.pack(neutral)
    for name, array in written.items():
        assert np.array_equal(packed[name], array), name
    plain = {n for n in neutral if "/" not in n and n in packed}
    assert set(packed) == set(written) | plain
    back = layout.unpack(packed)
    assert set(back) == set(neutral)
    assert all(back[n].tobytes() == a.tobytes() for n, a in neutral.items())


def test_lstm_as_torch_holds_it() -> None:
    layout, p = layout_of("stateful_lstm", "lstm", TORCH_LSTM)
    w, u, bias = (
        [p[f"lstm.{stem}_i"], p[f"lstm.{stem}_f"], p[f"lstm.{stem}_g"], p[f"lstm.{stem}_o"]]
        for stem in "WUb"
    )
    written = {
        "lstm/weight_ih_l0": np.concatenate([a.T for a in w]),
        "lstm/weight_hh_l0": np.concatenate([a.T for a in u]),
        "lstm/bias_ih_l0": np.concatenate(bias),
        "lstm/bias_hh_l0": np.zeros(28),
    }
    check(layout, p, written)
    assert layout.frozen == {"lstm/bias_hh_l0"}
    assert layout.plain == ["embed.table", "norm.gamma", "norm.beta", "out.W", "out.b"]
    assert "lstm.b_i" not in layout.unpack({"lstm/weight_hh_l0": written["lstm/weight_hh_l0"]})


def test_gru_as_keras_holds_it() -> None:
    layout, p = layout_of("keras_gru", "gru", KERAS_GRU)
    w, u, bias = ([p[f"gru.{stem}_z"], p[f"gru.{stem}_r"], p[f"gru.{stem}_n"]] for stem in "WUb")
    written = {
        "gru/kernel": np.concatenate(w, axis=1),
        "gru/recurrent_kernel": np.concatenate(u, axis=1),
        "gru/bias": np.concatenate(bias),
    }
    check(layout, p, written)
    assert written["gru/kernel"].shape == (11, 21)


def test_two_gates_in_another_order_are_another_packing() -> None:
    """The comparison above can fail: z and r trade places."""
    wrong = Packing({**KERAS_GRU.pieces, "bias": at(0, "b_r", "b_z", "b_n")})
    layout, p = layout_of("keras_gru", "gru", wrong)
    right = np.concatenate([p["gru.b_z"], p["gru.b_r"], p["gru.b_n"]])
    assert not np.array_equal(layout.pack(p)["gru/bias"], right)


@pytest.mark.parametrize("phases", [("training", "inference"), ("training",), ("inference",), ()])
def test_a_layer_is_claimed_in_both_phases_or_in_neither(phases: tuple[str, ...]) -> None:
    """Its parameters have one packing."""

    class Choosy(Claiming):
        def claim(self, layer: ClaimableCall) -> Native | None:
            return super().claim(layer) if layer.phase in phases else None

    spec = load_spec("lesson6/keras_gru")
    session = Session(Choosy("gru", KERAS_GRU), spec.program("training"), spec.program("inference"))
    both = len(phases) == 2
    assert set(session.layout.claimed) == ({"gru"} if both else set())
    assert [set(natives) for natives in session.natives.values()] == [
        {"gru"} if both else set()
    ] * 2
    assert session.paths()["gru"] == ("test" if both else "equations")


def test_a_shared_layer_is_claimed_only_if_every_call_is() -> None:
    class Once(Claiming):
        calls = 0

        def claim(self, layer: ClaimableCall) -> Native | None:
            self.calls += layer.definition == self.definition
            return super().claim(layer) if self.calls < 2 else None

    program = load_spec("lesson6/three_char").program()
    shared = [n for n in program.calls if n.attributes.get("instance") == "dense_in"]
    assert len(shared) == 3
    dense = Packing.plain(["W", "b"])
    assert "dense_in" in claims(Claiming("dense", dense), program, "training")
    assert claims(Once("dense", dense), program, "training") == {}
