"""Write the calls of a block as equations of the spec language."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.convert.source.literals import unique
from harness.errors import UsageError
from harness.language.axes import axes_text
from harness.porting.graph import Dim, TracedCall, minus_one
from harness.porting.shape_rules import ELEMENTWISE
from harness.porting.templates import write_number
from harness.runtime.own_model.graph import EXCLUDED

# The precedence of operators; functions and names bind most strongly.
LEVELS = {
    "|": 1,
    "&": 2,
    "~": 3,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), 4),
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "@": 6,
    "negative": 7,
    "**": 8,
}
ATOM = 9
# A longer expression is not written inside another expression.
LONG = 75
# A shorter formula is written for each of its users.
SHORT = 20

# Writes a number, with a hint at its meaning, e.g. ``units``.
Write = Callable[[Any, str], str]


@dataclass
class Expression:
    """An expression and the level of its weakest operator."""

    text: str
    level: int = ATOM

    def inside(self, level: int) -> str:
        """Return the expression as an operand of an operator of this level."""
        return self.text if self.level >= level else f"({self.text})"


@dataclass
class Equations:
    """The equations of one block.

    Args:
        write: Writes a number.
        names: The name of each value from outside the block, and of each weight.
        layer_of: Returns the name of the layer that a call uses.
    """

    write: Write
    names: dict[str, str]
    layer_of: Callable[[TracedCall, str], str]
    lines: list[str] = field(default_factory=list)
    texts: dict[str, Expression] = field(default_factory=dict)
    calls: dict[str, TracedCall] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    ranks: dict[Any, int] = field(default_factory=dict)

    def add(self, call: TracedCall, uses: int, name: str = "") -> None:
        """Add a call. It is written inside its only user, unless the expression would be long."""
        self.calls[call.name] = call
        if call.name in self.names and not name and call.op != "constant":
            self.texts[call.name] = Expression(self.names[call.name])
            return
        text = self._express(call)
        self.ranks[call.name] = self._rank(call)
        short = call.op in ("formula", "weight", "constant") and len(text.text) < SHORT
        if name or (uses > 1 and not short) or (len(text.text) > LONG and uses):
            text = self.assign(text, name)
        self.texts[call.name] = text

    def add_results(self, calls: Sequence[TracedCall], names: Sequence[str]) -> None:
        """Add a call with several results: the call, and its ``result`` calls. Results without a
        name get new names."""
        count = 1 + max(c.attributes["number"] for c in calls[1:])
        places = [0, *(c.attributes["number"] for c in calls[1:])]
        by_number = dict(zip(places, names, strict=True))
        text = self._express(calls[0])
        targets: list[str] = []
        for number in range(count):
            targets.append(by_number.get(number) or unique("h", self.taken))
            self.taken.add(targets[-1])
        self.lines.append(f"{', '.join(targets)} = {text.text}")
        for place, call in zip(places, calls, strict=True):
            self.calls[call.name], self.texts[call.name] = call, Expression(targets[place])

    def assign(self, text: Expression, name: str = "") -> Expression:
        """Assign an expression to a name; return the name."""
        name = name or unique("h", self.taken)
        self.taken.add(name)
        self.lines.append(f"{name} = {text.text}")
        return Expression(name)

    def get(self, operand: Any) -> Expression:
        """Return the expression of an operand."""
        if isinstance(operand, str) and operand in self.texts:
            return self.texts[operand]
        if isinstance(operand, str) and operand in self.names:
            return Expression(self.names[operand])
        text = self.write(operand, "number")
        return Expression(
            text, ATOM if not text.startswith("-") and " " not in text else LEVELS["+"]
        )

    def whole(self, operand: Any) -> Expression:
        """Return the expression of an operand with all of its axes, also those of length 1 at its
        start, which formulas leave out because operators add them."""
        missing = len(self.shape(operand)) - self.ranks.get(operand, len(self.shape(operand)))
        expression = self.get(operand)
        if missing <= 0:
            return expression
        return Expression(f"{expression.inside(ATOM)}[{', '.join(['None'] * missing)}]")

    def _rank(self, call: TracedCall) -> int:
        """Return the number of axes of a call's expression; see :meth:`whole`."""
        if call.op == "formula":
            causal = call.attributes["formula"] == "causal"
            return 2 if causal else len(call.shape) - int(call.attributes["axis"])
        if call.op not in ELEMENTWISE:
            return len(call.shape)
        ranks = [self.ranks.get(i, len(self.shape(i))) for i in call.sources]
        return max(ranks, default=len(call.shape))

    def _express(self, call: TracedCall) -> Expression:
        rule = RULES.get(call.op)
        if rule is not None:
            return rule(self, call)
        if call.op in LEVELS:
            return self._operator(call)
        arguments = [self.get(i).text for i in call.inputs]
        arguments += [f"{n}={self.write(v, n)}" for n, v in call.attributes.items()]
        return Expression(f"{call.op}({', '.join(arguments)})")

    def _operator(self, call: TracedCall) -> Expression:
        level = LEVELS[call.op]
        operands = [self.get(i) for i in call.inputs]
        if call.op == "negative":
            return Expression(f"-{operands[0].inside(level)}", level)
        if call.op == "~":
            return Expression(f"~{operands[0].inside(ATOM)}", level)

        def side(operand: Expression, least: int) -> str:
            # Comparisons inside & and | need brackets.
            compared = level < LEVELS["~"] and operand.level == LEVELS["<"]
            return f"({operand.text})" if compared else operand.inside(least)

        left, right = operands
        # The right operand of - and / needs brackets at the same level; ** binds to the right.
        more = call.op == "**" or level == LEVELS["<"]
        return Expression(f"{side(left, level + more)} {call.op} {side(right, level + 1)}", level)

    def shape(self, operand: Any) -> tuple[Dim, ...]:
        """Return the shape of an operand; ``()`` for a number."""
        return self.calls[operand].shape if isinstance(operand, str) else ()


Rule = Callable[[Equations, TracedCall], Expression]


def _layer(e: Equations, call: TracedCall) -> Expression:
    arguments = ", ".join(e.whole(i).text for i in call.inputs)
    return Expression(f"{e.layer_of(call, '')}({arguments})")


def _reduce(e: Equations, call: TracedCall) -> Expression:
    axis = call.attributes["axis"]
    arguments = [e.whole(call.inputs[0]).text]
    if len(axis) < len(e.shape(call.inputs[0])) or call.attributes["keepdims"]:
        rank = len(e.shape(call.inputs[0]))
        arguments.append(
            f"axis={-1 if axis == [rank - 1] else axis[0] if len(axis) == 1 else axis}"
        )
    if call.attributes["keepdims"]:
        arguments.append("keepdims=true")
    return Expression(f"{call.op}({', '.join(arguments)})")


def _along(e: Equations, call: TracedCall) -> Expression:
    axis = call.attributes["axis"]
    last = axis == len(call.shape) - 1 and call.op not in ("cumsum", "argmax")
    more = "" if last else f", axis={axis}"
    return Expression(f"{call.op}({e.whole(call.inputs[0]).text}{more})")


def _concat(e: Equations, call: TracedCall) -> Expression:
    axis = call.attributes["axis"]
    axis = -1 if axis == len(call.shape) - 1 else axis
    return Expression(f"concat([{', '.join(e.whole(i).text for i in call.inputs)}], axis={axis})")


def _permute(e: Equations, call: TracedCall) -> Expression:
    axes = ", ".join(map(str, call.attributes["axes"]))
    return Expression(f"permute_dims({e.whole(call.inputs[0]).text}, axes=[{axes}])")


def _cut(e: Equations, call: TracedCall) -> Expression:
    a = call.attributes
    base = e.whole(call.inputs[0]).inside(ATOM)
    if call.op == "select":
        index = "-1" if a["index"] == minus_one(a["length"]) else e.write(a["index"], "index")
    else:
        reverse = a["step"] < 0
        first, last = (minus_one(a["length"]), -1) if reverse else (0, a["length"])
        start = "" if a["start"] == first else e.write(a["start"], "start")
        stop = "" if a["stop"] == last else e.write(a["stop"], "stop")
        if not start and not stop and a["step"] == 1:
            return e.whole(call.inputs[0])
        index = f"{start}:{stop}" + ("" if a["step"] == 1 else f":{a['step']}")
    return Expression(f"{base}[{', '.join([':'] * a['axis'] + [index])}]")


def _cast(e: Equations, call: TracedCall) -> Expression:
    source = e.get(call.inputs[0])
    if call.kind == "float":
        return Expression(f"astype({source.text})")
    if call.kind == "boolean":
        return Expression(f"{source.inside(5)} != 0", LEVELS["!="])
    raise UsageError(f"{call.place}: a conversion to integers is not supported")


def _causal(e: Equations, time: Dim, shift: int = 0) -> Expression:
    steps = f"arange({e.write(time, 'time')})"
    columns, rows = f"{steps}[None, :]", f"{steps}[:, None]"
    if shift == -1:
        return Expression(f"{columns} < {rows}", LEVELS["<"])
    columns += f" + {-shift}" if shift < 0 else ""
    rows += f" + {shift}" if shift > 0 else ""
    return Expression(f"{columns} <= {rows}", LEVELS["<="])


def _formula(e: Equations, call: TracedCall) -> Expression:
    a = call.attributes
    rank = len(call.shape)
    if a["formula"] == "causal":
        return _causal(e, a["time"], a["shift"])
    text = f"arange({e.write(a['length'], 'length')})"
    places = ["None"] * rank
    places[a["axis"]] = ":"
    while places and places[0] == "None":
        places = places[1:]
    if len(places) > 1:
        text += f"[{', '.join(places)}]"
    if a["start"] < 0:
        return Expression(f"astype({text}) - {-a['start']}", LEVELS["-"])
    return Expression(f"{text} + {a['start']}", LEVELS["+"]) if a["start"] else Expression(text)


def _reshape(e: Equations, call: TracedCall) -> Expression:
    source = e.whole(call.inputs[0])
    old, new = list(e.shape(call.inputs[0])), list(call.shape)
    if axes := _moved_unit_axis(old, new):
        return Expression(f"permute_dims({source.text}, axes={axes})")
    # Axes of length 1 are written as an index.
    text = source.inside(ATOM) if 1 in [*old, *new] else source.text
    return Expression(reshape_text(text, old, new, e.write, call.place))


def reshape_text(text: str, old: list[Dim], new: list[Dim], write: Write, place: str) -> str:
    """Return a reshape as merges and splits of neighbouring axes.

    Raises:
        UsageError: the free sizes do not divide as these shapes need.
    """
    groups = _match_axes(old, new)
    if groups is None:
        raise UsageError(
            f"{place}: the reshape from {axes_text(old)} to {axes_text(new)} neither merges nor "
            "splits neighbouring axes"
        )
    # From the last group to the first, so that earlier axes keep their positions.
    for start, before, after in reversed(groups):
        old_parts = [n for n in before if n != 1]
        parts = [n for n in after if n != 1]
        if old_parts == parts:
            text = _unit_axes(text, start, before, after)
            continue
        if len(before) > 1:
            text = f"merge({text}, axes=[{', '.join(str(start + n) for n in range(len(before)))}])"
        if len(after) > 1:
            sizes = ", ".join(write(n, "size") for n in after)
            text = f"split({text}, axis={start}, sizes=[{sizes}])"
    return text


def _moved_unit_axis(old: Sequence[Dim], new: Sequence[Dim]) -> list[int]:
    """Return the permutation of axes that equals a reshape, if the only axis of length 1 moves."""
    if old == new or old.count(1) != 1 or new.count(1) != 1:
        return []
    axes = [axis for axis, length in enumerate(old) if length != 1]
    axes.insert(new.index(1), old.index(1))
    return axes if [old[axis] for axis in axes] == list(new) else []


def _unit_axes(text: str, start: int, before: Sequence[Dim], after: Sequence[Dim]) -> str:
    """Remove and insert axes of length 1."""
    if list(before) == list(after):
        return text
    extra = len(after) - len(before)
    if extra > 0 and list(after[:extra]) == [1] * extra and list(after[extra:]) == list(before):
        before, after = [], list(after[:extra])
    elif extra > 0 and list(after[-extra:]) == [1] * extra and list(after[:-extra]) == list(before):
        start, before, after = start + len(before), [], list(after[-extra:])
    index = [":"] * start + ["0" if n == 1 else ":" for n in before]
    text = f"{text}[{', '.join(index)}]" if 1 in before else text
    index = [":"] * start + ["None" if n == 1 else ":" for n in after]
    return f"{text}[{', '.join(index)}]" if 1 in after else text


def _match_axes(
    old: Sequence[Dim], new: Sequence[Dim]
) -> list[tuple[int, list[Dim], list[Dim]]] | None:
    """Return groups of neighbouring axes with equal products: position, old and new lengths."""
    groups: list[tuple[int, list[Dim], list[Dim]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before: list[Dim] = []
        after: list[Dim] = []
        start = i
        while True:
            if before and after and _product(before) == _product(after):
                break
            shorter = not before or (bool(after) and _size(before) <= _size(after))
            if shorter and i < len(old):
                before.append(old[i])
                i += 1
            elif j < len(new):
                after.append(new[j])
                j += 1
            elif i < len(old):
                before.append(old[i])
                i += 1
            else:
                break
        if _product(before) != _product(after):
            return None
        groups.append((start, before, after))
    return groups


def _product(lengths: Sequence[Dim]) -> tuple[int, tuple[str, ...]]:
    number = 1
    names: list[str] = []
    for length in lengths:
        for factor in str(length).split(" * "):
            if factor.isdigit():
                number *= int(factor)
            else:
                names.append(factor)
    return number, tuple(sorted(names))


def _size(lengths: Sequence[Dim]) -> tuple[int, int]:
    number, names = _product(lengths)
    return len(names), number


def _broadcast(e: Equations, call: TracedCall) -> Expression:
    """Repeat axes of length 1; a consumer that broadcasts by itself gets its input unchanged."""
    source, shape = e.get(call.inputs[0]), list(e.shape(call.inputs[0]))
    missing = len(call.shape) - len(shape)
    text = source.text
    if missing:
        text = f"{source.inside(ATOM)}[{', '.join(['None'] * missing)}]"
    for axis, (before, after) in enumerate(zip([1] * missing + shape, call.shape, strict=True)):
        if before != after:
            text = f"repeat({text}, axis={axis}, times={e.write(after, 'times')})"
    return Expression(text)


def _attention(e: Equations, call: TracedCall) -> Expression:
    a = call.attributes
    query, key, value = (e.get(i) for i in call.inputs[:3])
    rank = len(e.shape(call.inputs[1]))
    axes = [*range(rank - 2), rank - 1, rank - 2]
    keys = e.calls[call.inputs[1]]
    if keys.op == "permute" and key.text.startswith("permute_dims("):  # one permutation for two
        key, axes = e.get(keys.inputs[0]), [keys.attributes["axes"][axis] for axis in axes]
    turned = f"permute_dims({key.text}, axes={axes})"
    scale = a["scale"]
    product = f"{query.inside(LEVELS['@'])} @ {turned}"
    if abs(scale * a["width"] ** 0.5 - 1) < 1e-9:
        product += f" / {e.write(a['width'], 'head')} ** 0.5"
    elif scale != 1:
        product += f" * {e.write(scale, 'scale')}"
    scores = e.assign(Expression(product), unique("scores", e.taken))
    chosen = _choose(e, call, scores)
    if a["keep"] != 1:
        chosen = f"{e.layer_of(call, 'dropout')}({chosen})"
    return Expression(f"{chosen} @ {value.inside(LEVELS['@'] + 1)}", LEVELS["@"])


def _choose(e: Equations, call: TracedCall, scores: Expression) -> str:
    """Return the softmax of an attention's scores with its mask."""
    a, lowest = call.attributes, write_number(EXCLUDED)
    if a["causal"]:
        return f"softmax(where({_causal(e, call.shape[-2]).text}, {scores.text}, {lowest}))"
    if len(call.inputs) == 3:
        return f"softmax({scores.text})"
    mask, text = e.calls.get(call.inputs[3]), e.get(call.inputs[3])
    if mask is None or mask.kind != "boolean":
        return f"softmax({scores.text} + {text.inside(LEVELS['+'])})"
    zero = a.get("zero_if_empty", False) and mask.op != "formula"
    if zero and text.level < ATOM:
        text = e.assign(text)
    chosen = f"softmax(where({text.text}, {scores.text}, {lowest}))"
    return f"where({text.text}, {chosen}, 0)" if zero else chosen


def _windows(e: Equations, call: TracedCall) -> Expression:
    a = call.attributes
    before, after = ([pair[n] for pair in a["pads"]] for n in (0, 1))
    lists = {"axes": a["axes"], "size": a["size"], "stride": a["stride"], "dilation": a["dilation"]}
    lists |= {"padding": before} | ({"after": after} if after != before else {})
    lists |= {"length": a["length"]} if "length" in a else {}
    usual = {"stride": 1, "dilation": 1, "padding": 0}
    arguments = [
        f"{n}=[{', '.join(e.write(v, n) for v in values)}]"
        for n, values in lists.items()
        if n not in usual or set(values) != {usual[n]} or (n == "padding" and "after" in lists)
    ]
    arguments += ["lowest=1"] if a.get("lowest") else []
    return Expression(f"{call.op}({', '.join([e.get(call.inputs[0]).text, *arguments])})")


def _index(e: Equations, call: TracedCall) -> Expression:
    below = e.write(call.attributes["below"], "rows")
    return Expression(f"index({e.get(call.inputs[0]).text}, {below})")


def _weight(e: Equations, call: TracedCall) -> Expression:
    return Expression(e.names[call.name])


def _constant(e: Equations, call: TracedCall) -> Expression:
    name = e.names.get(call.name)
    if name is None:
        raise UsageError(f"{call.place}: an array of constants inside a loop is not supported")
    # Conditions are stored as the indices 0 and 1.
    return Expression(f"{name} == 1", LEVELS["=="]) if call.kind == "boolean" else Expression(name)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("layer", "block"), _layer),
    **dict.fromkeys(("mean", "sum", "max", "var"), _reduce),
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp", "cumsum", "argmax"), _along),
    **dict.fromkeys(("slice", "select"), _cut),
    "concat": _concat,
    "permute": _permute,
    "cast": _cast,
    "broadcast": _broadcast,
    "constant": _constant,
    "formula": _formula,
    "reshape": _reshape,
    "attention": _attention,
    "index": _index,
    "weight": _weight,
    **dict.fromkeys(("windows", "overlap_add"), _windows),
}
