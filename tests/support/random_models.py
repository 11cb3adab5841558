"""Random models of the spec language, drawn by hypothesis: they shrink to what still fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from random_parts import (
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
    fixed,
    is_product,
    losses,
)

from harness.program.dims import ONE, Dim, Shape, product


@dataclass
class Model:
    """A model as it grows: its values with their shapes, and the text so far."""

    choose: Callable[[Any], Any]
    widths: dict[str, int]
    values: list[tuple[str, Shape]] = field(default_factory=list)
    equations: list[str] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.choose(st.integers(0, len(items) - 1))]

    def value(self, fits: Callable[[Shape], bool] = lambda shape: True) -> tuple[str, Shape] | None:
        """A value whose shape fits, the newest ones first."""
        found = [pair for pair in reversed(self.values) if fits(pair[1])]
        if not found:
            return None
        return found[0] if self.choose(st.booleans()) else self.pick(found)

    def add(self, text: str, shape: Shape) -> None:
        name = f"v{len(self.equations)}"
        self.equations.append(f"{name} = {text}")
        self.values.append((name, shape))

    def layer(self, text: str) -> str:
        name = f"layer{len(self.layers)}"
        self.layers[name] = text
        return name

    def axis(self, rank: int, more: int = 0) -> tuple[int, str]:
        """An axis of some, and how it is written: from the front or from the end."""
        axis = self.choose(st.integers(0, rank - 1 + more))
        return axis, str(self.pick((axis, axis - rank - more)))

    def expand(self) -> None:
        found = self.value(lambda s: len(s) < MOST_AXES)
        if found:
            name, shape = found
            axis, text = self.axis(len(shape), 1)
            self.add(f"expand_dims({name}, axis={text})", (*shape[:axis], ONE, *shape[axis:]))

    def permute(self) -> None:
        found = self.value(lambda s: len(s) > 1)
        if found:
            name, shape = found
            axes = self.choose(st.permutations(range(len(shape))))
            text = [self.pick((a, a - len(shape))) for a in axes]
            self.add(f"permute_dims({name}, axes={text})", tuple(shape[a] for a in axes))

    def index(self) -> None:
        found = self.value(lambda s: len(s) > 0)
        if found:
            name, shape = found
            axis, _ = self.axis(len(shape))
            before, after = [":"] * axis, [":"] * (len(shape) - axis - 1)
            if before and after and self.choose(st.booleans()):
                before = ["..."]
            long = shape[axis] == WIDTH and self.widths["width"] > 1
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
        found = self.value(lambda s: len(s) > 0)
        if found:
            name, shape = found
            axis, text = self.axis(len(shape))
            if not fixed(shape[axis]):
                return  # twice as many examples would be another model
            others = [n for n, s in self.values if s == shape]
            parts = [name, *(self.pick(others) for _ in range(self.choose(st.integers(0, 2))))]
            length = shape[axis] * len(parts)
            self.add(
                f"concat([{', '.join(parts)}], axis={text})",
                (*shape[:axis], length, *shape[axis + 1 :]),
            )

    def merge(self) -> None:
        found = self.value(lambda s: len(s) > 1)
        if found:
            name, shape = found
            axis = self.choose(st.integers(0, len(shape) - 2))
            both = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
            self.add(f"merge({name}, axes=[{axis}, {axis + 1}])", both)

    def split(self) -> None:
        """An axis that is a product, or one as itself and a number."""
        found = self.value(lambda s: len(s) < MOST_AXES and any(map(is_product, s)))
        if found:
            name, shape = found
            axis = self.pick([a for a, d in enumerate(shape) if is_product(d)])
            ((term, count),) = shape[axis].terms
            names = term.split("*")
            parts = (Dim.of(names[0]) * count, product(map(Dim.of, names[1:])))
            text = f"split({name}, axis={axis}, sizes=[{', '.join(map(str, parts))}])"
            self.add(text, (*shape[:axis], *parts, *shape[axis + 1 :]))

    def masked(self) -> None:
        found = self.value(lambda s: len(s) > 1 and s[-2] == TIME)
        if found:
            name, shape = found
            both = "~(arange(time)[:, None] < 2)", "(arange(time) == 0)[:, None]"
            text = self.pick((*both, " & ".join(both), " | ".join(both)))
            self.add(f"where({text}, {name}, 0.5 * {name})", shape)

    def function(self) -> None:
        text = self.pick(FUNCTIONS)
        found = self.value(lambda s: len(s) > 0 or "max" not in text)
        if found:
            self.add(text.format(found[0]), found[1])

    def reduce(self) -> None:
        found = self.value(lambda s: len(s) > 0)
        if found:
            name, shape = found
            count = self.choose(st.integers(1, len(shape)))
            axes = self.choose(st.permutations(range(len(shape))))[:count]
            written = [self.pick((a, a - len(shape))) for a in axes]
            axis = f", axis={written[0] if count == 1 else written}"
            if count == len(shape) and self.choose(st.booleans()):
                axis = ""
            keep = self.choose(st.booleans())
            op = self.pick(("sum", "mean", "max"))
            text = f"{op}({name}{axis}{', keepdims=1' if keep else ''})"
            left = tuple(ONE if a in axes else d for a, d in enumerate(shape))
            if not keep:
                left = tuple(d for a, d in enumerate(shape) if a not in axes)
            self.add(f"stop_gradient({text})" if op == "max" else text, left)

    def binary(self) -> None:
        one = self.value()
        assert one is not None
        found = [(n, broadcast(one[1], s)) for n, s in reversed(self.values)]
        fits = [(n, s) for n, s in found if s is not None and len(s) <= MOST_AXES]
        other, shape = self.pick(fits)
        pair = self.pick(((one[0], other), (other, one[0])))
        self.add(self.pick(BINARY).format(*pair), shape)

    def product(self) -> None:
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
        if fits and self.choose(st.booleans()):
            other, second, batch = self.pick(fits)
            self.add(f"{name} @ {other}", (*batch, shape[-2], second[-1]))
        else:
            axes = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            text = f"{name} @ permute_dims({name}, axes={axes})"
            self.add(text, (*shape[:-1], shape[-2]))

    def dense(self) -> None:
        found = self.value(lambda s: len(s) > 1 and fixed(s[-1]))
        if found:
            name, shape = found
            kind = self.pick(("dense", "dense_without_bias"))
            function = self.pick(("linear", "relu", "tanh"))
            layer = self.layer(f"{{layer: {kind}, units: width, activation: {function}}}")
            self.add(f"{layer}({name})", (*shape[:-1], WIDTH))

    def logits(self) -> None:
        found = self.value(lambda s: len(s) == 3 and s[:2] == (BATCH, TIME) and fixed(s[2]))
        if found:
            layer = self.layer("{layer: dense, units: vocab}")
            self.add(f"{layer}({found[0]})", (BATCH, TIME, VOCAB))

    def normal(self) -> None:
        found = self.value(lambda s: len(s) > 1 and fixed(s[-1]))
        if found:
            self.add(f"{self.layer('{layer: batch_norm}')}({found[0]})", found[1])

    def recurrent(self) -> None:
        found = self.value(lambda s: len(s) == 3 and fixed(s[2]))
        if found:
            name, shape = found
            ways = self.choose(st.integers(1, 2))
            kind = self.pick(RECURRENT)
            calls = [self.layer(f"{{layer: {kind}, units: width}}") for _ in range(ways)]
            text = f"{calls[0]}({name})"
            if ways == 2:
                back = f"reverse({calls[1]}(reverse({name})))"
                text = f"concat([{text}, {back}], axis=-1)"
            last = self.choose(st.booleans())
            self.add(f"last({text})" if last else text, (*shape[: 1 if last else 2], WIDTH * ways))

    def again(self) -> None:
        made = [e for e in self.equations if "layer0(" in e and not e.startswith("last")]
        shapes = dict(self.values)
        if made and made[0].count("layer") == 1 and made[0].endswith(")"):
            before, _, call = made[0].partition(" = layer0(")
            given = call[:-1]
            others = [n for n, s in self.values if s == shapes.get(given) and n != given]
            if others:
                self.add(f"layer0({self.pick(others)})", shapes[before])

    def indexed(self) -> None:
        way = self.pick(("one_hot(i, vocab)", "embedding", "entry"))
        if way == "embedding":
            layer = self.layer("{layer: embedding, rows: vocab, units: width}")
            self.add(f"{layer}(i)", (BATCH, TIME, WIDTH))
            self.pick((self.function, self.dense, self.binary, self.reduce))()
        elif way == "entry":
            found = self.value(lambda s: s == (BATCH, TIME, VOCAB))
            if found:
                self.add(f"take_along_axis({found[0]}, i)", (BATCH, TIME))
        else:
            self.add(way, (BATCH, TIME, VOCAB))

    def text(self) -> str:
        """The model's file. Its loss is of what was made last; of the rest what it needs."""
        ends = [(name, shape) for name, shape in self.values if name.startswith("v")][-3:]
        loss = " + ".join(self.choose(st.sampled_from(losses(*end))) for end in ends)
        whole = "\n".join([*self.equations, loss])
        lines = ["model: random", "summary: Drawn.", "source: none"]
        used = [n for n in INPUTS if any(self.reads(n, e) for e in self.equations)]
        declared = {n: INPUTS[n][1] for n in used}
        if any(self.reads("i", e) for e in (*self.equations, f"loss = {loss}")):
            declared["i"] = INDEX
        texts = [*declared.values(), *self.layers.values(), whole]
        sizes = {n: k for n, k in self.widths.items() if any(n in text for text in texts)}
        lines.append("sizes: {" + ", ".join(f"{n}: {k}" for n, k in sizes.items()) + "}")
        lines += ["inputs:", *(f"  {n}: {text}" for n, text in declared.items())]
        if self.layers:
            lines += ["layers:", *(f"  {n}: {text}" for n, text in self.layers.items())]
        else:
            lines.append("layers: {}")
        lines += ["equations: |", *(f"  {equation}" for equation in self.equations)]
        lines.append(f"loss: {loss}")
        return "\n".join([*lines, "optimizer: {optimizer: sgd, learning_rate: 0.125}"]) + "\n"

    @staticmethod
    def reads(name: str, equation: str) -> bool:
        return name in re.findall(r"\w+", equation)[1:]


STEPS = (
    *("expand", "expand", "permute", "permute", "index", "concat", "reduce", "binary", "binary"),
    *("function", "function", "function", "product", "dense", "normal", "logits", "again"),
    *("recurrent", "recurrent", "indexed", "indexed", "merge", "merge", "split", "masked"),
)


@st.composite
def models(draw: Callable[[Any], Any], most: int = 10) -> tuple[str, dict[str, int]]:
    """The text of a model, and its sizes, batch and time included."""
    sizes = {name: draw(st.sampled_from((3, 1, 2))) for name in ("width", "vocab")}
    model = Model(draw, sizes)
    model.values = [(name, shape) for name, (shape, _) in INPUTS.items()]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=most)):
        getattr(model, step)()
    if not model.equations:
        model.add("tanh(x)", INPUTS["x"][0])
    free = {"batch": draw(st.sampled_from((2, 3, 1))), "time": draw(st.sampled_from((3, 2, 1, 34)))}
    return model.text(), {**sizes, **free}
