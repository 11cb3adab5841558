"""Functions of GPUs for the backends that use torch: devices, precision, determinism and memory.

CUDA starts only if a session uses a GPU. MPS is torch's name for the GPU of an Apple processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from harness.extend import card_of, device_names

MPS = "mps"


def devices() -> Sequence[str]:
    """Return the device names that ``--device`` accepts."""
    names = device_names(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return (*names, MPS) if torch.backends.mps.is_available() else names


def dtypes() -> Sequence[str]:
    """Return the names for ``--dtype`` that torch supports only on GPUs, e.g. ``tf32``. The list is
    empty if there is no GPU."""
    return ("tf32",) if torch.cuda.is_available() else ()


def prepare(dtype: str, deterministic: bool) -> None:
    """Set the precision of GPUs for ``dtype``, and their determinism: whether matrix products use
    TF32, and that products in bfloat16 or float16 sum in float32."""
    precision = "tf32" if dtype == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cudnn.rnn.fp32_precision = precision
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)


def unify_tf32() -> None:
    """Set TF32 to one value for convolutions and recurrent layers. torch's exporters read it, which
    raises an error after :func:`prepare` has set two."""
    torch.backends.cudnn.allow_tf32 = False


def settings() -> Mapping[str, str]:
    """Return a dictionary of the settings that :func:`prepare` has made, with the values that torch
    reports."""
    matmul, rnn = torch.backends.cuda.matmul, torch.backends.cudnn.rnn
    return {
        "tf32": str(matmul.fp32_precision == "tf32"),
        "tf32 of cuDNN": str(rnn.fp32_precision == "tf32"),
        "bfloat16 sums": str(matmul.allow_bf16_reduced_precision_reduction),
        "float16 sums": str(matmul.allow_fp16_reduced_precision_reduction),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def wait(device: str) -> None:
    """Wait until a GPU has finished its work; on the CPU, return immediately."""
    if card_of(device) is not None:
        torch.cuda.synchronize(device)
    elif device == MPS:
        torch.mps.synchronize()


def peak(device: str) -> int | None:
    """Return the peak memory of a GPU in bytes since :func:`forget_peak`; None if torch does not
    measure it (CPU, MPS)."""
    return None if card_of(device) is None else torch.cuda.max_memory_allocated(device)


def forget_peak(device: str) -> None:
    """Start a new measurement of a GPU's peak memory."""
    if card_of(device) is not None:
        torch.cuda.reset_peak_memory_stats(device)
