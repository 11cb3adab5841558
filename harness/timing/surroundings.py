"""What is not the same around two files of results: versions, machines, variables, models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.runs.compared import Differing, differing, merged


def environment_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Differing]:
    """What is not the same around two files: versions, machine, threads, variables."""
    first, second = (content["machine_info"]["harness"] for content in (old, new))
    found = differing(_flat(first), _flat(second))
    if "cpu" not in (first["device"], second["device"]):
        found += differing({"GPU and driver": _cards(first)}, {"GPU and driver": _cards(second)})
    workers = first["workers"], second["workers"]
    of_workers: list[Differing] = []
    for name in workers[0]:
        if name in workers[1]:
            one, other = (side[name] for side in workers)
            for part in ("versions", "environment"):
                of_workers += differing(one[part], other[part], (name,))
    return found + merged(of_workers) + _models(old, new)


def _models(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Differing]:
    """The specs that mean another model than before, or have other sizes of their own."""
    before, after = ({str(e["params"]["spec"]): e for e in c["benchmarks"]} for c in (old, new))
    found: list[Differing] = []
    for spec in before.keys() & after.keys():
        models = [e["extra_info"].get("model") for e in (before[spec], after[spec])]
        if all(models):  # older files tell of none
            words = {"model": "the spec, or sizes of its own, have changed"}
            found += differing({"model": models[0]}, {"model": models[1]}, (spec,), words)
    return merged(sorted(found, key=lambda each: each.of))


def _flat(environment: Mapping[str, Any]) -> dict[str, object]:
    machine = environment["machine"]
    return {
        "harness": environment.get("harness"),
        "processor": machine["cpu"],
        "usable cores": machine["usable_cores"],
        "Python of the harness": machine.get("python"),
        "machines": ", ".join(sorted(m["host"] for m in environment.get("machines", ()))) or "one",
        **{name: environment[name] for name in ("device", "dtype", "path", "threads")},
    }


def _cards(environment: Mapping[str, Any]) -> str:
    names = ("name", "driver_version", "power.limit", "mig.mode.current")
    cards = [" ".join(str(gpu[n]) for n in names if n in gpu) for gpu in environment["gpus"]]
    return ", ".join(cards) or "none"
