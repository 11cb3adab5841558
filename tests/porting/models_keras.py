"""Keras models for the tests of ports."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


def mlp() -> Any:
    """A Sequential model with dropout."""
    return keras.Sequential(
        [
            keras.Input((6,), name="x"),
            layers.Dense(8, activation="relu", name="up"),
            layers.Dropout(0.1, name="drop"),
            layers.Dense(5, activation="softmax", name="down"),
        ]
    )


def two_inputs() -> Any:
    """Two inputs, two outputs, and a nested model."""
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="elu")], name="inner")
    h = layers.Concatenate()([layers.Dense(8, activation="tanh")(a), inner(b)])
    h = layers.LayerNormalization()(h)
    h = layers.Average()([h, layers.Activation("silu")(h), layers.Softmax()(h)])
    h = layers.Multiply()([h, layers.PReLU()(h)]) + 1.5
    h = layers.Subtract()([h, layers.Maximum()([h, layers.ELU()(h)])])
    return keras.Model([a, b], [layers.Dense(2)(h), layers.Dense(3, use_bias=False)(h)])


def image() -> Any:
    """Convolutions, pools and paddings."""
    x = keras.Input((12, 12, 3), name="x")
    h = layers.Conv2D(8, 3, padding="same", strides=2, activation="tanh")(x)
    h = layers.BatchNormalization()(h)
    h = layers.ZeroPadding2D(((0, 1), (0, 1)))(h)
    h = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(h)
    h = layers.ReLU(6.0)(h)
    h = layers.Conv2D(4, 1, groups=2)(h)
    h = layers.UpSampling2D(2)(layers.MaxPooling2D(2)(h))
    h = layers.AveragePooling2D(3, strides=1, padding="same")(h)
    h = layers.MaxPooling2D(3, strides=2, padding="same")(h)
    flat = layers.Flatten()(layers.Permute((3, 1, 2))(layers.AveragePooling2D(2)(h)))
    h = layers.Concatenate()([flat, layers.GlobalMaxPooling2D()(h)])
    return keras.Model(x, layers.Dense(4)(layers.Rescaling(0.5, 0.25)(h)))


def recurrent() -> Any:
    """Recurrent layers, with all steps and with the last."""
    words = keras.Input((None,), dtype="int32", name="words")
    h = layers.Embedding(11, 4)(words)
    h = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(h)
    h = layers.GRU(4, return_sequences=True)(h)
    h = layers.TimeDistributed(layers.Dense(3))(layers.Conv1D(4, 3, padding="causal")(h))
    ends = [layers.Bidirectional(layers.GRU(3))(h), layers.SimpleRNN(2, go_backwards=True)(h)]
    return keras.Model(words, layers.Dense(2)(layers.Concatenate()(ends)))


def layered() -> Any:
    """Further layers of images, attention of sequences, and operations."""
    x, steps = keras.Input((5, 6, 4), name="x"), keras.Input((None, 6), name="steps")
    h = layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="tanh")(x)
    h = layers.SeparableConv2D(4, 3)(layers.Cropping2D(((1, 0), (1, 2)))(h))
    h = layers.Conv2DTranspose(3, (4, 2), strides=2)(layers.CenterCrop(3, 4)(h))
    h = layers.Resizing(10, 12)(h)
    wide = keras.ops.square(keras.ops.transpose(h, (0, 3, 1, 2))) * 0.5
    s = layers.MultiHeadAttention(2, 3)(steps, steps, use_causal_mask=True)
    s = layers.Attention()([s, steps], use_causal_mask=True)
    s = layers.DepthwiseConv1D(3, padding="same")(s)
    rows = layers.RepeatVector(3)(layers.GlobalAveragePooling1D()(s))
    return keras.Model([x, steps], [wide, keras.ops.softmax(s) + s, rows])


def slices() -> Any:
    """Slices, pieces and joined values, with constants."""
    x = keras.Input((12, 8), name="x")
    parts = keras.ops.split(x, [2, 5], axis=-1)
    columns = keras.ops.unstack(layers.Dense(3)(x), axis=2)
    stacked = keras.ops.stack([columns[0], columns[2]], axis=1) + keras.ops.ones(12)
    joined = keras.ops.concatenate([parts[0], parts[2]], axis=2)
    ends = x[:, 0] - x[:, -1] * x[..., 2, :]
    results = [stacked, joined, ends, x[:, None, 1:3, ::-2], x[:, 3:-1, -3:]]
    return keras.Model(x, [*results, *keras.ops.split(x, 2, axis=1)])


def dilated() -> Any:
    """Convolutions and pools with settings that Keras' layers lack in a spec: padding at one end,
    dilation, and groups."""
    x, wave = keras.Input((12, 12, 4), name="x"), keras.Input((None, 4), name="wave")
    h = layers.Conv1D(4, 3, dilation_rate=2, padding="causal", activation="relu")(wave)
    steps = [h, layers.Conv1D(4, 2, groups=2)(wave), layers.ZeroPadding1D(2)(wave)]
    images = [
        layers.Conv2D(4, 3, strides=2, padding="same")(x),
        layers.SeparableConv2D(4, 3, strides=2, padding="same")(x),
        layers.MaxPooling2D(3, strides=2, padding="same")(x),
        layers.AveragePooling2D(3, strides=2, padding="same")(x),
    ]
    return keras.Model([x, wave], [*steps, *images])


def transposed() -> Any:
    """Transposed convolutions that make an image or a sequence twice as long."""
    x, steps = keras.Input((5, 6, 4), name="x"), keras.Input((7, 5), name="steps")
    images = [
        layers.Conv2DTranspose(3, size, strides=2, padding="same", use_bias=bias)(x)
        for size, bias in ((2, True), (3, True), (4, True), (3, False))
    ]
    waves = [layers.Conv1DTranspose(3, n, strides=2, padding="same")(steps) for n in (3, 4)]
    return keras.Model([x, steps], [*images, *waves])


def masked() -> Any:
    """Recurrent layers and a mean that read a mask, of an embedding or of steps of zeros."""
    words, steps = keras.Input((None,), dtype="int32", name="words"), keras.Input((7, 3))
    h = layers.Embedding(3, 4, mask_zero=True)(words)
    h = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(h)
    h = layers.TimeDistributed(layers.Dense(4))(layers.GRU(4, return_sequences=True)(h))
    ends = [layers.GlobalAveragePooling1D()(h), layers.Bidirectional(layers.LSTM(3))(h)]
    ends.append(layers.SimpleRNN(2, go_backwards=True)(h))
    return keras.Model([words, steps], [*ends, layers.LSTM(2)(layers.Masking()(steps))])


def cells() -> Any:
    """Loops over cells, and dense layers with several axes."""
    x = keras.Input((7, 6), name="x")
    h = layers.RNN(layers.LSTMCell(4), return_sequences=True)(x)
    h = layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4), bias_axes="de")(h)
    h = layers.EinsumDense("abde,dec->abc", (None, 5), bias_axes="c", activation="relu")(h)
    return keras.Model(x, [layers.RNN(layers.GRUCell(3))(h), h])


def refused() -> Any:
    """A layer without a rule, a mask that a rule does not read, and settings without a rule."""
    words = keras.Input((7,), dtype="int32", name="words")
    h = layers.Embedding(11, 4, mask_zero=True)(words)
    h = layers.BatchNormalization()(layers.GaussianNoise(0.5)(h))
    return keras.Model(words, layers.LSTM(3, return_state=True)(h))


class Residual(layers.Layer):  # type: ignore[misc]
    """A layer of layers with a method ``call`` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dense = layers.LayerNormalization(), layers.Dense(4, activation="relu")

    def call(self, x: Any) -> Any:
        """Return the input plus its change."""
        return x + self.dense(self.norm(x))


class Own(keras.Model):  # type: ignore[misc]
    """A model with a method ``call`` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [Residual(), Residual()]
        self.drop, self.dense = layers.Dropout(0.1), layers.Dense(3)
        self(keras.ops.zeros((1, 5, 4)))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Return the model's output."""
        for block in self.blocks:
            x = block(x)
        return self.dense(self.drop(keras.ops.mean(x, axis=1), training=training))


class WithoutMode(keras.Model):  # type: ignore[misc]
    """A model whose method ``call`` takes no ``training``."""

    def __init__(self) -> None:
        super().__init__()
        self.residual, self.dense = Residual(), layers.Dense(3)
        self(keras.ops.zeros((1, 4)))

    def call(self, x: Any) -> Any:
        """Return the model's output."""
        return self.dense(self.residual(x))


class Halves(layers.Layer):  # type: ignore[misc]
    """A layer that returns two values."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = layers.Dense(8, activation="relu"), layers.Dense(4)

    def call(self, x: Any) -> tuple[Any, Any]:
        """Return the hidden values and the output."""
        h = self.up(x)
        return h, x + self.down(h)


def functional() -> Any:
    """Equal blocks of a function and layers with two results, with names that Keras makes up."""
    x = given = keras.Input((4,), name="x")
    for _ in range(3):
        y = layers.Dense(8, activation="relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(4)(y)])
    one, x = Halves()(x)
    two, x = Halves()(x)
    x = layers.LayerNormalization()(layers.Concatenate()([x, one, two]))
    return keras.Model(given, layers.Dense(2, name="out")(x))


def block() -> Any:
    """A transformer block with dropout, also of attention, and batch norm."""
    x = keras.Input((None, 8), name="x")
    h = layers.LayerNormalization()(x)
    h = layers.MultiHeadAttention(2, 4, dropout=0.1)(h, h, use_causal_mask=True)
    h = x + layers.Dropout(0.2)(h)
    wide = layers.Dense(16, activation="tanh")(layers.BatchNormalization(momentum=0.9)(h))
    return keras.Model(x, h + layers.Dropout(0.3)(layers.Dense(8)(wide)))


def shared() -> Any:
    """Dropout whose values share random numbers along an axis."""
    x = keras.Input((None, 8), name="x")
    h = layers.SpatialDropout1D(0.1)(layers.Dense(6)(x))
    return keras.Model(x, layers.Dense(4)(layers.Dropout(0.2, noise_shape=(1, None, 1))(h)))


def frozen() -> Any:
    """Dropout after a part with a batch norm that is not trained."""
    x, y = keras.Input((6,), name="x"), keras.Input((6,))
    part = keras.Model(y, layers.BatchNormalization()(layers.Dense(4, name="up")(y)), name="part")
    part.trainable = False
    return keras.Model(x, layers.Dense(3)(layers.Dropout(0.2)(part(x))))


class Fixed(keras.Model):  # type: ignore[misc]
    """A model whose ``call`` gives one batch norm another mode."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.fixed = (
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.BatchNormalization(),
        )
        self.drop = layers.Dropout(0.2)
        self(keras.ops.zeros((1, 6)))

    def call(self, x: Any, training: bool = False) -> Any:
        """Return the model's output."""
        h = self.drop(self.norm(self.up(x)), training=training)
        return self.fixed(h, training=False)


class Shaken(Fixed):
    """A model that draws random numbers that no layer draws."""

    def call(self, x: Any, training: bool = False) -> Any:
        """Return the model's output."""
        h = self.norm(self.up(x))
        return h + keras.random.normal(keras.ops.shape(h)) if training else h


class Untrained(Fixed):
    """A model whose ``call`` takes no ``training``: Keras trains it in evaluation mode."""

    def call(self, x: Any) -> Any:
        """Return the model's output."""
        return self.drop(self.norm(self.up(x)))


class Inverse(Fixed):
    """A model with an operation without a rule."""

    def call(self, x: Any) -> Any:
        """Return the model's output."""
        h = self.up(x)
        return keras.ops.erfinv(h)


class Signed(Fixed):
    """A model whose operations depend on a value."""

    def call(self, x: Any) -> Any:
        """Return the model's output."""
        h = self.up(x)
        if keras.ops.sum(h) > 0:
            h = -h
        return h


def stacked() -> Any:
    """Loops over stacked cells, also from the last step to the first."""
    x = keras.Input((7, 4), name="x")
    cells = [layers.LSTMCell(3), layers.GRUCell(5)]
    h = layers.RNN(layers.StackedRNNCells(cells), return_sequences=True)(x)
    cells = [layers.SimpleRNNCell(3), layers.LSTMCell(3)]
    return keras.Model(x, [h, layers.RNN(layers.StackedRNNCells(cells), go_backwards=True)(h)])


def states() -> Any:
    """Recurrent layers that also return their final states."""
    x = keras.Input((None, 4), name="x")
    y, h, c = layers.LSTM(3, return_sequences=True, return_state=True)(x)
    z, last = layers.GRU(5, return_state=True)(y)
    return keras.Model(x, [y, h, c, z, last])


def attending() -> Any:
    """Attention with a mask, also with a causal mask, and with dropout."""
    x, mask = keras.Input((None, 6), name="x"), keras.Input((None, None), dtype="bool", name="mask")
    h = layers.MultiHeadAttention(2, 3)(x, x, attention_mask=mask)
    h = layers.MultiHeadAttention(2, 3)(h, h, attention_mask=mask, use_causal_mask=True)
    return keras.Model([x, mask], layers.Dropout(0.1)(h))


def heads() -> Any:
    """Attention with dropout, and a mask that is also causal."""
    x, mask = keras.Input((None, 6), name="x"), keras.Input((None, None), dtype="bool", name="mask")
    attend = layers.MultiHeadAttention(2, 3, dropout=0.1)
    return keras.Model([x, mask], attend(x, x, attention_mask=mask, use_causal_mask=True))
