"""Where runs took place: machine, versions, and what of them changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.inputs import BenchRun, CheckRun, Inputs
from harness.results.environment import Machine
from harness.runs.compared import Differing


@dataclass(frozen=True)
class FactRow:
    """A fact of the environment, and what it was in an older run if it was another."""

    name: str
    now: str
    before: str = ""


def facts(inputs: Inputs) -> list[str]:
    """The few that stand at the top: of the check, or of speeds that are of one run."""
    run: CheckRun | BenchRun | None = inputs.check
    machine: Machine | None = None
    if inputs.check is not None and inputs.check.heads:
        machine = inputs.check.heads[-1].machine
    elif inputs.check is None and len(inputs.benches) == 1:
        run = inputs.benches[0]
        machine = run.file.environment.machine
    if run is None:
        return []
    found = [run.started, f"{machine.cpu} · {machine.usable_cores} cores"] if machine else []
    versions = (v for text in run.versions.values() for v in text.split(", "))
    return [*found, *dict.fromkeys(versions)]


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
    """All facts; where files do not have the same one, each with the file that it is of."""
    by_file = {run.name: _of_speeds(run) for run in inputs.benches}
    if inputs.check is not None:
        by_file = {inputs.check.name: _of_checks(inputs.check), **by_file}
    files: dict[str, dict[str, list[str]]] = {}
    for file, told in by_file.items():
        for name, value in told.items():
            if value:
                files.setdefault(name, {}).setdefault(value, []).append(file)
    return {
        name if len(values) == 1 else f"{name} ({', '.join(of)})": value
        for name, values in files.items()
        for value, of in values.items()
    }


def _of_checks(check: CheckRun) -> dict[str, str]:
    found: dict[str, str] = {}
    if check.heads:
        head = check.heads[-1]
        found |= {"harness": head.harness, **_machine(head.machine)}
        for backend, version in sorted(check.versions.items()):
            found[f"version of {backend}"] = version
        for backend, variables in head.environment.items():
            found[f"variables of {backend}"] = _listed(variables)
    return found


def _of_speeds(run: BenchRun) -> dict[str, str]:
    told = run.file.environment
    found = _machine(told.machine)
    found["threads when timed"] = str(told.threads)
    for backend, worker in told.workers.items():
        found[f"{backend} when timed"] = worker.told
        found[f"settings of {backend}"] = _listed(worker.settings)
    return found


def _machine(machine: Machine) -> dict[str, str]:
    names = ("host", "cpu", "usable_cores", "kernel", "architecture", "python", "clock", "governor")
    return {n.replace("_", " "): str(value) for n in names if (value := getattr(machine, n, None))}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
