"""Greedy search for a smaller case that still fails."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.fuzz.cases import Draft
from harness.fuzz.models import NAME, RandomModel

# Words that a simpler case has instead.
SIMPLER = {"true": "false", "same": "0", "tanh": "linear", "sigmoid": "linear", "relu": "linear"}
SIMPLER |= dict.fromkeys(("gelu", "silu", "hard_sigmoid_fifth"), "linear")
_TOKEN = re.compile(r"(?<=[ \[])\d+(?=[,\]}])|(?<=: )[a-z_]+(?=[,}])")
# An attribute of an optimizer.
_ATTRIBUTE = re.compile(r", \w+: (?:'[^']*'|\{[^}]*\}|[^,}]+)")


def shrink(draft: Draft, rerun: Callable[[Draft], Draft | None], seconds: float) -> Draft:
    """Return the smallest case that still fails. ``rerun`` returns a case with values with which it
    fails, or None. The search ends after ``seconds``, or if no smaller case fails."""
    end = time.monotonic() + seconds
    tried: set[tuple[str, int, int]] = set()
    found = True
    while found:
        found = False
        for candidate in _candidates(draft):
            key = (candidate.text, candidate.batch, candidate.time)
            if time.monotonic() > end:
                return draft
            if key not in tried:
                tried.add(key)
                failing = rerun(candidate)
                if failing is not None:
                    draft, found = failing, True
                    break
    return draft


def _candidates(draft: Draft) -> Iterator[Draft]:
    """Yield smaller cases: fewer equations, smaller sizes, simpler attributes."""
    model = draft.model
    equations = model.equations
    for number in range(len(equations)):
        alone = draft.only(number)
        if len(alone.model.equations) < len(equations):
            yield alone
    for number, equation in enumerate(equations):
        name, _, text = equation.partition(" = ")
        for operand in dict.fromkeys(NAME.findall(text)):
            if operand in model.inputs or re.fullmatch(r"v\d+", operand):
                rest = [re.sub(rf"\b{name}\b", operand, e) for e in equations[number + 1 :]]
                if rest:
                    shorter = [*equations[:number], *rest]
                    yield replace(draft, model=replace(model, equations=shorter), loss="")
    for length in _smaller_numbers(draft.batch):
        yield replace(draft, batch=length)
    for length in _smaller_numbers(draft.time):
        yield replace(draft, time=length)
    for name, length in model.sizes.items():
        for smaller in _smaller_numbers(length):
            yield replace(draft, model=replace(model, sizes={**model.sizes, name: smaller}))
    for name, text in model.layers.items():
        for simpler in _simpler_texts(text):
            yield replace(draft, model=replace(model, layers={**model.layers, name: simpler}))
    for name, text in model.inputs.items():
        for simpler in _simpler_texts(text):
            yield replace(draft, model=replace(model, inputs={**model.inputs, name: simpler}))
    for match in _ATTRIBUTE.finditer(draft.optimizer):
        text = draft.optimizer
        yield replace(draft, optimizer=text[: match.start()] + text[match.end() :])


def equation_of_result(model: RandomModel, result: str) -> int | None:
    """Return the number of the last equation that belongs to a wrong result, such as ``output.v3``
    or ``gradient.input.x2``; None if it is not known."""
    name = result.rpartition(".")[2]
    for number, equation in reversed([*enumerate(model.equations)]):
        if name in equation.partition(" = ")[0].split(", ") or model.reads(name, equation):
            return number
    return None


def _smaller_numbers(number: int) -> Iterator[int]:
    yield from dict.fromkeys(n for n in (1, number // 2, number - 1) if 1 <= n < number)


def _simpler_texts(text: str) -> Iterator[str]:
    """Yield the text of a layer or an input with one smaller number or one simpler word."""
    for match in _TOKEN.finditer(text):
        word = match[0]
        if word.isdigit():
            words = [
                str(n) for n in dict.fromkeys((0, *_smaller_numbers(int(word)))) if n < int(word)
            ]
        else:
            words = [SIMPLER[word]] if word in SIMPLER else []
        for other in words:
            yield f"{text[: match.start()]}{other}{text[match.end() :]}"
