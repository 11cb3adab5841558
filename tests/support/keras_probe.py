"""Measurements of one Keras backend in a separate process, printed as one line of JSON.

Usage: ``python keras_probe.py NAME FOLDER``, with KERAS_BACKEND set. Errors are relative to the
largest entry of the array.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from keras_long_loop import long_loop
from keras_specs import KINKS, LOSSES, MIXED, TINY
from two_paths import Arrays, by_oracle, draw, everything, worst

from harness.errors import HarnessError
from harness.language.model import Spec, load_spec
from harness.runtime.native import ClaimableCall
from harness.runtime.plugins import load
from harness.runtime.session import Session, make_session

SMALL = {"vocab": 11, "factors": 5, "hidden": 7, "characters": 10}
FREE = {"batch": 3, "time": 4}
NAME, FOLDER = sys.argv[1], Path(sys.argv[2])


def spec_of(text: str) -> Spec:
    file = FOLDER / "model.yaml"
    file.write_text(text)
    return load_spec(str(file))


def start(spec: Spec, path: str, dtype: str) -> Session:
    backend.use("cpu", dtype)
    sizes = {n: v for n, v in SMALL.items() if n in spec.model.sizes}
    programs = (spec.program("training", **sizes), spec.program("inference", **sizes))
    return make_session(backend, *programs, path=path, dtype=dtype, rule=spec.update)


def models(names: list[str], runs: list[tuple[str, str]]) -> dict[str, float]:
    """Return the error of loss, outputs and gradients against the oracle, by path and dtype."""
    found: dict[str, float] = {}
    for name in names:
        spec = load_spec(name)
        for path, dtype in runs:
            session = start(spec, path, dtype)
            program = session.programs["training"]
            given = draw(program, FREE)
            session.load(given["parameters"], given["statistics"])
            results, gradients = session.gradients(
                "training", given["inputs"], given["state"], given["targets"]
            )
            wanted = by_oracle(program, given, FREE)
            got = {n: (results | gradients)[n] for n in wanted}
            found[f"{name} {path} {dtype}"] = worst(got, wanted)
    return found


def answers(session: Session, given: dict[str, Arrays]) -> Arrays:
    """Return the results of a session; on JAX, only the results of one function per path."""
    if NAME != "keras-jax":
        return everything(session, given)
    session.load(given["parameters"], given["statistics"])
    batch = (given["inputs"], given["state"], given["targets"])
    results, gradients = session.gradients("training", *batch)
    for rate in (0.125, 0.0625, 0.04):
        last = session.step(*batch, rate)
    left = session.read()
    parts = {"first": results, "gradient": gradients, "last": last}
    parts |= {"parameter": left["parameters"], "statistics": left["statistics"]}
    return {f"{part} {n}": a for part, arrays in parts.items() for n, a in arrays.items()}


def apart(spec: Spec, dtype: str, given: dict[str, Arrays] | None = None) -> dict[str, Any]:
    """Return the difference between the native path and the equations, and the native layers."""
    sessions = [start(spec, path, dtype) for path in ("native", "equations")]
    given = given or draw(sessions[0].programs["training"], FREE)
    found, wanted = (answers(session, given) for session in sessions)
    return {"error": worst(found, wanted), "paths": sessions[0].paths()}


def trained(optimizer: str) -> dict[str, Any]:
    """Return the difference from numpy in parameters and slots after three optimizer steps."""
    spec = spec_of(TINY.replace("OPTIMIZER", optimizer))
    mine = start(spec, "native", "float64")
    programs = (mine.programs["training"], mine.programs["inference"])
    other = make_session(
        load("numpy"), *programs, path="derived", dtype="float64", rule=spec.update
    )
    given, kept = draw(programs[0], FREE), []
    for session in (mine, other):
        session.load(given["parameters"], given["statistics"])
        for rate in (0.1, 0.1, 0.03):
            session.step(given["inputs"], given["state"], given["targets"], rate)
        state = session.read()
        slots = {f"{s} {n}": a for s, arrays in state["slots"].items() for n, a in arrays.items()}
        kept.append(state["parameters"] | slots)
    return {"error": worst(kept[0], kept[1]), "paths": mine.paths(), "arrays": len(kept[1])}


def kinks() -> dict[str, list[float]]:
    """Return gradients for pre-activations exactly at a kink, and outputs for NaN."""
    session = start(spec_of(KINKS), "native", "float32")
    names = ("fifth", "sixth", "rectify")
    eye = {f"{n}.W": np.eye(7) for n in names} | {f"{n}.b": np.zeros(7) for n in names}
    session.load(eye, {})
    x, target = np.array([[-3.0, -2.5, 0.0, 2.5, 3.0, 1.0, -1.0]]), np.full((1, 7), 9.0)
    _, gradients = session.gradients("training", {"x": x}, {}, {"target": target})
    found = {n: [float(g) for g in gradients[f"{n}.b"]] for n in names}
    results = session.forward("inference", {"x": np.full((1, 7), np.nan)}, {})
    found["nan"] = [float(np.isnan(results[f"output.{n}"]).all()) for n in "abc"]
    return found


def losses() -> dict[str, Any]:
    """Return errors for logits that are 1,000 apart, and for targets that do not sum to 1."""
    spec = spec_of(LOSSES)
    given = draw(start(spec, "equations", "float64").programs["training"], FREE)
    given["parameters"]["out.W"] = np.eye(4)
    given["inputs"]["logits"] = np.array([[0.0, 1e3, -5, 2], [1, 2, 3, 4], [-1e3, 0, 0, 0]])
    return apart(spec, "float64", given) | {"float32": apart(spec, "float32", given)["error"]}


def model_object() -> dict[str, Any]:
    """Return facts about the Keras model of the stateful LSTM, and its difference from the
    session."""
    session: Any = start(load_spec("lesson6/stateful_lstm"), "native", "float32")
    given = draw(session.programs["inference"], FREE)
    session.load(given["parameters"], given["statistics"])
    model = session.whole.model("inference", **FREE)
    lines: list[str] = []
    model.summary(line_length=160, print_fn=lines.append)
    order = [tensor.name for tensor in model.inputs]
    arrays = {f"input.{n}": a for n, a in given["inputs"].items()}
    arrays |= {f"state.{n}": a.astype("float32") for n, a in given["state"].items()}
    own = [backend.numpy(t) for t in model([backend.tensor(arrays[n]) for n in order])]
    results = session.forward("inference", given["inputs"], given["state"])
    names = [f"output.{p.name}" for p in session.programs["inference"].outputs]
    pairs = dict(zip(names, own, strict=False))
    return {
        "summary": "\n".join(lines),
        "keras": isinstance(model, backend.keras.Model),
        "error": worst(pairs, {n: results[n] for n in pairs}),
        "paths": session.paths(),
        "parameters": model.count_params(),
    }


def watched() -> float:
    """Return the error if native layers run one by one, as in the search for a cause."""
    session: Any = start(spec_of(MIXED), "native", "float32")
    given = draw(session.programs["training"], FREE)
    session.load(given["parameters"], given["statistics"])
    batch = (given["inputs"], given["state"], given["targets"])
    wanted = session.forward("training", *batch)
    seen: list[int] = []
    tensors = session.arguments("training", *batch)
    found = session.walk("training", "loss", *tensors, lambda i, _, __: seen.append(i))
    assert seen
    return worst(session.to_numpy(found), wanted)


def refused() -> str:
    """Return the error message for a backend that needs another engine in this process."""
    other = "keras" if NAME != "keras" else "keras-jax"
    try:
        load(other)
    except HarnessError as error:
        return str(error)
    return ""


def copies() -> bool:
    """Return whether tensors and arrays share no memory with their source."""
    array = np.zeros(3)
    tensor = backend.tensor(array)
    array[:] = 1
    out = backend.numpy(tensor)
    out[:] = 2
    return not backend.numpy(tensor).any()


def calls_in_python() -> int:
    """Return how often Python runs a compiled function that is called 14 times."""
    count = 0

    def function(variables: Arrays, constants: Arrays) -> Arrays:
        nonlocal count
        count += 1
        return {"y": backend.primitives["add"](variables["x"], constants["z"])}

    compiled = backend.compile(function)
    tensor = backend.tensor(np.ones(3))
    answers = [backend.numpy(compiled({"x": tensor}, {"z": tensor})["y"]) for _ in range(14)]
    assert all(np.array_equal(answer, [2, 2, 2]) for answer in answers)
    return count


def claims_of(name: str) -> list[str]:
    """Return the labels of the layers that the backend claims in float64."""
    backend.use("cpu", "float64")
    program = load_spec(name).program("training")
    layers = [ClaimableCall.of(program, n, "training") for n in program.calls]
    found = [backend.claim(layer) for layer in layers]
    return [native.label for native in found if native is not None]


def raw() -> Mapping[str, Any]:
    """Return the behaviour of Keras itself that the backend works around."""
    keras = backend.keras
    backend.use("cpu", "float64")
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=(5, 7))

    def adam(floatx: str, number: Any) -> float:
        keras.config.set_floatx(floatx)
        variable = keras.Variable(np.zeros((5, 7)), dtype="float64")
        optimizer = keras.optimizers.Adam(0.001, beta_1=number(0.9), beta_2=number(0.999))
        m = v = p = np.zeros((5, 7))
        for t in range(1, 4):
            optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable])
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            p = p - 0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        return worst({"p": backend.numpy(variable.value)}, {"p": p})

    found: dict[str, Any] = {
        "adam": adam("float32", float),
        "adam floatx": adam("float64", float),
        "adam numpy": adam("float64", np.float64),
    }
    x = backend.tensor(gradient)
    product = keras.ops.matmul(x, keras.ops.transpose(x))
    found["matmul"] = worst({"x": backend.numpy(product)}, {"x": gradient @ gradient.T})
    found["tanh"] = worst({"x": backend.numpy(keras.ops.tanh(x))}, {"x": np.tanh(gradient)})
    found["batch_norm"] = worst(
        {"x": backend.numpy(keras.layers.BatchNormalization(epsilon=0.0)(x, training=True))},
        {"x": (gradient - gradient.mean(0)) / gradient.std(0)},
    )
    if NAME == "keras":
        import tensorflow as tf

        rows = tf.IndexedSlices(tf.ones((3, 1), tf.float64), tf.constant([0, 0, 1]), (2, 1))
        table = keras.Variable(np.zeros((2, 1)))
        optimizer = keras.optimizers.Adam(0.001)
        optimizer.apply([rows], [table])
        found["repeated rows"] = backend.numpy(optimizer.variables[3].value)[:, 0].tolist()
        logits = tf.constant([[0.0, 1.0]], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = keras.losses.categorical_crossentropy([[1.0, 0.5]], logits, from_logits=True)
        right = 1.5 * np.exp([0, 1]) / np.exp([0, 1]).sum() - [1, 0.5]
        pooled = tf.nn.max_pool2d(tf.constant([[[[np.nan]], [[3.0]]]]), (2, 1), 1, "VALID")
        found["pooled"] = float(pooled[0, 0, 0, 0])
        found["targets"] = float(np.abs(tape.gradient(loss, logits)[0].numpy() - right).max())
    return found


if __name__ == "__main__":
    backend: Any = load(NAME)
    # XLA takes one to three seconds to compile each function, so test fewer models.
    slow = NAME == "keras-jax"
    chosen = ["lesson6/stateful_lstm", "lesson6/keras_gru"]
    chosen += [] if slow else [f"lesson6/{n}" for n in ("first_rnn", "theano_rnn", "theano_gru")]
    runs = [("native", "float64"), ("native", "float32")]
    runs += [] if slow else [("equations", "float64"), ("derived", "float64")]
    optimizers = ("sgd", "sgd_momentum_scaled", "adam_epsilon_hat", "rmsprop_epsilon_inside")
    optimizers += ("adadelta", "adagrad_epsilon_inside", "adamw_epsilon_hat", "lion", "lamb")
    optimizers += ("amsgrad_epsilon_hat",)
    report = {
        "refused": refused(),
        "copies": copies(),
        "models": models(chosen, runs),
        "mixed": {
            d: apart(spec_of(MIXED), d) for d in (["float32"] if slow else ["float64", "float32"])
        },
        "optimizers": {n: trained(n) for n in optimizers},
        "kinks": kinks(),
        "losses": losses(),
        "model": model_object(),
        "watched": watched(),
        "long loop": long_loop(backend),
        "claims": {n: claims_of(n) for n in ("lesson6/stateful_lstm", "lesson6/keras_gru")},
        "raw": raw(),
        "calls": calls_in_python(),
        "versions": dict(backend.versions()),
        "devices": list(backend.devices()),
    }
    print(json.dumps(report))
