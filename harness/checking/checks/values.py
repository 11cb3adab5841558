"""Checks of outputs, loss, state, statistics and gradients against the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.checks.context import (
    Context,
    describe_first_difference,
    equal,
    list_differences,
    select_prefixes,
)
from harness.language.initial_values import (
    check_initial_values,
    initial_parameters,
    initial_state,
    initial_statistics,
)
from harness.oracle.case import state_of
from harness.oracle.tolerance import Deviation, prefixed
from harness.results.findings import Finding
from harness.runtime.answers import Misfit, check_all_arrays
from harness.runtime.session import Session

# Check initial values: the distribution of each parameter, and whether the backend returns loaded
# values unchanged.


def initial_values(context: Context) -> Iterator[Finding]:
    """Check the distributions of the initial values, drawn at the spec's own sizes. Then load
    initial values and read them back: the backend must return the same bits, in the cell's dtype.
    Finally compare a training pass and its gradients at these values."""
    case = context.case
    own = context.own.training
    if not own.parameters:
        return
    faults = check_initial_values(own, initial_parameters(own, case.seed))
    finding = Finding("initial-values", faults=faults, held=len(own.parameters))
    drawn = initial_parameters(case.training, case.seed)
    context.remote.call("load", parameters=drawn, statistics=case.material.statistics)
    read_back = context.remote.call("read")["parameters"]
    for name, array in drawn.items():
        finding.held += 1
        sent, returned = array.astype(context.float_dtype), read_back.get(name)
        if not equal(returned, sent):
            finding.faults.append(
                f"{name} changed when it was loaded and read"
                f"{describe_first_difference(returned, sent)}"
            )
    if case.training.loss is not None and not context.brief:
        finding.deviations = _compare_at_start(context, drawn)
    yield finding


def _compare_at_start(context: Context, drawn: ArrayDict) -> list[Deviation]:
    """Compare a training pass at the values with which training starts: scales are 1, and biases,
    states and means are 0. The other parameters are ``drawn`` from their distributions."""
    case, remote = context.case, context.remote
    statistics = initial_statistics(case.training)
    state = initial_state(case.training, case.batch)
    start = replace(case.material, parameters=drawn, statistics=statistics, state=state)
    remote.load(start)
    results = remote.forward("inference", start.inputs, state)
    deviations = context.finding("", results, case.forward("inference", start, "start")).deviations
    expected = case.gradients(start, "start").of_finite_gradients()
    deviations += context.finding("", remote.gradients(start), expected).deviations
    return prefixed("at the start, ", deviations)


# Test each primitive alone: only the shape and the dtype of its result. This check runs in every
# cell. If it passes and was not requested, it is not reported.
PRIMITIVES = "primitives"


def primitives(context: Context) -> Iterator[Finding]:
    """Test the shape and the dtype of each primitive's result, for the argument types that the
    model uses. Each primitive is tested once per worker process."""
    case = context.case
    probed = context.remote.call("primitives", batch=case.batch, time=case.time)
    yield Finding(
        PRIMITIVES,
        faults=list(probed["faults"]),
        held=probed["tried"],
        traceback=probed["traceback"],
    )


# Values compared in a held-out pass. Outputs are included because a loss is only one number.
TESTED = ("loss", "metric.", "output.")


def values(context: Context) -> Iterator[Finding]:
    """Compare a training pass: outputs, loss, metrics, new state, moving statistics and
    gradients."""
    case = context.case
    context.remote.load(case.material)
    expected = case.gradients(case.material, "main")
    results = context.remote.gradients(case.material)
    for name, array in results.items():
        if not isinstance(array, Misfit) and expected.shows_agreement(name, context.dtype):
            context.values[name] = array
    for check, prefixes in (
        ("outputs", ("output.",)),
        ("loss", ("loss", "metric.")),
        ("state", ("state.",)),
        ("statistics", ("statistics.",)),
        ("gradients", ("gradient.",)),
    ):
        expected_group = expected.only(*prefixes)
        if expected_group.values:
            yield context.finding(check, select_prefixes(results, *prefixes), expected_group)


def cotangents(context: Context) -> Iterator[Finding]:
    """Compare vector-Jacobian products: multiply each output and each new state by a random array
    of its shape, and compare the gradients of the sum of all these products."""
    case = context.case
    context.remote.load(case.material)
    expected = case.gradients(case.material, "main", case.cotangents).only("gradient.")
    gradients = context.remote.gradients(case.material, case.cotangents)
    yield context.finding("cotangent-gradients", select_prefixes(gradients, "gradient."), expected)


def inference(context: Context) -> Iterator[Finding]:
    """Compare an inference pass, in which normalisations use the moving statistics, not the
    statistics of the batch."""
    case = context.case
    context.remote.load(case.material)
    expected = case.forward("inference", case.material, "main")
    results = context.forward(case.material)
    outputs = select_prefixes(results, "output.")
    context.outputs.update({n: a for n, a in outputs.items() if not isinstance(a, Misfit)})
    yield context.finding("inference", results, expected)


def held_out(context: Context) -> Iterator[Finding]:
    """Compare the losses and metrics of two held-out batches in inference mode. The second batch
    starts from the state that the first batch returned. The evaluation must not change parameters
    or statistics."""
    case, remote = context.case, context.remote
    if case.inference.loss is None:
        return
    batches = (case.material, case.batch_of(case.batch, case.time, 4))

    def evaluate(forward: Callable[..., Arrays]) -> ArrayDict:
        values: ArrayDict = {}
        state: Arrays = case.material.state
        for number, batch in enumerate(batches, start=1):
            results = forward("inference", batch.inputs, state, batch.targets)
            state = state_of(results)
            values |= {
                f"batch {number}: {n}": a for n, a in select_prefixes(results, *TESTED).items()
            }
        return values

    def run(session: Session) -> Mapping[str, Array]:
        session.load(case.material.parameters, case.material.statistics)
        return evaluate(session.forward)

    remote.load(case.material)
    before = remote.call("read")
    results = evaluate(lambda *arguments: check_all_arrays(remote.forward(*arguments)))
    finding = context.finding("held-out", results, case.expect("held-out", run))
    after = remote.call("read")
    for group in ("parameters", "statistics"):
        fault = "{} was changed by an evaluation pass"
        finding.faults += list_differences(before[group], after[group], fault)
    yield finding


def carried_state(context: Context) -> Iterator[Finding]:
    """Compare two batches; the second starts from the state that the first batch returned. Then run
    the first batch again: its results must not change."""
    case = context.case
    if not case.material.state:
        return
    second = case.batch_of(case.batch, case.time)
    context.remote.load(case.material)
    first_results = context.forward(case.material)
    carried = state_of(check_all_arrays(first_results))
    second_results = context.remote.forward("inference", second.inputs, carried)

    def run_oracle(session: Session) -> Arrays:
        session.load(case.material.parameters, case.material.statistics)
        results = session.forward("inference", case.material.inputs, case.material.state)
        return session.forward("inference", second.inputs, state_of(results))

    finding = context.finding("carried-state", second_results, case.expect("carried", run_oracle))
    again = context.forward(case.material)
    fault = "{} differs after another batch: state was not reset"
    finding.faults += list_differences(first_results, again, fault, bits=True)
    yield finding
