"""Attributes of layers, losses and optimizers: defaults, and what a model gives instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ErrorList, Place, SpecError, did_you_mean, known_names, shorten
from harness.language.builtins import BUILTINS
from harness.language.document import Document, Located
from harness.language.expressions import parse_expression
from harness.language.library import Library
from harness.language.names import is_name
from harness.language.scope import FunctionName, as_sizes
from harness.language.size_expressions import read_dim, size_of
from harness.language.unknown_functions import as_attribute
from harness.program.dims import Dim

# What to write in place of attributes that people know from frameworks.

# What frameworks call an attribute, and what it is called here.
CALLED: Mapping[str, str] = {
    **dict.fromkeys(("lr", "rate", "step_size"), "learning_rate"),
    **dict.fromkeys(("eps", "fuzz"), "epsilon"),
    **dict.fromkeys(
        ("out_features", "hidden_size", "embedding_dim", "output_dim", "out_channels"), "units"
    ),
    **dict.fromkeys(("filters", "features", "d_model", "num_units", "width"), "units"),
    **dict.fromkeys(("num_embeddings", "vocab_size"), "rows"),
    **dict.fromkeys(("num_heads", "n_heads", "nhead"), "heads"),
    **dict.fromkeys(("head_dim", "key_dim", "head_size"), "head"),
    **dict.fromkeys(("kernel_size", "filter_size", "pool_size"), "kernel"),
    "strides": "stride",
    "dilation_rate": "dilation",
    "num_groups": "groups",
    "nonlinearity": "activation",
    "negative_slope": "slope",
    "decay": "weight_decay",
}
# What frameworks give as a share of all that this attribute is the rest of.
REST_OF: Mapping[str, str] = dict.fromkeys(
    ("rate", "p", "prob", "drop_rate", "dropout", "dropout_rate", "drop_prob"), "keep"
)
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(
        ("in_features", "in_channels", "input_size", "input_dim", "normalized_shape"),
        "the shape of what comes in says it",
    ),
    **dict.fromkeys(
        ("num_features", "num_channels"),
        "the shape of what comes in says it",
    ),
    "betas": "give beta_1 and beta_2",
    **dict.fromkeys(
        ("bias", "use_bias"),
        "a layer without a bias is a definition of its own, such as 'dense_without_bias'",
    ),
    **dict.fromkeys(("dropout", "p", "rate"), "name a layer 'dropout' whose 'keep' is 1 - rate"),
    **dict.fromkeys(
        ("num_layers", "n_layers", "depth"),
        "'repeat: depth' makes several layers, one behind the other",
    ),
    **dict.fromkeys(
        ("return_sequences", "return_state", "batch_first", "time_major"),
        "the definition says what it takes and gives: see 'harness explain LAYER'",
    ),
    "bidirectional": "bidirectional_lstm, bidirectional_gru_reset_after and, for rows that end "
    "before others, masked_bidirectional_lstm ship; of another layer name one for each way, and "
    "give 'reverse' of the input to one of them",
}

# What another definition has.
OF_OTHERS: Mapping[str, str] = {
    "momentum": "the optimizer with one is 'sgd_momentum'",
    "weight_decay": "the optimizer with one is 'adamw'",
}


def instead(name: str, declared: Collection[str], value: object) -> str:
    """Return a hint for an undeclared attribute: ``; here it is 'x'``."""
    rest = REST_OF.get(name)
    if rest in declared and isinstance(value, int | float) and 0 <= value <= 1:
        return f"; write {rest}: {1 - value:g} ({rest} is 1 - {name})"
    if CALLED.get(name) in declared:
        return f"; here it is {CALLED[name]!r}"
    hint = INSTEAD.get(name) or OF_OTHERS.get(name)
    return f"; {hint}" if hint else did_you_mean(name, declared)


Attribute = FunctionName | bool | float | Dim
# (attribute, whether its key is meant rather than its value) -> where it stands.
PlaceOf = Callable[[str, bool], Place]


@dataclass(frozen=True)
class GivenAttributes:
    """The attributes that a model gives to ``owner``, at ``place``; ``place_of`` finds each.

    ``definition`` declares them, and so holds the defaults of those that are not given. Inside of
    a layer's definition ``outer`` are that layer's own attributes, which values may name.
    """

    owner: str
    values: Mapping[str, Any]
    place: Place
    definition: Document
    place_of: PlaceOf | None = None
    outer: Mapping[str, Attribute] = field(default_factory=dict)

    def at(self, name: str, *, key: bool = False) -> Place:
        """Where an attribute stands, or its owner where the attribute was left at its default."""
        if self.place_of is None or name not in self.values:
            return self.place
        return self.place_of(name, key)


def read_attributes(
    library: Library,
    declared: Mapping[str, bool | float | str],
    given: GivenAttributes,
    sizes: Mapping[str, Dim],
) -> dict[str, Attribute]:
    """The value of every declared attribute, checked by kind.

    Raises:
        SpecError: one is unknown, or not of its kind.
    """
    errors = ErrorList()
    found: dict[str, Attribute] = {}
    unknown = [name for name in given.values if name not in declared]
    for name in unknown:
        told = (
            f"unknown attribute {shorten(name)!r} of {given.owner}"
            f"{instead(name, declared, given.values[name])} "
            f"(known: {', '.join(declared) or 'none'})"
        )
        errors.found.append(SpecError(told, given.at(name, key=True)))
    for name, default in declared.items():
        # What is missing may be there by another name.
        if name in given.values or not unknown:
            with errors.part():
                found[name] = _read(library, name, default, given, sizes)
    errors.end()
    return found


def _read(
    library: Library,
    name: str,
    default: bool | float | str,
    given: GivenAttributes,
    sizes: Mapping[str, Dim],
) -> Attribute:
    value, at = given.values.get(name, default), given.at(name)
    handed = given.outer.get(value) if name in given.values and isinstance(value, str) else None
    lengths = {**as_sizes(given.outer), **sizes}
    if default == "size":
        if name not in given.values:
            raise SpecError(f"attribute {name!r} of {given.owner} is missing: give a size", at)
        return value if isinstance(value, Dim) else read_dim(value, lengths, at)
    if isinstance(default, bool):
        value = handed if isinstance(handed, bool) else value
        if not isinstance(value, bool):
            raise SpecError(f"attribute {name!r} is true or false, found {_show(value)}", at)
        return value
    if isinstance(default, str):
        if isinstance(handed, FunctionName):
            return handed
        if isinstance(value, FunctionName):
            return value
        known = sorted([*BUILTINS, *library.names("function")])
        if not isinstance(value, str):
            raise SpecError(f"attribute {name!r} names a function, found {_show(value)}", at)
        if value not in known:
            if name not in given.values:
                at = given.definition.place_of(("attributes", name))
            raise SpecError(_no_function(name, value, known), at)
        return FunctionName(value)
    if isinstance(handed, float):
        return handed
    return _number(name, value, lengths, at)


def _number(name: str, value: Any, known: Mapping[str, Dim], at: Place) -> float | Dim:
    """A number, or what stands for a whole one: a size, or a sum or product of sizes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Dim):
        return value if value.terms else float(value.constant)
    told = f"attribute {name!r} is a number, found {_show(value)}"
    if not isinstance(value, str) or not known:
        raise SpecError(told, at)
    try:
        dim = size_of(parse_expression(value, Located(at)), known)
    except SpecError:
        hint = did_you_mean(value, known)
        told = told.replace("a number", "a number, or a sum or product of sizes")
        raise SpecError(f"{told}{hint} (sizes here: {', '.join(sorted(known))})", at) from None
    return dim if dim.terms else float(dim.constant)


def _no_function(name: str, value: str, known: Collection[str]) -> str:
    """What to say of an attribute that names no function: of its form, or of what there is."""
    found = shorten(value)
    if not is_name(value):
        return (
            f"attribute {name!r} is 'size', a number, true or false, or the name of a function, "
            f"found {found!r}"
        )
    hint = as_attribute(value) or did_you_mean(value, known)
    if value.lower() in ("none", "identity"):
        hint = "; the function that does nothing is 'linear'"
    listed = known_names(known, hint, "harness list --functions")
    return f"attribute {name!r} names a function, found {found!r}{hint}{listed}"


def number_of(
    argument: str,
    value: float | str,
    attributes: Mapping[str, Attribute],
    used: set[str],
    place: Place,
) -> float:
    """The number that an argument of a law is, or the attribute that it names, which goes into
    ``used``.

    Raises:
        SpecError: it names no attribute that is a number, or is not finite.
    """
    if isinstance(value, str):
        found = attributes.get(value)
        if not isinstance(found, float):
            numbers = [n for n, a in attributes.items() if isinstance(a, float)]
            size = f", a size ({found})" if isinstance(found, Dim) else ""
            raise SpecError(
                f"{argument} is a number or an attribute that is one, found {shorten(value)!r}"
                f"{size}{did_you_mean(value, numbers)} (known: {', '.join(numbers) or 'none'})",
                place,
            )
        used.add(value)
        value = found
    if not math.isfinite(value):
        raise SpecError(f"{argument} is a finite number, found {value}", place)
    return float(value)


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return shorten(repr(value))


def plain(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    """Function names as text, for the program."""
    return {n: a.function if isinstance(a, FunctionName) else a for n, a in attributes.items()}
