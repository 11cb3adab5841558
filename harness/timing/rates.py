"""Conversion of seconds to characters per second, FLOP/s, and shares of the hardware's peak
rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from statistics import median, quantiles
from typing import Any

from harness.program.autodiff.differentiate import differentiate
from harness.program.dims import resolve_shape
from harness.program.flops import REDUCING, Flops, count
from harness.program.ir import Node, Port, Program, Type, inline_calls, needed_nodes
from harness.program.primitives import ELEMENTWISE
from harness.program.signature import port_shapes, result_ports
from harness.program.updates import UpdateRule, slot_entries
from harness.runtime.labels import card_of
from harness.runtime.precision import WIDTHS
from harness.timing.contestant import Contestant
from harness.timing.proofs.times import check_hardware
from harness.timing.workload import TimedCase

# ``(m, k, n)`` of the matmul that measures the peak FLOP/s. 2048 is too small to keep a GPU busy.
LARGE, LARGE_ON_CARD = (2048, 2048, 2048), (8192, 8192, 8192)
OVERHEAD_STEPS = 200
# The rate of a small matmul is capped at this multiple of the rate of the large matmul.
FASTER = 2.0

Size = tuple[int, int, int]


def complete_record(contestant: Contestant) -> None:
    """Compute the rates in a cell's record, e.g. FLOP/s; refuse a speed that the hardware does not
    allow."""
    record, case, seconds = contestant.record, contestant.case, contestant.result.seconds
    step = median(seconds)
    latencies = record.latencies
    record.step = spread(seconds)
    record.rate = {"unit": case.unit, **rates(case.read, record.step)}
    record.latency = spread(latencies)
    prepared = (record.prepare or 0.0) + (record.first or 0.0)
    record.compile = max(0.0, prepared - median(latencies))
    operations = count_operations(case)
    record.flops = operations
    total = sum(operations.values())
    record.products = case.products
    record.flops_per_second = total / step
    if contestant.entry.baseline:
        return
    overhead = contestant.steps.overhead(OVERHEAD_STEPS)
    record.overhead = {"seconds": overhead, "share": overhead / step}
    own, moved = largest_product(case), least_bytes(case)
    peaks, bandwidth = measured_peaks(contestant, own)
    record.bandwidth = {"measured": bandwidth, "least_bytes": moved}
    record.share_of_bandwidth = moved / step / bandwidth

    def again() -> float:
        return max(measured_peaks(contestant, own, anew=True)[0].values())

    check_hardware(contestant, case.products, max(peaks.values()), step, again)


def compare_with_peaks(contestants: Sequence[Contestant]) -> None:
    """Store in the record of each cell which share of the peak FLOP/s its steps reach, at most 1.

    The peak of a matmul size is the fastest rate that any backend reached in a matmul of this size.
    If the matmuls of a step ran at a higher rate, that rate is the peak.
    """
    measured = [c for c in contestants if c.result.measured and not c.entry.baseline]
    reached = [
        (c.case.products / c.record.step["median"], f"{c.entry.label}, in a step") for c in measured
    ]
    for contestant in measured:
        record, own = contestant.record, largest_product(contestant.case)
        squares = large_product(contestant.device)
        best = {
            size: max([(c.peaks[c.worker.pid, size], c.entry.label) for c in measured] + reached)
            for size in (squares, own)
        }
        (large, large_by), (at_own, own_by) = best[squares], best[own]
        record.peak = {"large": large, "large_by": large_by, "large_size": list(squares)}
        record.peak["own_size"] = list(own)
        record.peak |= {"own": at_own, "own_by": own_by}
        rate = contestant.case.products / record.step["median"]
        record.share_of_peak, record.share_of_own_peak = rate / large, rate / at_own


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return a dictionary with the ``median``, the quartiles ``q1`` and ``q3``, the ``min`` and the
    ``max`` of some values.

    With two values or fewer, the quartiles are the minimum and the maximum.
    """
    first, third = min(values), max(values)
    if len(values) > 2:
        first, _, third = quantiles(values, method="inclusive")
    return {
        "median": median(values),
        "q1": first,
        "q3": third,
        "min": min(values),
        "max": max(values),
    }


def rates(read: int, step: Mapping[str, float]) -> dict[str, float]:
    """Convert the quartiles of a step's seconds to quartiles of samples or characters per second.

    ``step`` and the result have the keys of :func:`spread`. ``read`` is the number of samples or
    characters that one step reads.
    """
    mirrored = {"median": "median", "q1": "q3", "q3": "q1", "min": "max", "max": "min"}
    return {name: read / step[other] for name, other in mirrored.items()}


def measured_peaks(
    contestant: Contestant, own: Size, anew: bool = False
) -> tuple[dict[Size, float], float]:
    """Return a dictionary from a matmul's size ``(m, k, n)`` to the peak FLOP/s, and the memory
    bandwidth in bytes/s. The sizes are a large matmul and the size ``own``.

    Each size is measured once per process, and once more with ``anew``; the fastest measurement is
    the peak. The results of a small matmul are verified less strictly, so its rate is capped at
    :data:`FASTER` times the rate of the large matmul.
    """
    known: dict[Any, float] = contestant.peaks
    key, large = contestant.worker.pid, large_product(contestant.device)
    sizes = tuple(dict.fromkeys((large, own)))
    wanted = [size for size in sizes if anew or (key, size) not in known]
    if wanted:
        peaks = contestant.steps.peaks(contestant.case.dtype, [list(size) for size in wanted])
        for size, found in zip(wanted, peaks["products"], strict=True):
            most = found if size == large else min(found, FASTER * known[key, large])
            known[key, size] = max(most, known.get((key, size), 0.0))
        known[key, "bandwidth"] = max(peaks["bandwidth"], known.get((key, "bandwidth"), 0.0))
    return {size: known[key, size] for size in sizes}, known[key, "bandwidth"]


def large_product(device: str) -> Size:
    """Return the size ``(m, k, n)`` of the large matmul with which the peak FLOP/s of a device are
    measured."""
    return LARGE if card_of(device) is None else LARGE_ON_CARD


def count_operations(case: TimedCase) -> dict[str, int]:
    """Return a dictionary from a kind of operation to the number of floating-point operations of
    one step. The operations of the program are counted before any optimisation.

    The keys are ``forward_products`` (in matmuls), ``forward_elementwise`` and, in training,
    ``gradient_products``, ``gradient_elementwise`` and ``update_elementwise``.
    """
    program, sizes = case.program, _sizes(case)
    if case.group.mode == "forward":
        outputs = result_ports(program, "ends").values()
        forward = count(needed_nodes(program.nodes, outputs), program.types, sizes)
        return {"forward_products": forward.products, "forward_elementwise": forward.elementwise}
    results = result_ports(program, "step")
    forward = count(needed_nodes(program.nodes, results.values()), program.types, sizes)
    loss = Port("loss", results["loss"])
    derived = differentiate(program, [loss], program.parameters, results.values()).program
    both = count(derived.nodes, derived.types, sizes)
    assert case.rule is not None
    return {
        "forward_products": forward.products,
        "forward_elementwise": forward.elementwise,
        "gradient_products": both.products - forward.products,
        "gradient_elementwise": both.elementwise - forward.elementwise,
        "update_elementwise": _count_update(case.rule, program).total,
    }


def _count_update(rule: UpdateRule, program: Program) -> Flops:
    """Count the operations of an optimizer step on all parameters.

    Each elementwise op or reduction counts as one operation per entry of the parameter.
    """
    operations = 0
    for parameter in program.parameters:
        shape = program.shape(parameter)
        own, entries = rule.of(parameter.name, len(shape)), prod(shape)
        for node in own.own_nodes:
            wide = any(own.types[value].shape for value in node.inputs)
            operations += entries * (wide and node.op in ELEMENTWISE | REDUCING)
    return Flops(elementwise=operations)


def largest_product(case: TimedCase) -> Size:
    """Return the size ``(m, k, n)`` of the matmul with the most operations in a forward pass."""
    program = case.program
    found = _list_products(inline_calls(program.nodes), program.types, _sizes(case))
    return max(found, key=lambda size: prod(size), default=LARGE)


def _list_products(
    nodes: Iterable[Node], types: Mapping[int, Type], sizes: Mapping[str, int]
) -> list[Size]:
    found: list[Size] = []
    for node in nodes:
        if node.body is not None:
            found += _list_products(node.body.nodes, types, sizes)
        elif node.op == "matmul":
            left, right = (resolve_shape(types[v].shape, sizes) for v in node.inputs)
            found.append((prod(left[:-1]), left[-1], right[-1]))
    return found


def least_bytes(case: TimedCase) -> int:
    """Return the minimum number of bytes that a step must read and write; intermediate values are
    not counted.

    A forward pass reads each parameter and the batch once. A training step also writes and reads
    each gradient, reads and writes each optimizer slot (e.g. the momentum), and writes each
    parameter.
    """
    width = WIDTHS[case.dtype]
    train = case.group.mode == "train"
    shapes = port_shapes(case.program, case.program.parameters)
    entries = (4 if train else 1) * sum(map(prod, shapes.values()))
    if case.rule and train:
        entries += 2 * slot_entries(case.rule, shapes)
    batch = case.batches[0]
    arrays = [*batch["inputs"].values(), *(batch["targets"].values() if train else ())]
    return width * (entries + sum(int(a.size) for a in arrays))


def _sizes(case: TimedCase) -> dict[str, int]:
    return {**case.program.sizes, **case.sizes}
