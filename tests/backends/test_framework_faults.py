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
# As MAXIMUM, and the largest error of the sine near 3 pi.
ONNX = """
import numpy as np, onnxruntime
from onnx import TensorProto, helper
def run(op, x, **attributes):
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    ends = [helper.make_tensor_value_info(n, kind, s) for n, s in (("x", x.shape), ("y", None))]
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
"""
ONNX_MAXIMUM = f"""{ONNX}
x = np.zeros((100, 100), "float32")
x[:, 7] = np.nan
print(np.sum(~np.isnan(run("ReduceMax", x, axes=[1]))))
"""
ONNX_SINE = f"""{ONNX}
x = 3 * np.pi + np.linspace(0.002, 0.004, 100)
print(np.max(np.abs(run("Sin", x) / np.sin(x) - 1)))
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


def test_the_gradient_of_a_permuted_kernel_with_one_output_channel_raises_an_error() -> None:
    need("torch")
    import torch

    def grade(kernel: torch.Tensor) -> None:
        image = torch.ones(1, 2, 2, 2).permute(0, 3, 1, 2)
        torch.nn.functional.conv2d(image, kernel.permute(3, 2, 0, 1), padding=1).sum().backward()

    grade(torch.ones(3, 3, 2, 2, requires_grad=True))
    with pytest.raises(RuntimeError, match="grad_weight"):
        grade(torch.ones(3, 3, 2, 1, requires_grad=True))
    kernel = torch.ones(2, 2, 2, 1, requires_grad=True).permute(3, 2, 0, 1)
    image = torch.ones(1, 2, 3, 1).permute(0, 3, 1, 2)
    with pytest.raises(RuntimeError, match="grad_weight"):
        torch.nn.functional.conv_transpose2d(image, kernel).sum().backward()


def test_torch_normalises_equal_rows_to_other_numbers_than_0() -> None:
    need("torch")
    import torch

    rows = torch.randn(1, 200, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    scale = torch.ones(200)
    results = torch.nn.functional.batch_norm(rows, None, None, scale, 0 * scale, True)
    assert results.abs().max() > 1e-6
    assert torch.nn.functional.layer_norm(rows.T, (2,)).abs().max() == 0


EQUAL = """
import numpy as np, keras
x = np.repeat(np.random.default_rng(0).normal(size=(200, 1)), 3, 1).astype("float32")
layer = keras.layers.LayerNormalization(epsilon=1e-5)
print(np.abs(keras.ops.convert_to_numpy(layer(x))).max())
"""


@pytest.mark.slow
def test_keras_normalises_equal_entries_to_other_numbers_than_0() -> None:
    need("tensorflow")
    assert printed(EQUAL, KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="") > 1e-6


# The number of NaN in the log of a power, outside of jit and under jit.
LOG_OF_POWER = """
import jax, jax.numpy as jnp
def log(x, y):
    return jnp.log(x**y)
x, y = jnp.float32([-0.9]), jnp.float32([0.3])
print(10 * int(jnp.isnan(log(x, y))[0]) + int(jnp.isnan(jax.jit(log)(x, y))[0]))
"""
# The same in a product with a condition.
PRODUCT = """
import jax, jax.numpy as jnp
def masked(x):
    return (x < 0).astype("float32") * x
x = jnp.float32([float("nan")])
print(10 * int(jnp.isnan(masked(x))[0]) + int(jnp.isnan(jax.jit(masked)(x))[0]))
"""
# Both in TensorFlow.
COMPILED_BY_TENSORFLOW = """
import tensorflow as tf
def both(x, y, z):
    return tf.stack([tf.math.log(x**y), tf.cast(x > 0, "float32") * z])
x, y, z = tf.constant(-0.9), tf.constant(0.3), tf.constant(float("nan"))
count = lambda function: int(tf.reduce_sum(tf.cast(tf.math.is_nan(function(x, y, z)), "int32")))
print(10 * count(both) + count(tf.function(both, jit_compile=True)))
"""
# The gradient of a quotient, which is -1e20.
QUOTIENT = """
import jax, jax.numpy as jnp
print(-jax.grad(lambda y: 1e-20 / y)(jnp.float32(1e-20)))
"""


@pytest.mark.parametrize("script", [LOG_OF_POWER, PRODUCT])
def test_xla_loses_nan(script: str) -> None:
    need("jax")
    assert printed(script, CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu") == 10


def test_xla_loses_nan_in_tensorflow() -> None:
    need("tensorflow")
    assert printed(COMPILED_BY_TENSORFLOW, CUDA_VISIBLE_DEVICES="") == 20


def test_the_gradient_of_a_quotient_overflows_in_jax() -> None:
    need("jax")
    assert printed(QUOTIENT, CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu") == np.inf


def test_numpy_takes_the_root_of_minus_infinity() -> None:
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.power([-np.inf, -np.inf, 4.0], 0.5)).sum() == 2
        assert np.power([-np.inf, 4.0], [0.5, 0.5])[0] == np.inf


@pytest.mark.parametrize(("framework", "script"), [("jax", MAXIMUM), ("tensorflow", COMPILED)])
def test_a_maximum_that_xla_compiles_for_a_cpu_leaves_nan_out(framework: str, script: str) -> None:
    need(framework)
    assert printed(script, CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu") == 100


def test_a_maximum_of_onnxruntime_leaves_nan_out() -> None:
    need("onnx", "onnxruntime")
    assert printed(ONNX_MAXIMUM) == 100


def test_a_sine_of_onnxruntime_loses_digits_near_its_zeros() -> None:
    need("onnx", "onnxruntime")
    assert printed(ONNX_SINE) > 1e-14
