"""The request of a timing: its cells, who takes part, and the plan of entries and groups."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Self

from harness.command.declared import build, check_ranges
from harness.command.ranges import SIZES
from harness.environments.columns import choose
from harness.errors import UsageError, check_known, did_you_mean
from harness.language.axes import FREE_SIZES, check_asked, known_sizes
from harness.language.library import Library, lesson6
from harness.language.model import Spec, load_specs
from harness.results.speeds import group_name
from harness.runs.plans import RunPlan, joined
from harness.runtime import paths
from harness.runtime.labels import check_device
from harness.runtime.memory import check_fits
from harness.timing.options import MODES, TimingOptions
from harness.worker.launch import Launch, thread_settings

DTYPES = (*paths.KNOWN_DTYPES, "tf32")
PATHS = ("fastest", *paths.PATHS, *paths.COMPILED_PATHS)

# Settings of the allocator that are known to pay on some models and to harm others: tried with
# --tune, shown, and never a default.
TUNINGS: Mapping[str, Mapping[str, str]] = {
    "malloc": {
        "MALLOC_MMAP_THRESHOLD_": "8000000000",
        "MALLOC_TRIM_THRESHOLD_": "8000000000",
        "MALLOC_TOP_PAD_": "67108864",
    },
    "hugepages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
}


@dataclass(frozen=True)
class BenchRequest(TimingOptions):
    """What to time; see :class:`.TimingOptions`."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return the request of options that were given, with patterns of models resolved.

        Raises:
            UsageError: a pattern matches no model.
        """
        specs = Library(given.get("folders", ())).matching(given.get("specs", ()))
        modes = tuple(dict.fromkeys(given.get("modes", MODES)))
        return build(cls, {**given, "specs": specs, "modes": modes})

    @property
    def thread_count(self) -> int:
        """Threads that a backend is told to use."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Entry:
    """A worker that takes part, under the name that its cells bear.

    A ``baseline`` is code outside the harness: it has no paths to choose from, no parameters to
    show and no primitives to take a peak from.
    """

    label: str
    launch: Launch
    tuning: str = ""
    baseline: bool = False

    @property
    def backend(self) -> str:
        """The name of the backend, whatever settings it runs under."""
        return self.launch.backend


@dataclass(frozen=True)
class Group:
    """One model at some sizes, in one mode: what is measured interleaved, on every entry."""

    spec: Spec
    mode: str
    batch: int
    time: int
    sizes: Mapping[str, int]

    @property
    def name(self) -> tuple[str, ...]:
        """What tells it from all others, what its cost depends on first."""
        return group_name((self.mode, self.spec.name, self.batch, self.time), self.sizes)

    def cell(self, label: str) -> TimedCell:
        """The cell of an entry."""
        return TimedCell(self.spec.name, label, self.mode, self.batch, self.time, dict(self.sizes))


@dataclass(frozen=True)
class TimedCell:
    """One number of a table."""

    spec: str
    backend: str
    mode: str
    batch: int
    time: int
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        sizes = "".join(f"-{name}{size}" for name, size in sorted(self.sizes.items()))
        return f"{self.spec}[{self.backend}-{self.mode}-b{self.batch}-t{self.time}{sizes}]"


def check_request(request: BenchRequest) -> None:
    """:class:`UsageError` for what no run can do."""
    for kind, given, known in (
        ("dtype", (request.dtype,), DTYPES),
        ("path", (request.path,), PATHS),
        ("mode", request.modes, MODES),
    ):
        if not given:
            raise UsageError(f"no {kind} is asked for (known: {', '.join(known)})")
        for value in given:
            check_known(kind, value, known)
    if not request.batches:
        raise UsageError("no batch size is asked for")
    numbers = {"batch": request.batches, "time": request.times, **request.sizes}
    for name, wanted in numbers.items():
        for number in wanted:
            SIZES.check(number, name)
    check_ranges(request)


def groups_of(request: BenchRequest) -> list[Group]:
    """The groups in the order of the run; a size that no model has is a :class:`UsageError`."""
    specs = load_specs(request.specs or lesson6(), request.folders)
    for name in request.sizes:
        if name in FREE_SIZES:
            raise UsageError(f"size {name!r} has an option of its own: --{name}")
    check_asked(request.sizes, {spec.name: spec.model.sizes for spec in specs}, free=())
    groups = []
    for spec in specs:
        modes = _modes(spec, request.modes)
        asked = known_sizes(spec.model.sizes, request.sizes)
        variants = itertools.product(*asked.values())
        sizes = [dict(zip(asked, variant, strict=True)) for variant in variants]
        for batch, time in itertools.product(request.batches, _times(spec, request.times)):
            for size in sizes:
                check_fits(spec.program("training", **size), batch, time, size)
            groups += [Group(spec, mode, batch, time, size) for mode in modes for size in sizes]
    return groups


def entries_from(request: BenchRequest) -> list[Entry]:
    """An entry for each backend; with ``tune`` one more for each known setting.

    Raises:
        UsageError: a backend is unknown, or something is given for one that is not timed.
    """
    columns = choose(request.backends, request.pythons)
    backends = columns.names
    check_device(request.device, backends)
    for option, named in (("interpreter", columns.pythons), ("environment", request.environment)):
        for name in named:
            if name not in (*backends, *columns.lacking):
                raise UsageError(
                    f"an {option} is given for {name!r}, which is not timed"
                    f"{did_you_mean(name, backends)} (timed: {', '.join(backends)})"
                )
    tunings = TUNINGS if request.tune else {}
    found = []
    for name in backends:
        python = columns.pythons.get(name, sys.executable)
        found.append(Entry(name, launch(request, name, python)))
        found += [
            Entry(f"{name}+{tuning}", launch(request, name, python, settings), tuning)
            for tuning, settings in tunings.items()
        ]
    return found


def lacking_of(request: BenchRequest) -> Mapping[str, str]:
    """The backends that are left out, as their framework is not installed, and what brings it."""
    return choose(request.backends, request.pythons).lacking


def launch(
    request: BenchRequest,
    backend: str,
    python: str = sys.executable,
    settings: Mapping[str, str] | None = None,
) -> Launch:
    """How the worker of a backend is started: its threads, its settings, then what was asked."""
    environment = {
        **thread_settings(request.thread_count),
        **(settings or {}),
        **request.environment.get(backend, {}),
    }
    return Launch(backend, python=python, environment=environment, cores=request.thread_count)


def characters_read(spec: Spec, time: int) -> tuple[int, str]:
    """How many of what one sample of a batch is: the characters that the model reads, if any.

    An input with a time axis has ``time`` of them; inputs of one index a sample are one each;
    a model that has neither reads one sample.
    """
    program = spec.program("inference")
    types = [program.type_of(port) for port in program.inputs]
    if has_time(spec):
        return time, "characters"
    single = sum(1 for type_ in types if type_.kind == "index")
    return (single, "characters") if single else (1, "samples")


def _modes(spec: Spec, asked: Iterable[str]) -> tuple[str, ...]:
    """The modes that a model can be timed in: one without an optimizer has no training step."""
    modes = tuple(mode for mode in asked if mode != "train" or spec.update is not None)
    if not modes:
        raise UsageError(f"{spec.name} has no optimizer: time it with --mode forward")
    return modes


def _times(spec: Spec, asked: Sequence[int]) -> tuple[int, ...]:
    """The lengths to time: those asked for, where the model's inputs have a length at all."""
    if not has_time(spec):
        return (characters_read(spec, 1)[0],)
    return tuple(dict.fromkeys(asked)) or (spec.length,)


def has_time(spec: Spec) -> bool:
    """Whether the model reads sequences of any length, and not one that its equations fix."""
    program = spec.program("inference")
    return any("time" in dim.names for p in program.inputs for dim in program.type_of(p).shape)


@dataclass(frozen=True)
class BenchPlan:
    """``every`` are the groups of all shards, ``groups`` those of the request's own; ``lacking``
    are the backends that are left out, and what brings their framework."""

    request: BenchRequest
    entries: Sequence[Entry]
    every: Sequence[Group]
    groups: Sequence[Group]
    lacking: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: BenchRequest, entries: Sequence[Entry] | None = None) -> Self:
        """The plan of a request; ``entries`` are those of the request if left out.

        Raises:
            UsageError: the request cannot be.
        """
        check_request(request)
        lacking = lacking_of(request) if entries is None else {}
        entries = entries_from(request) if entries is None else entries
        every, shard = groups_of(request), request.shard
        # A group is timed interleaved, and so on one machine.
        groups = every if shard is None else shard.part(every, attrgetter("name"), "group")
        return cls(request, [*entries], every, groups, lacking)

    @property
    def cells(self) -> list[TimedCell]:
        """An entry in a group each, group by group; of a shard, its own."""
        return [group.cell(entry.label) for group in self.groups for entry in self.entries]

    def record(self) -> RunPlan:
        """What a file of results says of the whole plan."""
        groups = {joined(group.name) for group in self.every}
        labels = {entry.label for entry in self.entries}
        return RunPlan.of([groups, labels], self.request.shard)
