"""Faults of frameworks that are excused where they show: each shows here, in the framework alone,
and the test fails once it is repaired."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys

import numpy as np
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
# The largest error of the gradient of a 1x1 kernel of stride 2 in several calls. It depends on what
# lies in memory, which is filled before each.
CONVOLUTION = """
import torch
x, w = torch.ones(3, 4, 8, 8).to(memory_format=torch.channels_last), torch.ones(8, 4, 1, 1)
worst = 0.0
for _ in range(20):
    weight = w.clone().requires_grad_()
    y = torch.nn.functional.conv2d(x, weight, stride=2)
    blocks = [torch.full((2**n,), 1e3) for n in range(4, 17) for _ in range(4)]
    del blocks
    y.sum().backward()
    worst = max(worst, float((weight.grad - 48).abs().max()))
print(worst)
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


def ran(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script that has run in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def printed(script: str, **variables: str) -> float:
    """The number that a script prints."""
    done = ran(script, **variables)
    assert done.returncode == 0, done.stderr
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


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a kernel for x86")
def test_the_gradient_of_a_strided_1x1_kernel_is_arbitrary_without_avx512() -> None:
    need("torch")
    # The kernel may damage the heap and end the process, and mostly does with one thread.
    done = ran(CONVOLUTION, ONEDNN_MAX_CPU_ISA="AVX2", OMP_NUM_THREADS="2")
    ended = done.returncode in (-signal.SIGABRT, -signal.SIGSEGV)
    assert ended or float(done.stdout) > 1, done.stderr


# The number of NaN in a product with a condition, outside of jit and under jit.
PRODUCT = """
import jax, jax.numpy as jnp
def masked(x):
    return (x < 0).astype("float32") * x
x = jnp.float32([float("nan")])
print(10 * int(jnp.isnan(masked(x))[0]) + int(jnp.isnan(jax.jit(masked)(x))[0]))
"""


def test_xla_turns_a_product_with_a_condition_into_a_selection() -> None:
    need("jax")
    assert printed(PRODUCT, CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu") == 10


def test_numpy_takes_the_root_of_minus_infinity() -> None:
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.power([-np.inf, -np.inf, 4.0], 0.5)).sum() == 2
        assert np.power([-np.inf, 4.0], [0.5, 0.5])[0] == np.inf


@pytest.mark.parametrize(("framework", "script"), [("jax", MAXIMUM), ("tensorflow", COMPILED)])
def test_a_maximum_that_xla_compiles_for_a_cpu_leaves_nan_out(framework: str, script: str) -> None:
    need(framework)
    assert printed(script, CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu") == 100
