"""The settings of a `harness check` run, and the array sizes at which each spec is checked."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from harness.checking.checks import AT_GIVEN, CHECKS, FINDINGS, THOROUGH
from harness.checking.options import RunOptions
from harness.checking.own_model.against import Against
from harness.command.declared import check_ranges
from harness.command.ranges import MEMORY, SIZES
from harness.command.shared import check_resume
from harness.errors import SpecError, UsageError, check_known, did_you_mean, unknown
from harness.language.axes import FREE_SIZES, select_known_sizes
from harness.language.library import Library
from harness.language.model import Spec
from harness.oracle.case import HUGE, Case, entries_of
from harness.oracle.user_arrays import UserArrays
from harness.program.signature import nearest_sizes
from harness.results.lines import GivenNumbers
from harness.runtime.labels import backend_of, check_device
from harness.runtime.paths import KNOWN_DTYPES, PATHS
from harness.runtime.precision import host_dtype
from harness.worker.launch import SERVICE

# Test arrays have small sizes that are all different, so that swapped axes raise an error.
SMALL_SIZES: Mapping[str, int] = {"vocab": 11, "characters": 10, "factors": 5, "hidden": 7}
SMALL_BATCH, SMALL_TIME = 3, 4
# The batch size of a case at the spec's own sizes. In a small batch, fewer values are near a kink.
OWN_BATCH = 4
# The batch size of a huge model, unless the user sets it.
HUGE_BATCH: Mapping[str, int] = {"batch": 2}

# The largest absolute value allowed in a user's arrays, by dtype. For float64 the square of this
# value must be finite, because no wider dtype is available for the comparison.
LARGEST = {
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.sqrt(np.finfo(np.float64).max)),
}
# The checks of a model that is huge at all sizes. The two last ones do not run the model.
HUGE_CHECKS = ("own-sizes", "functions", "optimizer-steps")
# The defaults of ``--quick``: one model of each kind of recurrence.
QUICK: Mapping[str, Any] = {
    "specs": ("lesson6/simple_rnn", "lesson6/stateful_lstm", "lesson6/keras_gru"),
    "dtypes": ("float32",),
    "checks": ("values",),
}


@dataclass(frozen=True)
class Request(RunOptions):
    """The settings of a ``harness check`` command, as made from the options of the command line or
    of Python: the specs, backends and checks, and the user's arrays (``given``) or model
    (``against``).

    ``texts`` maps the name of a traced spec to its YAML. Backends check such a spec too, besides
    the user's model. Without ``texts``, a request with ``against`` checks only the model.
    """

    service: str = SERVICE
    given: UserArrays | None = None
    against: Against | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def library(self) -> Library:
        """The definitions of the request: traced specs, folders, and shipped specs."""
        overrides = {("model", name): text for name, text in self.texts.items()}
        return Library(tuple(self.folders), overrides)


def make_case(spec: Spec, request: Request, *, own: bool) -> Case:
    """Make the test case of a spec: a model at fixed sizes with random arrays. The sizes are small
    and distinct, or with ``own`` the spec's own sizes."""
    sizes, batch, time = case_sizes(spec, request, own=own)
    return Case(spec, sizes, batch, time, request.seed, request.given)


def make_huge_case(spec: Spec, request: Request) -> Case:
    """Make the test case of a huge model (:func:`where_huge`) at the sizes that the user has
    set."""
    sizes, batch, time = _choose_sizes(spec, {**HUGE_BATCH, **request.sizes}, own=True)
    return Case(spec, sizes, batch, time, request.seed)


def case_sizes(spec: Spec, request: Request, *, own: bool) -> tuple[Mapping[str, int], int, int]:
    """Return three things for a test case: the sizes by name, the batch size and the number of time
    steps. With ``own``, these are the spec's own sizes, otherwise small sizes. If the user gave
    arrays, they are the sizes of these arrays. Sizes that the user has set are used in both cases,
    unless the model is then huge (:func:`where_huge`)."""
    arrays = request.given
    if arrays is not None:
        return arrays.sizes, arrays.batch or SMALL_BATCH, arrays.time or SMALL_TIME
    huge = where_huge(spec, request)
    sizes = {} if huge == "asked" else request.sizes
    return _choose_sizes(spec, {**HUGE_BATCH, **sizes} if huge == "always" else sizes, own)


def where_huge(spec: Spec, request: Request) -> Literal["", "asked", "always"]:
    """Return whether a model has more than :data:`.case.HUGE` numbers only at the sizes that the
    user has set ("asked"), even at small sizes ("always"), or not ("").

    If "asked", only the check ``own-sizes`` uses these sizes. If "always", only
    :data:`HUGE_CHECKS` run. A user's own model has fixed sizes and few checks, and all of them run.
    """
    if request.given is not None or request.against is not None:
        return ""
    if _has_huge_case(spec, {}):
        return "always"
    return "asked" if request.sizes and _has_huge_case(spec, request.sizes) else ""


def describe_huge_models(specs: Iterable[Spec], request: Request) -> list[str]:
    """Return a note for each huge model, which says what is checked."""
    notes = {
        "asked": "these sizes, so only the check own-sizes uses them: it compares outputs, loss, "
        "gradients and a training step",
        "always": f"all sizes, so only these checks run: {', '.join(HUGE_CHECKS)}",
    }
    where = {spec.name: where_huge(spec, request) for spec in specs}
    return [f"{name} is huge at {notes[huge]}" for name, huge in where.items() if huge]


def _has_huge_case(spec: Spec, requested: Mapping[str, int]) -> bool:
    sizes, batch, time = _choose_sizes(spec, requested, own=False)
    return entries_of(spec.program(**sizes), batch, time) > HUGE


def _choose_sizes(
    spec: Spec, all_requested: Mapping[str, int], own: bool
) -> tuple[Mapping[str, int], int, int]:
    requested = select_known_sizes(spec.model.sizes, all_requested)
    model_sizes = {n: size for n, size in requested.items() if n not in FREE_SIZES}
    if own:
        training = spec.model.training
        time = spec.length
        batch = min(training.batch, OWN_BATCH) if training else OWN_BATCH
        sizes: Mapping[str, int] = model_sizes
    else:
        batch, time = SMALL_BATCH, SMALL_TIME
        sizes = small_sizes(spec, model_sizes)
    if "time" not in requested:
        batch, time = nearest_sizes(spec.program(**sizes), requested.get("batch", batch), time)
    return sizes, requested.get("batch", batch), requested.get("time", time)


def describe_arrays(arrays: UserArrays) -> GivenNumbers:
    """Describe the user's arrays (checksums and sizes) for a record file and for JSON output."""
    batch, time = arrays.batch or SMALL_BATCH, arrays.time or SMALL_TIME
    sizes = dict(arrays.sizes)
    return GivenNumbers(sha256=dict(arrays.digests), batch=batch, time=time, sizes=sizes)


def small_sizes(spec: Spec, fixed: Mapping[str, int]) -> dict[str, int]:
    """Return small, distinct values for the sizes of the spec that are not in ``fixed``, by name.
    No value exceeds the value in the spec. If the model rejects a smaller value, e.g. for an axis
    with sliding windows, the value in the spec is used."""
    small = {**_shrink_sizes(spec), **fixed}
    if _accepts_sizes(spec, small):
        return small
    sizes = {**spec.model.sizes, **fixed}
    for name, size in small.items():
        if _accepts_sizes(spec, {**sizes, name: size}):
            sizes[name] = size
    return sizes


def _accepts_sizes(spec: Spec, sizes: Mapping[str, int]) -> bool:
    try:
        spec.program(**sizes)
    except SpecError:
        return False
    return True


def _shrink_sizes(spec: Spec) -> dict[str, int]:
    used = {SMALL_BATCH, SMALL_TIME, *SMALL_SIZES.values()}
    structural = spec.program().structural
    sizes = {}
    for name, own in spec.model.sizes.items():
        small = SMALL_SIZES.get(name)
        if small is None:
            small = next(n for n in range(5, 10_000) if n not in used)
            used.add(small)
        # Two repeated blocks are enough: more blocks take longer and test nothing else.
        sizes[name] = min(2 if name in structural else small, own)
    return sizes


def choose_checks(patterns: Sequence[str], thorough: bool = False) -> tuple[str, ...]:
    """Return the names of the checks that match a pattern, e.g. ``train*``. A pattern may also
    match the name of a check's finding. Slow checks (:data:`.checks.THOROUGH`) must be named in
    full, unless ``thorough`` is set. Raise :class:`UsageError` if a pattern matches nothing."""
    all_names = (*CHECKS, *(name for name in FINDINGS if name not in CHECKS))
    if not patterns:
        raise UsageError(f"no check is selected (known: {', '.join(all_names)})")
    for pattern in patterns:
        if not fnmatch.filter(all_names, pattern):
            raise unknown("check", pattern, all_names)
    matching = {n for pattern in patterns for n in fnmatch.filter(all_names, pattern)}
    selected = {FINDINGS.get(name, name) for name in matching}
    slow = frozenset() if thorough else THOROUGH.difference(patterns)
    return tuple(name for name in CHECKS if name in selected - slow)


def check_request(request: Request, backends: Sequence[str]) -> None:
    """Raise :class:`UsageError` if a request is invalid. ``backends`` are the backends that will be
    checked. This function also covers requests made in Python, which no command line has checked.
    """
    check_resume(request.records, request.resume)
    for name in request.specs:
        if not isinstance(name, str):
            raise UsageError(f"a spec must be a name or the path of a file, found {name!r}")
    for kind, values, allowed in (
        ("dtype", request.dtypes, KNOWN_DTYPES),
        ("path", request.paths, PATHS),
    ):
        # If only the model of a traced spec runs, no path of backends is selected.
        if not values and not (kind == "path" and request.texts):
            raise UsageError(f"no {kind} is selected (known: {', '.join(allowed)})")
        for value in values:
            check_known(kind, value, allowed)
    check_ranges(request)
    check_device(request.device, backends)
    if request.given is not None:
        _check_arrays(request.given, request.dtypes)
    if request.memory_limit is not None:
        MEMORY.check(request.memory_limit)
    for size, number in request.sizes.items():
        SIZES.check(number, f"size {size!r}")
    for option, backend_names in (
        ("interpreter", tuple(request.pythons)),
        ("environment", tuple(request.environment)),
    ):
        for name in backend_names:
            if name not in backends:
                raise UsageError(
                    f"an {option} is given for {name!r}, which is not checked"
                    f"{did_you_mean(name, backends)} (checked: {', '.join(backends)})"
                )


def resolve_checks(request: Request) -> tuple[str, ...]:
    """Return the request's patterns of check names. If the user gave arrays, many checks cannot use
    them; then return the names of those selected checks that can.

    Raises:
        UsageError: a pattern matches no check, or only checks that do not use the user's arrays.
    """
    names = choose_checks(request.checks)
    if request.given is None:
        return request.checks
    for pattern in request.checks:
        if not {*choose_checks((pattern,))} & {*AT_GIVEN}:
            raise UsageError(
                f"the check {pattern} uses random data of its own: omit this check, or omit the "
                f"weights and inputs (checks that use them: {', '.join(AT_GIVEN)})"
            )
    return tuple(name for name in names if name in AT_GIVEN)


def _check_arrays(given: UserArrays, dtypes: Sequence[str]) -> None:
    for group in fields(given.arrays):
        for name, array in getattr(given.arrays, group.name).items():
            count_text = f"of the {array.size:,} numbers of {name} ({group.name})"
            invalid = int(np.count_nonzero(~np.isfinite(array)))
            if invalid:
                raise _not_comparable(invalid, count_text, "NaN or infinite")
            for dtype in dtypes:
                largest = LARGEST[host_dtype(dtype)]
                too_large = int(np.count_nonzero(np.abs(array) > largest))
                if too_large:
                    above = f"above {largest:.2g}"
                    raise _not_comparable(too_large, count_text, above, f" in {dtype}")


def _not_comparable(count: int, count_text: str, problem: str, where: str = "") -> UsageError:
    verb, subject, them = ("is", "it", "it") if count == 1 else ("are", "they", "them")
    return UsageError(
        f"{count:,} {count_text} {verb} {problem}, so {subject} cannot be compared{where} "
        f"(harness.run accepts {them})"
    )


def sort_slowest_first(names: Sequence[str]) -> list[str]:
    """Sort the backends from slow to fast, so that a slow backend does not start last and then run
    alone. Keras on JAX comes first, then JAX and other Keras backends, then all others, and numpy
    last."""
    slow_parts = ("keras", "jax")
    return sorted(
        names, key=lambda n: (backend_of(n) == "numpy", -sum(part in n for part in slow_parts))
    )
