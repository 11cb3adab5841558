"""Random cases: small models in the spec language, with their arrays. The seed and the number of a
case determine it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.errors import HarnessError
from harness.files.kinds import GROUPS
from harness.fuzz.calls import RandomCalls, add_definition, draw_definition, draw_optimizer
from harness.fuzz.models import RandomModel, draw_model, needed
from harness.language.initializers import generator
from harness.language.model import Spec, load_spec
from harness.oracle.case import Case
from harness.oracle.draw import draw, single
from harness.oracle.kinks import draw_off_kinks
from harness.program.ir import Program
from harness.program.signature import check_batch
from harness.runtime.answers import Arguments

Kind = Literal["calls", "layer", "model"]
# The kinds of cases, in turn by number.
KINDS: tuple[Kind, ...] = ("calls", "layer", "calls", "layer", "calls", "calls", "layer", "model")
# Kinds of values.
ORDINARY, SPECIAL = "ordinary", "special"
VALUES = (ORDINARY, ORDINARY, ORDINARY, SPECIAL, SPECIAL, "scaled", "whole", "denormal")
# No value is -0, because the sign of a sum of zeros differs between correct backends.
SPECIALS = (np.nan, np.inf, -np.inf, 0.0)
# Powers of two by which values of the kind "scaled" are multiplied. Attention masks scores with
# -1e30, so the inputs of layers are smaller.
EXPONENTS = (-120, -60, -20, -8, -3, 3, 4, 5, 6, 6, 7, 8, 20, 60, 120)
LAYER_EXPONENTS = (-8, -4, 4, 8)
# Ranges of lengths: a few entries, and the ends of the vectors of processors, with one entry less
# or more.
LENGTHS = ((1, 8), (1, 8), (1, 40), (15, 17), (31, 33), (63, 65), (63, 130), (127, 129))
# The seeds that are tried for values away from kinks, and the drafts of a case until one is valid.
TRIES, DRAFTS = 3, 30
# Chains of calls in a case.
CHAINS = 16
# A call of a function or layer, an operator, or a slice.
_CALL = re.compile(r"(\w+)\(|(?<= )(\*\*|<=|==|[-+*/@<&|])(?= )|\w\[")


@dataclass(frozen=True)
class Draft:
    """The text of a model, with sizes, a dtype, and the kind of its values. :meth:`case` makes the
    test case. ``seed`` is the seed of the values. ``optimizer`` is the optimizer of the model, as
    text; "" for none."""

    number: int
    kind: Kind
    model: RandomModel
    loss: str
    batch: int
    time: int
    values: str
    dtype: str
    seed: int
    optimizer: str = ""

    @property
    def name(self) -> str:
        """The name of the model in results."""
        return f"fuzz/{self.number}"

    @property
    def text(self) -> str:
        """The model in the spec language."""
        loss = self.loss
        if self.optimizer and not loss:
            last = self.model.equations[-1].partition(" = ")[0].split(", ")[0]
            loss = f"mean({last} * {last})"
        return self.model.text(self.name, loss, self.optimizer)

    @property
    def declarations(self) -> str:
        """The part of the text before the equations."""
        return self.text.partition("\nequations:")[0].partition("\nsizes:")[2]

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the functions, operators, layers and losses in the equations, and of the
        optimizer."""
        model = self.model
        layers = {name: re.search(r"layer:\s(\w+)", text) for name, text in model.layers.items()}
        names: dict[str, None] = {}
        called_losses = re.findall(r"\((\w+)\(", self.loss) if self.kind == "layer" else []
        for equation in model.equations if not called_losses else []:
            text = equation.partition(" = ")[2]
            for match in _CALL.finditer(text):
                layer = layers.get(match[1] or "")
                names[layer[1] if layer else match[1] or match[2] or "slice"] = None
        optimizer = re.findall(r"optimizer:\s(\w+)", self.optimizer)
        return (*names, *called_losses, *optimizer)

    def only(self, number: int) -> Draft:
        """Return the draft with a single equation, and those on which it depends."""
        equations = needed(self.model.equations, number)
        return replace(self, model=replace(self.model, equations=equations), loss="")

    def load(self) -> Spec:
        """Return the spec of the case, or raise :class:`SpecError` if the text is not valid."""
        return load_spec(self.name, overrides={("model", self.name): self.text})

    def case(self, arguments: Arguments | None = None) -> Case:
        """Return the test case, with random arrays or with the arrays of ``arguments``."""

        def take(training: Program, inference: Program, seed: int) -> tuple[int, Arguments]:
            assert arguments is not None
            return seed, _select(training, arguments)

        drawing = partial(_draw_arrays, self) if arguments is None else take
        return Case(self.load(), {}, self.batch, self.time, self.seed, drawing=drawing)


def draw_case(seed: int, number: int, dtypes: Sequence[str]) -> tuple[Draft, Case]:
    """Return the case with this number. Drafts that are not valid models are dropped.

    Raises:
        AssertionError: no draft is valid.
    """
    chooser = random.Random(f"{seed}/{number}")
    layer = draw_definition(chooser.randint)
    for _ in range(DRAFTS):
        draft = _draw_text(chooser, number, layer, dtypes)
        try:
            case = draft.case()
            groups = {"input": case.material.inputs, "state": case.material.state}
            check_batch(case.training, groups)
            return draft, case
        except HarnessError:  # e.g. a kernel that is larger than its image
            continue
    raise AssertionError(f"no valid case {number} of seed {seed}")


def _draw_text(chooser: random.Random, number: int, layer: str, dtypes: Sequence[str]) -> Draft:
    kind = KINDS[number % len(KINDS)]
    batch, time = chooser.randint(1, 4), chooser.randint(1, 6)
    loss = ""
    if kind == "model":
        model, sizes = draw_model(chooser.randint)
        batch, time, loss = sizes["batch"], sizes["time"], model.loss()
    elif kind == "layer":
        model = RandomModel(chooser.randint, {})
        loss = add_definition(model, layer)
        if chooser.randint(0, 3) == 0:
            time = chooser.randint(*LENGTHS[2])
    else:
        sizes = {name: chooser.randint(1, 5) for name in ("width", "vocab")}
        sizes["width"] = chooser.randint(*chooser.choice(LENGTHS))
        model = RandomCalls(chooser.randint, sizes)
        for chain in range(CHAINS):
            model.chain(chain)
    values = ORDINARY if loss else chooser.choice(VALUES)
    dtype, values_seed = chooser.choice(list(dtypes)), chooser.randrange(2**20)
    optimizer = draw_optimizer(model, dtype) if kind == "model" else ""
    return Draft(number, kind, model, loss, batch, time, values, dtype, values_seed, optimizer)


def _select(program: Program, arguments: Arguments) -> Arguments:
    """Return those arrays that a program reads."""

    def select(group: str) -> ArrayDict:
        names = [port.name for port in getattr(program, group)]
        return {name: getattr(arguments, group)[name] for name in names}

    return Arguments(**{group: select(group) for group in GROUPS})


def _draw_arrays(
    draft: Draft, training: Program, inference: Program, seed: int
) -> tuple[int, Arguments]:
    if draft.values == ORDINARY:
        return draw_off_kinks(
            training, inference, seed, batch=draft.batch, time=draft.time, tries=TRIES
        )
    arguments = draw(training, draft.batch, draft.time, seed)
    change = CHANGES[draft.values]
    if draft.values == "scaled" and draft.kind == "layer":
        change = partial(_scale, LAYER_EXPONENTS)
    inputs = {
        name: change(generator(seed, f"fuzz {name}"), array) if array.dtype.kind == "f" else array
        for name, array in arguments.inputs.items()
    }
    return seed, replace(arguments, inputs=inputs)


def _plant_specials(random_: np.random.Generator, array: Array) -> Array:
    """Return an array with one to three special values."""
    changed = array.copy()
    for _ in range(random_.integers(1, 4)):
        changed.flat[random_.integers(array.size)] = random_.choice(SPECIALS)
    return changed


def _scale(exponents: Sequence[int], random_: np.random.Generator, array: Array) -> Array:
    """Return the array times a power of two. No entry is a denormal float32, which some backends
    replace by 0."""
    scaled: Array = array * 2.0 ** random_.choice(exponents)
    least = np.finfo(np.float32).tiny
    return np.where(np.abs(scaled) < least, np.copysign(least, scaled), scaled)


def _round(random_: np.random.Generator, array: Array) -> Array:
    """Return whole numbers, many of which are equal."""
    return np.round(array * 3) + 0.0


def _make_denormal(random_: np.random.Generator, array: Array) -> Array:
    return single(array * 2.0**-130)


CHANGES: dict[str, Callable[[np.random.Generator, Array], Array]] = {
    SPECIAL: _plant_specials,
    "scaled": partial(_scale, EXPONENTS),
    "whole": _round,
    "denormal": _make_denormal,
}
