"""The cases of a run, shared by all backends, and given up as soon as nobody needs them.

Backends go through the specs one after another, several beside each other, so a case is asked for
again and again while they pass. It goes with the last cell of its spec. Before that, in a run of
more specs than are kept, it goes when others were asked for since, and is made a second time for
the backends that come later: dearer than keeping it, but the memory of a run stays flat.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness.checking.request import Request, make_case
from harness.language.model import Spec
from harness.oracle.case import Case
from harness.oracle.complex_step import complex_step_gap
from harness.oracle.meaningless import check_meaning
from harness.oracle.patience import OracleFault

KEPT = 32
"""Cases of so many specs stay; more than a run of Lesson 6 has."""


class SharedCases:
    """Cases by spec, each made once; and ``proofs``: how far each oracle gradient is from the
    complex step."""

    def __init__(self, request: Request, kept: int = KEPT) -> None:
        self.request, self.kept = request, kept
        self.proofs: dict[str, float] = {}
        self._cases: OrderedDict[str, dict[bool, Case]] = OrderedDict()
        self._faults: dict[str, OracleFault] = {}
        self._left: Counter[str] = Counter()
        self._turns: dict[str, _Turn] = {}
        self._lock = threading.Lock()

    def plan(self, specs: Iterable[str]) -> None:
        """Each name is that of a cell to come; see :meth:`done`."""
        self._left.update(specs)

    def done(self, spec: str) -> None:
        """A planned cell of the spec has ended."""
        with self._lock:
            self._left[spec] -= 1
            if self._left[spec] <= 0:
                del self._left[spec]
                self._cases.pop(spec, None)

    def get(self, spec: Spec, *, own: bool) -> Case:
        """A spec's case, small or at its own sizes.

        Raises:
            OracleFault: the oracle could not make it, now or the first time.
        """
        with self._turn(spec.name):
            if spec.name in self._faults:
                raise self._faults[spec.name]
            found = self._used(spec.name).get(own)
            if found is None:
                try:
                    found = self._made(spec, own)
                except OracleFault as fault:
                    self._faults[spec.name] = fault
                    raise
                self._used(spec.name)[own] = found
            return found

    def _made(self, spec: Spec, own: bool) -> Case:
        case = make_case(spec, self.request, own=own)
        if not own and spec.name not in self.proofs:
            if case.given is None:
                check_meaning(case)
            # Numbers that are given may lie on a kink or overflow; the equations are the same.
            drawn = replace(self.request, given=None)
            proved = case if case.given is None else make_case(spec, drawn, own=False)
            self.proofs[spec.name] = complex_step_gap(proved)
        return case

    def _used(self, spec: str) -> dict[bool, Case]:
        """The cases of a spec, which now is the last that was asked for."""
        with self._lock:
            entry = self._cases.setdefault(spec, {})
            self._cases.move_to_end(spec)
            while len(self._cases) > self.kept:
                self._cases.popitem(last=False)
            return entry

    @contextmanager
    def _turn(self, spec: str) -> Iterator[None]:
        """One thread at a time for each spec: the others wait for what it makes."""
        with self._lock:
            turn = self._turns.setdefault(spec, _Turn())
            turn.waiting += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.waiting -= 1
                if not turn.waiting:
                    del self._turns[spec]


class _Turn:
    """A lock that is there as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting = 0
