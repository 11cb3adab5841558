"""Dropout of a user's torch model with given random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.extend.models import GivenNoise, NoiseMisfit, current_place

ATTENTION = torch.nn.functional.scaled_dot_product_attention


@contextmanager
def with_noise(given: GivenNoise) -> Iterator[None]:
    """Replace the random numbers of dropout in the block by the spec's.

    Raises:
        NoiseMisfit: the calls do not fit the arrays, or the model draws other random numbers.
    """
    drawn = _Draws()
    dropout = _Dropout(given)
    functions: dict[str, Any] = {
        "dropout": dropout.drop,
        "scaled_dot_product_attention": dropout.attend,
    }
    with given.checked(), patch.multiple(torch.nn.functional, **functions), drawn:
        yield
    if drawn.first:
        raise NoiseMisfit(drawn.first)


class _Draws(TorchDispatchMode):
    """The place and the operator of the first random numbers that torch draws in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.first or torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        before = torch.get_rng_state()
        returned = func(*args, **(kwargs or {}))
        if not torch.equal(before, torch.get_rng_state()):
            place = current_place()
            name = func.overloadpacket.__name__
            self.first = f"{place}: " if place else ""
            self.first += f"the model draws random numbers of torch's {name}, not the spec's"
        return returned


@dataclass(frozen=True)
class _Dropout:
    given: GivenNoise

    def drop(self, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not training or p == 0:
            return x
        dropped = x * torch.from_numpy(self.given.take(x.shape)).to(x) / (1 - p)
        return x.copy_(dropped) if inplace else dropped

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> Any:
        if dropout_p == 0:
            return ATTENTION(query, key, value, attn_mask, 0.0, is_causal, **options)
        if options.get("enable_gqa"):
            key, value = (
                t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value)
            )
        scores = query @ key.mT * (options.get("scale") or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros(()).to(scores).masked_fill(~attn_mask, -math.inf)
        if attn_mask is not None:
            scores = scores + attn_mask
        # Without any unmasked score, torch's result is 0.
        empty = (scores == -math.inf).all(-1, keepdim=True)
        weights = scores.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
        return self.drop(weights, dropout_p) @ value
