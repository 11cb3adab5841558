"""Rules that translate torch's operators that move, select or join entries."""

from __future__ import annotations

from typing import Any

import torch

from harness.extend.models import Operand

from .trace_rules import (
    RULES,
    OperatorArguments,
    TorchTranslation,
    axes_of,
    length_of,
    rank_of,
    unsupported,
)

# torch's end of a slice without an end is the largest integer.
ENDLESS = 1 << 62


@RULES.of("flip")
def _flip(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    value = a["self"]
    for axis in axes_of(a["dims"], rank_of(node)):
        value = t.builder.cut(value, axis, (length_of(node, axis) - 1, -1, -1), about)
    return value


@RULES.of("transpose", "t", "permute", "movedim", "numpy_T")
def _permute(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    rank = rank_of(node)
    axes = list(range(rank))
    if "dims" in a:
        axes = [d % rank for d in a["dims"]]
    else:
        one, other = (a["dim0"] % rank, a["dim1"] % rank) if "dim0" in a else (0, rank - 1)
        axes[one], axes[other] = axes[other], axes[one]
    return t.builder.add("permute", [a["self"]], {"axes": axes}, **about)


@RULES.of("expand", "expand_as")
def _expand(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return t.builder.add("broadcast", [a["self"]], {}, **about)


@RULES.of("slice")
def _slice(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    axis = a["dim"] % rank_of(node)
    length = length_of(node, axis)
    start = min(max((a["start"] or 0) + (length if (a["start"] or 0) < 0 else 0), 0), length)
    end = length if a["end"] is None else a["end"]
    stop = min(max(end + (length if end < 0 else 0), 0), length)
    if length < end < ENDLESS or (a["start"] or 0) < -length:
        remark = (
            f"{about['place']}: a slice ends beyond the traced length {length}; the spec takes "
        )
        t.builder.graph["remarks"].append(f"{remark}the whole axis at every length")
    return t.builder.cut(a["self"], axis, (start, stop, a["step"]), about)


@RULES.of("narrow")
def _narrow(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    axis = a["dim"] % rank_of(node)
    bounds = (a["start"], a["start"] + a["length"], 1)
    return t.builder.cut(a["self"], axis, bounds, about)


@RULES.of("select")
def _select(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return t.builder.select(a["self"], a["dim"] % rank_of(node), a["index"], about)


@RULES.of("split", "split_with_sizes", "chunk", "unbind")
def _pieces(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> list[Operand]:
    axis = a["dim"] % rank_of(node)
    pieces: list[Operand] = []
    start = 0
    for number, piece in enumerate(node.meta["val"]):
        if "unbind" in str(node.target):
            pieces.append(t.builder.select(a["self"], axis, number, about))
            continue
        stop = start + int(piece.shape[axis])
        pieces.append(t.builder.cut(a["self"], axis, (start, stop, 1), about))
        start = stop
    return pieces


@RULES.of("cat", "concat", "stack")
def _concat(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    rank = len(about["shape"])
    axis = a["dim"] % rank
    parts = list(a["tensors"])
    if "stack" in str(node.target):
        one = [1 if n == axis else length for n, length in enumerate(about["shape"])]
        parts = [t.builder.node("reshape", [part], about, one) for part in parts]
    return t.builder.add("concat", parts, {"axis": axis}, **about)


@RULES.of("index_select", "index")
def _index(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if "dim" in a:
        return t.builder.add("take", [a["self"], a["index"]], {"axis": a["dim"]}, **about)
    used = [(n, i) for n, i in enumerate(a["indices"]) if i is not None]
    if len(used) == 1:
        return t.builder.add("take", [a["self"], used[0][1]], {"axis": used[0][0]}, **about)
    if node in t.known:
        return t.builder.add("constant", [], {}, **about)
    indices = [i for _, i in used]
    return t.builder.add("gather", [a["self"], *indices], {"axes": [n for n, _ in used]}, **about)


@RULES.of("gather")
def _gather(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    value, index, axis = a["self"], a["index"], a["dim"] % rank_of(node)
    for place, length in enumerate(about["shape"]):
        if place != axis:
            value = t.builder.cut(value, place, (0, length, 1), about)
    return t.builder.add("take_along_axis", [value, index], {"axis": axis}, **about)


@RULES.of("sort", "argsort", "topk")
def _sort(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Any:
    """Add the sorted entries and their places; equal entries keep their order."""
    axis, value = a.get("dim", -1) % rank_of(node), a["self"]
    a.read.update(("stable", "sorted"))
    own = {"axis": axis}
    if a["largest"] if "largest" in a else a["descending"]:
        own["descending"] = True
    shape = t.builder.shape_of(value)
    places = t.builder.node("argsort", [value], about, shape, "index", **own)
    if "argsort" in str(node.target):
        return places
    entries = t.builder.node("sort", [value], about, shape, "float", **own)
    bounds = (0, a.get("k", shape[axis]), 1)
    kinds = zip((entries, places), ("float", "index"), strict=True)
    return [t.builder.cut(v, axis, bounds, {**about, "kind": kind}) for v, kind in kinds]


@RULES.of("one_hot")
def _one_hot(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if a["num_classes"] < 0:
        return unsupported(t, node, about, "a number of classes that depends on the data")
    return t.builder.node("one_hot", [a["self"], a["num_classes"]], about, kind="float")
