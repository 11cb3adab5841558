"""What is not the same around two runs of checks: versions, machine, specs, what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.checking.changes import Cells
from harness.checking.provenance import CHECKSUMS, known_of_both
from harness.checking.record_file import Records
from harness.checking.record_read import comparable
from harness.results.cell import Cell
from harness.runs.compared import Differing, differing, merged

# Of a signature: checksums that are of a spec, and entries that are of a backend. Others are of
# the whole run.
OF_SPEC = frozenset({"spec", "sizes"})
OF_BACKEND = frozenset({"backend", "interpreter"})
OF_MACHINE = ("host", "cpu", "usable_cores", "architecture")


# Of a checksum, so much tells it from others.
SHORT = 12


def environment_changes(old: Records, new: Records) -> list[Differing]:
    """What is not the same around two record files, both read with ``complete``.

    Of a file with several runs, the last counts, and of each cell its last run.
    """
    heads = [records.of_kind("head")[-1:] for records in (old, new)]
    before, after = (found[0] if found else {} for found in heads)
    older, newer = comparable(old, new)
    return surroundings(before, older, after, newer)


def surroundings(
    before: Mapping[str, Any], old: Cells, after: Mapping[str, Any], new: Cells
) -> list[Differing]:
    """What is not the same around two runs, of their heads and their cells."""
    found = differing(_flat(before), _flat(after))
    told = {each.what for each in found}
    found += (
        each
        for cell in old
        if cell in new
        for each in _of_cell(cell, old, new)
        if each.what not in told
    )
    return merged(found)


def _of_cell(cell: Cell, old: Cells, new: Cells) -> Iterator[Differing]:
    one, other = old[cell], new[cell]
    told = set()
    if one.signature is not None and other.signature is not None:
        for each in differing(*known_of_both(one.signature, other.signature), words=CHECKSUMS):
            told.add(each.what)
            yield _about(each, cell)
    if one.greeting is not None and other.greeting is not None:
        for each in differing(one.greeting, other.greeting, (cell.backend,), CHECKSUMS):
            # The code of the harness is in both: in the worker's it is that of another interpreter.
            if each.what not in told:
                yield each


def _about(each: Differing, cell: Cell) -> Differing:
    of: tuple[str, ...] = ()
    if each.what in OF_SPEC:
        of = (cell.spec,)
    elif each.what in OF_BACKEND or each.what.startswith("--env "):
        of = (cell.backend,)
    return Differing(each.what, each.old, each.new, of, each.words)


def _flat(head: Mapping[str, Any]) -> dict[str, object]:
    machine, request = head.get("machine", {}), head.get("request") or {}
    return {
        "harness": head.get("harness"),
        **{name: machine.get(name) for name in OF_MACHINE},
        **{
            f"{what} asked for": asked
            for name, value in request.items()
            for what, asked in _parts(name, value)
        },
    }


def _parts(name: str, value: Any) -> Iterator[tuple[str, str | None]]:
    """What a request says under a name, in words. That the file of a model has changed is told by
    the signatures of its cells."""
    if value is None:
        return
    if name == "against":
        yield "model", value["model"]
        for option in ("map", "takes", "returns"):
            yield f"--{option}", _listed(value.get(option))
    elif name == "given":
        for group, checksum in value["sha256"].items():
            yield f"checksum of {group}", checksum[:SHORT]
        for what in ("batch", "time", "sizes"):
            yield f"{what} of given numbers", _listed(value[what])
    else:
        yield name, _listed(value)


def _listed(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = [f"{name}={each}" for name, each in value.items()]
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    if value is False:
        return None
    return "yes" if value is True else str(value)
