"""Work that is spread over nodes: each kind of it has one process a node, and what a lost process
was doing is done elsewhere."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from harness.cluster.on_ray import Cluster, ClusterError, ClusterNode, Lost

T = TypeVar("T", bound=Hashable)
# So often may a process be lost over one item; and so often in a row on one node before any.
TRIES, FAILURES = 2, 3
# Seconds between two looks at which nodes there are.
LOOK = 1.0
# Seconds that threads are waited for when a run is stopped.
STOPPING = 2.0


class Queue(Generic[T]):
    """Items that wait, by their kind; who works on which; and how often an item was lost."""

    def __init__(self, items: Iterable[T], kind: Callable[[T], str]) -> None:
        self._waiting: dict[str, deque[T]] = {}
        self._kind = kind
        for item in items:
            self._waiting.setdefault(kind(item), deque()).append(item)
        self._left = sum(map(len, self._waiting.values()))
        self._lost: Counter[T] = Counter()
        self._busy: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._stopped = False
        self.taken: Counter[int] = Counter()
        """How many items each thread has taken."""
        self.error: BaseException | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do, or to be waited for."""
        return self._stopped or not self._left

    def stop(self, error: BaseException | None = None) -> None:
        """Give out nothing more."""
        with self._changed:
            self._stopped = True
            self.error = self.error or error
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait for the end, but no longer than so."""
        with self._changed:
            self._changed.wait_for(lambda: self.finished, seconds)

    def claim(self, node: str) -> str | None:
        """A kind of which something waits, and nobody else does on this node; None at the end.

        That of which most waits for each of its processes. Waits while there is none: what another
        node is doing may come back.
        """
        with self._changed:
            while not self.finished:
                free = [k for k, q in self._waiting.items() if q and (node, k) not in self._busy]
                if free:
                    workers = Counter(kind for _, kind in self._busy)
                    kind = max(free, key=lambda k: len(self._waiting[k]) / (1 + workers[k]))
                    self._busy.add((node, kind))
                    return kind
                self._changed.wait()
        return None

    def release(self, node: str, kind: str) -> None:
        """The node does no more of that kind for now."""
        with self._changed:
            self._busy.discard((node, kind))
            self._changed.notify_all()

    def take(self, kind: str) -> T | None:
        """The next item of a kind, or None."""
        with self._changed:
            waiting = self._waiting[kind]
            if not waiting or self._stopped:
                return None
            self.taken[threading.get_ident()] += 1
            return waiting.popleft()

    def done(self, item: T) -> None:
        """An item has come to its end."""
        with self._changed:
            self._left -= 1
            if self.finished:
                self._changed.notify_all()

    def lost(self, item: T) -> bool:
        """A process was lost over an item; whether it is tried again."""
        with self._changed:
            self._lost[item] += 1
            again = self._lost[item] < TRIES
            if again:
                self._waiting[self._kind(item)].appendleft(item)
                self._changed.notify_all()
            return again


def spread(
    cluster: Cluster,
    queue: Queue[T],
    slots: Callable[[ClusterNode], int],
    work: Callable[[ClusterNode, str], None],
) -> None:
    """Work on a queue until it is finished, on all nodes that there are or that come to be.

    A node has so many ``slots``, each a thread here. ``work`` starts a process on a node, and does
    with it what waits of a kind.

    Raises:
        ClusterError: no node is left that could do the rest.
    """
    threads: list[threading.Thread] = []
    known: set[str] = set()
    given_up: list[str] = []
    try:
        while not queue.finished:
            for node in cluster.nodes():
                if node.id not in known:
                    known.add(node.id)
                    for _ in range(slots(node)):
                        arguments = (cluster, queue, node, work, given_up)
                        # Not waited for at the end of this process, whatever Ray is doing.
                        thread = threading.Thread(target=_slot, args=arguments, daemon=True)
                        thread.start()
                        threads.append(thread)
            queue.wait(LOOK)
            if not queue.finished and not any(thread.is_alive() for thread in threads):
                why = f": {given_up[-1]}" if given_up else ""
                raise ClusterError(f"no node of the cluster can do what is left{why}")
    except BaseException:
        queue.stop()
        raise
    finally:
        if not queue.error and not queue.finished:
            queue.stop()
    for thread in threads:
        thread.join(STOPPING)
    if queue.error is not None:
        raise queue.error


def _slot(
    cluster: Cluster,
    queue: Queue[T],
    node: ClusterNode,
    work: Callable[[ClusterNode, str], None],
    given_up: list[str],
) -> None:
    failures, me = 0, threading.get_ident()
    while (kind := queue.claim(node.id)) is not None:
        before = queue.taken[me]
        try:
            work(node, kind)
            failures = 0
        except Lost as lost:
            if node not in cluster.nodes():
                return
            # What was lost over an item is counted there.
            failures = failures + 1 if queue.taken[me] == before else 0
            if failures == FAILURES:
                given_up.append(f"{node}: {lost}")
                return
        except BaseException as error:
            queue.stop(error)
            return
        finally:
            queue.release(node.id, kind)
