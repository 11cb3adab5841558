"""Properties that any right backend has, whatever the model computes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from harness.checking.checks.again import hold_again
from harness.checking.checks.context import Context, equal, where_apart
from harness.checking.checks.large_cases import whole_batch
from harness.checking.checks.thresholds import with_rows
from harness.oracle.case import Case
from harness.oracle.kinks import furthest
from harness.oracle.tolerance import Deviation, prefixed
from harness.program.fitting_sizes import fits, nearest_sizes
from harness.results.findings import Finding
from harness.runtime.arguments import Arguments

# Forward passes in a row, as where a text is continued: in float64 too they would show no more.
PASSES, FEWER = 20, 4


def shapes(context: Context) -> Iterator[Finding]:
    """Other batch sizes and lengths on the same session, equal ones too; then the first again."""
    case = context.case
    context.remote.load(case.material)
    before = context.forward(case.material)
    finding = Finding("shapes")
    for batch, time in other_shapes(case):
        material = case.batch_of(batch, time)
        expected = case.forward("inference", material, (batch, time))
        found = context.forward(material)
        deviations = expected.deviations(found, context.dtype)
        finding.deviations += prefixed(f"batch {batch}, time {time}: ", deviations)
    after = context.forward(case.material)
    finding.faults += [
        f"{n} differs after other shapes{where_apart(after.get(n), before[n])}"
        for n in before
        if not equal(before[n], after.get(n))
    ]
    yield finding


def other_shapes(case: Case) -> list[tuple[int, int]]:
    """One example; one step; as many examples as steps, and more than there were before; and a
    smaller last batch; or the nearest to these that the model can have."""
    has_time = any("time" in d.names for t in case.inference.types.values() for d in t.shape)
    if has_time:
        smaller, longer = max(case.batch - 1, 1), case.time + 1
        wanted = [(1, case.time), (case.batch, 1), (longer, longer), (smaller, case.time)]
    else:
        wanted = [(1, 1), (case.batch + 2, 1)]
    found = (nearest_sizes(case.inference, batch, time) for batch, time in wanted)
    return list(dict.fromkeys(found))


def partial_batch(context: Context) -> Iterator[Finding]:
    """Loss and gradients of a smaller last batch: divided by its own size, nothing filled up; and
    of the first one after it, as another epoch begins."""
    case = context.case
    if not can_be_smaller(case):
        return
    context.remote.load(case.material)
    before = context.remote.gradients(case.material)
    smaller = smaller_batch(case)
    found = context.remote.gradients(smaller)
    finding = context.finding("partial-batch", found, case.gradients(smaller, "partial"))
    after = context.remote.gradients(case.material)
    expected = partial(case.gradients, case.material, "main")
    fault = "{} is another after a smaller batch"
    finding.held += hold_again(context, finding, before, after, expected, fault)
    yield finding


def single_example(context: Context) -> Iterator[Finding]:
    """Results and gradients of one step of one example, or of as little as the model can have,
    after those of a whole batch: of as many examples as the spec trains with."""
    case = context.case
    batch, time = nearest_sizes(case.training, 1, 1)
    if (batch, time) == (case.batch, case.time):
        return
    context.remote.load(case.material)
    whole = whole_batch(case)
    found = context.remote.gradients(whole or case.material)
    deviations: list[Deviation] = []
    if whole is not None:
        rows = max((len(a) for a in whole.inputs.values() if a.ndim), default=1)
        expected = with_rows(case.gradients(whole, "whole batch"), rows * case.time)
        deviations = context.finding("single-example", found, expected).deviations
    drawn = (case.batch_of(batch, time, number) for number in range(5, 9))
    alone = case.found_once("single-example", lambda: furthest(case.training, drawn))
    found = context.remote.gradients(alone)
    finding = context.finding("single-example", found, case.gradients(alone, "single-example"))
    finding.deviations += prefixed("whole batch, ", deviations)
    yield finding


def can_be_smaller(case: Case) -> bool:
    """Whether the model can have a batch of one example less."""
    return case.batch > 1 and fits(case.training, case.batch - 1, case.time)


def smaller_batch(case: Case) -> Arguments:
    """The same parameters with a batch of one example less."""
    return case.batch_of(case.batch - 1, case.time)


def repeatability(context: Context) -> Iterator[Finding]:
    """The same call twice gives the same bits, where the backend's repeat, and so do many forward
    passes; loading again gives a fresh start."""
    case = context.case
    finding = Finding("repeatability")
    many = FEWER if context.dtype == "float64" else PASSES
    context.remote.load(case.material)
    runs = [context.remote.gradients(case.material)]
    passes = [context.forward(case.material) for _ in range(many)]
    runs.append(context.remote.gradients(case.material))
    context.remote.load(case.material)
    runs += [context.remote.gradients(case.material) for _ in range(2)]
    expected = partial(case.gradients, case.material, "main")
    forward = partial(case.forward, "inference", case.material, "main")
    for number, found in enumerate(passes[1:], start=2):
        fault = f"{{}} of forward pass {number} is not that of the first"
        finding.held += hold_again(context, finding, passes[0], found, forward, fault)
    for number, run in enumerate(runs[1:], start=2):
        fault = f"{{}} of call {number} is not that of call 1"
        finding.held += hold_again(context, finding, runs[0], run, expected, fault)
    yield finding


def aliasing(context: Context) -> Iterator[Finding]:
    """The caller's arrays stay as they are, and results stay what they were."""
    case = context.case
    other = case.batch_of(case.batch, case.time, 3)
    calls = [{"inputs": m.inputs, "state": m.state} for m in (case.material, other)]
    faults = context.remote.call(
        "aliasing",
        parameters=case.material.parameters,
        statistics=case.material.statistics,
        calls=calls,
    )
    yield Finding("aliasing", faults=list(faults), held=1)
