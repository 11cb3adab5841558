"""The models of specs/models and of real size in plain JAX: ``jax.jit`` of a whole step, and optax.

One jitted call a step; parameters, optimizer state and statistics are donated. Attention is
``jax.nn.dot_product_attention``, convolutions are ``lax.conv_general_dilated``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax_attention as attention
import jax_images as images
import jax_others as others
import optax
from contract import Given
from jax_layers import Arrays
from jax_parts import nested
from jax_steps import Forward, Training, use_dtype

# name -> what gives the logits, and the output that they are made into.
MODELS: Mapping[str, tuple[Callable[..., jax.Array], str]] = {
    "bert": (attention.bert, "logits"),
    "bilstm_tagger": (others.bilstm_tagger, "chances"),
    "dlrm": (others.dlrm, "probability"),
    "gcn": (others.gcn, "classes_of_nodes"),
    "gpt": (attention.gpt, "next_chars"),
    "lenet": (images.lenet, "digit"),
    "llama": (attention.llama, "next_chars"),
    "lstm_language_model": (others.lstm_language_model, "next_words"),
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
    "resnet50": (images.resnet50, "y"),
    "resnet_bottleneck": (images.resnet_bottleneck, "kind"),
}
# What logits are made into where that is not a softmax.
ENDS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "bert": lambda logits: logits,
    "dlrm": jax.nn.sigmoid,
    "resnet50": lambda logits: logits,
    "vae": jax.nn.sigmoid,
}
# Losses of what has not ended.
MASKED: Mapping[str, Callable[[jax.Array, Arrays, Arrays], jax.Array]] = {
    "bert": attention.bert_loss,
    "bilstm_tagger": others.tagger_loss,
}


def loss_of(system: str, logits: jax.Array, inputs: Arrays, targets: Arrays) -> jax.Array:
    """The loss of a batch from its logits."""
    if system in MASKED:
        return MASKED[system](logits, inputs, targets)
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


def loss_function(system: str, sizes: Mapping[str, int]) -> Callable[..., Any]:
    """(parameters, statistics, batch) to (loss, statistics)."""
    model = applied(system, sizes, training=True)

    def loss(parameters: Any, statistics: Any, batch: Any) -> Any:
        inputs, targets = batch["inputs"], batch["targets"]
        if system == "vae":
            return others.vae_loss(parameters, inputs), statistics
        logits, statistics = model(parameters, statistics, inputs)
        return loss_of(system, logits, inputs, targets), statistics

    return loss


def prediction(system: str, sizes: Mapping[str, int]) -> Callable[..., Any]:
    """(parameters, statistics, inputs) to (outputs, statistics)."""
    model = applied(system, sizes, training=False)
    name = (MODELS | NORMALISED)[system][1]  # type: ignore[operator]
    end = ENDS.get(system, jax.nn.softmax)

    def predict(parameters: Any, statistics: Any, inputs: Any) -> Any:
        return {f"output.{name}": end(model(parameters, statistics, inputs)[0])}, statistics

    return predict


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


def make(given: Given) -> Training | Forward:
    """Steps of a model in mode ``train`` or ``forward``, in the dtype of the parameters."""
    use_dtype(given)
    arrays = others.tree(given.parameters), nested(given.statistics), given.batches
    if given.mode == "forward":
        return Forward(prediction(given.system, given.sizes), *arrays)
    chosen = OPTIMIZERS[given.optimizer["optimizer"]](given.learning_rate, given.optimizer)
    return Training(loss_function(given.system, given.sizes), chosen, *arrays)
