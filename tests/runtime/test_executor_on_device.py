"""A step of torch's executor stays on its device: no copy to or from the host, and no wait.

torch's device ``meta`` stands for a card. Its tensors have no values, so that whatever reads one on
the host fails, and every operation with its tensors is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from plan_runs import arrays_of, plan_of
from wording import Wording

from harness.runtime.executor import Executor

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from harness.backends.torch.executor_kernels import TorchKernels  # noqa: E402
from harness.backends.torch.primitives import FUSED  # noqa: E402

CARD = torch.device("meta")
HOST_NUMBER = torch.tensor(2.0)
# How many there are in a step at eight characters. Fewer would be faster on a card.
OPERATIONS = {
    ("sequence_rnn", "train"): 99,
    ("sequence_rnn", "forward"): 21,
    ("keras_gru", "train"): 339,
    ("keras_gru", "forward"): 123,
    ("stateful_lstm", "train"): 489,
    ("stateful_lstm", "forward"): 188,
}


class Crossings(TorchDispatchMode):  # type: ignore[misc]
    """What is done, and of it what crosses between the host and the card.

    A number in a tensor without axes may be the operand of an operation, which takes it along; it
    may not be copied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.crossing: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # There are no values to compute; and meta's own rules are not those of a card, which takes
        # a number on the host for the first operand, too.
        places = [kwargs[name] for name in ("out", "grad_input") if name in kwargs]
        result = places[0] if places else function(*args, **kwargs)
        self.done.append(str(function))
        copies = function.overloadpacket.__name__ in ("copy_", "_to_copy", "_copy_from")
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        on_host = [t for t in tensors if t.device != CARD and (t.dim() or copies)]
        if on_host and len(on_host) < len(tensors):
            self.crossing.append(str(function))
        return result


def on_card(array: Any) -> Any:
    made = torch.from_numpy(array)
    return (made.float() if made.is_floating_point() else made).to(CARD)


@pytest.mark.parametrize(("name", "mode"), OPERATIONS)
def test_a_step_copies_nothing_between_host_and_card(name: str, mode: str) -> None:
    plan = plan_of(f"lesson6/{name}", mode, "float32", FUSED)
    executor = Executor(plan, TorchKernels("float32", str(CARD)))
    arrays = arrays_of(f"lesson6/{name}", mode, plan, 0)
    inputs = {n: on_card(a) for n, a in arrays.items()}
    with Crossings() as first:  # which binds
        found = executor(inputs)
    inputs |= {given: found[n] for n, given in plan.carried.items()}
    with Crossings() as seen:
        found = executor(inputs)
    assert first.crossing == seen.crossing == []
    assert len(seen.done) == OPERATIONS[name, mode]
    assert {tensor.device for tensor in found.values()} == {CARD}


@pytest.mark.parametrize(
    "call",
    [
        lambda x, host: x.copy_(host),
        lambda x, host: x.copy_(HOST_NUMBER),
        lambda x, host: host.to(CARD),
        lambda x, host: HOST_NUMBER.to(CARD),
    ],
)
def test_a_copy_would_be_seen(call: Callable[[Any, Any], Any]) -> None:
    with Crossings() as seen:
        call(torch.zeros(3, device=CARD), torch.ones(3))
    assert len(seen.crossing) == 1


def test_a_number_on_the_host_is_no_copy_and_a_look_at_a_value_fails(wording: Wording) -> None:
    x = torch.zeros(3, device=CARD)
    with Crossings() as seen:
        torch.mul(x, HOST_NUMBER, out=x)
    assert seen.crossing == []
    with wording.raises(RuntimeError, "item()"):
        x.sum().item()
