"""A session in another process, behind a deadline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness.material import Arrays, Material
from harness.program import Phase, Program, UpdateRule
from harness.supervisor import Outcome, Worker
from harness.wire import encode


class WorkerFault(Exception):
    """A call that did not succeed; ``outcome`` says how."""

    def __init__(self, verb: str, outcome: Outcome) -> None:
        super().__init__(f"{verb}: {outcome.cause}")
        self.verb, self.outcome = verb, outcome


def not_offered(hello: Mapping[str, Any], device: str, dtype: str) -> str:
    """What of these a worker does not claim, by its own greeting, to have; empty if nothing."""
    for kind, wanted in (("device", device), ("dtype", dtype)):
        offered = hello.get(f"{kind}s", ())
        if wanted not in offered:
            listed = ", ".join(offered) or "none"
            return f"{kind} {wanted!r} is not offered (offered: {listed})"
    return ""


class Remote:
    """Drives one worker's session. All calls together must end ``timeout`` seconds from now."""

    def __init__(self, worker: Worker, timeout: float) -> None:
        self.worker = worker
        self.deadline = time.monotonic() + timeout

    def call(self, verb: str, **payload: Any) -> Any:
        """The verb's value; :class:`WorkerFault` if it failed, crashed or came too late."""
        outcome = self.outcome(verb, **payload)
        if outcome.status != "ok":
            raise WorkerFault(verb, outcome)
        return outcome.value

    def outcome(self, verb: str, **payload: Any) -> Outcome:
        """The outcome of a verb that is allowed to fail."""
        return self.worker.call(verb, payload, max(self.deadline - time.monotonic(), 0.001))

    def open(
        self,
        training: Program,
        inference: Program,
        rule: UpdateRule | None,
        path: str,
        dtype: str,
        device: str,
    ) -> dict[str, str]:
        """Start a session that is compiled quickly; returns the path of each layer."""
        value = self.call(
            "open",
            training=encode(training),
            inference=encode(inference),
            rule=encode(rule),
            path=path,
            dtype=dtype,
            device=device,
            quick=True,
        )
        return dict(value["paths"])

    def use_rule(self, rule: UpdateRule) -> dict[str, str]:
        """Train with another optimizer."""
        return dict(self.call("use_rule", rule=encode(rule))["paths"])

    def load(self, material: Material) -> None:
        """Set parameters and statistics."""
        self.call("load", parameters=material.parameters, statistics=material.statistics)

    def forward(
        self, phase: Phase, inputs: Arrays, state: Mapping[str, Any], targets: Arrays | None = None
    ) -> Any:
        """Results of a forward pass."""
        return self.call("forward", phase=phase, inputs=inputs, state=state, targets=targets)

    def gradients(self, material: Material, along: Arrays | None = None) -> Any:
        """Results, and ``gradient.NAME``, in training."""
        value = self.call(
            "gradients",
            phase="training",
            inputs=material.inputs,
            state=material.state,
            targets=material.targets,
            cotangents=along,
        )
        return value["results"] | {f"gradient.{n}": g for n, g in value["gradients"].items()}

    def train(self, batches: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> Any:
        """One step for each batch."""
        return self.call("train", batches=list(batches), state=state)
