"""The models in Keras as functions of their inputs, which give logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import layers, ops
from keras_parts import (
    Arrays,
    Convolution,
    Experts,
    GroupedAttention,
    Positions,
    Sample,
    SelectiveScan,
    adjacency,
    count,
    not_ended,
)


def gelu_tanh(x: Any) -> Any:
    """The gelu of GPT-2."""
    return ops.gelu(x, approximate=True)


def gelu(x: Any) -> Any:
    """The exact one."""
    return ops.gelu(x, approximate=False)


class Network:
    """Makes layers under the names of the spec's, of the shapes that its parameters have."""

    def __init__(self, parameters: Arrays, sizes: Mapping[str, int]) -> None:
        self.parameters, self.sizes = parameters, sizes
        self.layers: dict[str, Any] = {}

    def add(self, name: str, layer: Any) -> Any:
        """Keep a layer, which gets the parameters of that name."""
        self.layers[name] = layer
        return layer

    def dense(self, name: str, activation: Any = None) -> Any:
        bias = f"{name}.b" in self.parameters
        width = self.parameters[f"{name}.W"].shape[-1]
        return self.add(name, layers.Dense(width, activation=activation, use_bias=bias))

    def embedding(self, name: str) -> Any:
        return self.add(name, layers.Embedding(*self.parameters[f"{name}.table"].shape))

    def positions(self, name: str) -> Any:
        return self.add(name, Positions(len(self.parameters[f"{name}.table"])))

    def layer_norm(self, name: str) -> Any:
        return self.add(name, layers.LayerNormalization(epsilon=1e-5))

    def rms_norm(self, name: str) -> Any:
        return self.add(name, layers.RMSNormalization(epsilon=1e-6))

    def attention(self, name: str) -> Any:
        return self.add(name, layers.MultiHeadAttention(self.sizes["heads"], self.sizes["head"]))

    def conv(
        self, name: str, padding: str = "valid", stride: int = 1, activation: Any = None
    ) -> Any:
        kernel, _, _, width = self.parameters[f"{name}.W"].shape
        bias = f"{name}.b" in self.parameters
        layer = layers.Conv2D(width, kernel, stride, padding, activation=activation, use_bias=bias)
        return self.add(name, layer)

    def conv_transpose(self, name: str, stride: int) -> Any:
        kernel, _, width, _ = self.parameters[f"{name}.W"].shape
        return self.add(name, layers.Conv2DTranspose(width, kernel, stride))

    def batch_norm(self, name: str) -> Any:
        return self.add(name, layers.BatchNormalization(momentum=0.9, epsilon=1e-3))

    def repeated(self, name: str) -> list[str]:
        """The names of the parts of a repeated layer."""
        return [f"{name}.{n}" for n in range(count(self.parameters, name))]


Inputs = Mapping[str, Any]


def block(n: Network, name: str, x: Any, causal: bool, activation: Any) -> Any:
    """Attention and two dense layers, normalised before each part."""
    h = n.layer_norm(f"{name}.norm_1")(x)
    x = x + n.attention(f"{name}.attend")(h, h, use_causal_mask=causal)
    h = n.dense(f"{name}.up", activation)(n.layer_norm(f"{name}.norm_2")(x))
    return x + n.dense(f"{name}.down")(h)


def gpt(n: Network, inputs: Inputs) -> Any:
    table = n.parameters["embed.table"].shape
    embed = n.add("embed", layers.ReversibleEmbedding(*table))
    x = n.positions("place")(embed(inputs["chars"]))
    for name in n.repeated("blocks"):
        x = block(n, name, x, True, gelu_tanh)
    return embed(n.layer_norm("norm")(x), reverse=True)


def llama(n: Network, inputs: Inputs) -> Any:
    x, s = n.embedding("embed")(inputs["chars"]), n.sizes
    for name in n.repeated("blocks"):
        attend = GroupedAttention(s["groups"], s["each"], s["half"])
        x = x + n.add(f"{name}.attend", attend)(n.rms_norm(f"{name}.norm_1")(x))
        h = n.rms_norm(f"{name}.norm_2")(x)
        h = n.dense(f"{name}.gate", "silu")(h) * n.dense(f"{name}.up")(h)
        x = x + n.dense(f"{name}.down")(h)
    return n.dense("out")(n.rms_norm("norm")(x))


def moe(n: Network, inputs: Inputs) -> Any:
    x = n.positions("place")(n.embedding("embed")(inputs["chars"]))
    h = n.layer_norm("norm_1")(x)
    x = x + n.attention("attend")(h, h, use_causal_mask=True)
    experts = Experts(n.sizes["experts"], n.sizes["chosen"], n.sizes["wide"])
    x = x + n.add("mix", experts)(n.layer_norm("norm_2")(x))
    return n.dense("out")(n.layer_norm("norm")(x))


def bert(n: Network, inputs: Inputs) -> Any:
    chars = inputs["chars"]
    inside = not_ended(chars, inputs["lengths"])
    x = n.layer_norm("norm")(n.positions("place")(n.embedding("embed")(chars)))
    for name in n.repeated("blocks"):
        y = n.attention(f"{name}.attend")(x, x, attention_mask=inside[:, None])
        x = n.layer_norm(f"{name}.norm_1")(x + y)
        y = n.dense(f"{name}.down")(n.dense(f"{name}.up", gelu)(x))
        x = n.layer_norm(f"{name}.norm_2")(x + y)
    return n.dense("out")(n.layer_norm("norm_out")(n.dense("transform", gelu)(x)))


def vit(n: Network, inputs: Inputs) -> Any:
    image, grid, patch = inputs["image"], n.sizes["grid"], n.sizes["patch"]
    channels = image.shape[-1]
    x = ops.reshape(image, (-1, grid, patch, grid, patch, channels))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, grid**2, patch**2 * channels))
    x = n.positions("place")(n.dense("embed")(x))
    for name in n.repeated("blocks"):
        x = block(n, name, x, False, gelu)
    return n.dense("out")(layers.GlobalAveragePooling1D()(n.layer_norm("norm")(x)))


def mamba(n: Network, inputs: Inputs) -> Any:
    x = n.embedding("embed")(inputs["chars"])
    inner, kernel, states = (n.sizes[name] for name in ("inner", "kernel", "states"))
    for name in n.repeated("blocks"):
        h = n.rms_norm(f"{name}.norm")(x)
        conv = n.add(f"{name}.conv", layers.DepthwiseConv1D(kernel, activation="silu"))
        scan = n.add(f"{name}.scan", SelectiveScan(inner, states))
        past = layers.ZeroPadding1D((kernel - 1, 0))(n.dense(f"{name}.up")(h))
        y = scan(conv(past)) * n.dense(f"{name}.gate", "silu")(h)
        x = x + n.dense(f"{name}.down")(y)
    return n.dense("out")(n.rms_norm("norm")(x))


def mlp(n: Network, inputs: Inputs) -> Any:
    x = layers.Flatten()(n.embedding("embed")(inputs["chars"]))
    for name in ("first", *n.repeated("hidden_layers")):
        x = n.dense(name, gelu)(x)
    return n.dense("out")(x)


def vae(n: Network, inputs: Inputs) -> Any:
    h = n.dense("encoder", "tanh")(inputs["x"])
    center, spread = n.dense("center")(h), n.dense("log_variance")(h)
    z = Sample()([center, spread, inputs["sample.unit"]])
    return n.dense("out")(n.dense("decoder", "tanh")(z))


def dlrm(n: Network, inputs: Inputs) -> Any:
    x = n.dense("bottom_2", "relu")(n.dense("bottom_1", "relu")(inputs["dense_features"]))
    a = ops.sum(n.embedding("item_table")(inputs["seen_items"]), axis=1)
    b = ops.sum(n.embedding("user_table")(inputs["like_users"]), axis=1)
    rows = ops.stack([x, a, b], axis=1)
    products = ops.reshape(ops.matmul(rows, ops.transpose(rows, (0, 2, 1))), (-1, 9))
    row, column = np.tril_indices(3, -1)
    pairs = ops.take(products, 3 * row + column, axis=1)
    h = n.dense("top_1", "relu")(ops.concatenate([x, pairs], axis=1))
    return n.dense("top_2")(h)[:, 0]


def gcn(n: Network, inputs: Inputs) -> Any:
    near = adjacency(inputs["sender"], inputs["receiver"], n.sizes["nodes"])
    hidden, classes = n.sizes["hidden"], n.sizes["classes"]
    h = n.add("first", Convolution(hidden, "relu"))([inputs["x"], near])
    return n.add("second", Convolution(classes))([h, near])


def bilstm_tagger(n: Network, inputs: Inputs) -> Any:
    x = n.embedding("embed")(inputs["sentence"])
    inside = not_ended(x, inputs["lengths"])
    for number in (1, 2):
        made = layers.LSTM(n.sizes["hidden"], return_sequences=True, zero_output_for_mask=True)
        both = layers.Bidirectional(made)
        x = both(x, mask=inside)
        n.add(f"read_{number}", both)
    return n.dense("out")(x)


def seq2seq_attention(n: Network, inputs: Inputs) -> Any:
    reader, writer = (
        n.add(name, layers.GRU(n.sizes["hidden"], return_sequences=True))
        for name in ("reader", "writer")
    )
    memory = reader(n.embedding("embed_read")(inputs["read"]))
    h = writer(n.embedding("embed_written")(inputs["before"]))
    inside = not_ended(memory, inputs["lengths"])
    context = layers.Attention()([h, memory], mask=[None, inside])
    return n.dense("out")(n.dense("join", "tanh")(ops.concatenate([context, h], axis=-1)))


def lenet(n: Network, inputs: Inputs) -> Any:
    x = layers.AveragePooling2D(2)(n.conv("conv_1", activation="tanh")(inputs["image"]))
    x = layers.AveragePooling2D(2)(n.conv("conv_2", activation="tanh")(x))
    x = n.dense("dense_1", "tanh")(layers.Flatten()(x))
    return n.dense("out")(n.dense("dense_2", "tanh")(x))


def basic(n: Network, name: str, x: Any) -> Any:
    """Two normalised convolutions beside what goes by, which a stride makes smaller."""
    down = f"{name}.short.W" in n.parameters
    # Padded on both sides, which "same" at a stride of 2 is not.
    y = layers.ZeroPadding2D()(x) if down else x
    y = n.conv(f"{name}.conv_1", "valid" if down else "same", 2 if down else 1)(y)
    y = n.conv(f"{name}.conv_2", "same")(layers.ReLU()(n.batch_norm(f"{name}.norm_1")(y)))
    y = n.batch_norm(f"{name}.norm_2")(y)
    if down:
        x = n.batch_norm(f"{name}.norm_3")(n.conv(f"{name}.short", stride=2)(x))
    return layers.ReLU()(x + y)


def bottleneck(n: Network, name: str, x: Any) -> Any:
    """Three normalised convolutions, wide, narrow and wide, beside what goes by."""
    down, stride = f"{name}.short.W" in n.parameters, 2 if name.startswith("down") else 1
    y = n.batch_norm(f"{name}.norm_1")(n.conv(f"{name}.conv_1", stride=stride)(x))
    y = n.batch_norm(f"{name}.norm_2")(n.conv(f"{name}.conv_2", "same")(layers.ReLU()(y)))
    y = n.batch_norm(f"{name}.norm_3")(n.conv(f"{name}.conv_3")(layers.ReLU()(y)))
    if down:
        x = n.batch_norm(f"{name}.norm_4")(n.conv(f"{name}.short", stride=stride)(x))
    return layers.ReLU()(x + y)


def residual(part: Callable[[Network, str, Any], Any], *stages: str) -> Any:
    """A model of blocks; a stage is one of them or several."""

    def model(n: Network, inputs: Inputs) -> Any:
        x = layers.ReLU()(n.batch_norm("norm")(n.conv("conv", "same")(inputs["image"])))
        for stage in stages:
            single = f"{stage}.conv_1.W" in n.parameters
            for name in [stage] if single else n.repeated(stage):
                x = part(n, name, x)
        return n.dense("out")(layers.GlobalAveragePooling2D()(x))

    return model


def twice(n: Network, name: str, x: Any) -> Any:
    """Two convolutions that keep the size."""
    for own in ("first", "second"):
        x = n.conv(f"{name}.{own}", "same", activation="relu")(x)
    return x


def unet(n: Network, inputs: Inputs) -> Any:
    whole = twice(n, "down_1", inputs["image"])
    half = twice(n, "down_2", layers.MaxPooling2D()(whole))
    low = twice(n, "bottom", layers.MaxPooling2D()(half))
    wide = layers.Concatenate()([half, n.conv_transpose("grow_2", 2)(low)])
    wide = n.conv_transpose("grow_1", 2)(twice(n, "up_2", wide))
    return n.conv("out")(twice(n, "up_1", layers.Concatenate()([whole, wide])))


NETWORKS: Mapping[str, Callable[[Network, Inputs], Any]] = {
    "bert": bert,
    "bilstm_tagger": bilstm_tagger,
    "dlrm": dlrm,
    "gcn": gcn,
    "gpt": gpt,
    "lenet": lenet,
    "llama": llama,
    "mamba": mamba,
    "mlp": mlp,
    "moe": moe,
    "resnet": residual(basic, "first", "down_2", "second", "down_3", "third"),
    "resnet_bottleneck": residual(
        bottleneck, "wide_1", "first", "down_2", "second", "down_3", "third"
    ),
    "seq2seq_attention": seq2seq_attention,
    "unet": unet,
    "vae": vae,
    "vit": vit,
}
