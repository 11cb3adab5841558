"""Functions that read the requests of ``harness env``: a backend, its version, and further
requirements for pip."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_string
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.command.options import as_label
from harness.errors import UsageError, shorten
from harness.runtime.hookspecs import ENTRY_POINT_GROUP
from harness.runtime.labels import LABEL
from harness.runtime.needs import requirements, unknown_backend
from harness.runtime.plugins import installed

# Installed distributions are packed as wheels again, so that a new environment gets the same code.
# Nothing is built: the wheel contains the files that the installer has recorded, unchanged. The
# files of an editable installation only point to its source, so its copy is editable too.

# Files that the installer of the wheel writes itself.
NOT_PACKED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})


def find_distribution(name: str) -> Distribution:
    """Return the installed package ``name``, whose files can be copied into an environment. This
    requires that its installer has recorded the list of files.

    Raises:
        UsageError: there is no record, because the package is imported from its source or another
            tool installed it.
    """
    # A source tree's egg-info has no such record.
    distribution = next((d for d in distributions(name=name) if d.read_text("RECORD")), None)
    if distribution is None:
        raise UsageError(
            f"the installer of {name} recorded no list of files, so it cannot be copied into "
            "another environment: install it there yourself, and name that interpreter "
            "(--backend torch@2.6=/path/to/python)"
        )
    return distribution


def is_editable(distribution: Distribution) -> bool:
    """Return whether a package is an editable installation (``pip install -e``)."""
    text = distribution.read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    return bool(origin.get("dir_info", {}).get("editable"))


def pack(distribution: Distribution, folder: Path) -> Path:
    """Write an installed package as a wheel into a folder, and return the path of the wheel."""
    tag = message_from_string(distribution.read_text("WHEEL") or "").get("Tag", "py3-none-any")
    name = re.sub(r"[-_.]+", "_", distribution.name)
    path = folder / f"{name}-{distribution.version}-{tag}.whl"
    rows = io.StringIO(newline="")
    record = csv.writer(rows, lineterminator="\n")
    home = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in filter(_belongs_in_wheel, distribution.files or ()):
            content = Path(str(file.locate())).read_bytes()
            archive.writestr(file.as_posix(), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.writerow([file.as_posix(), f"sha256={digest.decode()}", len(content)])
            home = file.parts[0] if file.parts[0].endswith(".dist-info") else home
        record.writerow([f"{home}/RECORD", "", ""])
        archive.writestr(f"{home}/RECORD", rows.getvalue())
    return path


def _belongs_in_wheel(file: PackagePath) -> bool:
    """Return whether an installed file goes into the wheel. Scripts, bytecode and the installer's
    records are left out."""
    inner = ".." not in file.parts and "__pycache__" not in file.parts
    return inner and not (file.parts[0].endswith(".dist-info") and file.name in NOT_PACKED)


DISTRIBUTION = "backend-comparison-harness"


@dataclass(frozen=True)
class EnvironmentRequest:
    """A request for an environment. ``column`` is the environment's name (``torch@2.6``), and
    ``requirements`` are its requirements for pip.

    ``packed`` has the installed packages that are copied into the environment: the harness and, if
    a plugin provides the backend, the plugin's package.
    """

    column: str
    backend: str
    requirements: tuple[str, ...]
    packed: tuple[Distribution, ...]


def read_request(words: Sequence[str]) -> EnvironmentRequest:
    """Read ``BACKEND==VERSION`` or ``BACKEND@VERSION``, followed by further requirements.

    Raises:
        UsageError: the first word is malformed, its backend is unknown, or another word is not a
            requirement.
    """
    backend, version = _split_version(*words[:2])
    _, entry = installed(ENTRY_POINT_GROUP)[backend]
    own_distribution = entry.dist.name if entry.dist else DISTRIBUTION
    by_name = {
        str(canonicalize_name(r.name)): r
        for r in requirements(find_distribution(own_distribution), backend)
    }
    framework = next((n for n in (backend, backend.split("-")[0]) if n in by_name), backend)
    # Drop the marker that limits a requirement to an extra.
    chosen = {
        name: requirement.name
        + (f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else "")
        + str(requirement.specifier)
        for name, requirement in by_name.items()
    }
    chosen[framework] = f"{framework}=={version}"
    for word in words[1:]:
        try:
            chosen[canonicalize_name(Requirement(word).name)] = word
        except InvalidRequirement as error:
            raise UsageError(
                f"{word!r} is not a pip requirement: {str(error).splitlines()[0]}"
            ) from None
    return EnvironmentRequest(
        f"{backend}@{version.removesuffix('.*')}",
        backend,
        tuple(chosen.values()),
        tuple(find_distribution(name) for name in dict.fromkeys((DISTRIBUTION, own_distribution))),
    )


def environment_name(word: str) -> str:
    """Return the name of an environment (``torch@2.6``) from a word such as ``torch@2.6`` or
    ``torch==2.6``.

    Raises:
        UsageError: the word has neither of these formats.
    """
    column = as_label(word)
    _, at, label = column.partition("@")
    if not at:
        _split_version(word)
    if not LABEL.fullmatch(label):
        raise UsageError(
            "--remove takes BACKEND@VERSION, where the version has 1 to 100 letters, "
            f"digits, '.', '_' and '-', found {shorten(word)!r}"
        )
    return column


def _split_version(word: str, after: str = "") -> tuple[str, str]:
    """Split ``word`` (e.g. ``torch==2.6``) into the backend and the version. ``after`` is the next
    word on the command line, for a hint in the error message."""
    backend, equals, version = word.partition("@" if "@" in word else "==")
    if not equals or not LABEL.fullmatch(version.removesuffix(".*")) or not version[0].isdigit():
        parts = f"{word} {after}".split()
        apart = len(parts) == 2 and parts[1][0].isdigit()
        hint = f"; write {'=='.join(parts)}" if apart else ""
        raise UsageError(
            f"write an environment as BACKEND==VERSION or BACKEND@VERSION, such as "
            f"torch==2.6.0, found {shorten(word)!r}{hint}"
        )
    if backend not in installed(ENTRY_POINT_GROUP):
        raise unknown_backend(backend)
    return backend, version
