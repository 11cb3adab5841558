"""Recurrent layers: which kernel is the witness of which, with which attributes."""

from __future__ import annotations

from typing import Any

from golden.model_kernels import GAPS, MASK
from golden.recipe import Recipe


def recurrent(torch: Any, keras: Any, onnx: Any) -> list[Recipe]:
    """By Keras, torch and onnxruntime, as far as each has the activations."""
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
    biased = [("lstm", {"second_bias": True}), ("bidirectional_lstm", {"second_bias": True})]
    gated = ("lstm", "bidirectional_lstm", "gru_reset_after", "bidirectional_gru_reset_after")
    for name, given in [*biased, *((name, {"bias": False}) for name in gated)]:
        source = "torch.nn.LSTM" if "lstm" in name else "torch.nn.GRU"
        made.append(Recipe("layer", name, source, getattr(torch, name), given))
    for name in ("bidirectional_lstm", "bidirectional_gru_reset_after"):
        kind = "LSTM" if "lstm" in name else "GRU"
        made.append(Recipe("layer", name, f"torch.nn.{kind}", getattr(torch, name), plain))
        for act, gate in (("tanh", "sigmoid"), ("sigmoid", "hard_sigmoid")):
            two = {"activation": act, "gate": gate.replace("hard_sigmoid", "hard_sigmoid_sixth")}
            kernel = getattr(keras, name)(act, gate)
            made.append(Recipe("layer", name, f"keras.layers.Bidirectional({kind})", kernel, two))
    name, ended, gaps = "masked_bidirectional_lstm", {"mask": MASK}, {"mask": GAPS}
    source = "torch.nn.utils.rnn.pack_padded_sequence"
    made.append(Recipe("layer", name, source, torch.masked_bidirectional_lstm, plain, given=ended))
    source, other = "keras.layers.Bidirectional(LSTM)", ("sigmoid", "hard_sigmoid")
    kernel, turned = (keras.bidirectional_lstm(*n) for n in (("tanh", "sigmoid"), other))
    two = {"activation": "sigmoid", "gate": "hard_sigmoid_sixth"}
    made += [Recipe("layer", name, source, kernel, plain, given=rows) for rows in (ended, gaps)]
    made.append(Recipe("layer", name, source, turned, two, given=gaps))
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
