"""Ray: its nodes, and processes on them that answer calls. No other module imports it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import traceback
from dataclasses import dataclass
from typing import Any, Self

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
