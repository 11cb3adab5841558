"""Match the arguments and results of a user's model with the names of a spec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError, did_you_mean, several, shorten
from harness.program.ir import Program, walk_nodes
from harness.program.signature import local_of, result_ports
from harness.runtime.own_model.contract import Placing

STATE, NOISE = "state", "noise"
# The end of an output's name in a ported spec that cannot have the model's name, such as ``mean``.
OUTPUT_SUFFIX = "_output"


def placing(
    program: Program,
    takes: Sequence[str] | None,
    listed_names: Sequence[str],
    noise: Sequence[str] = (),
) -> Placing:
    """Return the arguments through which a user's model gets the spec's inputs, state and noise.

    ``takes`` are the model's argument names. ``listed_names`` are the names in ``--takes``, in
    order: names of inputs and noise, and ``state.NAME``. Without ``--takes``, the model gets the
    inputs by keyword if it has an argument for each of them, else by position in the spec's order.
    The model gets the state by keyword: each state under its own name, or all of them as the
    dictionary ``state``. ``noise`` are the names of the spec's noise; see :func:`_match_noise`.

    Raises:
        UsageError: a name is not in the spec, or the model has too few arguments.
    """
    inputs = {port.name: f"input.{port.name}" for port in program.inputs}
    state = {port.name: f"state.{port.name}" for port in program.state}
    noise_names = {name: f"input.{name}" for name in noise}
    if listed_names:
        known = {**inputs, **noise_names, **{full: full for full in state.values()}}
        return Placing(tuple(_look_up("takes", name, known) for name in listed_names))
    keywords: dict[str, str | Mapping[str, str]] = {}
    names = set(takes or ())
    if state and STATE in names and STATE not in inputs:
        keywords[STATE] = state
    elif state and names.issuperset(state.values()):
        keywords |= {full: full for full in state.values()}
    elif state and names.issuperset(state) and not set(state) & set(inputs):
        keywords |= state
    keywords |= _match_noise(noise_names, names - {*inputs, *keywords})
    if names.issuperset(inputs):
        return Placing((), {**inputs, **keywords})
    if takes is not None and len(takes) < len(inputs):
        raise UsageError(
            f"the spec has {len(inputs)} inputs ({', '.join(inputs)}), but the model takes "
            f"{len(takes)} ({', '.join(takes) or 'none'}): list its arguments with --takes"
        )
    return Placing(tuple(inputs.values()), keywords)


def _match_noise(
    noise: Mapping[str, str], names: Collection[str]
) -> dict[str, str | Mapping[str, str]]:
    """Return the noise by argument name.

    The argument for noise ``sample.unit`` may be ``sample.unit``, ``sample_unit``, or ``unit`` if
    no other noise has this name. Or one argument ``noise`` gets the noise: a dictionary if there
    are several arrays.
    """
    if noise and NOISE in names:
        return {NOISE: noise if len(noise) > 1 else next(iter(noise.values()))}
    local = Counter(local_of(name) for name in noise)
    arguments: dict[str, str | Mapping[str, str]] = {}
    for name, full in noise.items():
        spellings = [name, name.replace(".", "_")]
        spellings += [local_of(name)] if local[local_of(name)] == 1 else []
        arguments |= {spelling: full for spelling in spellings if spelling in names}
    return arguments


def _look_up(option: str, name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise UsageError(
            f"--{option}: the spec has no {name!r}{did_you_mean(name, known)} "
            f"(it has: {', '.join(known)})"
        )
    return known[name]


def loss_outputs(training: Program) -> list[str]:
    """Return the outputs that the loss uses. A model that returns a single tensor returns these."""
    named = {port.value: port.name for port in training.outputs}
    used = [
        value
        for node in walk_nodes(training.nodes)
        if node.op == "call" and node.attributes.get("kind") == "loss"
        for value in node.inputs
        if value in named
    ]
    return [named[value] for value in dict.fromkeys(used)]


@dataclass(frozen=True)
class Results:
    """The names of a model's results. ``asked`` are the names in ``--returns``, in order."""

    training: Program
    inference: Program
    asked: tuple[str, ...] = ()

    @property
    def known(self) -> dict[str, str]:
        """The spec's full result names, by the names that a model may use (``logits``)."""
        full = [n for n in result_ports(self.inference, "forward") if "statistics." not in n]
        return {n.removeprefix("output."): n for n in full}

    def named(self, returned: Any) -> dict[str, Any]:
        """Return a model's results by name.

        Tensors in dictionaries are named by their keys, and other tensors by their order.

        Raises:
            UsageError: the number of tensors does not fit the spec, or no key is a name of the
                spec.
        """
        leaves = list(_leaves(returned))
        if not leaves:
            raise UsageError(
                f"the model returns {shorten(repr(returned), 40)}, which contains no tensor "
                f"(the spec has: {', '.join(self.known)})"
            )
        keyed = {key: tensor for key, tensor in leaves if key is not None}
        plain = [tensor for key, tensor in leaves if key is None]
        by_name = self._name_by_keys(keyed) if keyed else {}
        if plain:
            by_name |= zip(self._choose_order(plain, by_name), plain, strict=True)
        return by_name

    def _name_by_keys(self, keyed: Mapping[str, Any]) -> dict[str, Any]:
        by_name: dict[str, Any] = {}
        for key, tensor in keyed.items():
            name = key.removeprefix("new_").removeprefix("output.")
            names = (name, f"state.{name}", f"{name}{OUTPUT_SUFFIX}")
            for full in map(self.known.get, names):
                is_listed = not self.asked or name in self.asked or f"state.{name}" in self.asked
                if full is not None and full not in by_name and is_listed:
                    by_name[full] = tensor
                    break
        if not by_name:
            raise UsageError(
                f"the model returns {', '.join(map(repr, keyed))}, but none of these names is an "
                f"output of the spec (it has: {', '.join(self.known)})"
            )
        return by_name

    def _choose_order(self, plain: Sequence[Any], found: Mapping[str, Any]) -> list[str]:
        known = {n: full for n, full in self.known.items() if full not in found}
        outputs = [full for full in known.values() if full.startswith("output.")]
        state = [full for full in known.values() if full.startswith("state.")]
        if self.asked:
            names = [_look_up("returns", name, self.known) for name in self.asked]
            orders = [[name for name in names if name not in found]]
        else:
            loss = [f"output.{n}" for n in loss_outputs(self.training)]
            orders = [outputs, [*outputs, *state], loss, [*loss, *state], state if found else []]
        for order in orders:
            if len(order) == len(plain):
                return order
        first = orders[0]
        listed = ", ".join(n.removeprefix("output.") for n in first)
        count = "--returns names" if self.asked else "the spec has"
        raise UsageError(
            f"the model returns {several(len(plain), 'tensor')}, but {count} "
            f"{several(len(first), 'output')} ({listed}): list its results in order with "
            "--returns, or return a dictionary"
        )


def _leaves(returned: Any, key: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Yield all tensors in dictionaries, lists and tuples, each with the nearest key above it."""
    if isinstance(returned, Mapping):
        for name, value in returned.items():
            yield from _leaves(value, str(name))
    elif isinstance(returned, list | tuple):
        for value in returned:
            yield from _leaves(value, key)
    elif hasattr(returned, "shape"):
        yield key, returned
    elif returned is not None:
        raise UsageError(
            f"the model returns {type(returned).__name__} instead of a tensor: it may return "
            "tensors, and dictionaries, lists and tuples of tensors"
        )
