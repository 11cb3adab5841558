"""Noise: the numbers that a third party would draw, and where a spec may have it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
from wording import Wording

import harness
from harness.errors import SpecError
from harness.language.model import Spec, load_spec
from harness.language.noise import draw_noise, mean_of, noise_of
from harness.program.signature import noise_ports

NORMAL = {"noise": "normal", "arguments": {"mean": 0.5, "std": 2.0}}
UNIFORM = {"noise": "uniform", "arguments": {"low": -1.0, "high": 3.0}}
BERNOULLI = {"noise": "bernoulli", "arguments": {"keep": 0.25}}
LAWS = {"normal": NORMAL, "uniform": UNIFORM, "bernoulli": BERNOULLI}
WORD = 2**64 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 as the paper has it: ten rounds of two products."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high, low = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high_2, low_2 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = [high_2 ^ c[1] ^ k[0], low_2, high ^ c[3] ^ k[1], low]
        k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
    return c


def uniforms(name: str, seed: int, step: int) -> Iterator[float]:
    """Numbers from 0 to below 1, as the module's docstring says."""
    digest = hashlib.sha256(name.encode()).digest()
    key = [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8)]
    block = 0
    while True:
        block += 1
        for word in philox([block, step, seed, 0], key):
            yield (word >> 11) / 2**53


def by_hand(law: str, count: int, name: str, seed: int, step: int) -> list[float]:
    stream = uniforms(name, seed, step)
    if law == "bernoulli":
        return [float(next(stream) < 0.25) for _ in range(count)]
    if law == "uniform":
        return [-1 + 4 * next(stream) for _ in range(count)]
    found = []
    while len(found) < count:
        radius, turn = math.sqrt(-2 * math.log(1 - next(stream))), next(stream)
        angle = 2 * math.pi * turn
        found += [0.5 + 2 * radius * math.cos(angle), 0.5 + 2 * radius * math.sin(angle)]
    return found[:count]


@pytest.mark.parametrize("law", LAWS)
def test_a_third_party_draws_the_same_numbers(law: str) -> None:
    for name, seed, step in (("drop.kept", 0, 0), ("z", 7, 1), ("z", 7, 2**40)):
        found = draw_noise(LAWS[law], (3, 5), name, seed, step)
        expected = np.float32(by_hand(law, 15, name, seed, step)).reshape(3, 5)
        np.testing.assert_allclose(found, expected, rtol=2**-23, atol=0)


@pytest.mark.parametrize("law", LAWS)
def test_other_names_seeds_and_steps_give_other_numbers(law: str) -> None:
    made = [
        draw_noise(LAWS[law], (40,), name, seed, step).tobytes()
        for name in "ab"
        for seed in (0, 1)
        for step in (0, 1)
    ]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("law", LAWS)
def test_the_numbers_follow_their_law_and_its_mean(law: str) -> None:
    found = draw_noise(LAWS[law], (100, 1000), "n", 0, 0)
    spread = {"normal": 2.0, "uniform": 4 / math.sqrt(12), "bernoulli": math.sqrt(0.1875)}[law]
    assert abs(found.mean() - mean_of(LAWS[law])) < 5 * spread / math.sqrt(found.size)
    assert abs(found.std() - spread) < 0.01 * spread
    rows = np.corrcoef(found[:2])[0, 1]
    assert abs(rows) < 0.2
    if law == "bernoulli":
        assert set(np.unique(found)) == {0.0, 1.0}
    np.testing.assert_array_equal(found, np.float32(found))


MODEL = """
model: noisy
summary: Noise in a model and in its layers.
source: A test.
sizes: {features: 3, units: 4, depth: 2}
inputs:
  x: {shape: [batch, time, features]}
noise:
  jitter: {shape: [batch, features], law: {normal: {mean: 1, std: 0.1}}}
layers:
  drop: {layer: dropout, keep: 0.75}
  drops: {layer: dropout, repeat: depth}
  rnn: {layer: zoneout_lstm, units: units}
  out: {layer: dense, units: features}
equations: |
  h = drop(last(rnn(drop(x))))
  y = jitter * out(drops(h))
targets:
  target: {shape: [batch, features]}
loss: mean(squared_error(y, target))
"""


def model(text: str = MODEL) -> Spec:
    return load_spec("noisy", overrides={("model", "noisy"): text})


def test_every_call_and_every_link_has_noise_of_its_own() -> None:
    training = model().program("training")
    assert [port.name for port in noise_ports(training)] == [
        *("jitter", "drop.kept", "drop.2.kept", "drops.0.kept", "drops.1.kept"),
        *("rnn.cell_stays", "rnn.state_stays"),
    ]
    drawn = noise_of(training, {"batch": 2, "time": 5}, 0)
    assert drawn["drop.kept"].shape == (2, 5, 3)
    assert drawn["rnn.cell_stays"].shape == (2, 5, 4)
    assert drawn["drops.0.kept"].tolist() != drawn["drops.1.kept"].tolist()


def test_noise_whose_draws_are_all_equal_is_not_drawn() -> None:
    text = MODEL.replace("{layer: dropout, keep: 0.75}", "{layer: dropout, keep: 1}")
    spec = model(text.replace("units: units}", "units: units, keep_cell: 1}", 1))
    names = [port.name for port in noise_ports(spec.program("training"))]
    assert names == ["jitter", "drops.0.kept", "drops.1.kept", "rnn.state_stays"]
    x, given = np.ones((2, 5, 3)), {n: np.ones_like(a) for n, a in _noise(spec).items()}
    made = harness.run(spec, "oracle", inputs={"x": x, **given}, want=("outputs",))
    # The state stays the initial one, and dropout does not change zeros.
    np.testing.assert_array_equal(made.outputs["h"], 0)


def test_inference_takes_no_noise_and_has_its_mean() -> None:
    spec = model()
    assert [port.name for port in spec.program("inference").inputs] == ["x"]
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    quiet = {n: np.full_like(a, 0.5) for n, a in _noise(spec).items()}
    quiet |= {n: a * 0 + 0.75 for n, a in _noise(spec).items() if n.startswith("drop.")}
    quiet["rnn.state_stays"][:], quiet["jitter"][:] = 0.05, 1.0
    ran = [
        harness.run(spec, "oracle", inputs={"x": x, **given}, phase=phase, want=("outputs",))
        for phase, given in (("inference", {}), ("training", quiet))
    ]
    np.testing.assert_allclose(ran[0].outputs["y"], ran[1].outputs["y"], rtol=1e-12)


def test_noise_that_is_not_given_is_drawn_from_the_seed() -> None:
    spec, x = model(), np.ones((2, 5, 3))
    one, again, other = (
        harness.run(spec, "oracle", inputs={"x": x}, seed=seed, want=("outputs",)).outputs["h"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    given = harness.run(spec, "oracle", inputs={"x": x, **_noise(spec)}, want=("outputs",))
    np.testing.assert_array_equal(given.outputs["h"], one)


def _noise(spec: Spec) -> dict[str, np.ndarray]:
    return noise_of(spec.program("training"), {"batch": 2, "time": 5}, 0)


DROPOUT = """
layer: dropout
summary: s
source: s
inputs: {x: [...]}
attributes: {keep: 0.5}
noise:
  kept: {shape: [...], law: LAW}
equations: y = x * kept + 0 * keep
output: y
"""


@pytest.mark.parametrize(
    ("law", "told"),
    [
        ("gauss", "'gauss'"),
        ("bernoulli", ""),
        ("{bernoulli: {keep: 1.5}}", "0 ... 1 ... 1.5"),
        ("{bernoulli: {keep: rate}}", "'rate'"),
        ("{bernoulli: {p: 1}}", "'p'"),
        ("{normal: {std: 0}}", "0 ... 0"),
        ("{uniform: {low: 1}}", "1 ... 1"),
        ("{normal: {}, uniform: {}}", "{bernoulli: {keep: 0.9}}"),
        ("{normal: {mean: .inf}}", ""),
    ],
)
def test_a_wrong_law_is_refused_at_its_place(law: str, told: str, wording: Wording) -> None:
    changed = {("layer", "dropout"): DROPOUT.replace("LAW", law), ("model", "noisy"): MODEL}
    with pytest.raises(SpecError) as error:
        load_spec("noisy", overrides=changed)
    wording.line(error.value, told)
    assert "8:" in str(error.value)


def test_noise_that_nothing_uses_is_refused(wording: Wording) -> None:
    with wording.raises(SpecError, "'jitter'"):
        model(MODEL.replace("jitter * out", "out"))
