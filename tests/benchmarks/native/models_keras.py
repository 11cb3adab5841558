"""The models of specs/models in Keras, for whichever engine KERAS_BACKEND names, in float32.

Functional models of Keras' own layers, compiled with its losses and optimizers. A model gives
logits, as its losses want them to be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from contract import Given
from keras import layers, ops
from keras_networks import NETWORKS, Network
from keras_parts import Arrays, part, weights
from native_keras import Fitting, Forward, Training

# What logits are made into: the output's name, and Keras' function where it is not a softmax.
OUTPUTS: Mapping[str, tuple[str, str]] = {
    "bert": ("logits", "linear"),
    "bilstm_tagger": ("chances", "softmax"),
    "dlrm": ("probability", "sigmoid"),
    "gcn": ("classes_of_nodes", "softmax"),
    "gpt": ("next_chars", "softmax"),
    "lenet": ("digit", "softmax"),
    "llama": ("next_chars", "softmax"),
    "mamba": ("next_chars", "softmax"),
    "mlp": ("next_char", "softmax"),
    "moe": ("next_chars", "softmax"),
    "resnet": ("kind", "softmax"),
    "resnet_bottleneck": ("kind", "softmax"),
    "seq2seq_attention": ("next_words", "softmax"),
    "unet": ("label", "softmax"),
    "vae": ("image", "sigmoid"),
    "vit": ("digit", "softmax"),
}
# Whose loss is of what has not ended.
MASKED = ("bert", "bilstm_tagger")


class WarmupCosine(keras.optimizers.schedules.CosineDecay):
    """Keras' schedule, which counts steps from 0, at the spec's, which counts them from 1."""

    def __call__(self, step: Any) -> Any:
        return super().__call__(ops.cast(step, "float32") + 1)


def scheduled_adamw(rate: float, n: Arrays) -> Any:
    """The optimizer of mlp: a warm-up and half a cosine, and a gradient of at most 1."""
    schedule = WarmupCosine(0.0, 4950, warmup_target=rate, warmup_steps=50)
    return keras.optimizers.AdamW(
        schedule, n["weight_decay"], n["beta_1"], n["beta_2"], n["epsilon"], global_clipnorm=1.0
    )


OPTIMIZERS: Mapping[str, Callable[[float, Arrays], Any]] = {
    "adam": lambda rate, n: keras.optimizers.Adam(rate, n["beta_1"], n["beta_2"], n["epsilon"]),
    "adamw": scheduled_adamw,
    "sgd": lambda rate, n: keras.optimizers.SGD(rate),
    "sgd_momentum": lambda rate, n: keras.optimizers.SGD(rate, n["momentum"]),
}


def build(system: str, parameters: Arrays, batch: Arrays, sizes: Mapping[str, int]) -> Any:
    """The model, holding the parameters; its output are logits."""
    inputs = {}
    for name, array in batch.items():
        kind = "int32" if array.dtype.kind in "iu" else "float32"
        given = {"batch_shape": array.shape} if system == "gcn" else {"shape": array.shape[1:]}
        inputs[name] = keras.Input(dtype=kind, name=name.replace(".", "_"), **given)
    network = Network(parameters, sizes)
    model = keras.Model(list(inputs.values()), NETWORKS[system](network, inputs))
    for name, layer in network.layers.items():
        for owner, arrays in weights(layer, part(parameters, name)):
            if isinstance(arrays, list):
                owner.set_weights(arrays)
            else:
                owner.assign(arrays)
    return model


class Weighed(Training):
    """Batches of which some predictions count, those inside of a row, and of what was hidden."""

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Other batches of the same shapes."""
        aims, self.weights = [], []
        for batch in batches:
            targets = dict(batch["targets"])
            hidden = targets.pop("hidden", True)
            (target,) = targets.values()
            inside = np.arange(target.shape[1]) < batch["inputs"]["lengths"][:, None]
            kept = np.asarray(hidden & inside, np.float32)
            aims.append({"inputs": batch["inputs"], "targets": targets})
            self.weights.append(ops.convert_to_tensor(kept))
        super().feed(aims)

    def start(self, index: int) -> float:
        """An update; its loss is that from before it. Keras waits for each."""
        number = index % len(self.batches)
        x, target = self.batches[number]
        found = self.model.train_on_batch(
            x, target, sample_weight=self.weights[number], return_dict=True
        )
        return found["loss"]


def loss_of(system: str) -> Any:
    """The loss that a model is compiled with."""
    losses = keras.losses
    if system == "vae":
        # Summed over pixels: binary_crossentropy is their mean.
        return lambda y, z: losses.binary_crossentropy(y, z, from_logits=True) * y.shape[-1]
    if system == "dlrm":
        return losses.BinaryCrossentropy(from_logits=True)
    reduction = "mean_with_sample_weight" if system in MASKED else "sum_over_batch_size"
    return losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)


def make(given: Given) -> Training | Forward:
    """Steps of a model in ``mode`` "train" or "forward"."""
    arrays = {**given.parameters, **given.statistics}
    model = build(given.system, arrays, given.batches[0]["inputs"], given.sizes)
    if given.mode == "forward":
        name, function = OUTPUTS[given.system]
        made = model.output if function == "linear" else layers.Activation(function)(model.output)
        return Forward(keras.Model(model.inputs, {f"output.{name}": made}), given.batches)
    chosen = OPTIMIZERS[given.optimizer["optimizer"]](given.learning_rate, given.optimizer)
    model.compile(optimizer=chosen, loss=loss_of(given.system))
    batches = given.batches
    if given.system == "vae":
        batches = [{"inputs": b["inputs"], "targets": {"x": b["inputs"]["x"]}} for b in batches]
    if given.system in MASKED:
        return Weighed(model, batches)
    return (Fitting if keras.backend.backend() == "jax" else Training)(model, batches)
