"""The source code of each primitive, and of loops, in JAX functions that are exported to a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.extend import UsageError
from harness.extend.program import Dim, Node, Shape, free_values, pads_of
from harness.extend.source import (
    Code,
    Dialect,
    Emitter,
    Template,
    Words,
    bracketed,
    common_code,
    ends_of,
    expand_dims,
    fill,
    names_in,
    unique,
)

# Windows along neighbouring axes are written as indices into the padded array.


def _window_positions(e: Emitter, node: Node, counts: tuple[Dim, ...]) -> Iterator[str]:
    """Yield source code for each axis along which windows are taken: an expression for the
    positions of the entries of each window.

    The positions have the shape ``[count, size]``: number of windows, entries of a window. With
    several axes, they have further axes of length 1.

    Raises:
        UsageError: the axes are not adjacent.
    """
    attributes, axes = node.attributes, node.attributes["axes"]
    if axes != tuple(range(axes[0], axes[-1] + 1)):
        raise UsageError(
            f"cannot be written as source for jax: {node.op} over axes {list(axes)}, which are not "
            "adjacent; make them adjacent with permute_dims"
        )
    columns = zip(counts, *(attributes[n] for n in ("size", "stride", "dilation")), strict=True)
    for number, (count, size, step, apart) in enumerate(columns):
        starts, offsets = f"jnp.arange({e.size(count)})[:, None]", f"jnp.arange({e.size(size)})"
        starts += "" if step == Dim(1) else f" * {e.size(step)}"
        offsets += "" if apart == Dim(1) else f" * {e.size(apart)}"
        marks = [":" if n % len(axes) == number else "None" for n in range(2 * len(axes))]
        yield f"({starts} + {offsets})" + ("" if len(axes) == 1 else f"[{', '.join(marks)}]")


def windows(e: Emitter, node: Node) -> str:
    """Return source code for the primitive ``windows``: an expression in which ``%0`` stands for
    the operand."""
    attributes, rank = node.attributes, len(e.types[node.inputs[0]].shape)
    places = ", ".join(_window_positions(e, node, attributes["length"]))
    pads = pads_of(attributes, rank)
    text = "^0"
    if any(Dim.of(dim) != Dim() for pair in pads for dim in pair):
        fill = ', constant_values=float("-inf")' if attributes["lowest"] else ""
        every = ", ".join(map(e.shape, pads))
        text = f"jnp.pad(%0, ({every}){fill})"
    return f"{text}[{':, ' * attributes['axes'][0]}{places}]"


def overlap_add(e: Emitter, node: Node) -> str:
    """Return source code for the primitive ``overlap_add``: an expression in which ``%0`` stands
    for the operand."""
    attributes, shape = node.attributes, e.types[node.output].shape
    axes = attributes["axes"]
    counts = tuple(e.types[node.inputs[0]].shape[axis] for axis in axes)
    places = ", ".join(_window_positions(e, node, counts))
    whole, inside = list(shape), [":"] * len(shape)
    columns = zip(axes, attributes["padding"], attributes["after"], strict=True)
    for axis, before, after in columns:
        inside[axis] = f"{e.size(before)}:{e.size(before + shape[axis])}"
        whole[axis] = before + whole[axis] + after
    zeros = f"jnp.zeros({e.shape(whole)}, {e.like})"
    return f"{zeros}.at[{':, ' * axes[0]}{places}].add(%0)[{', '.join(inside)}]"


def _segment_sum(e: Emitter, node: Node) -> str:
    shape = e.shape((node.attributes["rows"], *e.types[node.output].shape[1:]))
    return f"jnp.zeros({shape}, {e.like}).at[%1].add(%0)"


TEMPLATES: Mapping[str, Template] = {
    "exp": "jnp.exp(%0)",
    "log": "jnp.log(%0)",
    "tanh": "jnp.tanh(%0)",
    "sqrt": "jnp.sqrt(%0)",
    "erf": "jax.lax.erf(%0)",
    "sign": "jnp.sign(%0)",
    "sin": "jnp.sin(%0)",
    "cos": "jnp.cos(%0)",
    "floor": "jnp.floor(%0)",
    "square": "jnp.square(%0)",
    "power": "jnp.power(%0, %1)",
    "where": "jnp.where(%0, %1, %2)",
    "take_along_axis": "jnp.take_along_axis(%0, %1, -1)",
    "cumulative_sum": "jnp.cumsum(%0, -1)",
    "argsort": "jnp.argsort(%0, -1)",
    "stop_gradient": "jax.lax.stop_gradient(%0)",
    "relu": "jax.nn.relu(%0)",
    "sigmoid": "jax.nn.sigmoid(%0)",
    "gelu": "jax.nn.gelu(%0, approximate=False)",
    "gelu_tanh": "jax.nn.gelu(%0, approximate=True)",
    "silu": "jax.nn.silu(%0)",
    "softplus": "jax.nn.softplus(%0)",
    "elu": "jax.nn.elu(%0)",
    "softmax": "jax.nn.softmax(%0)",
    "log_softmax": "jax.nn.log_softmax(%0)",
    "softmax_along": "jax.nn.softmax(%0, axis={axis})",
    "log_softmax_along": "jax.nn.log_softmax(%0, axis={axis})",
    "astype": "^0.astype({like})",
    "permute_dims": "^0.transpose{axes}",
    "broadcast_to": "jnp.broadcast_to(%0, {shape})",
    "arange": "jnp.arange({stop})",
    "reshape": "^0.reshape{shape}",
    "expand_dims": expand_dims,
    "squeeze": "^0.squeeze({axis})",
    "flip": "jnp.flip(%0, {axis})",
    # The derivative of jnp.clip at both limits is 1/2, but that of the spec is 0.
    "clip": "jnp.where(%0 <= {low}, {low}, jnp.where(%0 >= {high}, {high}, %0))",
    "one_hot": "jax.nn.one_hot(%0, {classes}, dtype={like})",
    "tensordot": "jnp.tensordot(%0, %1, {axes})",
    "concat": "jnp.concatenate([%0], {axis})",
    "sum": "^0.sum({axis}{keepdims})",
    "max": "^0.max({axis}{keepdims})",
    "mean": "^0.mean({axis}{keepdims})",
    "keepdims": ", keepdims=True",
    "swap": "jnp.swapaxes(%0, 0, 1)",
    "segment_sum": _segment_sum,
    "windows": windows,
    "overlap_add": overlap_add,
}
# The names that the source may use; see :mod:`harness.convert.source.vetting`.
WORDS = Words(
    imports=frozenset(
        {"import math", "import jax", "import jax.numpy as jnp", "import numpy as np"}
    ),
    roots=frozenset({"math", "jax", "jnp", "np"}),
    known=names_in(TEMPLATES)
    | {
        *("jax.lax.conv_general_dilated", "jax.lax.reduce_window", "jax.lax.max", "jax.lax.add"),
        *("jnp.flip", "jnp.tanh", "jnp.ones_like", "math.prod"),
        *("math.exp", "math.log", "math.tanh", "math.sqrt", "math.pow", "np.load", "jax.lax.scan"),
        *("jnp.pad", "jnp.zeros", "jnp.ones", "jnp.full", "jnp.asarray"),
    },
    methods=frozenset(
        {
            "reshape",
            "squeeze",
            "transpose",
            "astype",
            "sum",
            "max",
            "mean",
            "add",
            "split",
            "setdefault",
        }
    ),
    keywords=frozenset(
        {
            *("window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers"),
            *("feature_group_count", "stride", "dilation", "groups", "window"),
            *("keepdims", "axis", "approximate", "dtype", "reverse", "constant_values"),
        }
    ),
    python=frozenset({"float", "range", "str"}),
)


class JaxDialect(Dialect):
    """The writer of JAX source code for the operations of a program."""

    def code(self, e: Emitter, node: Node, operands: Sequence[Code]) -> Code:
        code = common_code(e, node, operands, TEMPLATES)
        assert code is not None, node.op
        return code

    def filled(self, e: Emitter, fill_number: Code, shape: Shape) -> Code:
        if not shape:
            return fill(f"jnp.asarray(%0, {e.like})", fill_number)
        function = {"0.0": "zeros", "1.0": "ones"}.get(e.render(fill_number))
        if function:
            return Code((f"jnp.{function}({e.shape(shape)}, {e.like})",))
        return fill(f"jnp.full({e.shape(shape)}, %0, {e.like})", fill_number)

    def scan(self, e: Emitter, node: Node) -> None:
        """Write a loop over time: a function for one step, and a call of ``jax.lax.scan`` with this
        function."""
        count = node.carries
        codes = e.operands(node.inputs, 40)
        starts = [e.read(code) for code in codes[:count]]
        sequences = [e.read(code) for code in codes[count:]]
        step = e.name("step")
        e.reserved.add(step)
        stacks = [n for n in range(count, len(node.outputs)) if e.left[node.outputs[n]]]
        self._step(e, node, step, stacks)
        names = []
        for value, name in zip(node.outputs, ends_of(e, node), strict=False):
            names.append(e.name(name) if e.left[value] else "_")
            if e.left[value]:
                e.hold(value, names[-1])
        results = []
        for n in stacks:
            name = e.base(node.outputs[n]) or f"{e.base(node.block.outputs[n]) or 'step'}s"
            results.append(e.name(name))
            e.hold(node.outputs[n], results[-1])
        last = _tuple(names, "_") if set(names) - {"_"} else "_"
        whole = _tuple(results, "_")
        reverse = ["reverse=True"] if node.reverse else []
        items = [step, _tuple(starts, "None"), _tuple(sequences, "None"), *reverse]
        e.lines += bracketed(e.depth, f"{last}, {whole} = jax.lax.scan(", items, ")")

    def _step(self, e: Emitter, node: Node, step: str, stacks: Sequence[int]) -> None:
        """Write the function ``step``, which computes one step of a loop. It may read variables of
        the enclosing function."""
        body, count = node.block, node.carries
        outside = {e.text[v] for v in free_values(body) if v in e.text}
        around, e.owner = e.owner, {}
        carry, steps = (unique(word, e.size_names.values()) for word in ("carry", "steps"))
        before, e.reserved = e.reserved, e.reserved | outside | {carry, steps}
        e.depth += 1
        carries = [
            e.argument(inner, name)
            for inner, name in zip(body.inputs, ends_of(e, node), strict=False)
        ]
        slices = [e.argument(i, e.base(i) or "x_t") for i in body.inputs[count:]]
        heads = [_argument(carries, carry), _argument(slices, steps)]
        e.depth -= 1
        if not (e.lines and e.lines[-1].endswith(":")):
            e.lines.append("")
        e.write(f"def {step}({heads[0]}, {heads[1]}):")
        e.depth += 1
        for names, head in zip((carries, slices), heads, strict=True):
            if len(names) > 1:
                e.write(f"{', '.join(names)} = {head}")
        e.block(body.nodes, body.outputs)
        positions = [*range(count), *stacks]
        codes = e.operands([body.outputs[n] for n in positions], 50)
        texts = [e.read(e.tensor(code)) for code in codes]
        e.write(f"return {_tuple(texts[:count], 'None')}, {_tuple(texts[count:], 'None')}")
        e.lines.append("")
        e.depth -= 1
        for n in set(range(len(body.outputs))) - set(positions):
            e.left[body.outputs[n]] -= 1
        e.owner, e.reserved = around, before


def _tuple(texts: Sequence[str], none: str) -> str:
    return f"({', '.join(texts)})" if len(texts) > 1 else texts[0] if texts else none


def _argument(names: Sequence[str], several: str) -> str:
    """Return source code for a function's argument: the name if there is only one name, else
    ``several``, a tuple that the function unpacks to these names."""
    return names[0] if len(names) == 1 else several if names else "_"


# The script that runs the exported functions; see :class:`harness.extend.formats.Script`.
SCRIPT = '''def run(inputs, state, cotangents):
    """Outputs, the new state, and the gradients along cotangents, all by name."""
    jax.config.update("jax_enable_x64", {wide})
    jax.config.update("jax_default_matmul_precision", "highest")
    {loaded} = load(FOLDER / {weights})

    def array(given):
        return jnp.asarray(given, "{dtype}" if given.dtype.kind == "f" else "int32")

    arguments = [array(inputs[name]) for name in INPUTS]
    if STATE:
        arguments.append({{name: array(state[name]) for name in STATE}})

    directions = {{name: array(cotangent) for name, cotangent in cotangents.items()}}

    def results(params, arguments):
        made = apply({loaded}, *arguments)
        outputs, after = made if STATE else (made, {{}})
        found = {{f"output.{{name}}": value for name, value in outputs.items()}}
        return found | {{f"state.{{name}}": value for name, value in after.items()}}

    def along(params, arguments, directions):
        found = results(params, arguments)
        return sum((found[n] * c).sum() for n, c in directions.items())

    # Compiled in the first pass, for all of them.
    if not hasattr(run, "compiled"):
        run.compiled = jax.jit(results), jax.jit(jax.grad(along))
    found = run.compiled[0](params, arguments)
    if cotangents:
        gradients = run.compiled[1](params, arguments, directions)
        for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]:
            found[".".join(["gradient", *(part.key for part in path)])] = gradient
    return {{name: np.asarray(value) for name, value in found.items()}}
'''
