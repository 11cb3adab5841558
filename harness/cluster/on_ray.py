"""Work on the machines of a Ray cluster: its nodes, and processes on them that answer calls.

No other module imports Ray.
"""

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
# Settings that keep Ray's messages and the output of remote processes off the terminal.
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
}


# The seconds within which the head node of a cluster must accept a connection.
CONNECT_SECONDS = 5.0


class Lost(Exception):
    """Error: the process or machine that should answer a call has ended; the message says which."""


class ClusterError(HarnessError):
    """Error: there is no cluster, or the cluster cannot fulfil a request."""


@dataclass(frozen=True)
class ClusterNode:
    """A node of the cluster: a machine, or some of its CPUs. ``address`` identifies the machine."""

    id: str
    name: str
    address: str
    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"node {self.id[:8]} ({self.name})"


def address_of(on: str) -> str:
    """Return the address of a cluster from the value of ``--on``.

    Raises:
        UsageError: the value is neither ``ray`` nor ``ray://HOST:PORT``.
    """
    scheme, separator, address = on.partition("://")
    if scheme != "ray" or bool(separator) != bool(address):
        raise UsageError(
            f"--on takes ray (the cluster of this machine) or ray://HOST:PORT (the address that "
            f"'ray start --head' prints), found {on!r}"
        )
    return address or "auto"


class Cluster:
    """A connection to a Ray cluster. When the ``with`` block of this context manager ends, the
    processes that were started through the connection end too."""

    def __init__(self, on: str) -> None:
        """Connect to the cluster that ``on``, the value of ``--on``, names.

        Raises:
            UsageError: Ray is not installed, or ``on`` is not an address.
            ClusterError: there is no cluster at that address, or it has a different version of Ray.
        """
        address = address_of(on)
        _check_listening(address)
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
                f"there is no usable Ray cluster {where}: {first} ('ray start --head' starts a "
                "cluster and prints its address)"
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
        """End all processes that were started through the connection, then close the connection."""
        if not self._ray.is_initialized():
            return
        for actor in list(self._actors):
            actor.close()
        self._ray.shutdown()

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes that are alive and offer a CPU."""
        nodes = []
        for entry in self._ray.nodes():
            resources = entry.get("Resources", {})
            node = ClusterNode(
                entry["NodeID"],
                entry.get("NodeManagerHostname", ""),
                entry.get("NodeManagerAddress", ""),
                int(resources.get("CPU", 0)),
                int(resources.get("GPU", 0)),
            )
            if entry.get("Alive") and node.cpus:
                nodes.append(node)
        return nodes

    def actor(
        self, node: ClusterNode, target: str, argument: Any = None, *, cpus: int = 1, gpus: int = 0
    ) -> Actor:
        """Start a process on a node, and return the :class:`Actor` that sends calls to it. The
        process creates an object and answers calls of the object's methods.

        ``target`` is the object's class, e.g. ``harness.checking.cluster_cells:NodeCells``.
        ``argument`` is passed to its constructor. ``cpus`` and ``gpus`` are the numbers that Ray
        reserves for the process.
        """
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        strategy = strategies.NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        remote = self._ray.remote(_Host).options(
            num_cpus=cpus, num_gpus=gpus, scheduling_strategy=strategy, max_restarts=0
        )
        actor = Actor(self._ray, remote.remote(target, argument), self._actors)
        self._actors.append(actor)
        return actor


def _silence_nodes() -> None:
    """Stop Ray from printing messages of nodes to standard output, because a command may print JSON
    there.

    Ray prints the messages regardless of its log settings. The function that is replaced here is a
    private function of Ray.
    """

    def print_nothing(*_: object, **__: object) -> None:
        """Print nothing: the harness itself reports a lost node."""

    worker: Any = importlib.import_module("ray._private.worker")
    worker.print_to_stdstream = print_nothing


def _check_listening(address: str) -> None:
    """Raise :class:`ClusterError` if nothing listens at the address. Without this check, Ray would
    wait for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"no cluster answers at ray://{address}: {why}; 'ray start --head' prints "
            "the address of "
            "a cluster, HOST:PORT"
        ) from None


class Actor:
    """A process on a node of the cluster, which answers calls. When the ``with`` block of this
    context manager ends, the process ends too."""

    def __init__(self, ray: Any, handle: Any, among: list[Actor]) -> None:
        self._ray, self._handle, self._among = ray, handle, among

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # another thread already closed it
            self._among.remove(self)
            with contextlib.suppress(Exception):  # the process or the connection is gone
                self._ray.kill(self._handle)

    def begin(self, method: str, *arguments: Any) -> Any:
        """Start a method call and return its handle, for :meth:`result`. Calls are answered in the
        order in which they were started."""
        return self._handle.call.remote(method, *arguments)

    def result(self, handle: Any) -> Any:
        """Return the result of a call that :meth:`begin` has started.

        Raises:
            Lost: the process or its node has ended.
            ClusterError: the call failed, for example because a module or file is missing on the
                node.
        """
        errors = self._ray.exceptions
        try:
            outcome, value = self._ray.get(handle)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError) as error:
            raise Lost(str(error).strip().partition("\n")[0] or type(error).__name__) from None
        except errors.RayError as error:
            raise ClusterError(str(error).strip()) from None
        if outcome != "ok":
            raise ClusterError(value)
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method and wait for its result.

        Raises:
            Lost: the process or its node has ended.
            ClusterError: the call failed, e.g. because a module or file is missing on the node.
        """
        return self.result(self.begin(method, *arguments))


class _Host:
    """The object that answers the calls of an :class:`Actor`, in the process on the node. It
    creates the called object at the first call."""

    def __init__(self, target: str, argument: Any) -> None:
        self._target, self._argument = target, argument
        self._made: Any = None

    def call(self, method: str, *arguments: Any) -> tuple[str, Any]:
        # Send errors as text, because the other side may not be able to unpickle the exceptions.
        try:
            if self._made is None:
                module, _, name = self._target.partition(":")
                self._made = getattr(importlib.import_module(module), name)(self._argument)
            return "ok", getattr(self._made, method)(*arguments)
        except HarnessError as error:
            return "wrong", str(error)
        except Exception:
            return "fault", traceback.format_exc()


# Distribution of work over nodes. Each kind of work has at most one process on each node. The work
# of a lost process is given to another process.

T = TypeVar("T", bound=Hashable)
# TRIES: how often a process may be lost over the same item. FAILURES: how many processes in a row
# may be lost on one node before they take an item.
TRIES, FAILURES = 2, 3
# Seconds between two checks for new nodes.
LOOK_SECONDS = 1.0
# Seconds to wait for each thread at the end.
STOPPING = 2.0


class Queue(Generic[T]):
    """A queue of work items, e.g. of cells. Each item has a kind, e.g. the cell's backend.

    The queue also records on which kinds each node works. For each item, the queue counts the
    processes that ended unexpectedly while they worked on the item.
    """

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
        """The number of items that each thread has taken."""
        self.error: BaseException | None = None

    @property
    def finished(self) -> bool:
        """True if all items are done, or if the queue was stopped."""
        return self._stopped or not self._left

    def stop(self, error: BaseException | None = None) -> None:
        """Stop giving out items. If ``error`` is given, :func:`spread` then raises it."""
        with self._changed:
            self._stopped = True
            self.error = self.error or error
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until the queue is finished, but at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self.finished, seconds)

    def claim(self, node: str) -> str | None:
        """Return a kind of item for which a node can start a process, or None when the queue is
        finished.

        A kind qualifies only if items of this kind are waiting and no process of this node works on
        them yet. If several kinds qualify, the result is the kind with the most waiting items per
        working process. If no kind qualifies, wait, because items of lost processes may return to
        the queue.
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
        """Record that the node no longer works on items of this kind."""
        with self._changed:
            self._busy.discard((node, kind))
            self._changed.notify_all()

    def take(self, kind: str) -> T | None:
        """Return the next item of a kind, or None if no item is waiting."""
        with self._changed:
            waiting = self._waiting[kind]
            if not waiting or self._stopped:
                return None
            self.taken[threading.get_ident()] += 1
            return waiting.popleft()

    def done(self, item: T) -> None:
        """Record that the work on an item has ended."""
        with self._changed:
            self._left -= 1
            if self.finished:
                self._changed.notify_all()

    def lost(self, item: T) -> bool:
        """Record that a process ended unexpectedly while it worked on an item. Return True if the
        item is put back into the queue for a second try."""
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
    """Work on a queue until it is finished, on all nodes of the cluster. Nodes that join later take
    part too.

    For each node, ``slots(node)`` threads run in this process. Each thread calls ``work(node,
    kind)``, which starts a process on the node and sends it the waiting items of one kind.

    Raises:
        ClusterError: no node is left that can do the remaining items.
    """
    threads: list[threading.Thread] = []
    known_ids: set[str] = set()
    given_up: list[str] = []
    try:
        while not queue.finished:
            for node in cluster.nodes():
                if node.id not in known_ids:
                    known_ids.add(node.id)
                    for _ in range(slots(node)):
                        arguments = (cluster, queue, node, work, given_up)
                        # A daemon thread, so that a blocked call to Ray does not delay the exit.
                        thread = threading.Thread(target=_run_slot, args=arguments, daemon=True)
                        thread.start()
                        threads.append(thread)
            queue.wait(LOOK_SECONDS)
            if not queue.finished and not any(thread.is_alive() for thread in threads):
                why = f": {given_up[-1]}" if given_up else ""
                raise ClusterError(f"no node of the cluster can do the remaining work{why}")
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


def _run_slot(
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
            # The queue counts the losses over an item.
            failures = failures + 1 if queue.taken[me] == before else 0
            if failures == FAILURES:
                given_up.append(f"{node}: {lost}")
                return
        except BaseException as error:
            queue.stop(error)
            return
        finally:
            queue.release(node.id, kind)
