"""All models on a CPU without AVX-512, for which the libraries have other kernels."""

from __future__ import annotations

import platform

import pytest
from needed import need

import harness
from harness.language.library import Library

# oneDNN, torch itself, MKL, OpenBLAS and XLA each have their own switch.
NARROW = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "OMP_NUM_THREADS": "2",
}
EVERY = list(Library().names("model"))
# Of each kind of kernel one: products, convolutions with strides, an LSTM, attention, noise.
FEW = ["lesson6/stateful_lstm", "lenet", "resnet", "gpt", "vae"]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kernels for x86")
@pytest.mark.parametrize(
    ("backend", "specs"),
    [
        ("torch", EVERY),
        ("torch", FEW),
        ("numpy", EVERY),
        ("numpy", FEW),
        ("jax", FEW),
    ],
    ids=["torch", "torch-few", "numpy", "numpy-few", "jax-few"],
)
def test_models_are_right_without_avx512(
    backend: str, specs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    need(backend)
    for name, value in NARROW.items():
        monkeypatch.setenv(name, value)
    report = harness.check(specs, backend, dtypes="float32", checks="values")
    assert len(report.results) == len(specs)
    assert {result.verdict for result in report.results} == {"agree"}, str(report)
