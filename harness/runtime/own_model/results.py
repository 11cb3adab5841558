"""What a user's model takes and returns, by the names of the spec."""

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


def placing(
    program: Program, takes: Sequence[str] | None, asked: Sequence[str], noise: Sequence[str] = ()
) -> Placing:
    """Where the spec's inputs, state and noise go in a call that takes these names.

    ``asked`` are those of ``--takes``: names of inputs and of noise, and ``state.NAME``, in order.
    Without them inputs go by keyword where the call has all their names, and else in the spec's
    order; the state goes where the call has its names, or one ``state`` for a dictionary of all.
    For ``noise``, the names of the spec's, see :func:`_noise_taken`.

    Raises:
        UsageError: a name is none of the spec's, or there are too few places.
    """
    inputs = {port.name: f"input.{port.name}" for port in program.inputs}
    state = {port.name: f"state.{port.name}" for port in program.state}
    drawn = {name: f"input.{name}" for name in noise}
    if asked:
        known = {**inputs, **drawn, **{full: full for full in state.values()}}
        return Placing(tuple(_known("takes", name, known) for name in asked))
    more: dict[str, str | Mapping[str, str]] = {}
    names = set(takes or ())
    if state and STATE in names and STATE not in inputs:
        more[STATE] = state
    elif state and names.issuperset(state.values()):
        more |= {full: full for full in state.values()}
    elif state and names.issuperset(state) and not set(state) & set(inputs):
        more |= state
    more |= _noise_taken(drawn, names - {*inputs, *more})
    if names.issuperset(inputs):
        return Placing((), {**inputs, **more})
    if takes is not None and len(takes) < len(inputs):
        raise UsageError(
            f"the spec has {len(inputs)} inputs ({', '.join(inputs)}), and the model takes "
            f"{len(takes)} ({', '.join(takes) or 'none'}): say what it takes by --takes"
        )
    return Placing(tuple(inputs.values()), more)


def _noise_taken(
    noise: Mapping[str, str], names: Collection[str]
) -> dict[str, str | Mapping[str, str]]:
    """The noise by the names of a call: ``sample.unit`` or ``sample_unit``, ``unit`` if no other
    noise is called so, or one ``noise``, a dictionary if the spec has several."""
    if noise and NOISE in names:
        return {NOISE: noise if len(noise) > 1 else next(iter(noise.values()))}
    local = Counter(local_of(name) for name in noise)
    found: dict[str, str | Mapping[str, str]] = {}
    for name, full in noise.items():
        spellings = [name, name.replace(".", "_")]
        spellings += [local_of(name)] if local[local_of(name)] == 1 else []
        found |= {spelling: full for spelling in spellings if spelling in names}
    return found


def _known(option: str, name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise UsageError(
            f"--{option}: the spec has no {name!r}{did_you_mean(name, known)} "
            f"(it has: {', '.join(known)})"
        )
    return known[name]


def of_the_loss(training: Program) -> list[str]:
    """The outputs that the loss is of: what a model that returns one tensor is taken to return."""
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
    """The names of what a model returns. ``asked`` are those of ``--returns``, in order."""

    training: Program
    inference: Program
    asked: tuple[str, ...] = ()

    @property
    def known(self) -> dict[str, str]:
        """Full names by what they may be called: ``logits``, ``state.h``."""
        full = [n for n in result_ports(self.inference, "forward") if "statistics." not in n]
        return {n.removeprefix("output."): n for n in full}

    def named(self, returned: Any) -> dict[str, Any]:
        """Tensors by name: those of dictionaries by their keys, others by their order.

        Raises:
            UsageError: there are more or fewer than the spec has, or none by its names.
        """
        leaves = list(_leaves(returned))
        if not leaves:
            raise UsageError(
                f"the model returns {shorten(repr(returned), 40)}, in which there is no tensor "
                f"(the spec has: {', '.join(self.known)})"
            )
        keyed = {key: tensor for key, tensor in leaves if key is not None}
        plain = [tensor for key, tensor in leaves if key is None]
        found = self._of_keys(keyed) if keyed else {}
        if plain:
            found |= zip(self._order(plain, found), plain, strict=True)
        return found

    def _of_keys(self, keyed: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, tensor in keyed.items():
            name = key.removeprefix("new_").removeprefix("output.")
            for full in (self.known.get(name), self.known.get(f"state.{name}")):
                wanted = not self.asked or name in self.asked or f"state.{name}" in self.asked
                if full is not None and full not in found and wanted:
                    found[full] = tensor
                    break
        if not found:
            raise UsageError(
                f"the model returns {', '.join(map(repr, keyed))}, and none of that is an output "
                f"of the spec (it has: {', '.join(self.known)})"
            )
        return found

    def _order(self, plain: Sequence[Any], found: Mapping[str, Any]) -> list[str]:
        """The names of tensors without one."""
        known = {n: full for n, full in self.known.items() if full not in found}
        outputs = [full for full in known.values() if full.startswith("output.")]
        state = [full for full in known.values() if full.startswith("state.")]
        if self.asked:
            names = [_known("returns", name, self.known) for name in self.asked]
            orders = [[name for name in names if name not in found]]
        else:
            loss = [f"output.{n}" for n in of_the_loss(self.training)]
            orders = [outputs, [*outputs, *state], loss, [*loss, *state], state if found else []]
        for order in orders:
            if len(order) == len(plain):
                return order
        first = orders[0]
        listed = ", ".join(n.removeprefix("output.") for n in first)
        count = "--returns names" if self.asked else "the spec has"
        raise UsageError(
            f"the model returns {several(len(plain), 'tensor')}, and {count} "
            f"{several(len(first), 'output')} ({listed}): say what it returns, in order, by "
            "--returns, or return a dictionary"
        )


def _leaves(returned: Any, key: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Tensors within dictionaries, lists and tuples, each with the innermost key above it."""
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
            f"the model returns {type(returned).__name__} where a tensor is wanted: it may return "
            "a tensor, and dictionaries, lists and tuples of them"
        )
