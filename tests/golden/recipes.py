"""Which kernel is the witness of which definition, with which attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.ctc_kernels import unaligned
from golden.image_kernels import images
from golden.model_kernels import contrasts, encoders
from golden.recipe import Recipe
from golden.recipes_later import activations, transformer
from golden.recipes_models import models, turned
from golden.recipes_noise import counted, noisy
from golden.recipes_optimizers import later_optimizers, schedules

# Keras rounds rates and betas to float32: numbers that a float32 holds exactly.
EXACT_ADAM = (
    {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 2.0**-8},
    {"beta_1": 0.875, "beta_2": 1 - 2.0**-10, "epsilon": 2.0**-23},
)
SHIPPED_ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}


def _recurrent(torch: Any, keras: Any, onnx: Any) -> list[Recipe]:
    made = []
    for act in ("tanh", "relu"):
        one = {"activation": act}
        source = "keras.layers.SimpleRNN"
        made += [
            Recipe("layer", "simple_rnn", source, keras.simple_rnn(act, True), one),
            Recipe("layer", "simple_rnn_without_bias", source, keras.simple_rnn(act, False), one),
            Recipe("layer", "simple_rnn_two_biases", "torch.nn.RNN", torch.rnn(act), one),
        ]
    plain = {"activation": "tanh", "gate": "sigmoid"}
    made += [
        Recipe("layer", "lstm", "torch.nn.LSTM", torch.lstm, plain),
        Recipe("layer", "gru_reset_after", "torch.nn.GRU", torch.gru_reset_after, plain),
    ]
    for act, gate in (
        ("tanh", "sigmoid"),
        ("relu", "hard_sigmoid_fifth"),
        ("tanh", "hard_sigmoid_sixth"),
        ("sigmoid", "sigmoid"),
        ("tanh", "hard_sigmoid_fifth"),
    ):
        two = {"activation": act, "gate": gate}
        gru, lstm = "keras.layers.GRU", "keras.layers.LSTM"
        made += [
            Recipe("layer", "lstm", lstm, keras.lstm(act, gate), two),
            Recipe("layer", "gru", gru, keras.gru(act, gate), two),
            Recipe("layer", "gru_reset_after", gru, keras.gru(act, gate, True), two),
            Recipe("layer", "gru_concatenated", gru, keras.gru_concatenated(act, gate), two),
        ]
        if gate == "hard_sigmoid_sixth":
            continue
        for name, op, kernel in (
            ("lstm", "LSTM", onnx.lstm(act, gate)),
            ("gru", "GRU", onnx.gru(act, gate, 0)),
            ("gru_reset_after", "GRU", onnx.gru(act, gate, 1)),
        ):
            made.append(Recipe("layer", name, f"onnxruntime.{op}", kernel, two, dtype="float32"))
    return made


def _layers(torch: Any, keras: Any, onnx: Any) -> list[Recipe]:
    made = [Recipe("layer", "embedding", "torch.nn.functional.embedding", torch.embedding)]
    for act in ("linear", "relu", "tanh"):
        for name in ("dense", "dense_without_bias"):
            source = "torch.nn.functional.linear"
            made.append(Recipe("layer", name, source, torch.linear(act), {"activation": act}))
    for numbers in ({"epsilon": 1e-3, "momentum": 0.99}, {"epsilon": 0.125, "momentum": 0.75}):
        source, inference = "keras.layers.BatchNormalization", torch.batch_norm_inference
        made += [
            Recipe("layer", "batch_norm", source, keras.batch_norm(True, **numbers), numbers),
            Recipe(
                "layer",
                "batch_norm",
                source,
                keras.batch_norm(False, **numbers),
                numbers,
                "inference",
            ),
            Recipe(
                "layer",
                "batch_norm",
                "torch.nn.functional.batch_norm",
                inference(numbers["epsilon"]),
                numbers,
                "inference",
            ),
        ]
    import keras as k
    import torch as t

    made += _recurrent(torch, keras, onnx) + transformer(torch, keras) + images(t, k) + noisy()
    return made + encoders(t) + models(torch, keras)


def _functions(torch: Any, keras: Any, onnx: Any) -> list[Recipe]:
    import torch as t

    saturated = {"x": [[-1000.0, -20.0, -0.0, 0.5, 1000.0], [-3.0, 3.0, 1e-9, -1e-9, 2.0]]}
    saturated["x"].append([-2.5, 2.5, -7.0, 7.0, 0.0])
    large = np.zeros((3, 5, 7))
    large[0, 0, :2], large[1, 1, :2], large[2, 2] = (800.0, 900.0), (-800.0, -900.0), -1000.0
    large[2, 3, 4] = 1000.0

    def make(name: str, source: str, function: Any, **given: Any) -> Recipe:
        kernel = torch.unary(function)
        # torch differentiates hardsigmoid with a float32 1/6, 3e-8 off: values only.
        gradients = function is not t.nn.functional.hardsigmoid
        return Recipe("function", name, source, kernel, given=given, gradients=gradients)

    hard = "torch.nn.functional.hardsigmoid"

    def six(x: Any) -> Any:
        return t.nn.functional.relu6(x + 3.0) / 6.0

    return [
        make("relu", "torch.relu", t.relu),
        make("relu", "torch.relu", t.relu, **saturated),
        make("sigmoid", "torch.sigmoid", t.sigmoid),
        make("sigmoid", "torch.sigmoid", t.sigmoid, **saturated),
        make("hard_sigmoid_sixth", hard, t.nn.functional.hardsigmoid, **saturated),
        make("hard_sigmoid_sixth", "torch.nn.functional.relu6", six),
        make("hard_sigmoid_sixth", "torch.nn.functional.relu6", six, **saturated),
        make("hard_sigmoid_fifth", "torch.clamp", lambda x: t.clamp(0.2 * x + 0.5, 0, 1)),
        Recipe(
            "function",
            "hard_sigmoid_fifth",
            "onnxruntime.HardSigmoid",
            onnx.hard_sigmoid,
            given=saturated,
            dtype="float32",
        ),
        make("softmax", "torch.softmax", lambda x: t.softmax(x, -1)),
        make("softmax", "torch.softmax", lambda x: t.softmax(x, -1), x=large),
        make("log_softmax", "torch.log_softmax", lambda x: t.log_softmax(x, -1)),
        make("log_softmax", "torch.log_softmax", lambda x: t.log_softmax(x, -1), x=large),
        *activations(torch, keras, saturated, large),
        *(Recipe("function", "rotary", "torch.polar", turned(b), {"base": b}) for b in (1e4, 7.0)),
        make("linear", "torch.nn.Identity", t.nn.Identity()),
        make("last", "torch.select", lambda x: t.select(x, 1, -1)),
        make("reverse", "torch.flip", lambda x: t.flip(x, [1])),
        Recipe("function", "maximum", "torch.maximum", torch.binary(t.maximum)),
        Recipe("function", "minimum", "torch.minimum", torch.binary(t.minimum)),
        *schedules(torch, keras),
    ]


def _losses(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    import optax as o

    sparse = o.losses.softmax_cross_entropy_with_integer_labels
    probabilities, target = _probabilities()
    clipped = {"probabilities": probabilities, "target": target}
    made = [
        Recipe("loss", "squared_error", "torch.nn.functional.mse_loss", torch.squared_error),
        Recipe(
            "loss",
            "squared_error",
            "optax.squared_error",
            optax.loss(o.squared_error, "prediction"),
        ),
    ]
    for name, function in (
        ("cross_entropy", o.losses.softmax_cross_entropy),
        ("sparse_cross_entropy", sparse),
    ):
        made += [
            Recipe("loss", name, "torch.nn.functional.cross_entropy", torch.cross_entropy),
            Recipe("loss", name, f"optax.{function.__name__}", optax.loss(function, "logits")),
        ]
    for epsilon in (1e-7, 2.0**-10):
        for source, kernel in (
            ("keras.losses.categorical_crossentropy", keras.clipped_cross_entropy(epsilon)),
            ("torch.nn.functional.nll_loss", torch.clipped_cross_entropy(epsilon)),
        ):
            made.append(
                Recipe(
                    "loss",
                    "clipped_cross_entropy",
                    source,
                    kernel,
                    {"epsilon": epsilon},
                    given=clipped,
                    # Keras divides by the sum first, and differentiates that too.
                    gradients=not source.startswith("keras"),
                )
            )
    import torch as t

    return made + contrasts(t) + counted() + unaligned(t)


def _probabilities() -> tuple[Any, Any]:
    """Rows that sum to exactly 1, certain ones too, and one-hot targets that meet all of them."""
    small = 2.0**-30
    rows = [
        [0.25, 0.5, 0.125, 0.0625, 0.03125, 0.015625, 0.015625],
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [1 - 6 * small, small, small, small, small, small, small],
    ]
    probabilities = np.stack([np.roll(rows, shift, axis=1) for shift in range(5)], axis=1)
    target = np.eye(7)[np.arange(15).reshape(3, 5) % 7]
    return probabilities, target


def _optimizers(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    import keras as k
    import optax as o
    import torch as t

    rng = np.random.default_rng(7)
    scales = 10.0 ** np.array([0.0, -1, -2, -4, -6, -8])
    given = {
        "p": rng.normal(size=6),
        "gradients": rng.normal(size=(4, 6)) * scales,
        "learning_rates": [2.0**-5, 2.0**-5, 2.0**-7, 2.0**-4],
    }
    made: list[Recipe] = []

    def add(name: str, source: str, kernel: Any, **attributes: float) -> None:
        made.append(Recipe("optimizer", name, source, kernel, attributes, given=given))

    def empty(_: Any) -> dict[str, Any]:
        return {}

    add("sgd", "torch.optim.SGD", torch.optimizer(t.optim.SGD, {}))
    add("sgd", "keras.optimizers.SGD", keras.optimizer(k.optimizers.SGD, {}))
    add("sgd", "optax.sgd", optax.optimizer(o.identity, empty))
    for momentum in (0.9, 0.75):
        velocity = {"velocity": "momentum_buffer"}
        kernel = torch.optimizer(t.optim.SGD, velocity, momentum=momentum)
        add("sgd_momentum", "torch.optim.SGD", kernel, momentum=momentum)
        kernel = optax.optimizer(o.trace, lambda s: {"velocity": s.trace}, decay=momentum)
        add("sgd_momentum", "optax.trace", kernel, momentum=momentum)
    for momentum in (0.875, 0.75):
        kernel = keras.optimizer(k.optimizers.SGD, {"velocity": "momentums"}, momentum=momentum)
        add("sgd_momentum_scaled", "keras.optimizers.SGD", kernel, momentum=momentum)
    for numbers in (SHIPPED_ADAM, *EXACT_ADAM):
        betas, eps = (numbers["beta_1"], numbers["beta_2"]), numbers["epsilon"]
        slots = {"m": "exp_avg", "v": "exp_avg_sq"}
        kernel = torch.optimizer(t.optim.Adam, slots, betas=betas, eps=eps)
        add("adam", "torch.optim.Adam", kernel, **numbers)
        adam = {"b1": betas[0], "b2": betas[1], "eps": eps}
        kernel = optax.optimizer(o.scale_by_adam, lambda s: {"m": s.mu, "v": s.nu}, **adam)
        add("adam", "optax.scale_by_adam", kernel, **numbers)
        if numbers is SHIPPED_ADAM:
            continue
        slots = {"m": "_momentums", "v": "_velocities"}
        kernel = keras.optimizer(k.optimizers.Adam, slots, **numbers)
        add("adam_epsilon_hat", "keras.optimizers.Adam", kernel, **numbers)
    for rho, epsilon in ((0.99, 1e-8), (0.75, 2.0**-8)):
        kernel = torch.optimizer(t.optim.RMSprop, {"v": "square_avg"}, alpha=rho, eps=epsilon)
        add("rmsprop", "torch.optim.RMSprop", kernel, rho=rho, epsilon=epsilon)
        kernel = optax.optimizer(o.scale_by_rms, lambda s: {"v": s.nu}, decay=rho, eps=epsilon)
        add("rmsprop_epsilon_inside", "optax.scale_by_rms", kernel, rho=rho, epsilon=epsilon)
    for rho, epsilon in ((0.875, 2.0**-20), (0.75, 2.0**-8)):
        slots = {"v": "_velocities"}
        kernel = keras.optimizer(k.optimizers.RMSprop, slots, rho=rho, epsilon=epsilon)
        add("rmsprop_epsilon_inside", "keras.optimizers.RMSprop", kernel, rho=rho, epsilon=epsilon)
    return made + later_optimizers(torch, keras, optax)


def all_recipes(torch: Any, keras: Any, onnx: Any, optax: Any) -> dict[str, list[Recipe]]:
    """Every case, by kind, from the modules of kernels."""
    return {
        "layer": _layers(torch, keras, onnx),
        "function": _functions(torch, keras, onnx),
        "loss": _losses(torch, keras, optax),
        "optimizer": _optimizers(torch, keras, optax),
    }
