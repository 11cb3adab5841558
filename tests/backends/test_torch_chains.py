"""Recurrent layers one behind the other, which torch runs as one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_paths import compare, draw, start, worst

from harness.language.model import Spec, load_spec
from harness.runtime.backend import Backend
from harness.runtime.plugins import load
from harness.runtime.session import Session

torch = pytest.importorskip("torch")

FREE = {"batch": 4, "time": 3}
BOTH = "{layer: bidirectional_lstm, units: 4}"
LSTM = "{layer: lstm, units: 4}"
PLAIN = "read_3(read_2(read_1(x)))"

Calls = list[int]
Write = Callable[..., Spec]


@pytest.fixture
def backend() -> Backend:
    return load("torch")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """How many layers each call of torch's recurrent functions had."""
    found: Calls = []

    def counted(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            found.append(given[4])
            return kernel(*given)

        return run

    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        monkeypatch.setattr(torch, name, counted(getattr(torch, name)))
    return found


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that loads a model of three layers."""

    def write(*layers: str, equations: str = f"y = out({PLAIN})", state: str = "") -> Spec:
        file = tmp_path / "three.yaml"
        lines = "\n".join(f"  read_{n}: {layer}" for n, layer in enumerate(layers, 1))
        whole = "".join(f"  {line.strip()}\n" for line in equations.splitlines())
        file.write_text(
            "model: three\nsummary: Layers one behind the other.\nsource: none\n"
            "inputs: {x: {shape: [batch, time, 3]}}\n"
            f"{state}layers:\n{lines}\n  out: {{layer: dense, units: 2}}\nequations: |\n{whole}"
            "targets: {target: {shape: [batch, time, 2]}}\n"
            "loss: mean(squared_error(y, target))\noptimizer: {optimizer: adam}\n"
        )
        return load_spec(str(file))

    return write


def loaded(
    backend: Backend, spec: Spec, path: str, dtype: str = "float64"
) -> tuple[Session, tuple[Any, Any, Any]]:
    """A session with drawn parameters, and a batch: inputs, state, targets."""
    session = start(backend, spec, path, dtype)
    given = draw(spec.program("training"), FREE)
    session.load(given["parameters"], given["statistics"])
    return session, (given["inputs"], given["state"], given["targets"])


def stepped(backend: Backend, spec: Spec, calls: Calls, dtype: str = "float64") -> Calls:
    """How many layers the calls of a step have, as a training makes it."""
    session, batch = loaded(backend, spec, "native", dtype)
    calls.clear()
    session.gradient_function("training", "step")(*session.arguments("training", *batch))
    return [*calls]


@pytest.mark.parametrize(
    "layer",
    [
        LSTM,
        BOTH,
        "{layer: gru_reset_after, units: 4}",
        "{layer: bidirectional_gru_reset_after, units: 4}",
        "{layer: simple_rnn, units: 4}",
        "{layer: simple_rnn, units: 4, activation: relu}",
        "{layer: simple_rnn_two_biases, units: 4}",
        "{layer: simple_rnn_without_bias, units: 4}",
    ],
)
def test_layers_one_behind_the_other_are_one_call_and_their_definitions(
    backend: Backend, write: Write, calls: Calls, layer: str
) -> None:
    spec = write(layer, layer, layer)
    assert stepped(backend, spec, calls) == [3]
    paths, error = compare(backend, spec, FREE)
    assert len({paths[f"read_{n}"] for n in (1, 2, 3)}) == 1
    assert error < 1e-14


def test_states_of_layers_in_one_call_are_each_its_own(
    backend: Backend, write: Write, calls: Calls
) -> None:
    states = "".join(f"  {n}{i}: {{shape: [batch, 4]}}\n" for i in (1, 2) for n in "hc")
    spec = write(
        LSTM,
        LSTM,
        equations="""
            low, h1, c1 = read_1(x, h=h1, c=c1)
            high, h2, c2 = read_2(low, h=h2, c=c2)
            y = out(high)
        """,
        state=f"state:\n{states}",
    )
    assert stepped(backend, spec, calls) == [2]
    _, error = compare(backend, spec, FREE)
    assert error < 1e-14


@pytest.mark.parametrize(
    ("layers", "equations", "wanted"),
    [
        pytest.param([LSTM, "{layer: lstm, units: 5}", LSTM], PLAIN, [1, 1, 1], id="other units"),
        pytest.param([LSTM, BOTH, BOTH], PLAIN, [1, 2], id="other directions"),
        pytest.param([LSTM, "{layer: gru_reset_after, units: 4}", LSTM], PLAIN, [1] * 3, id="kind"),
        pytest.param(
            [LSTM, LSTM, LSTM], "low + read_2(low) + read_3(x)\nlow = read_1(x)", [1] * 3, id="read"
        ),
        pytest.param(
            [LSTM, LSTM, LSTM], "read_3(relu(read_2(read_1(x))))", [2, 1], id="something between"
        ),
    ],
)
def test_what_torch_cannot_run_as_one_call_is_several(
    backend: Backend,
    write: Write,
    calls: Calls,
    layers: list[str],
    equations: str,
    wanted: Calls,
) -> None:
    value, *before = equations.split("\n")
    spec = write(*layers, equations="\n".join([*before, f"y = out({value})"]))
    assert stepped(backend, spec, calls) == wanted
    _, error = compare(backend, spec, FREE)
    assert error < 1e-14


def test_a_layer_that_starts_from_the_last_state_of_the_one_before_runs_after_it(
    backend: Backend, write: Write, calls: Calls
) -> None:
    spec = write(
        LSTM, LSTM, equations="low, h, c = read_1(x)\nhigh = read_2(low, h=h, c=c)\ny = out(high)"
    )
    assert stepped(backend, spec, calls) == [1, 1]
    _, error = compare(backend, spec, FREE)
    assert error < 1e-14


@pytest.mark.parametrize("twice", ["read_2(read_1({}))", "read_1(read_1({}))"])
def test_chains_of_the_same_layers_have_each_its_own_inputs(
    backend: Backend, write: Write, calls: Calls, twice: str
) -> None:
    """Two towers that share their parameters."""
    layers = [LSTM, LSTM] if "read_2" in twice else ["{layer: lstm, units: 3}"]
    value = f"{twice.format('x')} * {twice.format('2 * x')}"
    spec = write(*layers, equations=f"y = out({value})")
    assert stepped(backend, spec, calls) == [2, 2]
    _, error = compare(backend, spec, FREE)
    assert error < 1e-14


def test_what_is_looked_at_is_made(backend: Backend, write: Write, calls: Calls) -> None:
    """Named values are outputs of the model, and shown when a fault is searched for."""
    spec = write(LSTM, LSTM, equations="low = read_1(x)\nhigh = read_2(low)\ny = out(high)")
    assert stepped(backend, spec, calls) == [2]
    session, batch = loaded(backend, spec, "native")
    results = session.forward("training", *batch)
    shown = {name: array for name, _, array in session.trace("training", *batch)}
    assert np.array_equal(results["output.low"], shown["low"])
    assert results["output.low"].shape == (4, 3, 4)


def test_layers_in_one_call_run_under_autocast(
    backend: Backend, write: Write, calls: Calls
) -> None:
    spec = write(LSTM, LSTM, LSTM)
    assert stepped(backend, spec, calls, "bfloat16") == [3]
    made = []
    for path in ("native", "equations"):
        session, batch = loaded(backend, spec, path, "bfloat16")
        made.append(session.forward("training", *batch))
    assert worst(*made) < 0.03


@pytest.mark.parametrize("layer", [LSTM, BOTH, "{layer: simple_rnn, units: 4}"])
def test_what_is_shown_has_the_names_of_the_equations(
    backend: Backend, write: Write, layer: str
) -> None:
    """An output and a last state of one name, which torch's layer makes in another order."""
    spec = write(layer, layer, layer)
    shown = []
    for path in ("native", "equations"):
        session, batch = loaded(backend, spec, path)
        shown.append({(n, t): a for n, t, a in session.trace("training", *batch)})
    native, equations = shown
    assert ("read_1/h", None) in native
    assert worst(native, {key: equations[key] for key in native}) < 1e-14
