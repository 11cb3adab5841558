"""Torch's own layers in bfloat16 or float16, run under torch's autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from harness.extend import Native

# The label of the recurrent layer that torch runs with oneDNN.
LSTM = "torch.lstm"


def autocast(native: Native, device: str, dtype: str) -> Native:
    """Return a version of a native layer that runs under ``torch.autocast`` and returns float32
    results.

    Autocast chooses the dtype of each operation: the narrow dtype (bfloat16 or float16) for matrix
    products, float32 for losses and normalisations. If oneDNN cannot train an LSTM in the narrow
    dtype, the LSTM runs without oneDNN, and the layer's label says so.
    """
    kind, narrow = torch.device(device).type, getattr(torch, dtype)
    refused = native.label == LSTM and kind == "cpu" and not _onednn_trains(narrow)

    def cast(run: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
        def run_with_autocast(*arguments: Any) -> Sequence[Any]:
            # Disable autocast's cache: after an in-place update, it would have old parameters.
            with torch.autocast(kind, narrow, cache_enabled=False), _without_onednn(refused):
                results = run(*arguments)
            return [tensor.float() for tensor in results]

        return run_with_autocast

    way = "autocast, without oneDNN" if refused else "autocast"
    chain = native.chain and replace(native.chain, run=cast(native.chain.run))
    return replace(native, label=f"{native.label} ({way})", run=cast(native.run), chain=chain)


@contextmanager
def _without_onednn(disable: bool) -> Iterator[None]:
    """Disable oneDNN inside this context if ``disable`` is true; otherwise change nothing."""
    onednn: Any = torch.backends.mkldnn
    before = onednn.enabled
    # Do not use torch's flags(), which also changes the float32 precision.
    onednn.enabled = before and not disable
    try:
        yield
    finally:
        onednn.enabled = before


@cache
def _onednn_trains(dtype: torch.dtype) -> bool:
    """Return whether oneDNN can train an LSTM in ``dtype`` (bfloat16 or float16) on this processor.

    On some processors, autocast makes torch use oneDNN for float16, although oneDNN supports
    float16 for inference only. torch 2.13 then raises an error on newer processors, with or without
    AVX512-FP16.
    """
    one, gates = (torch.zeros(shape, dtype=torch.float32) for shape in ((1, 1, 1), (4, 1)))
    weights = [gates, gates, gates[:, 0], gates[:, 0]]
    with torch.enable_grad(), torch.autocast("cpu", dtype):
        try:
            torch.lstm(one, [one, one], weights, True, 1, 0.0, True, False, True)
        except RuntimeError:
            return False
    return True
