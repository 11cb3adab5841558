"""Faults of frameworks that are excused where they show: each shows here, in the framework alone,
and the test fails once it is repaired."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from needed import need

VARIANCE = """
import numpy as np, keras
x = (1000 + np.random.default_rng(0).normal(size=(64, 8))).astype("float32")
found = keras.ops.convert_to_numpy(keras.ops.moments(keras.ops.convert_to_tensor(x), axes=[0])[1])
right = x.astype("float64").var(0)
print(np.abs(found / right - 1).max())
"""
BIAS = """
import tensorflow as tf
rows, bias = tf.zeros([2310, 3], tf.bfloat16), tf.zeros([3], tf.bfloat16)
with tf.GradientTape() as tape:
    tape.watch(bias)
    y = tf.nn.bias_add(rows, bias)
print(float(tape.gradient(y, bias)[0]))
"""


# Entries that are lost, of an array of 100 rows and columns with NaN in each row.
MAXIMUM = """
import numpy as np, jax
x = np.zeros((100, 100), "float32")
x[:, 7] = np.nan
print(np.sum(~np.isnan(jax.numpy.max(x, axis=-1))))
"""
COMPILED = """
import numpy as np, tensorflow as tf
x = np.zeros((100, 100), "float32")
x[:, 7] = np.nan
most = tf.function(lambda x: tf.reduce_max(x, -1), jit_compile=True)
print(np.sum(~np.isnan(most(tf.constant(x)).numpy())))
"""


def printed(script: str, **variables: str) -> float:
    """The number that a script prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def test_attention_of_nan_is_0_where_a_row_of_scores_is_short() -> None:
    torch = pytest.importorskip("torch")

    def of_nan(steps: int) -> float:
        q = torch.full((1, 1, steps, 4), float("nan"))
        k = v = torch.ones(1, 1, steps, 4)
        return float(torch.nn.functional.scaled_dot_product_attention(q, k, v)[0, 0, 0, 0])

    assert of_nan(3) == 0.0
    # In whole registers of the processor it is kept.
    assert of_nan(64) != of_nan(64)


@pytest.mark.slow
def test_keras_on_torch_has_no_digits_of_the_variance_of_large_numbers() -> None:
    need("keras", "torch")
    assert printed(VARIANCE, KERAS_BACKEND="torch", CUDA_VISIBLE_DEVICES="") > 0.01


@pytest.mark.slow
def test_tensorflow_adds_up_the_gradient_of_a_bias_in_bfloat16() -> None:
    need("tensorflow")
    assert printed(BIAS, CUDA_VISIBLE_DEVICES="") == 256.0


@pytest.mark.parametrize(("framework", "script"), [("jax", MAXIMUM), ("tensorflow", COMPILED)])
def test_a_maximum_that_xla_compiles_for_a_cpu_leaves_nan_out(framework: str, script: str) -> None:
    need(framework)
    assert printed(script, CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu") == 100
