"""Random calls of single functions, operators and layers, as parts of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from harness.fuzz.models import RandomModel
from harness.fuzz.parts import (
    ACTIVATIONS,
    ALONG_AXIS,
    BATCH,
    CALL_BINARY,
    CALL_FUNCTIONS,
    LOOKUPS,
    MOST_AXES,
    OVER_AXIS,
    SINGLE,
    TIME,
    VOCAB,
    WIDTH,
    broadcast,
)
from harness.language.library import Library, content
from harness.language.optimizer_schema import Optimizer
from harness.language.schema import Input, Layer, Loss
from harness.program.dims import Dim, Shape

# Attributes that are whole numbers, with values to try.
WHOLE = {
    "gamma": (1, 2, 3),
    "groups": (1, 2, 3),
    "stride": (1, 2, 3),
    "dilation": (1, 2, 3),
    "padding": (0, 1, 2),
}
# Attributes of optimizers, with values to try, and further options of optimizers.
OPTIMIZER_ATTRIBUTES = {
    "learning_rate": (0.01, 0.1),
    "beta_1": (0.0, 0.5),
    "beta_2": (0.5,),
    "rho": (0.5,),
    "momentum": (0.0, 0.5),
    "epsilon": (1e-3, 0.1),
    "weight_decay": (0.0, 0.1),
}
OPTIMIZER_OPTIONS = (
    *("", "", "", "schedule: 'minimum(1, t / 3)'", "gradient: 'maximum(minimum(g, 0.1), -0.1)'"),
    *("accumulate: 2", "average: 0.9", "total: {square: g * g}, gradient: g / sqrt(1 + square)"),
)


class RandomCalls(RandomModel):
    """A model of short chains of calls. Each chain has its own inputs. ``image`` has the lengths of
    the image of the last chain."""

    image: tuple[int, int] = (1, 1)

    def chain(self, number: int) -> None:
        """Add a chain of one to three calls."""
        self.image = (self.integer(1, 8), self.integer(1, 8))
        shape = (BATCH, *map(Dim.of, self.image), WIDTH)
        text = f"{{shape: [{', '.join(map(str, shape))}]}}"
        self.start({**SINGLE, "g": (shape, text)}, str(number))
        for _ in range(self.pick((1, 1, 2, 2, 3))):
            step = self.pick(
                (
                    *(self._single, self._single, self._single, self._pair, self._along),
                    *(self._along, self._over, self._over, self._windows, self._windows),
                    *(self._look_up, self._look_up, self._pair, self._pair, self._pair),
                    *(self.add_matmul, self.concat, self.index, self.permute, self.add_masked),
                )
            )
            step()

    def _single(self) -> None:
        name, shape = self._newest()
        self.add(self.pick(CALL_FUNCTIONS).format(name), shape)

    def _pair(self) -> None:
        name, shape = self._newest()
        found = [(n, broadcast(shape, s)) for n, s in self.values]
        fits = [(n, s) for n, s in found if s is not None and len(s) <= MOST_AXES and n != name]
        other, result = self.pick(fits or [(name, shape)])
        self.add(self.pick(CALL_BINARY).format(name, other), result)

    def _along(self) -> None:
        name, shape = self._newest(axes=1)
        _, axis = self.axis(len(shape))
        self.add(self.pick(ALONG_AXIS).format(name, axis), shape)

    def _over(self) -> None:
        name, shape = self._newest(axes=1)
        axis, text = self.axis(len(shape))
        self.add(self.pick(OVER_AXIS).format(name, text), (*shape[:axis], *shape[axis + 1 :]))

    def _newest(self, axes: int = 0) -> tuple[str, Shape]:
        """Return the newest value with at least this number of axes, or any input."""
        fits = [value for value in self.values if len(value[1]) >= axes]
        return fits[-1] if fits[-1][0].startswith("v") else self.pick(fits)

    def _windows(self) -> None:
        """Add the sum or the maximum of each window of an image."""
        image = next(name for name, _ in self.values if name.startswith("g"))
        stride, dilation = ([self.integer(1, 3) for _ in range(2)] for _ in range(2))
        size = [
            self.integer(1, min(3, (length - 1) // step + 1))
            for length, step in zip(self.image, dilation, strict=True)
        ]
        padding = [self.integer(0, length - 1) for length in size]
        text = (
            f"windows({image}, axes=[1, 2], size={size}, stride={stride}, dilation={dilation}, "
            f"padding={padding})"
        )
        self.equations.append(
            f"v{len(self.equations)} = {self.pick(('sum', 'max'))}({text}, axis=[3, 4])"
        )

    def _look_up(self) -> None:
        """Add a function of a table, or a sum of segments."""
        table, sequence = (
            next(name for name, _ in self.values if name.startswith(letter)) for letter in "tx"
        )
        text = self.pick(LOOKUPS).format(self.indices, table, sequence)
        shape = (BATCH, TIME, WIDTH)
        self.add(text, (VOCAB, WIDTH) if text.startswith("segment") else shape)


@cache
def definitions() -> Mapping[str, Layer | Loss]:
    """Return the layers and losses that ship, by name."""
    library = Library()
    found: dict[str, Layer | Loss] = {}
    for name in library.names("layer"):
        found[name] = content(library.find("layer", name), Layer)
    for name in library.names("loss"):
        found[name] = content(library.find("loss", name), Loss)
    return found


@cache
def optimizers() -> Mapping[str, Optimizer]:
    """Return the optimizers that ship, by name."""
    library = Library()
    names = library.names("optimizer")
    return {name: content(library.find("optimizer", name), Optimizer) for name in names}


def draw_optimizer(model: RandomModel, dtype: str) -> str:
    """Return the text of a random optimizer with random attributes. Most optimizers divide by
    gradients, which amplifies rounding errors, so they are drawn only in float64."""
    names = [n for n in optimizers() if dtype == "float64" or n.startswith("sgd")]
    name = model.pick(names)
    parts = [f"optimizer: {name}"]
    for attribute, default in optimizers()[name].attributes.items():
        others = OPTIMIZER_ATTRIBUTES.get(attribute, ())
        parts.append(f"{attribute}: {model.pick((default, default, *others))}")
    return f"{{{', '.join([*parts, *filter(None, [model.pick(OPTIMIZER_OPTIONS)])])}}}"


def draw_definition(integer: Callable[[int, int], int]) -> str:
    """Return the name of a random layer or loss. A definition with many attributes is more likely,
    and a layer that contains other layers is less likely."""
    names = []
    for name, definition in definitions().items():
        nested = isinstance(definition, Layer) and definition.layers
        names += [name] * (1 if nested else 1 + len(definition.attributes))
    return names[integer(0, len(names) - 1)]


def add_definition(model: RandomModel, name: str) -> str:
    """Add a layer or a loss with random attributes and its own inputs to a model. Return the loss
    of the model, or "" if it has none."""
    definition = definitions()[name]
    attributes = {n: _draw_attribute(model, n, d) for n, d in definition.attributes.items()}
    sizes = {n: int(attributes[n]) for n, d in definition.attributes.items() if d == "size"}
    lengths = {"channels": sizes["groups"] * sizes["each"]} if name == "group_norm" else {}
    for argument, declared in definition.inputs.items():
        entry = declared if isinstance(declared, Input) else Input(shape=declared)
        model.inputs[argument] = _declare(model, entry, sizes, lengths)
    arguments = ", ".join(definition.inputs)
    written = "".join(f", {n}: {text}" for n, text in attributes.items())
    if isinstance(definition, Loss):
        first, _, rest = arguments.partition(", ")
        model.equations.append(f"v0 = 1 * {first}")
        return f"mean({name}({', '.join(filter(None, ('v0', rest)))}{written.replace(': ', '=')}))"
    layer = model.layer(f"{{layer: {name}{written}}}")
    results = [f"v{number}" for number in range(len(definition.outputs))]
    model.equations.append(f"{', '.join(results)} = {layer}({arguments})")
    return ""


def _declare(
    model: RandomModel, entry: Input, sizes: Mapping[str, int], lengths: dict[str, int]
) -> str:
    """Return the declaration of an input of a definition. ``lengths`` has the lengths of axes that
    were drawn before; new ones are added."""
    axes = [str(axis) for axis in entry.shape]
    axes = [a for axis in axes for a in (("batch", "time") if axis == "..." else (axis,))]
    for axis in dict.fromkeys(axes):
        if axis not in ("batch", "time"):
            lengths.setdefault(axis, sizes.get(axis) or model.integer(1, 12))
    text = f"shape: [{', '.join(str(lengths.get(axis, axis)) for axis in axes)}]"
    for key, bound in (("index", entry.index), ("at_most", entry.at_most)):
        if bound is not None:
            text += f", {key}: {({**sizes, **lengths}).get(str(bound), bound)}"
    return "{" + text + (", boolean: true" if entry.boolean else "") + "}"


def _draw_attribute(model: RandomModel, name: str, default: Any) -> str:
    """Return a random value of a layer's attribute, as text. ``default`` shows its kind."""
    if isinstance(default, bool):
        return str(model.flag()).lower()
    if isinstance(default, list):
        if isinstance(default[0], list):
            sides = [[model.integer(0, 2), model.integer(0, 2)] for _ in default]
            return str(model.pick((0, 0, "same", sides, [[a, a] for a, _ in sides])))
        return str([model.integer(1, 4 if default[0] == "size" else 3) for _ in default])
    if default == "size":
        return str(model.integer(1, 9))
    if isinstance(default, str):
        return str(model.pick((*[default] * 7, *ACTIVATIONS)))
    if name == "epsilon":
        return str(model.pick((default, 1e-5, 0.1)))
    if name in WHOLE:
        return str(model.pick((int(default), int(default), *WHOLE[name])))
    return str(default)
