"""What is not the same around two runs of checks: versions, machine, specs, what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.checking.changes import Cells
from harness.checking.provenance import CHECKSUMS, known_of_both
from harness.results.blocks import comparable
from harness.results.cell import Cell
from harness.results.file import Records
from harness.results.lines import Asked, Head
from harness.runs.compared import Differing, differing, merged

# Of a signature: checksums that are of a spec, and entries that are of a backend. Others are of
# the whole run.
OF_SPEC = frozenset({"spec", "sizes"})
OF_BACKEND = frozenset({"backend", "interpreter"})
OF_MACHINE = ("host", "cpu", "usable_cores", "architecture")


# Of a checksum, so much tells it from others.
SHORT = 12


def environment_changes(old: Records, new: Records) -> list[Differing]:
    """What is not the same around two record files, both of checks.

    Of a file with several runs, the last counts, and of each cell its last run.
    """
    before, after = (next(reversed(each.of_kind(Head)), None) for each in (old, new))
    older, newer = comparable(old, new)
    return surroundings(before, older, after, newer)


def surroundings(
    before: Head | None, old: Cells, after: Head | None, new: Cells
) -> list[Differing]:
    """What is not the same around two runs, of their heads and their cells."""
    one, other = (_flat(head) if head else {} for head in (before, after))
    found = differing(one, other)
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


def _flat(head: Head) -> dict[str, object]:
    asked = _asked(head.request) if head.request else {}
    return {
        "harness": head.harness,
        **{name: head.machine.get(name) for name in OF_MACHINE},
        **{f"{what} asked for": text for what, text in asked.items()},
    }


def _asked(request: Asked) -> dict[str, str | None]:
    """What was asked for, in words. That the file of a model has changed is told by the signatures
    of its cells."""
    found: dict[str, str | None] = {
        name: _listed(getattr(request, name))
        for name in ("sizes", "checks", "seed", "thorough", "repeat", "deterministic")
    }
    if own := request.against:
        found["model"] = own.model
        rules = {"--map": own.map, "--takes": own.takes, "--returns": own.returns}
        found |= {option: _listed(values) for option, values in rules.items()}
    if given := request.given:
        found |= {f"checksum of {group}": text[:SHORT] for group, text in given.sha256.items()}
        told = {"batch": given.batch, "time": given.time, "sizes": given.sizes}
        found |= {f"{what} of given numbers": _listed(value) for what, value in told.items()}
    return found


def _listed(value: object) -> str | None:
    if isinstance(value, Mapping):
        value = [f"{name}={each}" for name, each in value.items()]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or None
    if value is False:
        return None
    return "yes" if value is True else str(value)
