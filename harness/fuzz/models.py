"""Random models in the spec language, as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.fuzz.parts import (
    BATCH,
    BINARY,
    FUNCTIONS,
    INDEX,
    INPUTS,
    MOST_AXES,
    RECURRENT,
    TIME,
    VOCAB,
    WIDTH,
    broadcast,
    is_free_of_batch_and_time,
    is_product,
    losses,
)
from harness.program.dims import ONE, Dim, Shape, product

NAME = re.compile(r"[a-z_]\w*")


@dataclass
class RandomModel:
    """A model under construction: its values with their shapes, and the text so far.

    ``integer(low, high)`` draws a random integer from ``low`` to ``high``. ``sizes`` maps the names
    of sizes to numbers. ``values`` are the values that the next equation may read. ``inputs`` maps
    the names of inputs to their declarations, and ``indices`` is the input of indices.
    """

    integer: Callable[[int, int], int]
    sizes: dict[str, int]
    values: list[tuple[str, Shape]] = field(default_factory=list)
    equations: list[str] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    indices: str = "i"

    def start(self, inputs: Mapping[str, tuple[Shape, str]], suffix: str = "") -> None:
        """Declare inputs, whose names get a suffix. The next equations read only these inputs, and
        values that are computed from them."""
        self.indices = f"i{suffix}"
        self.inputs[self.indices] = INDEX
        self.inputs |= {f"{name}{suffix}": text for name, (_, text) in inputs.items()}
        self.values = [(f"{name}{suffix}", shape) for name, (shape, _) in inputs.items()]

    def flag(self) -> bool:
        """Return a random boolean."""
        return bool(self.integer(0, 1))

    def pick(self, items: Sequence[Any]) -> Any:
        """Return a random item."""
        return items[self.integer(0, len(items) - 1)]

    def order(self, count: int) -> list[int]:
        """Return the integers below ``count`` in random order."""
        rest = list(range(count))
        return [rest.pop(self.integer(0, len(rest) - 1)) for _ in range(count)]

    def value(self, fits: Callable[[Shape], bool] = lambda shape: True) -> tuple[str, Shape] | None:
        """Return a value whose shape fits, preferably the newest."""
        found = [pair for pair in reversed(self.values) if fits(pair[1])]
        if not found:
            return None
        return found[0] if self.flag() else self.pick(found)

    def add(self, text: str, shape: Shape) -> None:
        """Add an equation with a right side. The next equations may read its value."""
        name = f"v{len(self.equations)}"
        self.equations.append(f"{name} = {text}")
        self.values.append((name, shape))

    def layer(self, text: str) -> str:
        """Declare a layer, and return its name."""
        name = f"layer{len(self.layers)}"
        self.layers[name] = text
        return name

    def axis(self, rank: int, more: int = 0) -> tuple[int, str]:
        """Return a random axis, and its text: counted from the front or from the end."""
        axis = self.integer(0, rank - 1 + more)
        return axis, str(self.pick((axis, axis - rank - more)))

    def expand(self) -> None:
        """Add a value with a new axis of length 1."""
        found = self.value(lambda s: len(s) < MOST_AXES)
        if found:
            name, shape = found
            axis, text = self.axis(len(shape), 1)
            self.add(f"expand_dims({name}, axis={text})", (*shape[:axis], ONE, *shape[axis:]))

    def permute(self) -> None:
        """Add a value with its axes in another order."""
        found = self.value(lambda s: len(s) > 1)
        if found:
            name, shape = found
            axes = self.order(len(shape))
            text = [self.pick((a, a - len(shape))) for a in axes]
            self.add(f"permute_dims({name}, axes={text})", tuple(shape[a] for a in axes))

    def index(self) -> None:
        """Add an entry or a slice of a value along one axis."""
        found = self.value(lambda s: len(s) > 0)
        if found:
            name, shape = found
            axis, _ = self.axis(len(shape))
            before, after = [":"] * axis, [":"] * (len(shape) - axis - 1)
            if before and after and self.flag():
                before = ["..."]
            long = shape[axis] == WIDTH and self.sizes["width"] > 1
            texts = ["0", "-1", ":1", "-1:", "::-1", *(["1:", ":-1"] if long else [])]
            item = self.pick(texts)
            length = {"0": None, "-1": None, "::-1": shape[axis], ":1": ONE, "-1:": ONE}
            new = length.get(item, shape[axis] - 1)
            kept = () if new is None else (new,)
            self.add(
                f"{name}[{', '.join([*before, item, *after])}]",
                (*shape[:axis], *kept, *shape[axis + 1 :]),
            )

    def concat(self) -> None:
        """Add up to three values of the same shape, joined along one axis."""
        found = self.value(lambda s: len(s) > 0)
        if found:
            name, shape = found
            axis, text = self.axis(len(shape))
            if not is_free_of_batch_and_time(shape[axis]):
                return  # twice as many samples would be a different model
            others = [n for n, s in self.values if s == shape]
            parts = [name, *(self.pick(others) for _ in range(self.integer(0, 2)))]
            length = shape[axis] * len(parts)
            self.add(
                f"concat([{', '.join(parts)}], axis={text})",
                (*shape[:axis], length, *shape[axis + 1 :]),
            )

    def merge(self) -> None:
        """Add a value with two neighbouring axes merged."""
        found = self.value(lambda s: len(s) > 1)
        if found:
            name, shape = found
            axis = self.integer(0, len(shape) - 2)
            both = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
            self.add(f"merge({name}, axes=[{axis}, {axis + 1}])", both)

    def split(self) -> None:
        """Split an axis whose size is a product, or split an axis into itself and a constant."""
        found = self.value(lambda s: len(s) < MOST_AXES and any(map(is_product, s)))
        if found:
            name, shape = found
            axis = self.pick([a for a, d in enumerate(shape) if is_product(d)])
            ((term, count),) = shape[axis].terms
            names = term.split("*")
            parts = (Dim.of(names[0]) * count, product(map(Dim.of, names[1:])))
            text = f"split({name}, axis={axis}, sizes=[{', '.join(map(str, parts))}])"
            self.add(text, (*shape[:axis], *parts, *shape[axis + 1 :]))

    def add_masked(self) -> None:
        """Add a value that is halved at some time steps."""
        found = self.value(lambda s: len(s) > 1 and s[-2] == TIME)
        if found:
            name, shape = found
            both = "~(arange(time)[:, None] < 2)", "(arange(time) == 0)[:, None]"
            text = self.pick((*both, " & ".join(both), " | ".join(both)))
            self.add(f"where({text}, {name}, 0.5 * {name})", shape)

    def add_function(self) -> None:
        """Add a function of a value, which keeps the shape."""
        text = self.pick(FUNCTIONS)
        found = self.value(lambda s: len(s) > 0 or "max" not in text)
        if found:
            self.add(text.format(found[0]), found[1])

    def reduce(self) -> None:
        """Add the sum, mean or maximum of a value over some axes."""
        found = self.value(lambda s: len(s) > 0)
        if found:
            name, shape = found
            count = self.integer(1, len(shape))
            axes = self.order(len(shape))[:count]
            written = [self.pick((a, a - len(shape))) for a in axes]
            axis = f", axis={written[0] if count == 1 else written}"
            if count == len(shape) and self.flag():
                axis = ""
            keep = self.flag()
            op = self.pick(("sum", "mean", "max"))
            text = f"{op}({name}{axis}{', keepdims=1' if keep else ''})"
            left = tuple(ONE if a in axes else d for a, d in enumerate(shape))
            if not keep:
                left = tuple(d for a, d in enumerate(shape) if a not in axes)
            self.add(f"stop_gradient({text})" if op == "max" else text, left)

    def add_binary(self) -> None:
        """Add a function of two values, entry by entry."""
        one = self.value()
        assert one is not None
        found = [(n, broadcast(one[1], s)) for n, s in reversed(self.values)]
        fits = [(n, s) for n, s in found if s is not None and len(s) <= MOST_AXES]
        other, shape = self.pick(fits)
        pair = self.pick(((one[0], other), (other, one[0])))
        self.add(self.pick(BINARY).format(*pair), shape)

    def add_matmul(self) -> None:
        """Add the matrix product of two values, or of a value and its transpose."""
        one = self.value(lambda s: len(s) > 1)
        if one is None:
            return
        name, shape = one
        fits = [
            (n, s, batch)
            for n, s in reversed(self.values)
            if len(s) > 1 and s[-2] == shape[-1]
            for batch in [broadcast(shape[:-2], s[:-2])]
            if batch is not None and len(batch) + 2 <= MOST_AXES
        ]
        if fits and self.flag():
            other, second, batch = self.pick(fits)
            self.add(f"{name} @ {other}", (*batch, shape[-2], second[-1]))
        else:
            axes = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            text = f"{name} @ permute_dims({name}, axes={axes})"
            self.add(text, (*shape[:-1], shape[-2]))

    def add_dense(self) -> None:
        """Add the call of a new dense layer."""
        found = self.value(lambda s: len(s) > 1 and is_free_of_batch_and_time(s[-1]))
        if found:
            name, shape = found
            kind = self.pick(("dense", "dense, bias: false"))
            function = self.pick(("linear", "relu", "tanh"))
            layer = self.layer(f"{{layer: {kind}, units: width, activation: {function}}}")
            self.add(f"{layer}({name})", (*shape[:-1], WIDTH))

    def add_logits(self) -> None:
        """Add scores of all indices, from a new dense layer."""
        found = self.value(
            lambda s: len(s) == 3 and s[:2] == (BATCH, TIME) and is_free_of_batch_and_time(s[2])
        )
        if found:
            layer = self.layer("{layer: dense, units: vocab}")
            self.add(f"{layer}({found[0]})", (BATCH, TIME, VOCAB))

    def add_batch_norm(self) -> None:
        """Add the call of a new batch normalisation."""
        found = self.value(lambda s: len(s) > 1 and is_free_of_batch_and_time(s[-1]))
        if found:
            self.add(f"{self.layer('{layer: batch_norm}')}({found[0]})", found[1])

    def add_recurrent(self) -> None:
        """Add the calls of one recurrent layer, or of two in opposite directions."""
        found = self.value(lambda s: len(s) == 3 and is_free_of_batch_and_time(s[2]))
        if found:
            name, shape = found
            ways = self.integer(1, 2)
            kind = self.pick(RECURRENT)
            calls = [self.layer(f"{{layer: {kind}, units: width}}") for _ in range(ways)]
            text = f"{calls[0]}({name})"
            if ways == 2:
                back = f"reverse({calls[1]}(reverse({name})))"
                text = f"concat([{text}, {back}], axis=-1)"
            last = self.flag()
            self.add(f"last({text})" if last else text, (*shape[: 1 if last else 2], WIDTH * ways))

    def reuse_layer(self) -> None:
        """Add a second call of the first layer, on another value."""
        made = [e for e in self.equations if "layer0(" in e and not e.startswith("last")]
        shapes = dict(self.values)
        if made and made[0].count("layer") == 1 and made[0].endswith(")"):
            before, _, call = made[0].partition(" = layer0(")
            given = call[:-1]
            others = [n for n, s in self.values if s == shapes.get(given) and n != given]
            if others:
                self.add(f"layer0({self.pick(others)})", shapes[before])

    def add_lookup(self) -> None:
        """Add a value that depends on the indices: one-hot rows, embeddings, or chosen entries."""
        way = self.pick((f"one_hot({self.indices}, vocab)", "embedding", "entry"))
        if way == "embedding":
            layer = self.layer("{layer: embedding, rows: vocab, units: width}")
            self.add(f"{layer}({self.indices})", (BATCH, TIME, WIDTH))
            self.pick((self.add_function, self.add_dense, self.add_binary, self.reduce))()
        elif way == "entry":
            found = self.value(lambda s: s == (BATCH, TIME, VOCAB))
            if found:
                self.add(f"take_along_axis({found[0]}, {self.indices})", (BATCH, TIME))
        else:
            self.add(way, (BATCH, TIME, VOCAB))

    def loss(self) -> str:
        """Return a loss that reads the last values."""
        ends = [(name, shape) for name, shape in self.values if name.startswith("v")][-3:]
        return " + ".join(self.pick(losses(*end, self.indices)) for end in ends)

    def text(self, name: str, loss: str = "", optimizer: str = "") -> str:
        """Return the text of the model's file, with the inputs and sizes that the equations read.
        Without ``loss``, the model has no loss."""
        used = [n for n in self.inputs if any(self.reads(n, e) for e in (*self.equations, loss))]
        declared = {n: self.inputs[n] for n in used}
        equations = " ".join([*self.equations, loss])
        called = {n: t for n, t in self.layers.items() if self.reads(n, equations)}
        texts = [*declared.values(), *called.values(), equations]
        words = set(re.findall(r"\w+", " ".join(texts)))
        sizes = {n: k for n, k in self.sizes.items() if n in words}
        lines = [f"model: {name}", "summary: Drawn.", "source: none"]
        lines.append("sizes: {" + ", ".join(f"{n}: {k}" for n, k in sizes.items()) + "}")
        lines += ["inputs:", *(f"  {n}: {text}" for n, text in declared.items())]
        layers = [f"  {n}: {text}" for n, text in called.items()]
        lines += ["layers:", *layers] if layers else ["layers: {}"]
        lines += ["equations: |", *(f"  {equation}" for equation in self.equations)]
        lines += [f"loss: {loss}"] if loss else []
        lines += [f"optimizer: {optimizer}"] if optimizer else []
        return "\n".join(lines) + "\n"

    @staticmethod
    def reads(name: str, equation: str) -> bool:
        """Return whether the right side of an equation, or a loss, has a name."""
        return name in re.findall(r"\w+", equation.partition(" = ")[2] or equation)


def needed(equations: list[str], number: int) -> list[str]:
    """Return an equation and the equations on which it depends."""
    chosen, names = [equations[number]], set(NAME.findall(equations[number]))
    for equation in reversed(equations[:number]):
        if names.intersection(equation.partition(" = ")[0].split(", ")):
            chosen.insert(0, equation)
            names.update(NAME.findall(equation))
    return chosen


STEPS = (
    *("expand", "expand", "permute", "permute", "index", "concat", "reduce"),
    *("add_binary", "add_binary", "add_function", "add_function", "add_function", "add_matmul"),
    *("add_dense", "add_batch_norm", "add_logits", "reuse_layer", "add_recurrent", "add_recurrent"),
    *("add_lookup", "add_lookup", "merge", "merge", "split", "add_masked"),
)


def draw_model(
    integer: Callable[[int, int], int], most: int = 10
) -> tuple[RandomModel, dict[str, int]]:
    """Return a random model with at most ``most`` steps, and its sizes with batch and time."""
    sizes = {name: (3, 1, 2)[integer(0, 2)] for name in ("width", "vocab")}
    model = RandomModel(integer, sizes)
    model.start(INPUTS)
    for _ in range(integer(1, most)):
        getattr(model, model.pick(STEPS))()
    if not model.equations:
        model.add("tanh(x)", INPUTS["x"][0])
    free = {"batch": model.pick((2, 3, 1)), "time": model.pick((3, 2, 1, 34))}
    return model, {**sizes, **free}
