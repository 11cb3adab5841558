"""Explaining how a user's own model differs from the spec: the first wrong tensor and module, and a
change of the spec that would explain the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from harness.arrays import Array, Arrays
from harness.checking.checks.extremes import corner_material
from harness.checking.first_difference import DECISIVE, join_names
from harness.checking.own_model.checks import (
    ModelContext,
    compare_gradients,
    far_material,
    without_empty_rows,
)
from harness.checking.own_model.first_module import find_first_module, find_random_module
from harness.checking.own_model.guesses import Hint, guesses
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation, relative_error, scales
from harness.program.signature import owner_of, result_ports
from harness.results.findings import AGREEING, Finding
from harness.runtime.answers import Arguments
from harness.worker.remote import WorkerFault

# Explain why the moving statistics of a user's model differ from the spec.

PREFIX = "statistics."
# LEFT is the largest share of a difference that an explanation may leave unexplained. WHOLE is the
# largest relative distance of a computed batch size from an integer.
LEFT, WHOLE = 1e-4, 1e-2


def explain_statistics(
    case: Case, statistics: Mapping[str, tuple[Array, Array]], names: Sequence[str]
) -> Hint:
    """Return a hint that the model uses a different momentum or the sample variance, if this
    explains all differences. Otherwise return an empty hint.

    Args:
        case: The test case, which has the statistics before the training pass.
        statistics: ``statistics.NAME`` -> the values of the model and of the spec after the pass.
        names: The names of the tensors that differ.
    """
    wrong = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    if len(wrong) < len(names) or not wrong:
        return Hint("")
    before = case.material.statistics
    pairs = {n: statistics[f"{PREFIX}{n}"] for n in wrong if f"{PREFIX}{n}" in statistics}
    comparable = (m.shape == w.shape and np.isfinite(m).all() for m, w in pairs.values())
    if len(pairs) < len(wrong) or not all(comparable):
        return Hint("")
    others = {*_find_momenta(case, pairs, before)}
    if len(others) == 1 and None not in others:
        own, other = next(pair for pair in others if pair)
        layers = tuple(dict.fromkeys(map(owner_of, wrong)))
        return Hint.of_attribute("momentum", layers, other, own)
    if all(_uses_sample_variance(*pairs[n], before[n]) for n in wrong):
        return Hint(
            "The model updates the moving variance with the sample variance, which is n / (n - 1) "
            "times the variance of a batch of n, as torch's BatchNorm does"
        )
    return Hint("")


def _find_momenta(
    case: Case, pairs: Mapping[str, tuple[Array, Array]], before: Arrays
) -> Iterator[tuple[float, float] | None]:
    """Yield for each tensor the spec's momentum and the momentum that explains the model's values,
    or None if no momentum explains the values."""
    own = {
        str(node.attributes["instance"]): node.attributes["attributes"].get("momentum")
        for node in case.training.calls
        if "instance" in node.attributes
    }
    for name, (actual, expected) in pairs.items():
        momentum = own.get(owner_of(name))
        if not isinstance(momentum, float | int):
            yield None
            continue
        decay = (before[name] - expected).ravel()
        share = float(decay @ (actual - expected).ravel() / (decay @ decay)) if decay.any() else 0.0
        unexplained = np.abs(actual - expected - share * (before[name] - expected)).max()
        fits = unexplained <= LEFT * np.abs(actual - expected).max()
        other = round(momentum + share * (1 - momentum), 6)
        yield (momentum, other) if fits else None


def _uses_sample_variance(actual: Array, expected: Array, before: Array) -> bool:
    """Return whether the sample variance explains the model's values. This is n / (n - 1) times the
    variance of the batch."""
    error = (actual - expected).ravel()
    basis = np.stack([expected.ravel(), before.ravel()], 1)
    if len(error) < 3 or not error.any():
        return False
    shares = np.linalg.lstsq(basis, error, rcond=None)[0]
    unexplained = np.abs(error - basis @ shares).max()
    count = 1 + 1 / shares[0] if shares[0] > 0 else 0.0
    return bool(
        unexplained <= LEFT * np.abs(error).max() and abs(count - round(count)) < WHOLE * count
    )


# Guesses are tried only if the test case has at most ENTRIES numbers, and only the first TRIED
# guesses.
TRIED, ENTRIES = 200, 2_000_000
# Relative errors between these limits are typical of models that compute in float32.
LEAST_NARROW, MOST_NARROW = 1e-9, 1e-5
# Checks with unusual values -> a description of these values, and the function that makes them.
FAR_OUT: Mapping[str, tuple[str, Callable[[Case], Arguments]]] = {
    "saturation": ("weights and inputs four times as large", far_material),
    "corners": ("pre-activations that equal the biases", corner_material),
}


def locate(context: ModelContext, findings: Sequence[Finding]) -> Hint:
    """Return a hint with the tensors that differ, the first wrong time step, and a change of the
    spec that would explain the differences."""
    wrong = {f.check: f for f in findings if f.verdict == "differ"}
    if "repeatability" in wrong:
        text = "the model returns different results in each call, so nothing else can be compared"
        return Hint("; ".join(filter(None, (text, find_random_module(context)))))
    forward = wrong.get("inference")
    first = next((d for d in forward.deviations if not d.agrees), None) if forward else None
    if forward is not None and first is not None:
        hint = _test_guesses(context, forward) or Hint(
            _match_other_output(context, first) or _match_function(context, first)
        )
        hint = _add_module(
            context, hint, context.case.material, first, _match_float32(context, forward)
        )
        return hint.with_prefix(f"outputs: {_describe_difference(context, first)}")
    if "cotangent-gradients" in wrong:
        names = [d.name for d in wrong["cotangent-gradients"].deviations if not d.agrees]
        right = [d.name for d in wrong["cotangent-gradients"].deviations if d.agrees]
        text = f"gradients: the outputs are right; wrong: {_join_names(names)}"
        text += f"; right: {_join_names(right)}" if right else " (all of them)"
        return Hint(f"{text}{_describe_empty_rows(context)}", _find_layers(names))
    if unusual := [name for name in FAR_OUT if name in wrong]:
        text = "; ".join(f"{name}: {FAR_OUT[name][0]}" for name in unusual)
        material = FAR_OUT[unusual[0]][1](context.case)
        first = next(d for d in wrong[unusual[0]].deviations if not d.agrees)
        return _add_module(context, Hint(""), material, first).with_prefix(
            f"outputs: right for ordinary values, wrong for unusual values ({text})"
        )
    trained = [wrong[name] for name in ("outputs", "statistics") if name in wrong]
    if trained:
        names = [d.name for finding in trained for d in finding.deviations if not d.agrees]
        text = f"training: inference is right; wrong in training mode: {_join_names(names)}"
        hint = explain_statistics(context.case, context.statistics, names).with_prefix(text)
        return hint if hint.layers else replace(hint, layers=_find_layers(names))
    checks = ", ".join(wrong)
    return Hint(f"the outputs and gradients are right; checks that differ: {checks}")


def _add_module(
    context: ModelContext, hint: Hint, material: Arguments, first: Deviation, otherwise: str = ""
) -> Hint:
    """Add the first wrong module to a hint. The hint keeps its own layers. If neither the hint nor
    a change of the module's layer explains the difference, add the text ``otherwise``."""
    # Parts of the model may compute in float32, but do not explain a large difference.
    is_narrow = context.dtype == "float64" and first.error > MOST_NARROW
    dtype = "float32" if is_narrow else context.dtype
    module, cause = find_first_module(context, material, dtype, explain=not hint.text)
    hint = hint if hint.text else cause
    text = ". ".join(filter(None, (module.text, hint.text or otherwise)))
    return replace(hint, text=text, layers=hint.layers or module.layers)


def _describe_empty_rows(context: ModelContext) -> str:
    """Return a sentence if all gradients agree without rows of length 0, otherwise an empty text.

    In such a row, a softmax over a mask has only masked entries. A model that adds a large negative
    number to the scores then has the right results, but other gradients than ``where``.
    """
    material = without_empty_rows(context.case)
    if material is None:
        return ""
    try:
        finding = compare_gradients(context, material, "no empty rows").judge()
    except WorkerFault:  # the model rejects these rows
        return ""
    if finding.verdict not in AGREEING:
        return ""
    return (
        ". Only rows of length 0 differ, because without them all gradients agree: the model adds "
        "a large number at masked entries, but the spec selects unmasked entries"
    )


def _find_layers(names: Sequence[str]) -> tuple[str, ...]:
    own = (name.removeprefix("gradient.").removeprefix(PREFIX) for name in names)
    return tuple(dict.fromkeys(filter(None, map(owner_of, own))))


def _join_names(names: Sequence[str]) -> str:
    return join_names([name.removeprefix("gradient.") for name in names], most=6)


def _get_expected(context: ModelContext) -> dict[str, Array]:
    return dict(context.expected(context.case.material, "main", context.results).values)


def _describe_difference(context: ModelContext, first: Deviation) -> str:
    """Describe the difference of a tensor: the number of wrong entries, the worst entry, and the
    wrong time steps."""
    result = context.results[first.name]
    if first.reason or not isinstance(result, np.ndarray):
        return str(first)
    actual = result.astype(np.float64)
    expected = _get_expected(context)[first.name].astype(np.float64)
    scale = scales({first.name: expected})[first.name]
    with np.errstate(all="ignore"):
        gap = np.abs(actual - expected)
    wrong = ~(gap <= first.tolerance * scale)
    worst = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
    index = [int(i) for i in np.unravel_index(worst, expected.shape)] if expected.ndim else []
    text = (
        f"{first.name} is off by {first.error:.2e}{first.unit} in {int(wrong.sum()):,} of "
        f"{wrong.size:,} entries; "
        f"the worst is {index}, {actual[tuple(index)]:.6g} instead of {expected[tuple(index)]:.6g}"
    )
    text += _describe_rows(context, first.name, wrong)
    axis = _find_axis(context, first.name, "time")
    if axis is None:
        return text
    steps = np.flatnonzero(wrong.any(axis=tuple(a for a in range(wrong.ndim) if a != axis)))
    count = wrong.shape[axis]
    if not steps.size:
        return text
    start = f"from time step {steps[0]} of {count} on" if steps[0] else "from the first time step"
    missing = sorted(set(range(int(steps[0]), count)) - {int(n) for n in steps})
    return f"{text}; it differs {start}{f', but not at {missing}' if missing else ''}"


def _find_axis(context: ModelContext, name: str, size: str) -> int | None:
    program = context.case.inference
    value = result_ports(program, "forward")[name]
    shape = program.types[value].shape
    return next((n for n, dim in enumerate(shape) if str(dim) == size), None)


def _describe_rows(context: ModelContext, name: str, wrong: Array) -> str:
    """Describe the wrong rows of a batch if other rows are right; otherwise return an empty text.
    If an integer input has the same value in exactly the wrong rows, e.g. length 0, the text names
    it."""
    axis = _find_axis(context, name, "batch")
    if axis is None:
        return ""
    rows = wrong.any(axis=tuple(a for a in range(wrong.ndim) if a != axis))
    if rows.all() or not rows.any():
        return ""
    numbers = ", ".join(str(n) for n in np.flatnonzero(rows))
    text = f", only in row{'s' if rows.sum() > 1 else ''} {numbers} of the batch"
    for port in context.case.inference.inputs:
        array = context.case.material.inputs[port.name]
        if array.shape == rows.shape and array.dtype.kind == "i":
            values = {int(n) for n in array[rows]}
            if len(values) == 1 and not values & {int(n) for n in array[~rows]}:
                text += f", where {port.name} is {values.pop()}"
    return text


def _test_guesses(context: ModelContext, forward: Finding) -> Hint | None:
    """Return the hint of the first guess with which the spec gives the same results as the model;
    None if there is no such guess."""
    if context.case.entries > ENTRIES:
        return None
    expected = _get_expected(context)
    actual = {n: a for n, a in context.results.items() if isinstance(a, np.ndarray)}
    compared = [d for d in forward.deviations if not d.reason and d.name in actual]
    scale = scales(expected)
    for number, (hint, changed) in enumerate(guesses(context)):
        if number == TRIED or not compared:
            break
        values = changed()
        same_form = all(values[d.name].shape == expected[d.name].shape for d in compared)
        # A guess must change the results by much more than the tolerance. Otherwise, agreement
        # proves nothing.
        if same_form and all(
            relative_error(actual[d.name], values[d.name], scale[d.name]) <= d.tolerance
            for d in compared
        ):
            effect = max(
                relative_error(values[d.name], expected[d.name], scale[d.name]) / d.tolerance
                for d in compared
            )
            if effect > DECISIVE:
                return hint
    return None


def _match_other_output(context: ModelContext, first: Deviation) -> str:
    """Return a hint if the output equals a different output of the spec; otherwise return an empty
    text."""
    result = context.results[first.name]
    if first.reason or not isinstance(result, np.ndarray):
        return ""
    case = context.case
    material = context.material(case.material)
    all_outputs = case.forward(
        "inference", material, ("a user's model", context.takes, "main")
    ).values
    for name, array in all_outputs.items():
        if name != first.name and array.shape == result.shape:
            error = relative_error(result, array, float(np.abs(array).max()) or 1.0)
            if error <= first.tolerance:
                other = name.removeprefix("output.")
                return f"The output equals {other} of the spec: use --returns {other}"
    return ""


def _match_function(context: ModelContext, first: Deviation) -> str:
    """Return a hint if the output equals softmax, log_softmax or sigmoid of the spec's output;
    otherwise return an empty text."""
    result = context.results[first.name]
    if first.reason or not isinstance(result, np.ndarray) or not result.ndim:
        return ""
    # Imported here because importing SciPy takes a fifth of the start-up time of a command.
    from scipy.special import expit, log_softmax, softmax

    functions: Mapping[str, Callable[[Array], Array]] = {
        "softmax": partial(softmax, axis=-1),
        "log_softmax": partial(log_softmax, axis=-1),
        "sigmoid": expit,
    }
    expected = _get_expected(context)[first.name].astype(np.float64)
    name = first.name.removeprefix("output.")
    for label, function in functions.items():
        if relative_error(result, function(expected), 1.0) <= DECISIVE * first.tolerance:
            return f"The output equals {label}({name}): return {name} itself, as the spec does"
    return ""


def _match_float32(context: ModelContext, forward: Finding) -> str:
    """Return a hint if the cell's dtype is float64, but the errors are typical of float32;
    otherwise return an empty text."""
    errors = [d.error for d in forward.deviations if not d.agrees]
    if context.dtype == "float64" and all(LEAST_NARROW < error < MOST_NARROW for error in errors):
        return "Such errors are typical of float32: part of the model computes in float32"
    return ""
