"""Conversion of a whole step of a session to one function, so that steps can be timed, or compiled
by the framework.

A step is a training step or a forward pass. It passes its ``carried`` tensors on to the next step:
in training the parameters, statistics, state and optimizer slots; in a forward pass the state. The
``fixed`` tensors stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from harness.errors import UsageError
from harness.program.ir import needed_nodes
from harness.program.plan import TOTAL, Plan, forward_plan, training_plan
from harness.program.signature import call_key, result_ports
from harness.runtime import promises, updates
from harness.runtime.native import Advance, F, Tensors
from harness.runtime.paths import DERIVED_PATHS
from harness.runtime.promises import ContractError
from harness.runtime.session import UPDATED, Session
from harness.runtime.updates import STEP

Purpose = Literal["train", "forward"]
# The key of the state of a framework's own optimizer, an opaque object, in the carried tensors.
OPTIMIZER = "optimizer"
RUN = "the function from execute()"
# Errors that occur if a plan returns wrong results.
BROKEN_PROMISE = (AttributeError, KeyError, TypeError)


@dataclass(frozen=True)
class TrainingStep:
    """A step of a session (a training step or a forward pass), in two parts: the computation of the
    framework, and the harness's own work.

    ``run`` is the computation. ``around(run)`` returns the whole step: the harness's own work, with
    a call of ``run`` in it. ``begin(state)`` returns the carried and the fixed tensors of the first
    step, from the values that the session has loaded. If the step runs a plan, ``orders`` maps each
    input of the plan to the order of its axes (:class:`harness.program.plan.Plan`).
    """

    around: Callable[[Callable[..., Any]], Advance]
    run: Callable[..., Any]
    begin: Callable[[Tensors], tuple[Tensors, Tensors]]
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def advance(self) -> Advance:
        """The whole step: a function from (carried, fixed, batch) to (next carried, results), each
        a dictionary of tensors."""
        return self.around(self.run)

    def idle(self, carried: Tensors, fixed: Tensors, batch: Tensors) -> Advance:
        """Return the step without the framework's computation. Timing it shows the time of the
        harness's own work.

        The framework computes once, in this call; the returned step uses this result each time.
        """
        returned: list[Any] = []

        def record(*arguments: Any) -> Any:
            returned.append(self.run(*arguments))
            return returned[-1]

        self.around(record)(carried, fixed, batch)
        return self.around(lambda *arguments: returned[-1])


def make_step(
    session: Session,
    purpose: Purpose,
    batch: Tensors,
    state: Tensors,
    learning_rate: float,
    *,
    total: bool = False,
) -> TrainingStep:
    """Return a step for a session that has loaded its parameters. ``purpose`` is ``train`` or
    ``forward``.

    ``batch`` is an example with the shapes of all later batches. A training step returns the
    ``loss``. A forward pass returns the outputs that no other output depends on. With ``total``, a
    training step also adds its loss to :data:`.plan.TOTAL`, a tensor that goes from step to step.

    Raises:
        UsageError: the model has no optimizer, or no native layer on path ``native-compiled``.
    """
    backend, model = session.backend.name, session.programs["training"].name
    if session.path == "native-compiled" and not session.natives["training"]:
        raise UsageError(
            f"{backend} has no native layer for the model {model}: use the path compiled"
        )
    if purpose == "forward":
        return _forward_step(session, batch, state)
    if session.rule is None:
        raise UsageError(f"{model} has no optimizer to train with")
    if session.path not in DERIVED_PATHS:
        sizes = session.sizes("training", {**batch, **state})
        step = _autograd_training(session, sizes, learning_rate, total)
        if step is not None:
            return step
    return _planned_training(session, batch, state, learning_rate, total)


def store(session: Session, carried: Tensors) -> None:
    """Put the tensors that the last step returned (``carried``) back into the session, so that they
    can be read."""
    session.variables.update({n: t for n, t in carried.items() if n in session.variables})
    session.statistics = {
        n: carried.get(f"statistics.{n}", t) for n, t in session.statistics.items()
    }
    if OPTIMIZER in carried:
        session.optimizer_state = carried[OPTIMIZER]
    for slot, tensors in session.slots.items():
        session.slots[slot] = {n: carried.get(f"{slot}.{n}", t) for n, t in tensors.items()}
    session.scaling = {n: carried.get(n, t) for n, t in session.scaling.items()}


def _forward_step(session: Session, batch: Tensors, state: Tensors) -> TrainingStep:
    program = session.programs["inference"]
    ports = result_ports(program, "ends")
    sizes = session.sizes("inference", {**batch, **state})
    calls = (n for n in needed_nodes(program.nodes, ports.values()) if n.op == "call")
    orders: Mapping[str, tuple[int, ...]] = {}
    if any(call_key(node) in session.natives["inference"] for node in calls):
        function = _compile_native(session, session.scripted("inference", "ends", sizes))
        run: Callable[[Tensors], Tensors] = lambda inputs: function(inputs, {})  # noqa: E731
    else:
        moved = session.path != "equations"
        backend = session.backend
        # A compiler fuses the nodes of a loop. A training loop would be too large to compile.
        choices = {"moved": moved, "fuses": backend.fuses or session.path == "compiled"}
        plan = forward_plan(program, sizes, session.dtype, backend.fused, **choices)
        run, orders = _plan_runner(session, plan), plan.orders

    def around(run: Callable[[Tensors], Tensors]) -> Advance:
        def advance(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            results = run({**fixed, **carried, **batch})
            try:
                following = {n: results[n] for n in carried}
                return following, {n: t for n, t in results.items() if n.startswith("output.")}
            except BROKEN_PROMISE:
                _check_results(results, carried)
                raise

        return advance

    def begin(state: Tensors) -> tuple[Tensors, Tensors]:
        return state, {**session.variables, **_statistics_tensors(session)}

    return TrainingStep(around, run, begin, orders)


def _compile_native(session: Session, function: F) -> F:
    return session.compiled_native(function) if session.path == "native-compiled" else function


def _plan_runner(session: Session, plan: Plan) -> Callable[[Tensors], Tensors]:
    plan, backend = replace(plan, products=session.products), session.backend
    if session.path == "compiled":
        run = promises.check_function(backend.compile_plan(plan), "compile_plan()")
    else:
        run = promises.check_function(backend.execute(plan), "execute()")
    names = tuple(plan.inputs)
    return lambda given: run(given if len(given) == len(names) else {n: given[n] for n in names})


def _check_results(results: Any, names: Iterable[str]) -> None:
    """Raise an error if the results of a plan are wrong. To save time, this is checked only after a
    step has failed.

    Raises:
        ContractError: the results are not a mapping, or a result is missing.
    """
    mapping = promises.check_mapping(results, RUN)
    lacking = [name for name in names if name not in mapping]
    if lacking:
        raise ContractError(f"{RUN} returned no {', '.join(lacking)}")


def _planned_training(
    session: Session, batch: Tensors, state: Tensors, learning_rate: float, total: bool
) -> TrainingStep:
    """Return a training step that runs a single plan (a list of operations). The plan computes the
    loss, the gradient, as derived by the harness, and the optimizer's update."""
    assert session.rule is not None
    if session.optimizer is not None:
        raise UsageError(
            f"{session.backend.name} claims {session.optimizer.label} but has no automatic "
            "differentiation: a step with a derived gradient needs the optimizer's equations"
        )
    plan = training_plan(
        session.programs["training"],
        session.rule,
        session.sizes("training", {**batch, **state}),
        session.dtype,
        session.backend.fused,
        learning_rate=learning_rate,
        total=total,
        scales=session.scales,
        fuses=session.backend.fuses,
    )
    run, outputs_to_carry, carried_names = (
        _plan_runner(session, plan),
        tuple(plan.carried),
        tuple(plan.carried.values()),
    )

    def around(run: Callable[[Tensors], Tensors]) -> Advance:
        def advance(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            outputs = run({**fixed, **carried, **batch})
            try:
                following = zip(
                    carried_names, map(outputs.__getitem__, outputs_to_carry), strict=True
                )
                return dict(following), {"loss": outputs["loss"]}
            except BROKEN_PROMISE:
                _check_results(outputs, ["loss", *outputs_to_carry])
                raise

        return advance

    def begin(state: Tensors) -> tuple[Tensors, Tensors]:
        start = {
            **session.variables,
            **_statistics_tensors(session),
            **state,
            **_optimizer_tensors(session),
        }
        start[TOTAL] = session.scalar(0.0)
        # Constants are read but never carried.
        fixed = {n: t for n, t in _statistics_tensors(session).items() if n not in carried_names}
        return {n: start[n] for n in carried_names}, fixed

    return TrainingStep(around, run, begin, plan.orders)


def _autograd_training(
    session: Session, sizes: Mapping[str, int], learning_rate: float, total: bool
) -> TrainingStep | None:
    """Return a training step with the framework's automatic differentiation. If the backend offers
    the framework's own optimizer, the step uses it too.

    Return None if the framework has no automatic differentiation.
    """
    trained = tuple(session.trained())
    frozen = tuple(n for n in session.variables if n not in trained)
    function = session.scripted("training", "step", sizes)

    def with_frozen(variables: Tensors, constants: Tensors) -> Tensors:
        return function({**variables, **{n: constants[n] for n in frozen}}, constants)

    gradient = session.automatic(with_frozen)
    if gradient is None:
        return None
    gradient = _compile_native(session, gradient)
    update = _native_update if session.optimizer is not None else _rule_update
    add, apart = session.backend.primitives["add"], {*trained, OPTIMIZER, TOTAL}

    def run(variables: Tensors, constants: Tensors, carried: Tensors) -> tuple[Tensors, Tensors]:
        results, gradients = gradient(variables, constants)
        return results, update(session, variables, gradients, carried, learning_rate)

    def around(run: Callable[..., tuple[Tensors, Tensors]]) -> Advance:
        def advance(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            variables = {n: carried[n] for n in trained}
            rest = {n: t for n, t in carried.items() if n not in apart}
            results, updated = run(variables, {**fixed, **rest, **batch}, carried)
            following = {n: results.get(n, t) for n, t in rest.items()}
            if total:
                following[TOTAL] = add(carried[TOTAL], results["loss"])
            return following | updated, {"loss": results["loss"]}

        return advance

    def begin(state: Tensors) -> tuple[Tensors, Tensors]:
        carried = {
            **session.trained(),
            **_statistics_tensors(session),
            **state,
            **_optimizer_tensors(session),
        }
        if total:
            carried[TOTAL] = session.scalar(0.0)
        return carried, {n: session.variables[n] for n in frozen}

    return TrainingStep(around, run, begin)


def _native_update(
    session: Session, variables: Tensors, gradients: Tensors, carried: Tensors, rate: float
) -> Tensors:
    assert session.optimizer is not None
    following: Tensors = {}
    rate_to_use: Any = rate
    if STEP in carried:
        gradients, rate_to_use = session.fed(variables, gradients, carried[STEP], rate)
        following = {STEP: _next_step_number(session, carried)}
    updated = session.optimizer.update(
        carried[OPTIMIZER], variables, gradients, rate_to_use, donate=True
    )
    try:
        new_state, new_variables = updated
        return {**new_variables, OPTIMIZER: new_state, **following}
    except (TypeError, ValueError):
        promises.check_pair(updated, *UPDATED)
        raise


def _rule_update(
    session: Session, variables: Tensors, gradients: Tensors, carried: Tensors, rate: float
) -> Tensors:
    updated = session.updated(session.rule_update().run, variables, gradients, carried, rate)
    if session.scales:
        updated, scale = updates.finish_scaled_step(
            session.interpreter({}), gradients, carried, updated
        )
        return updated | scale
    return {**updated, STEP: _next_step_number(session, carried)}


def _next_step_number(session: Session, carried: Tensors) -> Any:
    return session.backend.primitives["add"](carried[STEP], session.scalar(1.0))


def _statistics_tensors(session: Session) -> Tensors:
    return {f"statistics.{n}": t for n, t in session.statistics.items()}


def _optimizer_tensors(session: Session) -> Tensors:
    """Return the tensors of the optimizer that go from step to step: slots, step number (from 1)
    and loss scale."""
    step = {STEP: session.scalar(session.steps + 1.0)}
    if session.optimizer is not None:
        return {OPTIMIZER: session.optimizer_state, **(step if session.rule_update().feeds else {})}
    slots = {f"{slot}.{n}": t for slot, ts in session.slots.items() for n, t in ts.items()}
    return {**slots, **step, **session.scaling}
