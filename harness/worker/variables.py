"""Which variables of its process a worker tells of: those that decide digits or speed."""

from __future__ import annotations

from collections.abc import Mapping

REPORTED = (
    *("KERAS_BACKEND", "XLA_FLAGS", "JAX_ENABLE_X64", "JAX_PLATFORMS", "JAX_DISABLE_JIT"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "GLIBC_TUNABLES"),
    *("PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH"),
)
REPORTED_PREFIXES = (
    *("MALLOC_", "OPENBLAS_", "TF_", "JAX_DEFAULT_", "JAX_NUMPY_", "CUBLAS", "CUDNN_"),
    *("CUDA_LAUNCH_", "CUDA_DEVICE_", "CUDA_MODULE_", "CUDA_VISIBLE_"),
    *("PYTORCH_", "XLA_PYTHON_CLIENT_"),  # PYTORCH_: of its allocator
    *("OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_"),  # threads, and the order of sums
    *("ATEN_", "DNNL_", "ONEDNN_", "NPY_", "TORCHDYNAMO_", "TORCHINDUCTOR_"),  # which kernels
)
# Where what is compiled is kept decides neither, nor whether a library may be there twice or after
# a fork: torch sets the first for itself as it compiles, and an import of scikit-learn the others.
UNREPORTED = ("_CACHE_DIR", "_CACHE_PATH", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")


def reported(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of a process's variables that decide digits or speed."""
    deciding = (n for n in sorted(variables) if n in REPORTED or n.startswith(REPORTED_PREFIXES))
    return {name: variables[name] for name in deciding if not name.endswith(UNREPORTED)}
