"""Where runs took place: machine, versions, and what of them changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.inputs import Inputs
from harness.runs.compared import Differing


@dataclass(frozen=True)
class FactRow:
    """A fact of the environment, and what it was in an older run if it was another."""

    name: str
    now: str
    before: str = ""


def facts(inputs: Inputs) -> list[str]:
    """The few that stand at the top."""
    check = inputs.check
    found = []
    if check and check.heads:
        machine = check.heads[-1]["machine"]
        found = [check.started, f"{machine.get('cpu')} · {machine.get('usable_cores')} cores"]
    versions = dict.fromkeys(
        version
        for text in (check.versions if check else {}).values()
        for version in text.split(", ")
    )
    return found + list(versions)


def environment(inputs: Inputs, around: Sequence[Differing]) -> list[FactRow]:
    """What is not the same as in an older run, and then all facts."""
    changed = [_changed(each) for each in around]
    return changed + [FactRow(name, now) for name, now in _all(inputs).items()]


def _changed(each: Differing) -> FactRow:
    what = each.words or each.what
    name = f"{what} of {', '.join(each.of)}" if each.of else what
    if each.words:  # checksums, which say nothing to a person
        return FactRow(name, "now", "before")
    return FactRow(name, each.new, each.old)


def _all(inputs: Inputs) -> dict[str, str]:
    found: dict[str, str] = {}
    check = inputs.check
    if check and check.heads:
        head = check.heads[-1]
        found |= {"harness": str(head["harness"]), **_machine(head["machine"])}
        for backend, version in sorted(check.versions.items()):
            found[f"version of {backend}"] = version
        for backend, variables in head["environment"].items():
            found[f"variables of {backend}"] = _listed(variables)
    for run in inputs.benches:
        told = run.file.machine_info.get("harness")
        if not isinstance(told, Mapping):
            continue
        found |= _machine(told.get("machine") or {})
        found["threads when timed"] = str(told.get("threads"))
        for backend, worker in (told.get("workers") or {}).items():
            found[f"{backend} when timed"] = _listed(worker.get("versions") or {}, " ")
            found[f"settings of {backend}"] = _listed(worker.get("settings") or {})
    return {name: value for name, value in found.items() if value}


def _machine(machine: Mapping[str, Any]) -> dict[str, str]:
    names = ("host", "cpu", "usable_cores", "kernel", "architecture", "python", "clock", "governor")
    return {name.replace("_", " "): str(machine[name]) for name in names if machine.get(name)}


def _listed(values: Mapping[str, Any], between: str = "=") -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items())
