"""What models_torch writes, through torch.compile: the loss with its gradient, or the output."""

from __future__ import annotations

import models_torch
import torch
from contract import Given


def make(given: Given) -> models_torch.Steps:
    """Steps whose forward pass and loss, with its gradient, are compiled; the update is fused."""
    steps = models_torch.make(given)
    # Calls of kernels in C++ and not in Python: at small batches the calls decide.
    options = {"cpp_wrapper": True}
    steps.predict = torch.compile(steps.predict, options=options)  # type: ignore[method-assign]
    steps.lose = torch.compile(steps.lose, options=options)  # type: ignore[method-assign]
    return steps
