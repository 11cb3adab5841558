"""The lines of a record file as they are made of a run and of its results, field by field."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from harness.checking.record_forms import SCHEMA_VERSION
from harness.language.schema import Model
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding
from harness.worker.machine import machine

_DISTRIBUTION = "backend-comparison-harness"


def head(
    arguments: Sequence[str], versions: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """The first line of a run: the schema, the machine, and what was asked for.

    ``versions`` and ``environment`` are by backend, as the workers greeted with them.
    """
    return {
        "kind": "head",
        "schema": SCHEMA_VERSION,
        "harness": version(_DISTRIBUTION),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "arguments": list(arguments),
        "machine": machine(),
        "versions": dict(versions),
        "environment": dict(environment),
    }


def done_record(seconds: float) -> dict[str, Any]:
    """The last line of a run that came to its end."""
    return {"kind": "done", "seconds": round(seconds, 3)}


def model_record(model: Model, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return the entry of a model in the head of a record; ``sizes`` are those checked."""
    return {
        "sizes": dict(sizes),
        "layers": {name: use.layer for name, use in model.layers.items()},
        "equations": model.equations,
        "loss": model.loss or "",
    }


def result_records(result: CellResult) -> Iterable[dict[str, Any]]:
    """One record for each finding."""
    for finding in result.findings:
        yield finding_record(result, finding)


def finding_record(result: CellResult, finding: Finding) -> dict[str, Any]:
    """The record of one check; see ``docs/records.md``."""
    worst = finding.worst
    return {
        "kind": "result",
        **result.cell.record(),
        "backend_version": result.version,
        "check": finding.check,
        "verdict": finding.verdict,
        "error": worst.error if worst else None,
        "yardstick": worst.yardstick if worst else None,
        "ratio": worst.ratio if worst else None,
        "tolerance": worst.tolerance if worst else None,
        "worst": worst.name if worst else None,
        "seconds": round(finding.seconds, 6),
        "detail": finding.detail,
        "traceback": finding.traceback,
        "held": finding.held,
        "layers": dict(result.layers),
        **({"spread": list(worst.spread)} if worst and worst.spread else {}),
        **({"growth": [list(step) for step in finding.growth]} if finding.growth else {}),
    }


def begin_record(
    cell: Cell, signature: Mapping[str, str] | None, since: str = ""
) -> dict[str, Any]:
    """The record of a cell that starts; ``signature`` is what decides its numbers. Of one that is
    kept ``since`` is when the run began that decided it."""
    kept = {"since": since} if since else {}
    return {"kind": "begin", **cell.record(), "signature": signature, **kept}


def end_record(result: CellResult) -> dict[str, Any]:
    """The record of a cell that is finished."""
    return {
        "kind": "end",
        **result.cell.record(),
        "verdict": result.verdict,
        "seconds": round(result.seconds, 6),
        "could_not_run": result.could_not_run,
        "location": result.location,
        "blame": _blamed(result),
        "greeting": result.greeting,
        **({"divergence": result.divergence.record()} if result.divergence else {}),
        **({"not_compared": list(result.not_compared)} if result.not_compared else {}),
    }


def blame_record(result: CellResult) -> dict[str, Any]:
    """The record of a cell that has ended, and of which a later one has told who is at fault."""
    return {"kind": "blame", **result.cell.record(), "blame": _blamed(result)}


def _blamed(result: CellResult) -> dict[str, str] | None:
    return asdict(result.blame) if result.blame else None
