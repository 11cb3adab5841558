"""The models of specs/models in plain JAX: ``jax.jit`` of a whole step, and optax.

One jitted call a step; parameters, optimizer state and statistics are donated. Attention is
``jax.nn.dot_product_attention``, convolutions are ``lax.conv_general_dilated``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax_attention as attention
import jax_images as images
import jax_others as others
import numpy as np
import optax
from jax_layers import Arrays
from jax_parts import nested
from native_jax import Baseline

# name -> what gives the logits, and the output that they are made into.
MODELS: Mapping[str, tuple[Callable[..., jax.Array], str]] = {
    "bert": (attention.bert, "logits"),
    "bilstm_tagger": (others.bilstm_tagger, "chances"),
    "dlrm": (others.dlrm, "probability"),
    "gcn": (others.gcn, "classes_of_nodes"),
    "gpt": (attention.gpt, "next_chars"),
    "lenet": (images.lenet, "digit"),
    "llama": (attention.llama, "next_chars"),
    "mamba": (others.mamba, "next_chars"),
    "mlp": (others.mlp, "next_char"),
    "moe": (attention.moe, "next_chars"),
    "seq2seq_attention": (others.seq2seq_attention, "next_words"),
    "unet": (images.unet, "label"),
    "vae": (others.vae, "image"),
    "vit": (attention.vit, "digit"),
}
# Those with statistics, which they give back.
NORMALISED: Mapping[str, tuple[Callable[..., tuple[jax.Array, Any]], str]] = {
    "resnet": (images.resnet, "kind"),
    "resnet_bottleneck": (images.resnet_bottleneck, "kind"),
}
# What logits are made into where that is not a softmax.
ENDS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "bert": lambda logits: logits,
    "dlrm": jax.nn.sigmoid,
    "vae": jax.nn.sigmoid,
}


def loss_of(system: str, logits: jax.Array, inputs: Arrays, targets: Arrays) -> jax.Array:
    """The loss of a batch from its logits."""
    if system == "bert":
        return attention.bert_loss(logits, inputs, targets)
    (target,) = targets.values()
    if system == "dlrm":
        entropy = optax.sigmoid_binary_cross_entropy(logits, target.astype(logits.dtype))
    else:
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return entropy.mean()


def applied(system: str, sizes: Mapping[str, int], training: bool) -> Callable[..., Any]:
    """(parameters, statistics, inputs) to (logits, statistics)."""
    if system in NORMALISED:
        model, _ = NORMALISED[system]
        return lambda p, s, inputs: model(p, s, inputs, training)
    plain, _ = MODELS[system]
    return lambda p, s, inputs: (plain(p, inputs, sizes), s)


class Training(Baseline):
    """One update a step."""

    def __init__(self, system: str, sizes: Mapping[str, int], optimizer: Any, *arrays: Any) -> None:
        super().__init__(*arrays)
        self.optimizer_state = optimizer.init(self.parameters)
        model = applied(system, sizes, training=True)

        def loss(parameters: Any, statistics: Any, batch: Any) -> Any:
            inputs, targets = batch["inputs"], batch["targets"]
            if system == "vae":
                return others.vae_loss(parameters, inputs), statistics
            logits, statistics = model(parameters, statistics, inputs)
            return loss_of(system, logits, inputs, targets), statistics

        @partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(parameters: Any, optimizer_state: Any, statistics: Any, batch: Any) -> Any:
            grad = jax.value_and_grad(loss, has_aux=True)
            (value, statistics), gradients = grad(parameters, statistics, batch)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
            return optax.apply_updates(parameters, updates), optimizer_state, statistics, value

        self.step = step

    def start(self, index: int) -> dict[str, jax.Array]:
        """Begin an update; its loss is that from before it."""
        self.parameters, self.optimizer_state, self.carried, loss = self.step(
            self.parameters,
            self.optimizer_state,
            self.carried,
            self.batches[index % len(self.batches)],
        )
        return {"loss": loss}


class Forward(Baseline):
    """One prediction a step."""

    def __init__(self, system: str, sizes: Mapping[str, int], *arrays: Any) -> None:
        super().__init__(*arrays)
        model = applied(system, sizes, training=False)
        name = (MODELS | NORMALISED)[system][1]  # type: ignore[operator]
        end = ENDS.get(system, jax.nn.softmax)

        @jax.jit
        def predict(parameters: Any, statistics: Any, inputs: Any) -> dict[str, jax.Array]:
            return {f"output.{name}": end(model(parameters, statistics, inputs)[0])}

        self.predict = predict

    def start(self, index: int) -> dict[str, jax.Array]:
        """Begin a forward pass."""
        inputs = self.batches[index % len(self.batches)]["inputs"]
        return self.predict(self.parameters, self.carried, inputs)


def scheduled_adamw(rate: float, n: Arrays) -> Any:
    """The optimizer of mlp: a warm-up and half a cosine, and a gradient of at most 1."""
    cosine = optax.warmup_cosine_decay_schedule(0.0, rate, 50, 5000)
    # optax counts steps from 0, the spec from 1.
    adamw = optax.adamw(
        lambda step: cosine(step + 1), n["beta_1"], n["beta_2"], n["epsilon"],
        weight_decay=n["weight_decay"],
    )  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


OPTIMIZERS: Mapping[str, Callable[[float, Arrays], Any]] = {
    "adam": lambda rate, n: optax.adam(rate, n["beta_1"], n["beta_2"], n["epsilon"]),
    "adamw": scheduled_adamw,
    "sgd": lambda rate, n: optax.sgd(rate),
    "sgd_momentum": lambda rate, n: optax.sgd(rate, n["momentum"]),
}


def make(
    system: str,
    mode: str,
    parameters: Arrays,
    statistics: Arrays,
    state: Arrays,
    batches: Sequence[Mapping[str, Arrays]],
    learning_rate: float,
    optimizer: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> Training | Forward:
    """Steps of a model in mode ``train`` or ``forward``, in the dtype of the parameters."""
    dtype = next(iter(parameters.values())).dtype
    jax.config.update("jax_enable_x64", bool(dtype == np.float64))
    arrays = others.tree(parameters), nested(statistics), batches
    if mode == "forward":
        return Forward(system, sizes, *arrays)
    chosen = OPTIMIZERS[optimizer["optimizer"]](learning_rate, optimizer)
    return Training(system, sizes, chosen, *arrays)
