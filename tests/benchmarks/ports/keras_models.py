"""Models of keras in small sizes, with random weights, for ``ports.py``."""

from __future__ import annotations

import keras
from keras import layers

# The inputs of each model: by default those that the model declares.
INPUTS = {"resnet50": [], "mobilenet_v2": [], "lstm_classifier": []}


def resnet50():
    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)


def mobilenet_v2():
    return keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classes=10)


def lstm_classifier():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="words"),
            layers.Embedding(40, 12),
            layers.Bidirectional(layers.LSTM(16, return_sequences=True)),
            layers.LSTM(16),
            layers.Dropout(0.2),
            layers.Dense(5, activation="softmax"),
        ]
    )
