"""Search for plugins (backends and formats) by name in the metadata of installed packages, and
loading of one plugin.

Listing the plugins imports none of them. Loading a plugin imports no other plugin. A broken plugin
therefore affects only users who load it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from harness.errors import HarnessError, did_you_mean
from harness.runtime.code_digest import digest
from harness.runtime.hookspecs import ENTRY_POINT_GROUP, ON_REQUEST, PROJECT, Hooks

if TYPE_CHECKING:
    from harness.runtime.backend import Backend


class BrokenPlugin(HarnessError):
    """Error: a plugin is installed but cannot be used.

    ``traceback`` is the traceback if the plugin's own code raised an error, else an empty text.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class UnknownBackend(HarnessError):
    """Error: no installed distribution provides the backend."""


class BrokenBackend(BrokenPlugin):
    """Error: a backend is installed but cannot be used."""


@dataclass(frozen=True)
class Origin:
    """The distribution (installed package) that provides a backend, from its metadata.

    ``module`` is the module of the plugin. ``rivals`` are other distributions that provide a
    backend of the same name. If there are rivals, the harness loads none of these backends.
    ``on_request`` is true if commands run the backend only if a user names it.
    """

    name: str
    distribution: str
    version: str
    module: str
    rivals: tuple[str, ...] = ()
    on_request: bool = False


def available(group: str = ENTRY_POINT_GROUP) -> dict[str, Origin]:
    """Return a dictionary from the name of each plugin in an entry-point group to its distribution.
    No plugin is imported."""
    return {name: origin for name, (origin, _) in sorted(installed(group).items())}


def default_backends() -> list[str]:
    """Return the names of the backends that commands run if a user names none, sorted."""
    return [name for name, origin in available().items() if not origin.on_request]


def load(name: str) -> Backend:
    """Import the plugin of backend ``name``, and no other plugin; return the backend, ready to use.

    This imports the framework, so call it only in the worker process of that backend.

    Raises:
        UnknownBackend: no backend of this name is installed.
        BrokenBackend: the plugin or its framework fails to import, two distributions claim the
            name, or the plugin breaks the contract of the hooks.
    """
    backend: Backend = BACKENDS.load(name, "harness_backend")
    return backend


def environment(name: str, deterministic: bool = False) -> dict[str, str]:
    """Return the environment variables that backend ``name`` needs before its framework is
    imported.

    With ``deterministic``, these include the variables that make identical calls give identical
    bits.

    Raises:
        UnknownBackend: no backend of this name is installed.
        BrokenBackend: the plugin or its framework fails to import, or the variables are not
            strings.
    """
    variables = _environment_of_hook(name, "harness_environment")
    return (
        {**variables, **_environment_of_hook(name, "harness_deterministic")}
        if deterministic
        else variables
    )


def instruction_sets(name: str) -> dict[str, dict[str, str]]:
    """Return the instruction sets to which backend ``name`` can be limited, and the environment
    variables of each.

    Raises:
        UnknownBackend: no backend of this name is installed.
        BrokenBackend: the plugin fails to import, or the variables are not strings.
    """
    hook = "harness_instruction_sets"
    sets = BACKENDS.call(name, hook) or {}
    if not isinstance(sets, Mapping):
        raise BrokenBackend(
            f"backend {name!r} is broken: {hook} returned {sets!r}; expected a mapping from "
            "instruction set to environment variables"
        )
    return {str(label): _check_variables(name, hook, sets[label]) for label in sets}


def _environment_of_hook(name: str, hook: str) -> dict[str, str]:
    return _check_variables(name, hook, BACKENDS.call(name, hook) or {})


def _check_variables(name: str, hook: str, variables: Any) -> dict[str, str]:
    strings = isinstance(variables, Mapping) and all(
        isinstance(text, str) for item in variables.items() for text in item
    )
    if not strings:
        raise BrokenBackend(
            f"backend {name!r} is broken: {hook} returned {variables!r}; expected a "
            "mapping of strings to strings"
        )
    return dict(variables)


def code(name: str) -> str:
    """Return a checksum of the code of backend ``name``; empty if no such backend is installed."""
    if name not in (found := installed()):
        return ""
    origin, entry = found[name]
    # The harness's own code has a separate checksum.
    others = set() if ships(name) or entry.dist is None else _top_level(entry.dist)
    return digest(origin.module, others)


def ships(name: str) -> bool:
    """Return whether backend ``name`` is installed and is part of the harness."""
    found = installed().get(name)
    return found is not None and found[0].module.startswith("harness.")


def _top_level(distribution: Distribution) -> set[str]:
    """Return the names of the top-level modules and packages that an installed distribution
    contains."""
    # An editable installation has no list of files, but may have ``top_level.txt``.
    listed_modules = (distribution.read_text("top_level.txt") or "").split()
    files = (file.parts[0] for file in distribution.files or ())
    names = (*listed_modules, *(name.removesuffix(".py") for name in files))
    return {name for name in names if name.isidentifier()}


def installed(group: str = ENTRY_POINT_GROUP) -> dict[str, tuple[Origin, EntryPoint]]:
    """Return a dictionary from the name of each plugin in an entry-point group to its distribution
    and its entry point. No plugin is imported."""
    return dict(_installed(group, tuple((place, _change_time(place)) for place in sys.path)))


def _change_time(place: str) -> int:
    """Return the time of a folder's last change in nanoseconds; 0 if the folder is missing."""
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:  # sys.path may name missing folders
        return 0


@lru_cache(maxsize=8)
def _installed(
    group: str, _: tuple[tuple[str, int], ...]
) -> Mapping[str, tuple[Origin, EntryPoint]]:
    """Return the result of :func:`installed`. It is cached, because it reads a file per
    distribution. The second argument has the times when folders changed, so that a new package is
    found."""
    entries: dict[str, tuple[Origin, EntryPoint]] = {}
    for entry in (*entry_points(group=group), *entry_points(group=group + ON_REQUEST)):
        distribution, version = (
            (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "unknown")
        )
        if entry.name in entries:
            origin, first = entries[entry.name]
            rivals = (*origin.rivals, distribution)
            entries[entry.name] = (replace(origin, rivals=rivals), first)
        else:
            on_request = entry.group.endswith(ON_REQUEST)
            origin = Origin(entry.name, distribution, version, entry.value, on_request=on_request)
            entries[entry.name] = (origin, entry)
    return entries


@dataclass(frozen=True)
class PluginKind:
    """A kind of plugin, backend or format: ``noun`` is its name in messages, and ``group`` its
    group of entry points.

    ``unknown`` is the class of the error for a name without a plugin. ``broken`` is the class of
    the error for a plugin that cannot be used.
    """

    noun: str
    group: str
    unknown: type[HarnessError]
    broken: type[BrokenPlugin]

    def find(self, name: str) -> tuple[Origin, EntryPoint]:
        """Return the distribution and the entry point of the plugin ``name``.

        Raises:
            HarnessError: no plugin of this name is installed (``unknown``), or several
                distributions provide one (``broken``).
        """
        entries = installed(self.group)
        if name not in entries:
            names = ", ".join(sorted(entries)) or "none"
            hint = did_you_mean(name, entries)
            raise self.unknown(f"unknown {self.noun} {name!r}{hint}; installed: {names}")
        origin, entry = entries[name]
        if origin.rivals:
            claims = ", ".join((origin.distribution, *origin.rivals))
            raise self.broken(
                f"{self.noun} {name!r} is claimed by several distributions: {claims}; uninstall "
                "all but one"
            )
        return origin, entry

    def call(self, name: str, hook: str) -> Any:
        """Import the plugin ``name``, call its function ``hook``, and return the result; return
        None if the plugin does not have this function.

        Raises:
            HarnessError: the plugin is not found (see :meth:`find`), or the plugin or its framework
                raises an error (``broken``).
        """
        origin, entry = self.find(name)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hooks)
        # Catch SystemExit too: some frameworks exit if a library or device is missing.
        try:
            manager.register(entry.load(), name)
            manager.check_pending()
            return getattr(manager.hook, hook)(name=name)
        except (Exception, SystemExit) as error:
            hint = _install_hint(entry) if isinstance(error, ModuleNotFoundError) else ""
            raise self.broken(
                f"{self.noun} {name!r} ({origin.distribution} {origin.version}, {origin.module}) "
                f"could not be loaded: {type(error).__name__}: {error}{hint}",
                traceback.format_exc(),
            ) from error

    def load(self, name: str, hook: str) -> Any:
        """Import the plugin ``name``, call its function ``hook``, and return the result, which must
        not be None.

        Raises:
            HarnessError: an error of :meth:`call`, or the hook is missing or returns None
                (``broken``).
        """
        plugin = self.call(name, hook)
        if plugin is None:
            raise self.broken(
                f"{self.noun} {name!r} is broken: {self.find(name)[0].module} implements no {hook} "
                "hook, or its hook returned None"
            )
        return plugin


def extras(dist: Distribution, name: str) -> list[str]:
    """Return the extras of the package ``dist`` that install what its plugin ``name`` needs.

    If the plugin's name is an extra, this is the only one. Otherwise the parts of the name are the
    extras: ``keras`` and ``torch`` for ``keras-torch``. The list is empty if one of these is
    missing.
    """
    known = set(dist.metadata.get_all("Provides-Extra") or ())
    parts = [name] if name in known else name.split("-")
    return parts if known.issuperset(parts) else []


def install_command(dist: Distribution, names: Sequence[str]) -> str:
    """Return the pip command that installs a distribution with the given extras."""
    return f"pip install '{dist.name}[{','.join(names)}]'"


def _install_hint(entry: EntryPoint) -> str:
    names = extras(entry.dist, entry.name) if entry.dist else []
    return (
        f"; install it with: {install_command(entry.dist, names)}" if entry.dist and names else ""
    )


BACKENDS = PluginKind("backend", ENTRY_POINT_GROUP, UnknownBackend, BrokenBackend)
