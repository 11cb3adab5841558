"""The backends that a command runs. Each backend becomes a column of the report.

A column is named ``torch``, or ``torch@2.6`` for the version 2.6 in a separate environment. Users
may also write ``torch==2.6``. ``torch@2.6=/path/to/python`` runs the backend ``torch`` in the
interpreter ``/path/to/python``. Measurements and records use the name with the label (the part
after ``@``). Known differences, and the choice of layers that a plugin runs with framework
functions, depend only on the name without the label.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.command import options
from harness.environments import installed
from harness.environments.installed import NoEnvironment
from harness.errors import UsageError, shorten
from harness.runtime import needs
from harness.runtime.labels import LABEL, VERSION
from harness.runtime.plugins import available, default_backends

# The allowed spellings of a column, for messages.
FORMS = (
    "write torch, torch==2.12 or torch@2.12 (an environment from 'harness env'), or "
    "torch@LABEL=/path/to/python"
)


@dataclass(frozen=True)
class Columns:
    """The columns of a command's report, i.e. its backends, in order.

    ``pythons`` maps a column to its interpreter, if this is not the interpreter of the harness.
    ``lacking`` has the backends that are skipped because their framework is not installed. It maps
    each of them to the command that installs the framework.
    """

    names: tuple[str, ...]
    pythons: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)


def choose(requests: Sequence[str], pythons: Mapping[str, str] | None = None) -> Columns:
    """Return the requested backends as columns of the report. If ``requests`` is empty, return all
    backends whose framework is installed, except those that run only on request.

    A request is ``BACKEND[@LABEL][=INTERPRETER]`` or ``BACKEND==VERSION``. ``pythons`` maps names
    of columns to further interpreters. If a label has no interpreter, it must be the name of an
    environment of ``harness env``.

    Raises:
        NoEnvironment: environments are missing, or have another version of the harness.
        UsageError: a backend is unknown, a label is invalid, or a column has two interpreters.
    """
    given_pythons = dict(pythons or {})
    if not requests:
        return _choose_installed(given_pythons)
    names: dict[str, None] = {}
    own_pythons: dict[str, str] = {}
    for item in requests:
        name, python = _parse_request(item)
        for other in (given_pythons.get(name), own_pythons.get(name)):
            if python and other is not None and other != python:
                raise UsageError(f"{name} has two interpreters: {other!r} and {python!r}")
        names[name] = None
        if python:
            own_pythons[name] = python
    missing = []
    for name in names:
        if "@" in name and name not in own_pythons and name not in given_pythons:
            try:
                own_pythons[name] = installed.find_interpreter(name)
            except NoEnvironment as error:
                missing.append(error)
    if missing:
        raise NoEnvironment(
            "\n".join(map(str, missing)), [column for one in missing for column in one.columns]
        )
    return Columns(tuple(names), {**given_pythons, **own_pythons})


def choose_from_options(
    backends: Sequence[str], pythons: Sequence[str] | Mapping[str, str]
) -> Columns:
    """Return the backends named in the values of ``--backend`` as columns of the report.
    ``pythons`` has the values of ``--python``.

    Raises:
        UsageError: as in :func:`choose`, or ``--python`` gives no interpreter of a column.
    """
    if isinstance(pythons, Mapping):
        return choose(backends, pythons)
    named = [item for item in map(options.as_label, backends) if "=" not in item]
    every = partial(tuple[str, ...], named if backends else default_backends())
    return choose(backends, options.interpreters(pythons, every))


def complete_options(
    options_by_field: Mapping[str, Any], variables: str = "environment"
) -> dict[str, Any]:
    """Parse those options of a command that name backends, interpreters or environment variables.
    Return all its options by field name. The backends are replaced by the columns of the report,
    and the interpreters and variables by dictionaries with column names as keys.

    ``variables`` is the name of the field with the environment variables.

    Raises:
        UsageError: as in :func:`choose`, or an option is malformed.
    """
    backends = options_by_field.get("backends", ())
    columns = choose_from_options(backends, options_by_field.get("pythons", ()))
    names = columns.names if backends else ()
    return {
        **options_by_field,
        "backends": names,
        "pythons": columns.pythons,
        variables: column_variables(backends, options_by_field.get(variables, ())),
    }


def column_variables(
    backends: Sequence[str], environment: Sequence[str] | Mapping[str, Mapping[str, str]]
) -> Mapping[str, Mapping[str, str]]:
    """Return the environment variables of each column: column -> name -> value. ``backends`` are
    the values of ``--backend``, and ``environment`` those of ``--env``.

    Raises:
        UsageError: a value of ``--env`` has a wrong format.
    """
    if isinstance(environment, Mapping):
        return environment
    return options.variables(environment, partial(column_names, backends))


def column_names(backends: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns for the values of ``--backend``, e.g. ``torch@2.6``. Other
    options (e.g. ``--python``) refer to a column by this name."""
    return tuple(_split_request(item)[0] for item in backends) or tuple(default_backends())


def choose_one(request: str, python: str | None = None) -> tuple[str, str]:
    """Return the name of a single requested backend (column), and its Python interpreter.
    ``python`` is the value of ``--python``, if given.

    The default is the interpreter that runs this code.

    Raises:
        UsageError: as in :func:`choose`.
    """
    name = _split_request(request)[0]
    columns = choose((request,), {name: python} if python else {})
    return name, columns.pythons.get(name, sys.executable)


def choose_process(
    options_given: options.ProcessOptions, backend: str
) -> tuple[str, str, dict[str, str]]:
    """Return three things for a command that runs a single backend: the name of its column in the
    report, its interpreter, and the environment variables of its process.

    Raises:
        UsageError: a backend is unknown, a label is invalid, or an option is for another backend.
    """
    name, own_python = _split_request(backend)
    python, environment = options.process_of(options_given, name, own_python)
    column, interpreter = choose_one(backend, python)
    return column, interpreter, environment


def skipped_messages(lacking: Mapping[str, str]) -> list[str]:
    """Return a message for each backend in ``lacking``, which is skipped because its framework is
    not installed. The message has the command that installs the framework."""
    return [
        f"{name} is skipped, because its framework is not installed: {how}"
        for name, how in lacking.items()
    ]


def _choose_installed(pythons: dict[str, str]) -> Columns:
    lacking = needs.missing_frameworks(
        {name: pythons.get(name, sys.executable) for name in default_backends()}
    )
    names = tuple(name for name in default_backends() if name not in lacking)
    if not names:
        raise UsageError(f"no backend can run: {'; '.join(skipped_messages(lacking))}")
    return Columns(names, pythons, lacking)


def _split_request(item: str) -> tuple[str, str]:
    """Split a request, e.g. ``torch@2.6=/path/to/python``, into the name and the interpreter. The
    interpreter may be empty."""
    name, _, python = options.as_label(item).partition("=")
    return name, python


def _parse_request(item: str) -> tuple[str, str]:
    """Split a request, e.g. ``torch@2.6=/path/to/python``, into the name and the interpreter, and
    check both.

    Raises:
        UsageError: the backend is unknown, the label is invalid, or no interpreter follows a '='.
    """
    name, python = _split_request(item)
    backend, at, label = name.partition("@")
    known = available()
    if backend not in known:
        forms = "" if backend.replace("-", "").isalpha() else f"; {FORMS}"
        raise UsageError(f"{needs.unknown_backend(backend)}{forms}")
    if at and not LABEL.fullmatch(label):
        raise UsageError(
            f"{shorten(item)!r}: the label after '@' or '==' must have 1 to 100 letters, digits, "
            f"'.', '_' and '-', found {shorten(label)!r}; {FORMS}"
        )
    if VERSION.fullmatch(python):
        raise UsageError(
            f"{item!r} names the interpreter {python!r}; write {backend}=={python} for a version"
        )
    if item.endswith("="):
        raise UsageError(f"{item!r} has no interpreter after '='; {FORMS}")
    return name, python
