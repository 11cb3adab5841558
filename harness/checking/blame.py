"""The search for the code behind a difference: the same backend runs again on its other paths.

A backend has up to three paths: the framework's own layers, the spec's equations, and the equations
with a gradient derived by the harness. If one path differs from the oracle and a second path
agrees, the fault is in code that only the first path uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.checking.checks import CHECKS, FINDINGS, Context
from harness.checking.checks.values import PRIMITIVES
from harness.checking.reproducer import MATERIALS, make_pass
from harness.oracle.yardstick import Expected
from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING, WHOLE_STEPS, Blame, Who
from harness.runtime.answers import IllFormed, Misfit
from harness.worker.remote import Tensors

EQUATIONS = "equations"
# To compare two layers with each other, the noise is multiplied by this factor, because the
# rounding errors of both layers add up.
APART = 2.0
OPTIMIZER = "optimizer"
TRAINING = frozenset({"training", "training-sgd", "optimizer-steps", "trained"})


@dataclass(frozen=True)
class Witness:
    """Wrong results of a framework's own layers, from a cell whose equations agree with the oracle
    on the same framework.

    :class:`Witnesses` compares them with the results of other frameworks. ``label`` names the
    layers, and ``check`` is the check that differs. ``results`` are the framework's results, and
    ``expected`` the oracle's.
    """

    cell: Cell
    label: str
    check: str
    results: Tensors
    expected: Expected


def blame(context: Context, result: CellResult) -> Blame | None:
    """Run the first check that differs on the backend's other paths. Return which code is at fault,
    e.g. a framework layer or the plugin. Return None if no check differs.

    Raises:
        WorkerFault: a run on another path crashed, hung or raised an error.
    """
    first = next((f for f in result.findings if f.verdict == "differ"), None)
    if first is None:
        return None
    if first.check == PRIMITIVES:
        return Blame(who="plugin", words=f"A primitive is wrong: {first.faults[0]}")
    if result.right_if:
        words = f"Parameters are passed in the wrong order: results are right if {result.right_if}"
        return Blame(who="plugin", words=words)
    failed_paths = []
    for path in _choose_paths(context, result.layers):
        if _path_agrees(replace(context, path=path, outputs={}), first.check):
            culprit, words = _describe_fault(context, result, first.check, path)
            return Blame(who=culprit, words=f"The check {first.check} agrees with {words}")
        failed_paths.append(path)
    if _path_agrees(replace(context, eager=True, outputs={}), first.check):
        words = (
            f"The check {first.check} agrees if one operation runs after the other, so the fault "
            "is in the framework's compiler, or in how the plugin calls it"
        )
        return Blame(who="compiler", words=words)
    words = "has only one path, because no framework layer runs here"
    if failed_paths:
        paths = f"path{'s' if len(failed_paths) > 1 else ''} {_join_names(failed_paths)}"
        words = f"also fails on {paths}, so the fault is in code that all paths share"
    return Blame(who="plugin", words=f"The check {first.check} {words}")


def _describe_fault(context: Context, result: CellResult, check: str, path: str) -> tuple[Who, str]:
    """Return which code is at fault, and a text that describes the code of ``path``, a path on
    which ``check`` agrees."""
    if path == "derived":
        return "gradient", (
            "the gradient derived from the equations, so the fault is in the framework's "
            "differentiation, or in how the plugin calls it"
        )
    if context.path == "native":
        result.blamed_layers = at_fault(result, check)
        # List the framework's name of each layer, and the layer's name in the model.
        label = _join_names(
            [
                result.layers[key] + ("" if key == OPTIMIZER else f" (layer {key})")
                for key in result.blamed_layers
            ]
        )
        result.witness = _run_witness(context, result, check, label)
        return "layer", (
            "the plain equations on the same framework, so the fault is in "
            f"{label}, or in how the plugin calls it"
        )
    reference = "the framework's own layers" if path == "native" else "the framework's gradient"
    return "plugin", f"{reference}, so the fault is in the plugin's primitives"


def at_fault(result: CellResult, check: str) -> tuple[str, ...]:
    """Return the names of the framework layers that cause a difference on the native path, as the
    spec names these layers. If the cause is unknown, return the names of all framework layers."""
    native = [key for key, label in result.layers.items() if label != EQUATIONS]
    if check in TRAINING and OPTIMIZER in native:
        earlier = [f for f in result.findings if f.check not in (*TRAINING, WHOLE_STEPS)]
        if all(f.verdict in PASSING for f in earlier):
            return (OPTIMIZER,)
    wrong_layers = [key for key in native if key in result.wrong_layers]
    return tuple(wrong_layers or [key for key in native if key != OPTIMIZER] or native)


def _choose_paths(context: Context, layers: Mapping[str, str]) -> Iterator[str]:
    """Yield the backend's other paths. First comes the path that shares most code with the cell's
    path: if it agrees, little code remains that can be at fault.

    ``layers`` maps each layer to the code that runs it on the cell's path.
    """
    claimed = any(label != EQUATIONS for label in layers.values())
    if context.path == "native" and claimed:
        yield EQUATIONS
    elif context.path == EQUATIONS:
        paths = replace(context, path="native").open(context.case.spec.update)
        if any(label != EQUATIONS for label in paths.values()):
            yield "native"
    elif context.path == "derived":
        yield EQUATIONS
    if context.path != "derived":
        yield "derived"


def _path_agrees(context: Context, check: str) -> bool:
    context.open(context.case.spec.update)
    try:
        for finding in CHECKS[FINDINGS[check]](context):
            if finding.check == check:
                return finding.judge().verdict in PASSING
    except IllFormed:
        return False
    return False


def _run_witness(context: Context, result: CellResult, check: str, label: str) -> Witness | None:
    """Run ``check`` on the native path, and return its results, for a comparison with the layers of
    other frameworks. Return None if the results of this check cannot be compared. ``label`` names
    the layers."""
    if check not in MATERIALS:
        return None
    context.open(context.case.spec.update)
    run = make_pass(context.case, check)
    results = run.run(context.remote)
    if any(isinstance(value, Misfit) for value in results.values()):
        return None
    return Witness(result.cell, label, check, results, run.expected(context.case))


class Witnesses:
    """The wrong results of framework layers that were found so far in this command. If the layers
    of two frameworks differ from the spec's equations but agree with each other, the spec's
    definition of the layer is at fault."""

    def __init__(self) -> None:
        self._earlier: list[tuple[Witness, CellResult]] = []

    def compare(self, result: CellResult) -> list[CellResult]:
        """Compare the framework layers that ran in ``result`` with the framework layers of earlier
        results.

        If the layers of two frameworks agree with each other, record in both results that the spec
        is at fault. Return the earlier results that changed.
        """
        mine, result.witness = result.witness, None
        if mine is None:
            return []
        judged = []
        for witness, earlier in self._earlier:
            if _layers_agree(mine, witness):
                result.blame = _blame_spec(mine, witness)
                earlier.blame = _blame_spec(witness, mine)
                judged.append(earlier)
        self._earlier.append((mine, result))
        return judged


def _blame_spec(first: Witness, second: Witness) -> Blame:
    words = (
        f"{first.label} and {second.label} of {second.cell.backend} agree with each other, and "
        "both differ from the equations, so the fault is in the spec's definition"
    )
    return Blame(who="spec", words=words)


def _layers_agree(first: Witness, second: Witness) -> bool:
    cells = [replace(w.cell, backend="") for w in (first, second)]
    if cells[0] != cells[1] or first.check != second.check or first.label == second.label:
        return False
    dtype = first.cell.dtype
    noise = {name: APART * value for name, value in first.expected.noise(dtype).items()}
    wanted = Expected.within(second.results, noise, dtype)  # type: ignore[arg-type]
    return all(d.agrees for d in wanted.deviations(first.results, dtype))


def _join_names(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
