"""The catalogue of defaults that differ between frameworks (``specs/defaults/*.yaml``), and
functions that search it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from packaging.version import Version
from pydantic import Field

from harness.errors import UsageError, check_known, did_you_mean
from harness.language.base_models import Strict
from harness.language.document import parse, validate
from harness.runtime.hookspecs import Measured

# A measured number may differ from the catalogue's by this share, because the catalogue has few
# digits.
NEAR = 0.01


class Earlier(Strict):
    """The measured value of a default in the versions of ``package`` before ``version``."""

    package: str
    version: str
    measured: bool | int | float | str


class Framework(Strict):
    """Facts about one framework in an entry of the catalogue.

    ``does`` describes the default. ``measured`` is the value that the plugin's measurement of the
    default should give, and ``before`` the value in earlier versions. ``set`` is the setting with
    which the framework behaves as the entry recommends (``agree_on``).
    """

    does: str
    set: str
    measured: bool | int | float | str
    before: Earlier | None = None

    def expected(self, versions: Mapping[str, str]) -> Measured:
        """Return the value that the measurement should give with the installed ``versions``, a
        dictionary from package to version."""
        earlier = self.before
        if earlier and Version(versions[earlier.package]) < Version(earlier.version):
            return earlier.measured
        return self.measured

    def holds(self, measured_value: Measured, versions: Mapping[str, str]) -> bool:
        """Return whether a measured value equals the value in the catalogue; floats may differ by
        1%."""
        written = self.expected(versions)
        if isinstance(written, float) and isinstance(measured_value, int | float):
            return math.isclose(written, measured_value, rel_tol=NEAR, abs_tol=1e-12)
        return type(written) is type(measured_value) and written == measured_value


class DefaultEntry(Strict):
    """A default that differs between frameworks, e.g. the epsilon of a normalisation.

    ``layers`` are the names of the layers, functions, losses or optimizers that have this default.
    ``parts`` says what the default is about. ``agree_on`` is the behaviour that every framework has
    with its recommended setting. ``apart`` describes the effect of the difference between the
    defaults. ``elsewhere`` is a remark on other frameworks.
    """

    layers: list[str] = Field(min_length=1)
    parts: str
    apart: str
    agree_on: str
    frameworks: dict[str, Framework] = Field(min_length=1)
    elsewhere: str = ""
    source: str

    def differs(self, names: Sequence[str]) -> bool:
        """Return whether the named frameworks differ in this default: the entry must cover all of
        them, and their measured values must not all be equal."""
        facts = [self.frameworks.get(name) for name in names]
        measured = [framework.measured for framework in facts if framework is not None]
        if len(measured) < len(names):
            return False
        return any(value != measured[0] for value in measured[1:])


class CatalogueFile(Strict):
    """The content of one file of the catalogue."""

    defaults: dict[str, DefaultEntry]


Entries = Mapping[str, DefaultEntry]


@cache
def groups() -> dict[str, dict[str, DefaultEntry]]:
    """Return all entries of the catalogue: file name -> entry name -> entry.

    Raises:
        SpecError: a file is invalid.
    """
    by_file: dict[str, dict[str, DefaultEntry]] = {}
    folder = files("harness.specs").joinpath("defaults")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".yaml"):
            text = path.read_text(encoding="utf-8")
            document = parse(text, f"specs/defaults/{path.name}")
            by_file[path.name.removesuffix(".yaml")] = validate(document, CatalogueFile).defaults
    return by_file


def catalogue() -> dict[str, DefaultEntry]:
    """Return all entries of the catalogue as a dictionary from name to entry."""
    return {name: entry for group in groups().values() for name, entry in group.items()}


def layers(entries: Entries) -> list[str]:
    """Return the sorted names of all layers, functions, losses and optimizers in the entries."""
    return sorted({layer for entry in entries.values() for layer in entry.layers})


def frameworks(entries: Entries) -> list[str]:
    """Return the sorted names of all frameworks in the entries."""
    return sorted({name for entry in entries.values() for name in entry.frameworks})


def select_entries(layer: str | None, between: Sequence[str]) -> dict[str, DefaultEntry]:
    """Return a dictionary from name to entry: the entries about ``layer``, or the entry with that
    name. If ``layer`` is None, return all entries.

    If ``between`` names two frameworks, return only entries in which these two differ.

    Raises:
        UsageError: there is no such layer or framework, or the two frameworks are the same.
    """
    entries = catalogue()
    names = frameworks(entries)
    for name in between:
        check_known("framework", name, names)
    if len(set(between)) < len(between):
        raise UsageError(f"{between[0]} cannot be compared with itself: name another framework")
    if layer is not None:
        about = layers(entries)
        if layer not in about and layer not in entries:
            hint = did_you_mean(layer, [*about, *entries])
            raise UsageError(f"no default of {layer!r} is known{hint} (known: {', '.join(about)})")
        entries = {n: e for n, e in entries.items() if layer in e.layers or n == layer}
    if between:
        entries = {n: e for n, e in entries.items() if e.differs(between)}
    return entries


def select_frameworks(entry: DefaultEntry, between: Sequence[str]) -> dict[str, Framework]:
    """Return the facts in an entry about the frameworks named in ``between``, or about all its
    frameworks if ``between`` is empty. The keys are framework names."""
    return {n: f for n, f in entry.frameworks.items() if not between or n in between}


def record(name: str, entry: DefaultEntry, between: Sequence[str]) -> dict[str, object]:
    """Return an entry as JSON data, with the frameworks named in ``between``, or with all if it is
    empty."""
    data = entry.model_dump()
    data["frameworks"] = {n: f.model_dump() for n, f in select_frameworks(entry, between).items()}
    return {"name": name, **data}
