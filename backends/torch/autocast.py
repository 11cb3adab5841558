"""Claimed layers in bfloat16 or float16: under torch's own autocast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.extend import Native, Tensors


def autocast(native: Native, device: str, dtype: str) -> Native:
    """The same layer under ``torch.autocast``, which has a dtype for each operation: the narrow one
    for products, float32 for losses and normalisations. What comes of it goes on in float32."""
    kind, narrow = torch.device(device).type, getattr(torch, dtype)

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        # Each call has its casts: what one leaves in the cache may be of parameters that are since
        # written over.
        with torch.autocast(kind, narrow, cache_enabled=False):
            made = native.run(values, packed)
        return [tensor.float() for tensor in made]

    return replace(native, label=f"{native.label} (autocast)", run=run)
