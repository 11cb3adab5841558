"""Models that give no number: where all that could be compared is infinite or NaN."""

from __future__ import annotations

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError
from harness.oracle.case import Case
from harness.oracle.oracle import Oracle
from harness.oracle.patience import at_work
from harness.runtime.session import Session
from harness.runtime.traces import places, undistinguished


def check_meaning(case: Case) -> None:
    """Refuse a model of which nothing could be held against anything.

    Raises:
        UsageError: its loss is not finite in float64 at the numbers that are drawn; or, of a model
            without a loss, an output is not, in all of its entries.
    """
    if case.spec.model.loss is None:
        values = case.forward("inference", case.material, "main").values
        found = next((n for n, array in values.items() if array.size and _lost(array)), "")
        name = found.partition(".")[2]
    else:
        values = case.gradients(case.material, "main").values
        found = name = "" if np.isfinite(values["loss"]) else "loss"
    if found:
        what = (
            f"{case.training.name}: {name} is {_word(values[found])} at the numbers that are drawn"
        )
        raise UsageError(
            f"{what}, so that nothing could be compared{_origin(case)}; --inputs and --weights "
            "take numbers at which the model means something"
        )


def _lost(array: Array) -> bool:
    return array.dtype.kind == "f" and not np.isfinite(array).any()


def _word(array: Array) -> str:
    return "NaN" if np.isnan(array).any() else "infinite"


def _origin(case: Case) -> str:
    """The first named value that is not finite, and the equation that makes it."""
    program, material = case.training, case.material
    session = Session(Oracle(), program, case.inference, path="equations", dtype="float64")
    session.load(material.parameters, material.statistics)
    with at_work(), np.errstate(all="ignore"):
        trace = session.trace("training", material.inputs, material.state, material.targets)
    for name, _, array in trace:
        off = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(0, np.bool_)
        if off.any():
            place = places(program).get(undistinguished(name))
            where = f" ({place})" if place else ""
            many = f"in {int(off.sum()):,} of its {off.size:,} entries" if off.size > 1 else ""
            return f": the first value that is not finite is {name}{where} {many}".rstrip()
    return ""
