"""What files of several runs, of checks or of benchmarks, have in common when they are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError, several


@dataclass(frozen=True)
class Merged:
    """The content of the joined file, and what is to be known of it.

    ``duplicates`` are by file the cells that another one had from the same origin, with the same
    outcome; ``contradictions`` are those with another one, in words. ``shards`` says what is there
    of runs that were made in parts, and ``missing`` is how many cells of the plan are not.
    """

    kind: str
    content: bytes
    files: int
    cells: int
    machines: Sequence[str]
    counts: Mapping[str, int]
    duplicates: Mapping[str, int]
    contradictions: Sequence[str]
    shards: Sequence[str]
    missing: int
    notes: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """1: contradictions; 3: cells are missing; 0: neither."""
        return 1 if self.contradictions else 3 if self.missing else 0

    def lines(self, place: str) -> list[str]:
        """All of it in words; ``place`` is where the content is."""
        found = [
            f"{name}: {_cells(count)} of it {'is' if count == 1 else 'are'} in another file too, "
            "with the same outcome: kept once"
            for name, count in self.duplicates.items()
        ]
        found += [*self.contradictions, *self.notes]
        machines = several(len(self.machines), "machine")
        files = several(self.files, "file")
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        found.append(
            f"{self.kind}: {_cells(self.cells)} of {files}, from {machines}, in {place}"
            + (f": {counts}" if counts else "")
        )
        told = [*self.shards, *([f"{_cells(self.missing)} missing"] if self.missing else [])]
        return [*found, *(["; ".join(told)] if told else [])]

    def record(self) -> dict[str, Any]:
        """As plain data, without the content."""
        return {name: value for name, value in vars(self).items() if name != "content"}


def check_alike(
    runs: Iterable[tuple[str, Mapping[str, Any]]], shown: Callable[[Any], str] = str
) -> None:
    """Refuse runs whose options differ; each is the name of its file, and its options.

    Raises:
        UsageError: they differ from those of the first one.
    """
    (first, before), *others = runs
    for name, asked in others:
        told = [
            f"{option} {shown(before.get(option))} and {shown(asked.get(option))}"
            for option in dict.fromkeys([*before, *asked])
            if before.get(option) != asked.get(option)
        ]
        if told:
            raise UsageError(
                f"{first} and {name} are of runs with other options ({'; '.join(told)}): merge "
                "those of the same options"
            )


def models_apart(found: Iterable[tuple[str, str, str | None]]) -> list[str]:
    """The specs that do not mean one model in all results, in words.

    Each is the name of a file, a spec that it has results of, and what tells the model from others;
    None where the file does not say, as older ones do not.
    """
    files: dict[str, dict[str, None]] = {}
    models: dict[str, set[str]] = {}
    for name, spec, model in found:
        if model is not None:
            files.setdefault(spec, {})[name] = None
            models.setdefault(spec, set()).add(model)
    return [
        f"{spec}: the results in {', '.join(files[spec])} are of {len(of_it)} models of this "
        "name (the spec, sizes of its own or what the harness makes of them differ); all are kept"
        for spec, of_it in models.items()
        if len(of_it) > 1
    ]


def origin_label(
    *,
    version: str | None = None,
    host: str | None = None,
    machine: str | None = None,
    copy: int = 1,
) -> str:
    """What stands behind a name to tell results apart: of their origin what is given.

    ``machine`` identifies one of several machines whose ``host`` is the same.
    """
    label = "" if version is None else f" ({version})"
    if host is not None:
        label += f" on {host}" if machine is None else f" on {host} {machine[:6]}"
    return label if copy == 1 else f"{label}, copy {copy}"


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count:,} cells"
