"""The source code of each primitive, and of loops, in a torch module that is exported to a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.extend import UsageError
from harness.extend.program import Dim, Node, Shape, pads_of
from harness.extend.source import (
    Code,
    Dialect,
    Emitter,
    Template,
    Words,
    common_code,
    ends_of,
    expand_dims,
    fill,
    listed,
    names_in,
    swaps_first,
)

# Sliding windows are written as ``unfold`` of the padded tensor, and their sum as ``fold``.


def windows(e: Emitter, node: Node) -> str:
    """Return source code for the primitive ``windows``: an expression in which ``%0`` or ``^0``
    stands for the operand. It calls ``unfold``, which puts the entries of a window on the last
    axes."""
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
    """Return source code for the primitive ``overlap_add`` on sequences and images: an expression
    with a placeholder for the operand. It calls torch's ``fold``, which takes images; a sequence is
    an image with one column. If the padding differs before and after an axis, the result of
    ``fold`` has no padding, and is cut.

    Raises:
        UsageError: the values have more than two axes of windows.
    """
    attributes, shape = node.attributes, e.types[node.inputs[0]].shape
    axes = attributes["axes"]
    rank = len(axes)
    if rank > 2 or axes != (1, 2)[:rank] or len(shape) != 2 + 2 * rank:
        raise UsageError(
            "cannot be written as source for torch: overlap_add needs [batch, time, channels] or "
            "[batch, rows, columns, channels]; export to onnx, which has no such limits"
        )
    ones: Shape = (Dim(1),) * (2 - rank)
    counts, sizes = shape[1 : 1 + rank], (*shape[1 + rank : -1], *ones)
    whole = shape[-1] * sizes[0] * sizes[1]
    flat = e.shape((-1, whole, math.prod(counts, start=Dim(1))))
    before, after, lengths = (attributes[n] for n in ("padding", "after", "length"))
    even = before == after
    pads = (*(before if even else (Dim(),) * rank), *(Dim(),) * (2 - rank))
    ends = [a + b + c for a, b, c in zip(before, lengths, after, strict=True)]
    keywords = {"dilation": (*attributes["dilation"], *ones), "padding": pads}
    keywords["stride"] = (*attributes["stride"], *ones)
    options = ", ".join(f"{name}={e.shape(value)}" for name, value in keywords.items())
    fold = f"{e.shape((*(lengths if even else ends), *ones))}, {e.shape(sizes)}, {options}"
    order = (0, 2 * rank + 1, *range(1 + rank, 1 + 2 * rank), *range(1, 1 + rank))
    text = f"nn.functional.fold(^0.permute{e.shape(order)}.reshape({flat}), {fold})"
    text += ".permute(0, 2, 3, 1)" if rank == 2 else ".squeeze(3).transpose(1, 2)"
    if even:
        return text
    cuts = zip(before, lengths, strict=True)
    return f"{text}[:, {', '.join(f'{e.size(a)}:{e.size(a + n)}' for a, n in cuts)}]"


def _segment_sum(e: Emitter, node: Node) -> str:
    rows, rest = node.attributes["rows"], e.types[node.output].shape[1:]
    zeros = f"{e.like}.new_zeros({e.shape((rows, *rest))})"
    return f"{zeros}.index_add(0, ^1.reshape(-1), ^0.reshape{e.shape((-1, *rest))})"


TEMPLATES: Mapping[str, Template] = {
    "exp": "torch.exp(%0)",
    "log": "torch.log(%0)",
    "tanh": "torch.tanh(%0)",
    "sqrt": "torch.sqrt(%0)",
    "erf": "torch.erf(%0)",
    "sign": "torch.sign(%0)",
    "sin": "torch.sin(%0)",
    "cos": "torch.cos(%0)",
    "floor": "torch.floor(%0)",
    "square": "torch.square(%0)",
    "power": "torch.pow(%0, %1)",
    "where": "torch.where(%0, %1, %2)",
    "take_along_axis": "torch.gather(%0, -1, %1)",
    "cumulative_sum": "torch.cumsum(%0, -1)",
    "argsort": "torch.argsort(%0, stable=True)",
    "stop_gradient": "^0.detach()",
    "relu": "torch.relu(%0)",
    "sigmoid": "torch.sigmoid(%0)",
    "gelu": "nn.functional.gelu(%0)",
    "gelu_tanh": 'nn.functional.gelu(%0, approximate="tanh")',
    "silu": "nn.functional.silu(%0)",
    # Above torch's threshold of 20, softplus is linear, which is visible in float64.
    "softplus": "nn.functional.softplus(%0, threshold=40)",
    "elu": "nn.functional.elu(%0)",
    "softmax": "torch.softmax(%0, -1)",
    "log_softmax": "torch.log_softmax(%0, -1)",
    "softmax_along": "torch.softmax(%0, {axis})",
    "log_softmax_along": "torch.log_softmax(%0, {axis})",
    "astype": "^0.to({like}.dtype)",
    "permute_dims": "^0.permute{axes}",
    "broadcast_to": "^0.expand{shape}",
    "arange": "torch.arange({stop}, device={like}.device)",
    "reshape": "^0.reshape{shape}",
    "expand_dims": expand_dims,
    "squeeze": "^0.squeeze({axis})",
    "flip": "^0.flip({axis})",
    # Its derivative at both limits is 0; that of torch.clamp is 1 before torch 2.14.
    "clip": "nn.functional.hardtanh(%0, {low}, {high})",
    "one_hot": "nn.functional.one_hot(%0, {classes}).to({like}.dtype)",
    "tensordot": "torch.tensordot(%0, %1, dims={axes})",
    "concat": "torch.cat([%0], {axis})",
    "sum": "^0.sum({axis}{keepdims})",
    "max": "^0.amax({axis}{keepdims})",
    "mean": "^0.mean({axis}{keepdims})",
    "keepdims": ", keepdim=True",
    "swap": "^0.transpose(0, 1)",
    "segment_sum": _segment_sum,
    "windows": windows,
    "overlap_add": overlap_add,
}
# Names that a module's source may use; see :mod:`harness.convert.source.vetting`.
WORDS = Words(
    imports=frozenset({"import math", "import torch", "from torch import Tensor, nn"}),
    roots=frozenset({"math", "torch", "nn", "Tensor"}),
    known=names_in(TEMPLATES)
    | {
        *("Tensor", "math.exp", "math.log", "math.tanh", "math.sqrt", "math.pow"),
        *("nn.Module", "nn.Parameter", "nn.Embedding", "nn.Linear", "nn.LayerNorm", "nn.RMSNorm"),
        *(
            "nn.Conv1d",
            "nn.Conv2d",
            "nn.ConvTranspose2d",
            "nn.MaxPool2d",
            "nn.AvgPool2d",
            "nn.RNN",
            "nn.LSTM",
            "nn.GRU",
        ),
        *("nn.functional.pad", "nn.functional.fold"),
        *("torch.dtype", "torch.float32", "torch.float64", "torch.zeros", "torch.stack"),
        "torch.int64",
    },
    methods=frozenset(
        {
            *("to", "detach", "transpose", "permute", "expand", "squeeze", "unsqueeze", "flip"),
            *("sum", "amax", "mean", "new_tensor", "new_zeros", "new_ones", "new_full"),
            *("new_empty", "normal_", "uniform_", "bernoulli_"),
            *("index_add", "reshape", "unbind", "append", "register_buffer", "requires_grad_"),
            *("unfold", "movedim"),
        }
    ),
    keywords=frozenset(
        {
            *("dtype", "bias", "batch_first", "bidirectional", "nonlinearity"),
            *("keepdim", "dims", "strict", "device", "stable", "eps", "approximate", "threshold"),
            *("value", "dilation", "padding", "stride", "groups", "count_include_pad"),
        }
    ),
    python=frozenset({"super", "zip", "reversed", "float", "str", "int", "dict", "tuple"}),
)


class TorchDialect(Dialect):
    """The writer of torch source code for the operations of a program."""

    def code(self, e: Emitter, node: Node, operands: Sequence[Code]) -> Code:
        code = common_code(e, node, operands, TEMPLATES)
        assert code is not None, node.op
        return code

    def filled(self, e: Emitter, fill_number: Code, shape: Shape) -> Code:
        if not shape:
            return fill(f"{e.like}.new_tensor(%0)", fill_number)
        method = {"0.0": "new_zeros", "1.0": "new_ones"}.get(e.render(fill_number))
        if method:
            return Code((f"{e.like}.{method}({e.shape(shape)})",))
        return fill(f"{e.like}.new_full({e.shape(shape)}, %0)", fill_number)

    def noise(self, e: Emitter, distribution: Mapping[str, Any], shape: Shape) -> Code:
        arguments = ", ".join(map(repr, distribution["arguments"].values()))
        return Code(
            (f"{e.like}.new_empty({e.shape(shape)}).{distribution['noise']}_({arguments})",)
        )

    def scan(self, e: Emitter, node: Node) -> None:
        """Write a loop over time: a ``for`` statement that appends the results of each step to
        lists."""
        body, count = node.block, node.carries
        for inner, start, name in zip(body.inputs, node.inputs, ends_of(e, node), strict=False):
            self._start(e, inner, start, name)
        sequences = [self._steps(e, s, node.reverse) for s in node.inputs[count:]]
        stacks = [
            (after, whole)
            for after, whole in zip(body.outputs[count:], node.outputs[count:], strict=True)
            if e.left[whole]
        ]
        lists = []
        for after, _ in stacks:
            lists.append(e.name(f"{e.base(after) or 'step'}s"))
            e.reserved.add(lists[-1])
            e.write(f"{lists[-1]} = []")
        over = sequences[0] if len(sequences) == 1 else f"zip({', '.join(sequences)}, strict=True)"
        e.depth += 1
        names = [e.argument(i, e.base(i) or "x_t") for i in body.inputs[count:]]
        e.depth -= 1
        e.write(f"for {', '.join(names)} in {over}:")
        e.depth += 1
        e.block(body.nodes, body.outputs)
        for (after, _), name in zip(stacks, lists, strict=True):
            e.write(f"{name}.append({e.read(e.operand(after))})")
        self._carry(e, body.inputs[:count], body.outputs[:count])
        e.depth -= 1
        for inner, last in zip(body.inputs, node.outputs[:count], strict=False):
            e.hold(last, e.text[inner])
        for (_, whole), name in zip(stacks, lists, strict=True):
            self._stacked(e, whole, f"{name}[::-1]" if node.reverse else name)

    def _start(self, e: Emitter, inner: int, start: int, name: str) -> None:
        """Write the assignment of the initial value of a carried value (a value that goes from step
        to step), before the loop. If no other code reads the variable of the initial value, the
        loop uses the same variable."""
        code = e.operand(start)
        text = e.read(code)
        free = code.parts == (start,) and not e.left[start] and e.home.get(start) == e.depth
        if not free:
            name = e.name(name)
            e.write(f"{name} = {text}")
            text = name
        e.depth += 1
        e.hold(inner, text)
        e.depth -= 1

    def _steps(self, e: Emitter, sequence: int, reverse: bool) -> str:
        if sequence in e.pending and sequence in e.turned:
            del e.pending[sequence]
            code = fill("^0.unbind(1)", e.turned[sequence])
        else:
            code = fill("^0.unbind(0)", e.operands([sequence])[0])
        return f"reversed({e.read(code)})" if reverse else e.read(code)

    def _carry(self, e: Emitter, inner: Sequence[int], after: Sequence[int]) -> None:
        """Write the assignments at the end of a step: the values ``after`` the step are stored in
        the variables ``inner``, which the next step reads."""
        moved = [(i, a) for i, a in zip(inner, after, strict=True) if e.text.get(a) != e.text[i]]
        codes = e.operands([a for _, a in moved])
        for a in after:
            e.left[a] -= a not in [m for _, m in moved]
        if moved:
            names = ", ".join(e.text[i] for i, _ in moved)
            e.write(f"{names} = {e.read(listed(codes))}")

    def _stacked(self, e: Emitter, whole: int, steps: str) -> None:
        reader = e.readers.get(whole)
        if reader is not None and e.alone(whole) and swaps_first(reader):
            e.skipped.add(reader.output)
            e.settle(reader.output, Code((f"torch.stack({steps}, 1)",)), "stack")
        else:
            e.settle(whole, Code((f"torch.stack({steps}, 0)",)), "stack")


# The script that runs a module; see :class:`harness.extend.formats.Script`.
SCRIPT = '''def run(inputs, state, cotangents):
    """Outputs, the new state, and the gradients along cotangents, all by name."""
    model = {model}()
    model.load_state_dict(torch.load(FOLDER / {weights}, weights_only=True))
    model.eval()

    def tensor(array):
        made = torch.from_numpy(array)
        return made.to(torch.{dtype}) if made.is_floating_point() else made

    arguments = [tensor(inputs[name]) for name in INPUTS]
    if STATE:
        outputs, after = model(*arguments, {{name: tensor(state[name]) for name in STATE}})
    else:
        outputs, after = model(*arguments), {{}}
    found = {{f"output.{{name}}": made for name, made in outputs.items()}}
    found |= {{f"state.{{name}}": made for name, made in after.items()}}
    if cotangents:
        sum((found[n] * tensor(c)).sum() for n, c in cotangents.items()).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[f"gradient.{{name}}"] = parameter.grad
    return {{name: made.detach().numpy() for name, made in found.items()}}
'''
