"""What native_torch writes, through torch.compile: loops over cells, for the compiler to fuse."""

from __future__ import annotations

import native_torch
import torch
from contract import Given


def make(given: Given) -> native_torch.Steps:
    """Steps whose forward pass and loss, with its gradient, are compiled; the update is fused."""
    steps = native_torch.make(given, loops=True)
    # Calls of kernels in C++ and not in Python: at a batch of 64 the calls decide.
    options = {"cpp_wrapper": True}
    steps.predict = torch.compile(steps.predict, options=options)  # type: ignore[method-assign]
    steps.lose = torch.compile(steps.lose, options=options)  # type: ignore[method-assign]
    return steps
