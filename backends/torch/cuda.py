"""CUDA, as the backends on torch share it: cards, precision, repeatable bits, memory.

Nothing here initialises CUDA, but what is told of a card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from harness.extend import card_of, device_names


def devices() -> Sequence[str]:
    """The names for ``--device``."""
    return device_names(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def dtypes() -> Sequence[str]:
    """The names for ``--dtype`` that only cards have."""
    return ("tf32",) if torch.cuda.is_available() else ()


def prepare(dtype: str, deterministic: bool) -> None:
    """Set what decides the digits of a card: TF32 and the sums of narrow products, which torch
    otherwise may make in the narrow dtype, and whether bits are to repeat."""
    precision = "tf32" if dtype == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cudnn.rnn.fp32_precision = precision
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)


def settings() -> Mapping[str, str]:
    """What :func:`prepare` has set, as torch now tells it."""
    matmul, rnn = torch.backends.cuda.matmul, torch.backends.cudnn.rnn
    return {
        "tf32": str(matmul.fp32_precision == "tf32"),
        "tf32 of cuDNN": str(rnn.fp32_precision == "tf32"),
        "bfloat16 sums": str(matmul.allow_bf16_reduced_precision_reduction),
        "float16 sums": str(matmul.allow_fp16_reduced_precision_reduction),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def wait(device: str) -> None:
    """Return when a card has done its work; a CPU has when a call returns."""
    if card_of(device) is not None:
        torch.cuda.synchronize(device)


def peak(device: str) -> int | None:
    """The most bytes in use on a card since :func:`forget_peak`; None on a CPU."""
    return None if card_of(device) is None else torch.cuda.max_memory_allocated(device)


def forget_peak(device: str) -> None:
    """Count the peak from now on."""
    if card_of(device) is not None:
        torch.cuda.reset_peak_memory_stats(device)
