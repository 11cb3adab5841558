"""Each law as it is drawn, and wrong laws that the check must catch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from wording import Wording

from harness.errors import UsageError
from harness.language.initializers import (
    Independent,
    Law,
    argument_names,
    check_values,
    draw,
    generator,
    names,
)

SHAPE = (86, 256)
VALUES = {"value": 0.3, "low": -0.05, "high": 0.15, "std": 0.4, "fan": 256.0}
CUT = 2 / 0.87962566103423978
EYE = np.eye(*SHAPE)

# mean, std and bound at SHAPE, written out from the literature and not from the module.
MOMENTS = {
    "zeros": (0, 0, 0),
    "ones": (1, 0, 0),
    "constant": (0.3, 0, 0),
    "identity": (1 / 256, math.sqrt(255) / 256, 255 / 256),
    "uniform": (0.05, 0.2 / math.sqrt(12), 0.1),
    "normal": (0, 0.4, None),
    "uniform_fan": (0, 0.0625 / math.sqrt(3), 0.0625),
    "glorot_uniform": (0, math.sqrt(2 / 342), math.sqrt(6 / 342)),
    "glorot_normal": (0, math.sqrt(2 / 342), CUT * math.sqrt(2 / 342)),
    "he_uniform": (0, math.sqrt(2 / 86), math.sqrt(6 / 86)),
    "he_normal": (0, math.sqrt(2 / 86), CUT * math.sqrt(2 / 86)),
    "he_normal_untruncated": (0, math.sqrt(2 / 86), None),
    "lecun_uniform": (0, math.sqrt(1 / 86), math.sqrt(3 / 86)),
    "lecun_normal": (0, math.sqrt(1 / 86), CUT * math.sqrt(1 / 86)),
    "orthogonal": (0, 1 / 16, 1),
}
RANDOM = [name for name, (_, std, _) in MOMENTS.items() if std and name != "identity"]


def law_of(name: str, shape: tuple[int, int] = SHAPE) -> Law:
    return Law(name, *shape, {argument: VALUES[argument] for argument in argument_names(name)})


def drawn(name: str, seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return draw(law_of(name, shape), shape, generator(seed, name))


def test_every_initializer_is_tested() -> None:
    assert set(MOMENTS) == set(names())
    assert len(names()) == len(set(names()))


@pytest.mark.parametrize("name", names())
class TestEveryLaw:
    def test_moments(self, name: str) -> None:
        law = law_of(name).distribution()
        if not isinstance(law, Independent):
            return  # the values themselves are compared below
        mean, std, bound = MOMENTS[name]
        assert (law.mean, law.std) == pytest.approx((mean, std), rel=1e-12, abs=1e-15)
        assert law.bound == (bound if bound is None else pytest.approx(bound, rel=1e-12))

    def test_values_have_the_moments(self, name: str) -> None:
        values = drawn(name)
        mean, std, bound = MOMENTS[name]
        # 5 standard errors at 22,016 values, on one fixed draw.
        assert values.mean() == pytest.approx(mean, abs=5 * std / 148 + 1e-12)
        assert values.std() == pytest.approx(std, rel=0.03, abs=1e-12)
        if bound is not None:
            assert np.abs(values - mean).max() <= bound * (1 + 1e-12)

    def test_values_are_float64_fresh_and_of_the_seed_and_name(self, name: str) -> None:
        values = drawn(name)
        assert values.dtype == np.float64
        assert values.shape == SHAPE
        assert values.flags.c_contiguous
        assert values.flags.writeable
        np.testing.assert_array_equal(drawn(name), values)
        assert (name in RANDOM) != np.array_equal(drawn(name, seed=1), values)

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("shape", [SHAPE, (256, 86), (8, 8), (1, 1), (2, 3)])
    def test_right_values_are_not_blamed(
        self, name: str, shape: tuple[int, int], dtype: type
    ) -> None:
        law = law_of(name, shape)
        for seed in range(20):
            values = draw(law, shape, generator(seed, name)).astype(dtype)
            assert check_values(values, law) is None

    def test_wrong_values_are_blamed(self, name: str) -> None:
        law, values = law_of(name), drawn(name)
        wrong = {
            "other scale": 2 * values + (name == "zeros"),
            "shifted": values + 0.1,
            "nan": np.where(np.arange(values.size).reshape(SHAPE) == 7, np.nan, values),
            "infinite": np.where(np.arange(values.size).reshape(SHAPE) == 7, np.inf, values),
            "constant": np.full(SHAPE, 0.01),
        }
        for fault, array in wrong.items():
            assert check_values(array, law), fault


@pytest.mark.parametrize("blamed", names())
def test_no_law_passes_for_another(blamed: str) -> None:
    for name in names():
        found = check_values(drawn(name), law_of(blamed))
        assert (found is None) == (name == blamed), (name, found)


FAULTS: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
    "limit is the std": ("glorot_uniform", lambda: drawn("glorot_uniform") / math.sqrt(3)),
    "std is the limit": ("he_uniform", lambda: drawn("he_uniform") * math.sqrt(3)),
    "normal with the limit as std": ("normal", lambda: drawn("normal") * math.sqrt(3)),
    "std doubled": ("he_normal_untruncated", lambda: 2 * drawn("he_normal_untruncated")),
    "std halved": ("normal", lambda: drawn("normal") / 2),
    "variance for std": ("lecun_normal", lambda: drawn("lecun_normal") / math.sqrt(86)),
    "limit off by 1%": ("uniform_fan", lambda: 0.99 * drawn("uniform_fan")),
    "truncated, and not rescaled": ("he_normal", lambda: drawn("he_normal") * 0.8796),
    "truncated where it is not": (
        "he_normal_untruncated",
        lambda: drawn("he_normal"),
    ),
    "zeros where random": ("glorot_normal", lambda: np.zeros(SHAPE)),
    "gate block's fan": (
        "glorot_uniform",
        lambda: draw(Law("glorot_uniform", 86, 3 * 256), SHAPE, generator(0, "")),
    ),
    "one row for all": ("normal", lambda: np.tile(drawn("normal")[:1], (86, 1))),
    "absolute values": ("normal", lambda: np.abs(drawn("normal"))),
    "one plus the identity": ("identity", lambda: 1 + EYE),
    "identity shifted": ("identity", lambda: np.eye(*SHAPE, k=1)),
    "one wrong zero": ("zeros", lambda: np.where(EYE * np.arange(256) == 9, 1e-30, 0)),
    "rows not normalised": ("orthogonal", lambda: 1.001 * drawn("orthogonal")),
    "rows not orthogonal": (
        "orthogonal",
        lambda: drawn("normal") / np.linalg.norm(drawn("normal"), axis=1, keepdims=True),
    ),
    "identity for orthogonal": ("orthogonal", lambda: EYE),
    "permutation for orthogonal": (
        "orthogonal",
        lambda: EYE[:, np.random.default_rng(0).permutation(256)] * (-1) ** np.arange(256),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_blamed(fault: str) -> None:
    name, wrong = FAULTS[fault]
    law = law_of(name)
    assert check_values(drawn(name), law) is None
    assert check_values(wrong(), law)


@pytest.mark.parametrize("name", [name for name in RANDOM if name.startswith(("he_", "lecun_"))])
def test_swapped_fans_are_blamed(name: str) -> None:
    swapped = Law(name, SHAPE[1], SHAPE[0])
    assert check_values(draw(swapped, SHAPE, generator(0, name)), law_of(name))


@pytest.mark.parametrize("shape", [(3, 4), (30, 40)])
def test_blame_is_as_rare_as_promised(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    # At 1e-8 nothing would be seen in a test's time: the same limits at 1e-2, six tests a call.
    monkeypatch.setattr("harness.language.initializers.LOG_ALARM", math.log(1e-2))
    blamed = [
        check_values(drawn(name, seed, shape), law_of(name, shape)) is not None
        for name in RANDOM
        for seed in range(150)
    ]
    assert 0 < np.mean(blamed) < 6e-2


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "orthogonal"])
def test_a_wrong_root_of_3_is_seen_in_400_values(name: str) -> None:
    law = law_of(name, (20, 20))
    for factor in (math.sqrt(3), 1 / math.sqrt(3)):
        for seed in range(20):
            centred = drawn(name, seed, (20, 20)) - MOMENTS[name][0]
            assert check_values(factor * centred + MOMENTS[name][0], law)


def test_messages_show_found_and_right(wording: Wording) -> None:
    law = law_of("identity", (3, 2))
    wording(check_values(1 + np.eye(3, 2), law), "6 ... 6 ... [0, 0]: 2 ... 1")
    wording(check_values(np.full((2, 2), np.nan), law), "4 ... 4")
    law = law_of("glorot_uniform")
    wording.line(check_values(2 * drawn("glorot_uniform"), law), "22016 ... 0.132453")
    wording.line(check_values(np.zeros(SHAPE), law), "22016")
    law = law_of("normal")
    wording.line(check_values(drawn("normal") + 0.1, law), "0.0987088 ... 0 +- 0.017")
    wording.line(check_values(1.08 * drawn("normal"), law), "0.4")
    signs = np.sign(drawn("normal")) * 0.4
    signs[:2] = drawn("normal")[:2] * 1.4
    signs[0, 0] = 1.7
    assert "a different shape" in check_values(signs, law)
    wording(check_values(2 * EYE, law_of("orthogonal")))
    wording(check_values(2 * EYE.T, law_of("orthogonal")))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (2, 3, 4), (3, 1)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = draw(Law("orthogonal", 1, 1), shape, generator(3, "w")).reshape(-1, shape[-1])
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-12)


def test_orthogonal_directions_are_uniform() -> None:
    # Without the sign fix the corner of a Householder QR is never positive.
    law = Law("orthogonal", 4, 4)
    corners = [draw(law, (4, 4), generator(seed, "w"))[0, 0] for seed in range(400)]
    assert abs(np.mean(corners)) < 5 * 0.5 / 20
    assert np.mean(np.square(corners)) == pytest.approx(1 / 4, abs=0.06)


def test_one_axis_and_no_axis() -> None:
    for name in names():
        law = law_of(name)
        if name in ("identity", "orthogonal"):
            for act in (
                lambda law=law: draw(law, (4,), generator(0, "")),
                lambda law=law: check_values(np.zeros(4), law),
            ):
                with pytest.raises(UsageError, match=r"two axes, found 1"):
                    act()
            continue
        for shape in ((4,), ()):
            values = draw(law, shape, generator(0, ""))
            assert values.shape == shape
            assert check_values(values, law) is None


def test_generator() -> None:
    first = generator(0, "rnn/W").integers(2**63, size=4).tolist()
    assert generator(0, "rnn/W").integers(2**63, size=4).tolist() == first
    others = [generator(1, "rnn/W"), generator(0, "rnn/U"), generator(10, "rnn/W")]
    assert all(other.integers(2**63, size=4).tolist() != first for other in others)
    # Pinned: raw Philox output is the same on every machine and numpy version.
    raw = generator(0, "rnn/W").bit_generator.random_raw(2).tolist()
    assert raw == [6874646039289636605, 15698122931445062956]


@pytest.mark.parametrize(
    ("name", "fans", "given", "message"),
    [
        ("glorot_unifrom", (1, 1), {}, "'glorot_uniform'"),
        ("constant", (1, 1), {}, "'constant' ... ['value']"),
        ("zeros", (1, 1), {"value": 0.0}, "['value']"),
        ("uniform", (1, 1), {"low": 1.0, "high": 1.0}, "1 ... 1"),
        ("normal", (1, 1), {"std": 0.0}, "0 ... 0"),
        ("normal", (1, 1), {"std": math.nan}, "'normal'"),
        ("uniform", (1, 1), {"low": 0.0, "high": math.inf}, ""),
        ("uniform_fan", (1, 1), {"fan": -1.0}, "0 ... -1"),
        ("he_normal", (0, 1), {}, "fan_in ... 1 ... 0"),
        ("he_normal", (1, 0), {}, "fan_out ... 1 ... 0"),
    ],
)
def test_impossible_laws_are_refused(name, fans, given, message: str, wording: Wording) -> None:
    with wording.raises(UsageError, message):
        Law(name, *fans, given)


def test_nothing_to_check_is_an_error(wording: Wording) -> None:
    with wording.raises(UsageError, "shape [0, 3]"):
        check_values(np.zeros((0, 3)), law_of("zeros"))
