"""Which variables of its process a worker tells of: those that decide digits or speed."""

from __future__ import annotations

import pytest

from harness.worker.serve import relevant_variables


@pytest.mark.parametrize(
    "name",
    [
        # precision of products
        "NVIDIA_TF32_OVERRIDE",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "JAX_DEFAULT_MATMUL_PRECISION",
        "TF_OVERRIDE_GLOBAL_THREADPOOL",
        # allocators
        "PYTORCH_CUDA_ALLOC_CONF",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_NO_CUDA_MEMORY_CACHING",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "TF_FORCE_GPU_ALLOW_GROWTH",
        "MALLOC_TOP_PAD_",
        # cuBLAS
        "CUBLAS_WORKSPACE_CONFIG",
        "CUBLASLT_WORKSPACE_SIZE",
        # how work is begun, and on which card
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "CUDA_MODULE_LOADING",
        "CUDA_DEVICE_ORDER",
        "CUDA_VISIBLE_DEVICES",
        "XLA_FLAGS",
        "JAX_PLATFORMS",
    ],
)
def test_what_decides_digits_or_speed_is_told(name: str) -> None:
    assert relevant_variables({name: "1"}) == {name: "1"}


@pytest.mark.parametrize(
    "name",
    [
        *("HOME", "CUDA_HOME", "TORCH_HOME", "NVIDIA_VISIBLE_DEVICES"),
        # torch sets the first of them for itself as it compiles, and scikit-learn the last.
        *("TORCHINDUCTOR_CACHE_DIR", "PYTORCH_KERNEL_CACHE_PATH"),
        *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),
    ],
)
def test_what_does_not_is_not(name: str) -> None:
    assert relevant_variables({name: "1"}) == {}
