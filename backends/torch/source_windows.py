"""The source of sliding windows in torch: ``unfold`` of the padded tensor, and ``fold``."""

from __future__ import annotations

from harness.extend import UsageError
from harness.extend.program import Node, pads_of
from harness.extend.source import Emitter


def windows(e: Emitter, node: Node) -> str:
    """Return the source template; ``unfold`` puts the entries of windows on the last axes."""
    attributes, rank = node.attributes, len(e.types[node.inputs[0]].shape)
    axes, count = attributes["axes"], len(attributes["axes"])
    each = {n: [e.size(dim) for dim in attributes[n]] for n in ("size", "stride", "dilation")}
    flat = [e.size(n) for pair in reversed(pads_of(attributes, rank)) for n in pair]
    text = "^0"
    if set(flat) != {"0"}:
        fill = ', value=float("-inf")' if attributes["lowest"] else ""
        text = f"nn.functional.pad(%0, ({', '.join(flat)}){fill})"
    for axis, size, step, apart in zip(axes, *each.values(), strict=True):
        covered = size if apart == "1" else f"{apart} * ({size} - 1) + 1"
        text += f".unfold({axis}, {covered}, {step})"
    if set(each["dilation"]) != {"1"}:
        text += f"[{':, ' * rank}{', '.join(f'::{apart}' for apart in each['dilation'])}]"
    last = axes[-1] + 1
    order = (*range(last), *range(rank, rank + count), *range(last, rank))
    return text if order == tuple(range(rank + count)) else f"{text}.permute{e.shape(order)}"


def overlap_add(e: Emitter, node: Node) -> str:
    """Return the source template for images; ``fold`` needs channels after the batch.

    Raises:
        UsageError: the values are not images, or the padding is not symmetric.
    """
    attributes, shape = node.attributes, e.types[node.inputs[0]].shape
    even = attributes["padding"] == attributes["after"]
    if attributes["axes"] != (1, 2) or len(shape) != 6 or not even:
        raise UsageError(
            "cannot be written as source for torch: overlap_add of other values than "
            "[batch, rows, columns, channels], or padded on one side; export to onnx, which has it"
        )
    _, rows, columns, *sizes, channels = shape
    whole = channels * sizes[0] * sizes[1]
    flat = e.shape((-1, whole, rows * columns))
    names = ("dilation", "padding", "stride")
    options = ", ".join(f"{name}={e.shape(attributes[name])}" for name in names)
    fold = f"{e.shape(attributes['length'])}, {e.shape(sizes)}, {options}"
    patches = f"^0.permute(0, 5, 3, 4, 1, 2).reshape({flat})"
    return f"nn.functional.fold({patches}, {fold}).permute(0, 2, 3, 1)"
