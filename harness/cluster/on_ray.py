"""Ray: its nodes, and processes on them that answer calls. No other module imports it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from harness.errors import HarnessError, UsageError

EXTRA = "backend-comparison-harness[ray]"
NAMESPACE = "harness"
# What Ray would print into a terminal of ours: its own doings, and what actors print.
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
}


# Seconds in which the head of a cluster must take a connection.
REACHED = 5.0


class Lost(Exception):
    """The process that was to answer is gone, or its machine is; the message says how."""


class ClusterError(HarnessError):
    """There is no cluster, or it cannot do what was asked of it."""


@dataclass(frozen=True)
class ClusterNode:
    """A machine of the cluster, or a part of one: ``address`` tells machines apart."""

    id: str
    name: str
    address: str
    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"node {self.id[:8]} ({self.name})"


def address_of(on: str) -> str:
    """The address of a cluster, from what ``--on`` says.

    Raises:
        UsageError: it is neither ``ray`` nor ``ray://HOST:PORT``.
    """
    scheme, separator, address = on.partition("://")
    if scheme != "ray" or bool(separator) != bool(address):
        raise UsageError(
            f"--on takes ray, for the cluster that this machine is in, or ray://HOST:PORT with the "
            f"address that 'ray start --head' printed; found {on!r}"
        )
    return address or "auto"


class Cluster:
    """A connection to a cluster. Use as a context manager: its actors end with it."""

    def __init__(self, on: str) -> None:
        """Connect.

        Raises:
            UsageError: Ray is not installed, or ``on`` is no address.
            ClusterError: there is no cluster at that address, or not one of this version.
        """
        address = address_of(on)
        _check_reached(address)
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError:
            raise UsageError(f"--on {on} needs Ray: pip install {EXTRA!r}") from None
        _silence_nodes()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            where = "on this machine" if address == "auto" else f"at {address}"
            first = str(error).strip().partition("\n")[0]
            raise ClusterError(
                f"there is no Ray cluster {where} that can be used: {first} ('ray start --head' "
                "starts one, and prints its address)"
            ) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._actors: list[Actor] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all actors, and the connection."""
        if not self._ray.is_initialized():
            return
        for actor in list(self._actors):
            actor.close()
        self._ray.shutdown()

    def nodes(self) -> list[ClusterNode]:
        """The nodes that are alive and have a processor to give."""
        found = []
        for told in self._ray.nodes():
            resources = told.get("Resources", {})
            node = ClusterNode(
                told["NodeID"],
                told.get("NodeManagerHostname", ""),
                told.get("NodeManagerAddress", ""),
                int(resources.get("CPU", 0)),
                int(resources.get("GPU", 0)),
            )
            if told.get("Alive") and node.cpus:
                found.append(node)
        return found

    def actor(
        self, node: ClusterNode, target: str, argument: Any = None, *, cpus: int = 1, gpus: int = 0
    ) -> Actor:
        """A process on a node, which has a ``module:Class`` made from ``argument``."""
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        placed = strategies.NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        remote = self._ray.remote(_Host).options(
            num_cpus=cpus, num_gpus=gpus, scheduling_strategy=placed, max_restarts=0
        )
        actor = Actor(self._ray, remote.remote(target, argument), self._actors)
        self._actors.append(actor)
        return actor


def _silence_nodes() -> None:
    """Ray prints what nodes tell, of one that has died among others, to the standard output, which
    may be JSON, whatever it is told of logs. Where it does so is no public part of it."""

    def untold(*_: object, **__: object) -> None:
        """Nothing is printed: the harness tells itself of a node that is lost."""

    worker: Any = importlib.import_module("ray._private.worker")
    worker.print_to_stdstream = untold


def _check_reached(address: str) -> None:
    """Ray waits for minutes where nobody listens, and tells about it on the terminal."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACHED).close()
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"nothing answers at ray://{address}: {why}; 'ray start --head' prints the address of "
            "a cluster, HOST:PORT"
        ) from None


class Actor:
    """A process on a node. Use as a context manager."""

    def __init__(self, ray: Any, handle: Any, among: list[Actor]) -> None:
        self._ray, self._handle, self._among = ray, handle, among

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(ValueError):  # another thread was first
            self._among.remove(self)
            with contextlib.suppress(Exception):  # it is gone, or the connection is
                self._ray.kill(self._handle)

    def begin(self, method: str, *arguments: Any) -> Any:
        """Call a method; calls are answered one after another."""
        return self._handle.call.remote(method, *arguments)

    def result(self, begun: Any) -> Any:
        """What a call of :meth:`begin` gives.

        Raises:
            Lost: the process has ended, or its node.
            ClusterError: it cannot do that: what it is made of is missing or wrong there.
        """
        errors = self._ray.exceptions
        try:
            outcome, value = self._ray.get(begun)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError) as error:
            raise Lost(str(error).strip().partition("\n")[0] or type(error).__name__) from None
        except errors.RayError as error:
            raise ClusterError(str(error).strip()) from None
        if outcome != "ok":
            raise ClusterError(value)
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method and wait for what it gives.

        Raises:
            Lost: as of :meth:`result`.
            ClusterError: as of :meth:`result`.
        """
        return self.result(self.begin(method, *arguments))


class _Host:
    """The process's own side: makes the object when it is first asked."""

    def __init__(self, target: str, argument: Any) -> None:
        self._target, self._argument = target, argument
        self._made: Any = None

    def call(self, method: str, *arguments: Any) -> tuple[str, Any]:
        # Errors travel as text: an exception of ours need not be one that can be made again there.
        try:
            if self._made is None:
                module, _, name = self._target.partition(":")
                self._made = getattr(importlib.import_module(module), name)(self._argument)
            return "ok", getattr(self._made, method)(*arguments)
        except HarnessError as error:
            return "wrong", str(error)
        except Exception:
            return "fault", traceback.format_exc()


# Work that is spread over nodes: each kind of it has one process a node, and what a lost process
# was doing is done elsewhere.

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
