"""Calls of claimed layers and losses, i.e. of those for which a backend offers its framework's own
implementation. The interpreter runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.program.ir import Node, Phase, Program, reads
from harness.program.signature import call_key
from harness.runtime import promises
from harness.runtime.backend import Backend
from harness.runtime.interpreter import Claimed, Line, Values
from harness.runtime.native import ClaimableCall, Native, Tensors, calls_by_layer
from harness.runtime.packing import Packing

# The key of the variables among the interpreter's values. The values themselves have numbers from
# 0.
VARIABLES = -1
Given = Callable[[Values], tuple[Tensors, Tensors]]


def claims(backend: Backend, program: Program, phase: Phase) -> dict[str, Native]:
    """Return a dictionary from the name of a layer (e.g. ``rnn``) or loss to the framework's own
    implementation, for those that the backend offers to run in ``phase`` (training or inference).

    A layer with several calls is included only if the backend offers to run every call.
    """
    claimed: dict[str, Native] = {}
    for key, calls in calls_by_layer(program, phase).items():
        natives = [_ask_for_claim(backend, call) for call in calls]
        if natives[0] is not None and None not in natives:
            claimed[key] = natives[0]
    return claimed


def _ask_for_claim(backend: Backend, call: ClaimableCall) -> Native | None:
    claim = backend.claim(call)
    if claim is not None:
        source = f"claim() of {call.definition}"
        promises.check_type(claim, Native, source, "a Native, or None")
        promises.check_type(claim.packing, Packing, f"the packing of {source}", "a Packing")
    return claim


def claimed_call(key: str, native: Native) -> Claimed:
    """Return a function that gets the node of a call, and returns the prepared call: a function
    that runs the framework's implementation ``native``.

    ``key`` is the name of the layer or loss.
    """

    def claimed(node: Node) -> Line:
        read_arguments = _argument_reader(node, key, native)
        return _prepared_line(
            node, native.label, lambda values: native.run(*read_arguments(values))
        )

    return claimed


def _argument_reader(node: Node, key: str, native: Native) -> Given:
    roles = tuple(zip(node.attributes["roles"], node.inputs, strict=True))
    names = [(name, f"{key}/{name}") for name in native.packing.pieces]

    def read_arguments(values: Values) -> tuple[Tensors, Tensors]:
        variables = values[VARIABLES]
        by_role = {role: values[i] for role, i in roles if i in values}
        return by_role, {name: variables[full] for name, full in names}

    return read_arguments


def _prepared_line(node: Node, label: str, run: Callable[[Values], Sequence[object]]) -> Line:
    def line(values: Values) -> None:
        results = run(values)
        try:
            values.update(zip(node.outputs, results, strict=True))
        except (TypeError, ValueError):
            promises.check_results(results, node.outputs, label)
            raise

    return line


def merge_chains(
    nodes: Sequence[Node], ends: Iterable[int], natives: Mapping[str, Native]
) -> tuple[list[Node], dict[str, Claimed]]:
    """Merge consecutive layers that their framework can run as one call, e.g. two LSTM layers (see
    :class:`.native.Chain`).

    Return the new nodes. Also return a dictionary from the name of each merged call to a function
    that prepares the call.

    Args:
        nodes: The nodes (operations) of the program in order.
        ends: The values that the caller reads. All other values are read only inside ``nodes``.
        natives: The framework's own implementations, by name of the layer or loss.
    """
    claimed: dict[str, Claimed] = {}
    if not any(native.chain for native in natives.values()):
        return list(nodes), claimed
    # The nodes that replace each call of a chain, by the call's first output. Only the last call is
    # replaced by a node.
    replacements: dict[int, list[Node]] = {}
    for chain in _find_chains(nodes, ends, natives):
        last = chain[-1]
        # Layers that share parameters may be in several chains, so the key also has an output.
        key = f"{' + '.join(map(call_key, chain))} %{last.outputs[0]}"
        label = natives[call_key(last)].label
        outputs = (last.outputs[0], *(o for node in chain for o in node.outputs[1:]))
        inputs = tuple(i for node in chain for i in node.inputs)
        replacements |= {node.outputs[0]: [] for node in chain}
        replacements[last.outputs[0]] = [
            Node("call", inputs, outputs, {"instance": key, "label": label})
        ]
        claimed[key] = _claimed_chain(chain, natives)
    return [
        replacement for node in nodes for replacement in replacements.get(node.outputs[0], [node])
    ], claimed


def _claimed_chain(chain: Sequence[Node], natives: Mapping[str, Native]) -> Claimed:
    keys = [call_key(node) for node in chain]
    native = natives[keys[-1]]
    assert native.chain is not None
    run = native.chain.run
    readers = [
        _argument_reader(node, key, natives[key]) for node, key in zip(chain, keys, strict=True)
    ]

    def claimed(node: Node) -> Line:
        return _prepared_line(
            node,
            native.label,
            lambda values: run([read_arguments(values) for read_arguments in readers]),
        )

    return claimed


def _find_chains(
    nodes: Sequence[Node], ends: Iterable[int], natives: Mapping[str, Native]
) -> list[list[Node]]:
    """Return the lists of consecutive layer calls that their framework can run as one call. The
    arguments are as in :func:`merge_chains`."""
    times = Counter(ends)
    first: dict[int, int] = {}
    for place, node in enumerate(nodes):
        for value in {*reads(node)}:
            times[value] += 1
            first.setdefault(value, place)
    chains: list[list[Node]] = []
    ending: dict[int, list[Node]] = {}
    for place, node in enumerate(nodes):
        native = natives.get(call_key(node)) if node.op == "call" else None
        if native is None or native.chain is None:
            continue
        chain = ending.pop(node.inputs[0], None)
        later = len(nodes)
        if (
            chain is None
            or times[node.inputs[0]] > 1
            or node.inputs.count(node.inputs[0]) > 1
            or native.chain.kind != _chain_kind(chain[-1], natives)
            # Other outputs of earlier layers exist only after the whole chain has run.
            or any(first.get(o, later) <= place for one in chain for o in one.outputs[1:])
        ):
            chain = []
            chains.append(chain)
        chain.append(node)
        ending[node.outputs[0]] = chain
    return [chain for chain in chains if len(chain) > 1]


def _chain_kind(node: Node, natives: Mapping[str, Native]) -> object:
    chain = natives[call_key(node)].chain
    return chain.kind if chain else None
