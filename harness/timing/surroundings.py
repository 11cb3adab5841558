"""What is not the same around two files of results: versions, machines, variables, models."""

from __future__ import annotations

from harness.results.speeds import Environment, SpeedFile
from harness.runs.compared import Differing, differing, merged


def environment_changes(old: SpeedFile, new: SpeedFile) -> list[Differing]:
    """What is not the same around two files: versions, machine, threads, variables."""
    first, second = old.environment, new.environment
    found = differing(_flat(first), _flat(second))
    if "cpu" not in (first.device, second.device):
        found += differing({"GPU and driver": _cards(first)}, {"GPU and driver": _cards(second)})
    of_workers: list[Differing] = []
    for name, one in first.workers.items():
        if other := second.workers.get(name):
            of_workers += differing(one.versions, other.versions, (name,))
            of_workers += differing(one.environment, other.environment, (name,))
    return found + merged(of_workers) + _models(old, new)


def _models(old: SpeedFile, new: SpeedFile) -> list[Differing]:
    """The specs that mean another model than before, or have other sizes of their own."""
    before, after = (
        {entry.params.spec: entry.extra_info.model for entry in content.benchmarks}
        for content in (old, new)
    )
    found: list[Differing] = []
    for spec in before.keys() & after.keys():
        if before[spec] and after[spec]:  # older files tell of none
            words = {"model": "the spec, or sizes of its own, have changed"}
            found += differing({"model": before[spec]}, {"model": after[spec]}, (spec,), words)
    return merged(sorted(found, key=lambda each: each.of))


def _flat(environment: Environment) -> dict[str, object]:
    machine = environment.machine
    return {
        "harness": environment.harness,
        "processor": machine.cpu,
        "usable cores": machine.usable_cores,
        "Python of the harness": machine.python,
        "machines": ", ".join(sorted(each.host for each in environment.machines)) or "one",
        **{name: getattr(environment, name) for name in ("device", "dtype", "path", "threads")},
    }


def _cards(environment: Environment) -> str:
    names = ("name", "driver_version", "power.limit", "mig.mode.current")
    cards = [" ".join(str(gpu[n]) for n in names if n in gpu) for gpu in environment.gpus]
    return ", ".join(cards) or "none"
