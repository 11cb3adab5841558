"""The request of a benchmark (what to time, and how), and the list of cells that is made from
it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Self

from harness.command.declared import build, check_ranges
from harness.command.ranges import SIZES
from harness.environments.columns import choose
from harness.errors import UsageError, check_known, did_you_mean
from harness.files.system import usable_cores
from harness.language.axes import FREE_SIZES, describe_missing_sizes, select_known_sizes
from harness.language.library import Library, lesson6
from harness.language.model import Spec, load_specs
from harness.results.speeds import group_name
from harness.runs.plans import RunPlan, join_name
from harness.runtime import paths
from harness.runtime.labels import check_device
from harness.runtime.memory import check_fits
from harness.timing.options import MODES, TimingOptions
from harness.worker.launch import Launch, thread_settings

DTYPES = (*paths.KNOWN_DTYPES, "tf32")
PATHS = ("fastest", *paths.PATHS, *paths.COMPILED_PATHS)

# Allocator settings that make some models faster and others slower. --tune tries them and shows the
# result. They are never the default.
TUNINGS: Mapping[str, Mapping[str, str]] = {
    "malloc": {
        "MALLOC_MMAP_THRESHOLD_": "8000000000",
        "MALLOC_TRIM_THRESHOLD_": "8000000000",
        "MALLOC_TOP_PAD_": "67108864",
    },
    "hugepages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
}


# The defaults of ``--quick``.
QUICK: Mapping[str, Any] = {
    "specs": ("lesson6/keras_gru",),
    "modes": ("train",),
    "path": "native",
    "rounds": 2,
}


@dataclass(frozen=True)
class BenchRequest(TimingOptions):
    """The request of a benchmark: which cells to time, and how. The class :class:`.TimingOptions`
    has its fields."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return the request with the options in ``given``, a mapping from option name to value.
        Patterns of model names are replaced by the matching models.

        Raises:
            UsageError: a pattern matches no model.
        """
        if given.get("quick"):
            # The command line also passes the options that the user has not given.
            unchanged = {n for n in QUICK if given.get(n) in (None, getattr(TimingOptions, n))}
            given = {**given, **{n: value for n, value in QUICK.items() if n in unchanged}}
        specs = Library(given.get("folders", ())).expand_patterns(given.get("specs", ()))
        modes = tuple(dict.fromkeys(given.get("modes", MODES)))
        return build(cls, {**given, "specs": specs, "modes": modes})

    @property
    def thread_count(self) -> int:
        """The number of threads that each backend may use."""
        return self.threads or usable_cores()


@dataclass(frozen=True)
class Entry:
    """A backend to time, with its settings and the ``label`` that names it in the results.

    ``tuning`` is the name of a set of backend settings that is tried, and empty for the default
    settings. A ``baseline`` is code outside the harness, e.g. a hand-written torch model; it has no
    paths, parameters or primitives.
    """

    label: str
    launch: Launch
    tuning: str = ""
    baseline: bool = False

    @property
    def backend(self) -> str:
        """The name of the backend, without the label for its settings."""
        return self.launch.backend


@dataclass(frozen=True)
class Group:
    """A model with its sizes and a mode (``train`` or ``forward``). All backends are timed on a
    group before the next group starts.

    ``batch`` and ``time`` are the batch size and the sequence length. ``sizes`` maps the names of
    other sizes to their values.
    """

    spec: Spec
    mode: str
    batch: int
    time: int
    sizes: Mapping[str, int]

    @property
    def name(self) -> tuple[str, ...]:
        """The values that identify the group, as texts: mode, spec, batch size, sequence length and
        other sizes."""
        return group_name((self.mode, self.spec.name, self.batch, self.time), self.sizes)

    def cell(self, label: str) -> TimedCell:
        """Return the cell that has this group's model, sizes and mode, and the backend with the
        given label."""
        return TimedCell(self.spec.name, label, self.mode, self.batch, self.time, dict(self.sizes))


@dataclass(frozen=True)
class TimedCell:
    """The values that identify a timed cell: spec, backend, mode and sizes."""

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
    """Raise :class:`UsageError` if a value of the request is not allowed."""
    for kind, given, known in (
        ("dtype", (request.dtype,), DTYPES),
        ("path", (request.path,), PATHS),
        ("mode", request.modes, MODES),
    ):
        if not given:
            raise UsageError(f"no {kind} is given (known: {', '.join(known)})")
        for value in given:
            check_known(kind, value, known)
    if not request.batches:
        raise UsageError("no batch size is given")
    numbers = {"batch": request.batches, "time": request.times, **request.sizes}
    for name, wanted in numbers.items():
        for number in wanted:
            SIZES.check(number, name)
    check_ranges(request)


def groups_of(request: BenchRequest) -> list[Group]:
    """Return the groups (a model with its sizes and mode) to time, in the order of the run.

    Raise :class:`UsageError` for an unknown size.
    """
    specs = load_specs(request.specs or lesson6(), request.folders)
    for name in request.sizes:
        if name in FREE_SIZES:
            raise UsageError(f"size {name!r} has its own option: --{name}")
    describe_missing_sizes(request.sizes, {spec.name: spec.model.sizes for spec in specs}, free=())
    groups = []
    for spec in specs:
        modes = _choose_modes(spec, request.modes)
        asked = select_known_sizes(spec.model.sizes, request.sizes)
        variants = itertools.product(*asked.values())
        sizes = [dict(zip(asked, variant, strict=True)) for variant in variants]
        for batch, time in itertools.product(request.batches, _choose_lengths(spec, request.times)):
            for size in sizes:
                check_fits(spec.program("training", **size), batch, time, size)
            groups += [Group(spec, mode, batch, time, size) for mode in modes for size in sizes]
    return groups


def entries_from(request: BenchRequest) -> list[Entry]:
    """Return an entry for each backend. If the option ``tune`` is set, also return an entry for
    each backend with each set of settings to try.

    Raises:
        UsageError: a backend is unknown, or an interpreter or environment is given for a backend
            that is not timed.
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
    entries = []
    for name in backends:
        python = columns.pythons.get(name, sys.executable)
        entries.append(Entry(name, launch(request, name, python)))
        entries += [
            Entry(f"{name}+{tuning}", launch(request, name, python, settings), tuning)
            for tuning, settings in tunings.items()
        ]
    return entries


def list_missing_frameworks(request: BenchRequest) -> Mapping[str, str]:
    """Return a dictionary of the requested backends whose framework is not installed. It maps a
    backend to the command that installs the framework."""
    return choose(request.backends, request.pythons).lacking


def launch(
    request: BenchRequest,
    backend: str,
    python: str = sys.executable,
    settings: Mapping[str, str] | None = None,
) -> Launch:
    """Return what is needed to start the worker of a backend: its interpreter ``python``, and its
    environment variables.

    These are the variables that set the number of threads, then ``settings``, then the variables of
    the request; later values override earlier values.
    """
    environment = {
        **thread_settings(request.thread_count),
        **(settings or {}),
        **request.environment.get(backend, {}),
    }
    return Launch(backend, python=python, environment=environment, cores=request.thread_count)


def characters_read(spec: Spec, time: int) -> tuple[int, str]:
    """Return how many units of data a model reads per sample, and the unit, e.g. ``(8,
    "characters")``.

    For a model that reads sequences, a sample has ``time`` characters. For a model whose inputs are
    indices, it has one character per input. For any other model, the number is 1 and the unit is
    "samples".
    """
    program = spec.program("inference")
    types = [program.type_of(port) for port in program.inputs]
    if has_time(spec):
        return time, "characters"
    single = sum(1 for type_ in types if type_.kind == "index")
    return (single, "characters") if single else (1, "samples")


def _choose_modes(spec: Spec, requested: Iterable[str]) -> tuple[str, ...]:
    """Return the modes of ``requested`` (``train``, ``forward``) in which a model can be timed: a
    model without an optimizer cannot be timed in training."""
    modes = tuple(mode for mode in requested if mode != "train" or spec.update is not None)
    if not modes:
        raise UsageError(f"{spec.name} has no optimizer: time it with --mode forward")
    return modes


def _choose_lengths(spec: Spec, lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the sequence lengths to time: the requested ``lengths``, or the spec's length if none
    is requested. If the model reads no sequences of variable length, return only the number of
    characters that one sample has."""
    if not has_time(spec):
        return (characters_read(spec, 1)[0],)
    return tuple(dict.fromkeys(lengths)) or (spec.length,)


def has_time(spec: Spec) -> bool:
    """Return whether the model reads sequences of variable length."""
    program = spec.program("inference")
    return any("time" in dim.names for p in program.inputs for dim in program.type_of(p).shape)


@dataclass(frozen=True)
class BenchPlan:
    """The cells that a benchmark times. ``every`` has the groups of all shards, and ``groups`` the
    groups of this shard, i.e. of the part of the run that this command times.

    ``lacking`` maps a backend whose framework is not installed to the command that installs it.
    """

    request: BenchRequest
    entries: Sequence[Entry]
    every: Sequence[Group]
    groups: Sequence[Group]
    lacking: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: BenchRequest, entries: Sequence[Entry] | None = None) -> Self:
        """Return the plan for a request: the cells to time. ``entries`` defaults to the backends of
        the request.

        Raises:
            UsageError: the request is invalid.
        """
        check_request(request)
        lacking = list_missing_frameworks(request) if entries is None else {}
        entries = entries_from(request) if entries is None else entries
        every, shard = groups_of(request), request.shard
        # The entries of a group are timed in turn, so a group is never split across machines.
        groups = every if shard is None else shard.select(every, attrgetter("name"), "group")
        return cls(request, [*entries], every, groups, lacking)

    @property
    def cells(self) -> list[TimedCell]:
        """The cells of this shard, group by group: one cell per backend and group."""
        return [group.cell(entry.label) for group in self.groups for entry in self.entries]

    def record(self) -> RunPlan:
        """Return the names of the cells of all shards, as a file of results stores them."""
        groups = {join_name(group.name) for group in self.every}
        labels = {entry.label for entry in self.entries}
        return RunPlan.of([groups, labels], self.request.shard)
