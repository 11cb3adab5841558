"""Nodes that are run again and again at the same sizes, made ready once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

from harness.program.ir import Node
from harness.runtime.interpreter import Interpreter, PreparedNodes

# What is kept of a session: all of its functions, at several sizes each.
MOST = 64


class KeptNodes:
    """Prepared nodes by a key, which says what they are and at which sizes.

    A compiler may trace a run of them: their constants are made in each run anew.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, PreparedNodes] = {}

    def get(
        self,
        key: Hashable,
        made: Callable[[], tuple[Interpreter, Iterable[Node]]],
        ends: Iterable[int] | None = None,
    ) -> PreparedNodes:
        """What was prepared for a key, or is now: nodes, and what runs them. Of what they make,
        only ``ends`` are looked at, if given."""
        if key not in self._kept:
            if len(self._kept) == MOST:
                self._kept.clear()
            interpreter, nodes = made()
            self._kept[key] = replace(interpreter, anew=True).prepared(nodes, ends)
        return self._kept[key]
