"""Time steps without each pass beside the full plan, and write the ratios to docs/plans.md.

``python tests/benchmarks/ablation.py measure`` times every Lesson 6 system, in training and
forward, on each backend and keeps the ratios in a record. ``--pass "A+B"`` switches two passes off
together. ``page`` writes the tables of docs/plans.md from the records. Each backend has its own
process, in which all plans of a cell take turns. The processor time of one thread is compared, so
other work on the machine disturbs little.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from ablation_page import rewrite

from harness.program import passes
from harness.program.ir import Block, Node
from harness.program.passes import layouts, loops, products, unroll
from harness.program.plan import Plan
from harness.results.environment import describe_machine
from harness.runtime import plugins
from harness.runtime.backend import Backend
from harness.runtime.executor import tiling
from harness.runtime.session import make_session
from harness.runtime.step_loop import Clock, Pipeline
from harness.timing.request import BenchRequest, groups_of
from harness.timing.workload import TimedCase
from harness.worker.launch import thread_settings

RECORD = Path(__file__).with_suffix(".json")
# Models beyond Lesson 6, and passes that are off together.
MODELS = RECORD.with_stem("ablation_models")
BACKENDS = ("numpy", "torch", "jax")
# Seconds of steps that a plan makes in its turn, and how often the full plan has one in a round.
TURN, FULL_TURNS = 0.02, 3
# Results of the first steps with a pass off, relative to the largest entry.
AGREE = 1e-5

# Pass -> the modules of harness.program.passes whose rules are left out.
RULES: Mapping[str, tuple[str, ...]] = {
    "algebra": ("algebra",),
    "reshapes, transposes": ("reshapes", "transposes"),
    "classes": ("classes",),
    "tables": ("tables",),
    "biases": ("biases",),
    "loops": ("loops",),
    "zeros": ("unroll",),
    "fuse": ("fuse",),
    "rows": ("rows",),
}
# Pass -> what stands in for its functions and numbers: (module, name, replacement).
REPLACED: Mapping[str, tuple[tuple[Any, str, Any], ...]] = {
    "loops": ((loops, "lifts", lambda *_: False), (loops, "sinks", lambda *_: False)),
    "products, slices": ((products, "join", lambda nodes, *_: tuple(nodes)),),
    "unroll": ((unroll, "LONGEST", 0),),
    "layouts": ((layouts, "permuted_variants", lambda *_: ()),),
    "tiling": ((tiling, "WORTH", 1 << 40),),
}
PASSES = (*RULES, *(name for name in REPLACED if name not in RULES))


@contextmanager
def without(name: str) -> Iterator[None]:
    """Plans and executors made in here lack a pass, or each of ``A+B``; with ``""`` none."""
    merged = passes.merged
    names = name.split("+")
    modules = {f"{passes.__name__}.{module}" for one in names for module in RULES.get(one, ())}

    def kept(*tables: Mapping[str, Any]) -> dict[str, Any]:
        return {
            op: tuple(rule for rule in rules if rule.__module__ not in modules)
            for op, rules in merged(*tables).items()
        }

    with ExitStack() as stack:
        stack.enter_context(patch.object(passes, "merged", kept))
        for one in names:
            for owner, attribute, value in REPLACED.get(one, ()):
                stack.enter_context(patch.object(owner, attribute, value))
        yield


def canonical(plan: Plan) -> str:
    """A plan as text, its values numbered in the order in which they are met."""
    numbers: dict[int, int] = {}

    def numbered(values: Sequence[int]) -> list[int]:
        return [numbers.setdefault(value, len(numbers)) for value in values]

    def told(nodes: Sequence[Node]) -> list[Any]:
        return [
            (
                node.op,
                numbered(node.inputs),
                sorted((key, repr(value)) for key, value in node.attributes.items()),
                block(node.body) if node.body is not None else None,
                numbered(node.outputs),
            )
            for node in nodes
        ]

    def block(body: Block) -> Any:
        return numbered(body.inputs), told(body.nodes), numbered(body.outputs)

    given = numbered([value for _, value in sorted(plan.inputs.items())])
    nodes = told(plan.nodes)
    return repr((given, nodes, numbered([v for _, v in sorted(plan.outputs.items())]), plan.orders))


class Cell:
    """One system, mode and batch on one backend: its pipelines, one for each plan."""

    def __init__(self, backend: Backend, case: TimedCase, names: Sequence[str]) -> None:
        self.backend, self.case = backend, case
        self.same: list[str] = []
        self.pipelines: dict[str, Pipeline] = {}
        texts: set[str] = set()
        for name in ("", *names):
            pipeline, text = self._made(name)
            if text in texts and name != "tiling":
                self.same.append(name)
            else:
                self.pipelines[name] = pipeline
            if not name:
                texts.add(text)

    def _made(self, name: str) -> tuple[Pipeline, str]:
        case, found = self.case, []
        execute = type(self.backend).execute

        def noted(backend: Backend, plan: Plan) -> Any:
            found.append(canonical(plan))
            return execute(backend, plan)

        with without(name), patch.object(type(self.backend), "execute", noted):
            programs = case.programs["train"], case.programs["forward"]
            choices: Any = {"path": "derived", "dtype": case.dtype, "rule": case.rule}
            session = make_session(self.backend, *programs, **choices)
            material, mode = case.material, case.group.mode
            values = material.parameters, material.statistics, material.state
            rate = case.learning_rate
            pipeline = Pipeline(session, mode, *values, case.batches, rate)  # type: ignore[arg-type]
        pipeline.together = False
        return pipeline, found[-1]

    def check(self) -> None:
        """Every plan makes three steps, with the same results."""
        wanted = Clock(self.pipelines[""]).values(0, 3)
        for name, pipeline in self.pipelines.items():
            if not name:
                continue
            for want, found in zip(wanted, Clock(pipeline).values(0, 3), strict=True):
                for port, array in want.items():
                    atol = AGREE * float(np.abs(array).max())
                    message = f"{self.case.group.spec.name} without {name}: {port}"
                    np.testing.assert_allclose(found[port], array, 0, atol, err_msg=message)

    def time(self, rounds: int, turns: random.Random) -> dict[str, Any]:
        """Seconds of a full step, and by pass (ratio, lower and upper quartile)."""
        count = _steps(self.pipelines[""])
        order = [*self.pipelines, *[""] * (FULL_TURNS - 1)]
        full: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in self.pipelines if name}
        for _ in range(rounds):
            seconds: dict[str, list[float]] = {name: [] for name in order}
            for name in turns.sample(order, len(order)):
                seconds[name].append(_seconds(self.pipelines[name], count))
            full.append(statistics.median(seconds[""]))
            for name, some in ratios.items():
                some.append(seconds[name][0] / full[-1])
        found: dict[str, Any] = {name: quartiles(some) for name, some in ratios.items()}
        return {"seconds": statistics.median(full), "ratios": {**found, **dict.fromkeys(self.same)}}


def _steps(pipeline: Pipeline) -> int:
    """As many steps as a turn has time for, once they run steadily."""
    begin = process_time()
    while process_time() - begin < TURN:
        seconds = _seconds(pipeline, 4)
    return max(1, round(TURN / seconds))


def _seconds(pipeline: Pipeline, count: int) -> float:
    """Processor time of a step. Others on the machine take no part of that, as they do of time."""
    begin = process_time()
    pipeline.finish(pipeline.run(0, count))
    return (process_time() - begin) / count


def quartiles(values: Sequence[float]) -> list[float]:
    """The median, and the lower and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return [round(value, 4) for value in (middle, low, high)]


def read(record: Path) -> dict[str, Any]:
    """What was found so far."""
    found: dict[str, Any] = {"cells": {}, "load": {}}
    return json.loads(record.read_text()) if record.exists() else found


def list_of(_context: Any, _parameter: Any, text: str) -> list[str]:
    """The items of ``A,B``."""
    return text.split(",")


@click.group()
def main() -> None:
    """What each pass is worth."""


@main.command()
@click.option("--backend", "backends", default=",".join(BACKENDS), callback=list_of)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def measure(backends: Sequence[str], options: Sequence[str]) -> None:
    """Time the cells of each backend, in a process of its own; OPTIONS are those of ``one``."""
    for name in backends:
        settings = {**thread_settings(1), **plugins.environment(name)}
        command = [sys.executable, __file__, "one", name, *options]
        subprocess.run(command, check=True, env={**os.environ, **settings})


@main.command()
@click.argument("name", type=click.Choice(BACKENDS))
@click.option("--batch", "batches", default="64", callback=list_of)
@click.option("--spec", "systems", multiple=True, help="All of Lesson 6 if left out.")
@click.option("--pass", "names", default="|".join(PASSES), help="Those to switch off: A|B.")
@click.option("--rounds", default=11, show_default=True)
@click.option("--record", default=RECORD, type=click.Path(path_type=Path))
def one(
    name: str, batches: list[str], systems: list[str], names: str, rounds: int, record: Path
) -> None:
    """Time the cells of one backend in this process, and put them into the record."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # XLA has a thread for each processor
    backend, turns = plugins.load(name), random.Random(0)
    backend.use("cpu", "float32")
    request = BenchRequest(specs=tuple(systems), batches=tuple(map(int, batches)))
    loads = [os.getloadavg()[0]]
    for group in groups_of(request):
        wanted = [p for p in names.split("|") if p != "tiling" or name == "numpy"]
        cell = Cell(backend, TimedCase(group, "float32", 0), wanted)
        cell.check()
        timed = cell.time(rounds, turns)
        loads.append(os.getloadavg()[0])
        found = read(record)
        key = f"{group.spec.name} {group.mode} {group.batch}"
        kept = found["cells"].setdefault(name, {}).setdefault(key, {"ratios": {}})
        kept["seconds"] = timed["seconds"]
        kept["ratios"] |= timed["ratios"]
        found["load"][name] = [min(loads), max(loads)]
        found["machine"] = describe_machine().model_dump(exclude={"host"}, exclude_unset=True)
        found["versions"] = {**found.get("versions", {}), **backend.versions()}
        record.write_text(json.dumps(found, indent=1) + "\n")
        shown = {p: r[0] if r else "=" for p, r in timed["ratios"].items()}
        click.echo(f"{name} {key}: {timed['seconds'] * 1e3:.2f} ms {shown}")


@main.command()
def page() -> None:
    """Write the tables between their markers in docs/plans.md."""
    rewrite(read(RECORD), read(MODELS))


if __name__ == "__main__":
    main()
