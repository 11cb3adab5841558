"""The test cases of a run, which all backends share.

Several backends check the same specs at the same time, so each case is used several times. A case
is deleted after the last cell of its spec. If a run has more than KEPT specs, the least recently
used case is deleted earlier, and made again when another backend needs the case. This takes time,
but limits memory.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from harness.checking.request import Request, make_case, make_huge_case
from harness.language.model import Spec
from harness.oracle.case import Case, check_finite_results
from harness.oracle.complex_step import complex_step_gap
from harness.oracle.time_limit import OracleFault

Kind = Literal["small", "own", "huge"]
"""The sizes of a test case: small sizes, the spec's own sizes, or the sizes of a huge model."""
KEPT = 32
"""The number of specs whose cases stay in memory; Lesson 6 has fewer specs."""


class SharedCases:
    """The test cases of a command. Each test case is made once, and all backends use it. ``proofs``
    maps the name of a spec to the error of the oracle's gradients relative to the complex-step
    method."""

    def __init__(self, request: Request, capacity: int = KEPT) -> None:
        self.request, self.capacity = request, capacity
        self.proofs: dict[str, float] = {}
        self._cases: OrderedDict[str, dict[Kind, Case]] = OrderedDict()
        self._faults: dict[str, OracleFault] = {}
        self._left: Counter[str] = Counter()
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def plan(self, specs: Iterable[str]) -> None:
        """Count how many cells of each spec will run. ``specs`` has one spec name for each cell."""
        self._left.update(specs)

    def done(self, spec: str) -> None:
        """Record that a cell of the spec has ended. After the last cell of the spec, delete the
        spec's test cases."""
        with self._lock:
            self._left[spec] -= 1
            if self._left[spec] <= 0:
                del self._left[spec]
                self._cases.pop(spec, None)
                self._turns.pop(spec, None)

    def get(self, spec: Spec, kind: Kind) -> Case:
        """Return a spec's test case at sizes of this kind.

        Raises:
            OracleFault: the oracle could not make the test case, in this call or in an earlier
                call.
        """
        with self._get_lock(spec.name):
            if spec.name in self._faults:
                raise self._faults[spec.name]
            case = self._get_cases(spec.name).get(kind)
            if case is None:
                try:
                    case = self._make_case(spec, kind)
                except OracleFault as fault:
                    self._faults[spec.name] = fault
                    raise
                self._get_cases(spec.name)[kind] = case
            return case

    def _make_case(self, spec: Spec, kind: Kind) -> Case:
        if kind == "huge":
            return make_huge_case(spec, self.request)
        case = make_case(spec, self.request, own=kind == "own")
        if kind == "small" and spec.name not in self.proofs:
            if case.given is None:
                check_finite_results(case)
            # The user's arrays may have values on a kink or may overflow, so test the oracle's
            # gradients with random arrays.
            random_request = replace(self.request, given=None)
            checked_case = (
                case if case.given is None else make_case(spec, random_request, own=False)
            )
            self.proofs[spec.name] = complex_step_gap(checked_case)
        return case

    def _get_cases(self, spec: str) -> dict[Kind, Case]:
        """Return the test cases of a spec that exist already. Mark the spec as most recently used
        in the cache."""
        with self._lock:
            entry = self._cases.setdefault(spec, {})
            self._cases.move_to_end(spec)
            while len(self._cases) > self.capacity:
                self._cases.popitem(last=False)
            return entry

    def _get_lock(self, spec: str) -> threading.Lock:
        """Return the lock of a spec. One thread makes the spec's case while other threads wait."""
        with self._lock:
            return self._turns.setdefault(spec, threading.Lock())
