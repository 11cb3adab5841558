"""The report's sections about the environment, the models and the trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.inputs import BenchRun, CheckRun, Inputs, TrainedWeights
from harness.results.environment import Machine
from harness.results.lines import CheckedModel
from harness.runs.changes import ConditionChange

TRAINING_COLUMNS = ("training", "epochs", "loss", "held-out loss", "held-out metrics")


def training_rows(trainings: Sequence[TrainedWeights]) -> list[list[str]]:
    """Return a table row for each training that has finished an epoch.

    The columns of the table are :data:`TRAINING_COLUMNS`. The numbers are from the last epoch.
    """
    rows = []
    for training in trainings:
        epochs = training.history.epochs
        if epochs:
            held, metrics = epochs[-1].held_out_loss, epochs[-1].held_out_metrics
            rows.append(
                [
                    f"{training.spec} on {training.history.backend} ({training.name})",
                    str(len(epochs)),
                    f"{epochs[-1].loss:.4g}",
                    "" if held is None else f"{held:.4g}",
                    ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()),
                ]
            )
    return rows


@dataclass(frozen=True)
class ModelView:
    """A model as text, for the page. ``equations`` and ``loss`` are as the spec writes them.
    ``facts`` has pairs of name and text: the model's sizes and its layers."""

    name: str
    facts: tuple[tuple[str, str], ...]
    equations: str
    loss: str


def make_model_view(name: str, model: CheckedModel) -> ModelView:
    """Return the text about the model ``name``, as a record file describes it."""
    sizes = ", ".join(f"{size} {number}" for size, number in model.sizes.items())
    layers = ", ".join(_describe_layer(layer, model) for layer in model.layers)
    facts = (("sizes of most checks", sizes), ("layers", layers))
    return ModelView(
        name, tuple(fact for fact in facts if fact[1]), model.equations.rstrip(), model.loss
    )


def _describe_layer(name: str, model: CheckedModel) -> str:
    """Describe the layer ``name`` by its definition and those attributes that differ from their
    defaults, e.g. ``norm (batch_norm, momentum 0.1)``."""
    definition, changed = model.layers[name], model.attributes.get(name, {})
    facts = [] if name == definition else [definition]
    facts += [f"{attribute} {value}" for attribute, value in changed.items()]
    return f"{name} ({', '.join(facts)})" if facts else name


@dataclass(frozen=True)
class FactRow:
    """A fact about the environment, e.g. a version. If the fact has changed, the row also has its
    value in an older run."""

    name: str
    now: str
    before: str = ""


def list_facts(inputs: Inputs) -> list[str]:
    """Return a few facts for the top of the page, as text. They are about the run of ``check``.
    Without such a run, they are about the file of speeds if there is exactly one; otherwise the
    list is empty."""
    run: CheckRun | BenchRun | None = inputs.check
    machine: Machine | None = None
    if inputs.check is not None and inputs.check.heads:
        machine = inputs.check.heads[-1].machine
    elif inputs.check is None and len(inputs.benches) == 1:
        run = inputs.benches[0]
        machine = run.file.environment.machine
    if run is None:
        return []
    texts = [run.started, f"{machine.cpu} · {machine.usable_cores} cores"] if machine else []
    versions = (v for text in run.versions.values() for v in text.split(", "))
    return [*texts, *dict.fromkeys(versions)]


def list_environment(inputs: Inputs, around: Sequence[ConditionChange]) -> list[FactRow]:
    """Return table rows about the environment: first the facts that changed since an older run
    (``around``), then all facts."""
    changed = []
    for each in around:
        what = each.words or each.what
        name = f"{what} of {', '.join(each.of)}" if each.of else what
        # Checksums tell readers nothing, so show only "now" and "before".
        now, before = ("now", "before") if each.words else (each.new, each.old)
        changed.append(FactRow(name, now, before))
    return changed + [FactRow(name, now) for name, now in _all_facts(inputs).items()]


def _all_facts(inputs: Inputs) -> dict[str, str]:
    """Return a dictionary of the facts about the environment of all input files, e.g. ``{"cpu":
    "..."}``.

    If a fact differs between files, there is one entry for each value. The key then contains the
    names of the files, e.g. ``cpu (a.jsonl)``.
    """
    by_file = {run.name: _speed_facts(run) for run in inputs.benches}
    if inputs.check is not None:
        by_file = {inputs.check.name: _check_facts(inputs.check), **by_file}
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


def _check_facts(check: CheckRun) -> dict[str, str]:
    rows: dict[str, str] = {}
    if check.heads:
        head = check.heads[-1]
        rows |= {"harness": head.harness, **_machine_facts(head.machine)}
        for backend, version in sorted(check.versions.items()):
            rows[f"version of {backend}"] = version
        for backend, variables in head.environment.items():
            rows[f"variables of {backend}"] = _join_values(variables)
    return rows


def _speed_facts(run: BenchRun) -> dict[str, str]:
    speed_environment = run.file.environment
    rows = _machine_facts(speed_environment.machine)
    rows["threads when timed"] = str(speed_environment.threads)
    for backend, worker in speed_environment.workers.items():
        rows[f"{backend} when timed"] = worker.versions_text
        rows[f"settings of {backend}"] = _join_values(worker.settings)
    return rows


def _machine_facts(machine: Machine) -> dict[str, str]:
    names = ("host", "cpu", "usable_cores", "kernel", "architecture", "python", "clock", "governor")
    return {n.replace("_", " "): str(value) for n in names if (value := getattr(machine, n, None))}


def _join_values(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
