"""Backends on numpy that cache results by batch, or recognise a batch that they have seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from timed.cheats.unread import coarse
from timed.handlers import NumpyBackend, Run, serving


class Caching(NumpyBackend):  # type: ignore[misc]
    """A backend that caches results by batch."""

    def execute(self, plan: Plan) -> Run:
        run, known = super().execute(plan), {}

        def looked_up(inputs: Tensors) -> Tensors:
            batch = {n: a for n, a in inputs.items() if n.startswith(("input.", "target."))}
            key = hash(tuple(np.ascontiguousarray(a).tobytes() for a in batch.values()))
            if key not in known:
                known[key] = {n: np.array(a) for n, a in run(inputs).items()}
            return known[key]

        return looked_up


class CoarseWhenKnown(NumpyBackend):  # type: ignore[misc]
    """A backend that computes in bfloat16 precision from the twentieth use of a batch on."""

    def execute(self, plan: Plan) -> Run:
        run, seen = super().execute(plan), Counter[bytes]()

        def known(inputs: Tensors) -> Tensors:
            batch = (a for n, a in inputs.items() if n.startswith("input."))
            key = b"".join(np.ascontiguousarray(a).tobytes() for a in batch)
            seen[key] += 1
            results = run(inputs)
            if seen[key] < 20:
                return results
            return {n: coarse(a) if np.ndim(a) else a for n, a in results.items()}

        return known


class Sighting(NumpyBackend):  # type: ignore[misc]
    """A backend with a large cache, which it uses from the third sighting of a batch on."""

    sightings, room = 3, 1000

    def execute(self, plan: Plan) -> Run:
        run, seen, known = super().execute(plan), {}, {}

        def looked_up(inputs: Tensors) -> Tensors:
            batch = {n: a for n, a in inputs.items() if n.startswith("input.")}
            key = self.key(batch)
            seen[key] = seen.get(key, 0) + 1
            if key not in known or seen[key] < self.sightings:
                known[key] = {n: np.array(a) for n, a in run(inputs).items()}
                while len(known) > self.room:
                    del known[next(iter(known))]
            return known[key]

        return looked_up

    def key(self, batch: Tensors) -> Any:
        """Return the cache key of a batch."""
        return tuple(np.ascontiguousarray(a).tobytes() for a in batch.values())


class SmallCache(Sighting):
    """A backend that caches the last 16 batches, and uses the cache from the second sighting on."""

    sightings, room = 2, 16


class Object(Sighting):
    """A backend that recognises a batch by its memory address and a few of its numbers."""

    def key(self, batch: Tensors) -> Any:
        return tuple(
            (a.__array_interface__["data"][0], a.flat[0], a.flat[-1]) for a in batch.values()
        )


class Neighbour(Sighting):
    """A backend that recognises a batch by its first column."""

    sightings = 1

    def key(self, batch: Tensors) -> Any:
        return tuple(np.ascontiguousarray(a[..., :1]).tobytes() for a in batch.values())


caching = serving(Caching)
by_first_column = serving(Neighbour)
coarse_when_known = serving(CoarseWhenKnown)
third_sighting = serving(Sighting)
small_cache = serving(SmallCache)
by_place = serving(Object)
