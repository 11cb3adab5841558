"""The Lesson 6 models in Keras, for whichever engine KERAS_BACKEND names, in float32.

Functional models of Keras' own layers, compiled with its losses and optimizers. A model gives
logits, as its losses want them to be exact; a prediction ends in a softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from contract import Given
from keras import layers, ops

Arrays = Mapping[str, Any]
SUMMED = ("theano_rnn", "pure_python_rnn", "theano_gru", "theano_gru_combined")


def hard_sigmoid(x: Any) -> Any:
    """That of Keras 2; Keras 3 has a slope of 1/6."""
    return ops.clip(0.2 * x + 0.5, 0, 1)


class TwoBiasCell(layers.SimpleRNNCell):
    """A bias of the input and one of the state, as torch has them."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.state_bias = self.add_weight(shape=(self.units,), name="state_bias")

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        x = ops.matmul(sequence, self.kernel) + self.bias
        h = self.activation(x + ops.matmul(states[0], self.recurrent_kernel) + self.state_bias)
        return h, [h]


class CarryingLSTM(layers.LSTM):
    """A stateful LSTM that carries its state on every engine.

    Keras' own writes the new state over the one that torch's autograd still needs, and leaves its
    state out of the layer's variables, without which jax forgets it.
    """

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        self.h, self.c = self.states

    def call(self, sequences: Any, initial_state: Any = None, **free: Any) -> Any:
        copies = [ops.copy(variable) for variable in self.states]
        return super().call(sequences, initial_state=copies, **free)


def units(parameters: Arrays, layer: str) -> int:
    """The length of a layer's result."""
    return int(parameters[f"{layer}.W"].shape[1])


def dense(parameters: Arrays, layer: str, activation: str | None = None) -> Any:
    bias = f"{layer}.b" in parameters
    return layers.Dense(units(parameters, layer), activation=activation, use_bias=bias, name=layer)


def embedding(parameters: Arrays, layer: str) -> Any:
    return layers.Embedding(*parameters[f"{layer}.table"].shape, name=layer)


def positions(system: str, parameters: Arrays, inputs: Arrays) -> list[Any]:
    """Shared layers, written out for every position."""
    dense_in = dense(parameters, "dense_in", "relu")
    hidden = dense(parameters, "dense_hidden", "tanh" if system == "three_char" else "relu")
    many = system == "sequence_unrolled"
    out = dense(parameters, "output" if many else "dense_out")
    h = dense_in(inputs["zero"]) if many else None
    logits = []
    for name in sorted(set(inputs) - {"zero"}):
        x = dense_in(embedding(parameters, f"embed_{name[1:]}")(inputs[name]))
        h = x if h is None else layers.add([x, hidden(h)])
        logits.append(out(h))
    return logits if many else logits[-1:]


def recurrent(system: str) -> Any:
    """The recurrent layer of a system, of 256 units."""
    options = {"return_sequences": system != "simple_rnn"}
    if "lstm" in system:
        gate = {"recurrent_activation": hard_sigmoid if system == "stateful_lstm" else "sigmoid"}
        return CarryingLSTM(256, stateful=True, name="lstm", **gate, **options)
    if system == "index_gru":
        return layers.GRU(256, name="gru", **options)
    if "gru" in system:
        candidate, gate = ("relu", hard_sigmoid) if system == "keras_gru" else ("sigmoid",) * 2
        activations = {"activation": candidate, "recurrent_activation": gate}
        return layers.GRU(256, reset_after=False, name="gru", **activations, **options)
    if system == "theano_rnn":
        return layers.RNN(TwoBiasCell(256, activation="relu"), name="rnn", **options)
    bias = system != "pure_python_rnn"
    return layers.SimpleRNN(256, activation="relu", use_bias=bias, name="rnn", **options)


def sequence(system: str, parameters: Arrays, inputs: Arrays) -> list[Any]:
    """Embedding, normalisation where there is one, recurrent layer, dense layer."""
    x = inputs["chars"]
    if "embed.table" in parameters:
        x = embedding(parameters, "embed")(x)
    if "norm.gamma" in parameters:
        x = layers.BatchNormalization(name="norm")(x)
    first = {"initial_state": inputs["h0"]} if "h0" in inputs else {}
    return [dense(parameters, "out")(recurrent(system)(x, **first))]


def weights(parameters: Arrays) -> list[Any]:
    """A layer's own parameters in Keras' order: gates side by side, z r n and i f g o."""
    p = dict(parameters)
    if "table" in p:
        return [p["table"]]
    if "gamma" in p:
        return [p[n] for n in ("gamma", "beta", "moving_mean", "moving_variance")]
    for gate in "zrn" if "K_z" in p else "":
        count = p["b_z"].size
        p[f"U_{gate}"], p[f"W_{gate}"] = np.split(p[f"K_{gate}"], [count])
    if "b_z" in p or "b_f" in p:
        gates = "zrn" if "b_z" in p else "ifgo"
        kinds = "WUbc" if "c_z" in p else "WUb"
        found = [np.concatenate([p[f"{k}_{g}"] for g in gates], axis=-1) for k in kinds]
        return [*found[:2], np.stack(found[2:])] if "c_z" in p else found
    return [p[n] for n in ("W", "U", "b", "c") if n in p]


def build(system: str, parameters: Arrays, statistics: Arrays, state: Arrays, batch: Arrays) -> Any:
    """The model, holding the parameters, the statistics and the first state."""
    inputs = {}
    for name, array in batch.items():
        kind = "int32" if array.dtype.kind in "iu" else "float32"
        if state:
            inputs[name] = keras.Input(batch_shape=array.shape, dtype=kind, name=name)
        else:
            inputs[name] = keras.Input(array.shape[1:], dtype=kind, name=name)
    logits = (positions if "c1" in inputs else sequence)(system, parameters, inputs)
    model = keras.Model(list(inputs.values()), logits)
    local: dict[str, dict[str, Any]] = {}
    for name, array in {**parameters, **statistics}.items():
        layer, _, rest = name.partition(".")
        local.setdefault(layer, {})[rest] = array
    for layer, found in local.items():
        owner = model.get_layer(layer)
        getattr(owner, "cell", owner).set_weights(weights(found))
    for name, array in state.items():
        getattr(model.get_layer("lstm"), name).assign(array)
    return model


def tensors(arrays: Arrays) -> list[Any]:
    """On the device, in the precision that the model works in."""
    kinds = {"i": "int32", "f": "float32"}
    return [ops.convert_to_tensor(a, dtype=kinds[a.dtype.kind]) for a in arrays.values()]


class Training:
    """``train_on_batch`` for every batch."""

    def __init__(self, model: Any, batches: Sequence[Mapping[str, Arrays]]) -> None:
        self.model = model
        self.feed(batches)

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Other batches of the same shapes."""
        self.batches = [(tensors(b["inputs"]), tensors(b["targets"])) for b in batches]

    def start(self, index: int) -> float:
        """An update; its loss is that from before it. Keras waits for each."""
        x, y = self.batches[index % len(self.batches)]
        return self.model.train_on_batch(x, y, return_dict=True)["loss"]

    def finish(self, handle: float) -> dict[str, np.ndarray]:
        """The loss."""
        return {"loss": np.asarray(handle)}


class Fitting(Training):
    """``fit`` for many batches: on jax a seventh faster at batch 64, as fast at 1024.

    On torch it is as fast as ``train_on_batch``, on TensorFlow a quarter slower.
    """

    def run(self, first: int, count: int) -> float:
        """All but the last in one epoch: it would give only the mean of its losses."""
        rotating = (self.batches[i % len(self.batches)] for i in range(first, first + count - 1))
        if count > 1:
            self.model.fit(rotating, steps_per_epoch=count - 1, shuffle=False, verbose=0)
        return self.start(first + count - 1)


class Forward:
    """``predict_on_batch`` for every batch."""

    def __init__(self, model: Any, batches: Sequence[Mapping[str, Arrays]]) -> None:
        self.model = model
        self.feed(batches)

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Other batches of the same shapes."""
        self.batches = [tensors(b["inputs"]) for b in batches]

    def start(self, index: int) -> dict[str, np.ndarray]:
        """A prediction. Keras waits for each."""
        return self.model.predict_on_batch(self.batches[index % len(self.batches)])

    def finish(self, handle: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name."""
        return handle


def predictor(model: Any) -> Any:
    """The model that gives probabilities, by the names of the outputs."""
    probabilities = [layers.Softmax()(logits) for logits in model.outputs]
    sequences = len(model.outputs[0].shape) == 3
    names = ["next_chars" if sequences else "next_char"]
    if len(probabilities) > 1:
        names = [f"next_{k}" for k in range(1, len(probabilities) + 1)]
    outputs = {f"output.{n}": p for n, p in zip(names, probabilities, strict=True)}
    return keras.Model(model.inputs, outputs)


OPTIMIZERS: Mapping[str, Callable[[float, Arrays], Any]] = {
    "adam_epsilon_hat": lambda rate, n: keras.optimizers.Adam(
        rate, n["beta_1"], n["beta_2"], n["epsilon"]
    ),
    "sgd": lambda rate, n: keras.optimizers.SGD(rate),
}


def make(given: Given) -> Training | Forward:
    """Steps of a system in ``mode`` "train" or "forward".

    Raises :class:`ValueError` for parameters that are not float32.
    """
    for name, array in given.parameters.items():
        if array.dtype != np.float32:
            raise ValueError(f"{name}: expected float32, found {array.dtype}")
    model = build(
        given.system, given.parameters, given.statistics, given.state, given.batches[0]["inputs"]
    )
    if given.mode == "forward":
        return Forward(predictor(model), given.batches)
    targets = given.batches[0]["targets"]
    sparse = all(array.dtype.kind == "i" for array in targets.values())
    losses = keras.losses
    entropy = losses.SparseCategoricalCrossentropy if sparse else losses.CategoricalCrossentropy
    reduction = "sum" if given.system in SUMMED else "sum_over_batch_size"
    model.compile(
        optimizer=OPTIMIZERS[given.optimizer["optimizer"]](given.learning_rate, given.optimizer),
        loss=[entropy(from_logits=True, reduction=reduction) for _ in targets],
    )
    return (Fitting if keras.backend.backend() == "jax" else Training)(model, given.batches)
