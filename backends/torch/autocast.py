"""Claimed layers in bfloat16 or float16: under torch's own autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from harness.extend import Native

# The recurrent layer that torch hands to oneDNN.
LSTM = "torch.lstm"


def autocast(native: Native, device: str, dtype: str) -> Native:
    """The same layer under ``torch.autocast``, which has a dtype for each operation: the narrow one
    for products, float32 for losses and normalisations. What comes of it goes on in float32.

    Where oneDNN cannot run it, torch runs it without oneDNN, and the label says so.
    """
    kind, narrow = torch.device(device).type, getattr(torch, dtype)
    refused = native.label == LSTM and kind == "cpu" and not _onednn_trains(narrow)

    def cast(run: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
        def under(*given: Any) -> Sequence[Any]:
            # Each call has its casts: what one leaves in the cache may be of parameters that are
            # since written over.
            with torch.autocast(kind, narrow, cache_enabled=False), _without_onednn(refused):
                made = run(*given)
            return [tensor.float() for tensor in made]

        return under

    way = "autocast, without oneDNN" if refused else "autocast"
    chain = native.chain and replace(native.chain, run=cast(native.chain.run))
    return replace(native, label=f"{native.label} ({way})", run=cast(native.run), chain=chain)


@contextmanager
def _without_onednn(wanted: bool) -> Iterator[None]:
    """Nothing in it goes to oneDNN, if that is wanted."""
    onednn: Any = torch.backends.mkldnn
    before = onednn.enabled
    # Not flags(), which sets the precision of float32, too.
    onednn.enabled = before and not wanted
    try:
        yield
    finally:
        onednn.enabled = before


@cache
def _onednn_trains(dtype: torch.dtype) -> bool:
    """Whether an LSTM in a narrow dtype can be trained on this processor.

    By the instructions that a processor has, autocast and torch hand it to oneDNN, and that has
    float16 for inference only: torch 2.13 raises on newer processors, with
    AVX512-FP16 or without.
    """
    one, gates = (torch.zeros(shape, dtype=torch.float32) for shape in ((1, 1, 1), (4, 1)))
    weights = [gates, gates, gates[:, 0], gates[:, 0]]
    with torch.enable_grad(), torch.autocast("cpu", dtype):
        try:
            torch.lstm(one, [one, one], weights, True, 1, 0.0, True, False, True)
        except RuntimeError:
            return False
    return True
