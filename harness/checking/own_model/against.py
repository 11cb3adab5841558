"""The option ``--against``: the file of a user's own model, the model's name in the file, and the
framework that runs the model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checking.options import DTYPES
from harness.checking.own_model.framework import MAX_SOURCE, find_framework
from harness.errors import UsageError, check_known
from harness.files.user_file import MAX_WEIGHTS, FileFault, displayed, read_bytes, read_pieces
from harness.results.lines import OwnModelRecord
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.labels import backend_of
from harness.runtime.paths import OWN_PATHS
from harness.runtime.plugins import available

PYTHON = ".py"
# The most rules of --map, and the most characters of a rule.
MOST_RULES, LONGEST_RULE = 10_000, 1_000
FORM = (
    "--against takes FILE.py:NAME, where NAME is a model, class or function in the file, or a "
    "file with a complete model"
)
# Suffixes of files that have weights but no model.
WEIGHTS = {".pt", ".pth", ".safetensors", ".h5", ".npz", ".ckpt", ".bin"}
SERVICE = "harness.runtime.own_model.service:handler"
HANDLER = "harness.runtime.own_model.service:of_format"
MEMBER = re.compile(r"(.+\.py):([^:/]*)(?::([^:/]*))?")
OTHERS = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Against:
    """A user's own model to check.

    ``column`` is the model's name in records, e.g. ``torch@model.Gru``: the framework and the
    model. ``is_format`` is true if a file format such as ``onnx`` runs the model, not a backend.
    ``maps``, ``takes`` and ``returns`` are the values of the options with these names.
    ``checksum`` is the checksum of the file. ``paths`` are the paths on which the model runs (see
    :data:`.paths.OWN_PATHS`), and ``lacking`` maps a path that cannot run here to the reason.
    ``inputs`` has the values of ``--input`` if the spec is the trace of the model.
    """

    path: Path
    name: str
    parameters: str
    column: str
    is_format: bool
    checksum: str
    maps: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    paths: tuple[str, ...] = ("native",)
    lacking: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return ":".join(filter(None, (displayed(self.path.name), self.name, self.parameters)))

    @property
    def target(self) -> str:
        """The model as the value of the option ``--against``: ``model.py:Gru``."""
        return ":".join(filter(None, (str(self.path), self.name, self.parameters)))

    @property
    def service(self) -> dict[str, Any]:
        """The function that handles the worker's calls, as an argument of a launch or a request."""
        return {"handler": HANDLER} if self.is_format else {"service": SERVICE}

    def place(self) -> dict[str, str]:
        """Return the file, the model's name and its parameters, as arguments of a worker call."""
        path = str(self.path.absolute())
        return {"path": path, "name": self.name, "parameters": self.parameters}

    def choose_dtypes(self, dtypes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the dtypes of a request for the model. The arrays in a model file have one dtype,
        usually float32, which replaces the default dtypes."""
        return ("float32",) if not self.name and tuple(dtypes) == DTYPES else dtypes

    def variants(self, dtypes: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return the combinations of dtype and path in which the model runs. ``dtypes`` are the
        dtypes of the request."""
        chosen = self.choose_dtypes(dtypes)
        return [
            (dtype, path)
            for path in self.paths
            for dtype in [d for d in chosen if d in OWN_PATHS[path]] or OWN_PATHS[path][:1]
        ]

    def record(self) -> OwnModelRecord:
        """Return the model's entry in a record file."""
        return OwnModelRecord(
            model=str(self),
            sha256=self.checksum,
            map=tuple(self.maps),
            takes=tuple(self.takes),
            returns=tuple(self.returns),
            inputs=tuple(self.inputs),
        )


def parse_against(
    target: str,
    backends: Sequence[str] = (),
    maps: Sequence[str] = (),
    takes: Sequence[str] = (),
    returns: Sequence[str] = (),
    preferred: Sequence[str] = (),
) -> Against:
    """Parse a value of ``--against``; ``backends`` are the values of ``--backend``. If the file
    imports several frameworks, the framework in ``preferred`` runs the model.

    Raises:
        UsageError: the file does not exist or has no model, or the framework of the model is
            unknown.
    """
    path, name, parameters = _split_target(target)
    checksum = _compute_checksum(path)
    if len(backends) > 1:
        raise UsageError(
            f"only one framework can run {displayed(target)}; found --backend {', '.join(backends)}"
        )
    if path.suffix == PYTHON:
        framework = backends[0] if backends else find_framework(path, preferred)
    else:
        framework = backends[0] if backends else path.suffix.removeprefix(".")
    if framework not in available(FORMATS_GROUP) or backend_of(framework) in available():
        check_known("backend", backend_of(framework), available())
    is_format = backend_of(framework) not in available()
    column = f"{backend_of(framework)}@{model_label(target)}"
    chosen = tuple(takes), tuple(returns)
    return Against(path, name, parameters, column, is_format, checksum, _read_rules(maps), *chosen)


def model_label(target: str) -> str:
    """Return the label of a model's column in reports, e.g. ``model.Gru`` for ``model.py:Gru``."""
    match = MEMBER.fullmatch(target)
    path, name = (match[1], match[2]) if match else (target, "")
    return OTHERS.sub("_", ".".join(filter(None, (Path(path).stem, name))))


def _split_target(target: str) -> tuple[Path, str, str]:
    """Split ``FILE.py:NAME[:PARAMETERS]`` into its parts. If the file has a different suffix,
    return its path and two empty texts."""
    match = MEMBER.fullmatch(target)
    if match is not None:
        names = [n for n in match.groups()[1:] if n is not None]
        if not all(n.isidentifier() for n in names):
            raise UsageError(f"{FORM}; found {displayed(target)}")
        return Path(match[1]), names[0], names[1] if len(names) > 1 else ""
    path = Path(target)
    if path.suffix == PYTHON:
        raise UsageError(f"{FORM}; found {displayed(target)} without a name")
    if path.suffix.lower() in WEIGHTS:
        raise UsageError(
            f"{displayed(target)} has weights but no model: give the code of the model with "
            "--against FILE.py:NAME, and the weights with --weights"
        )
    if path.suffix.removeprefix(".") not in {*available(), *available(FORMATS_GROUP)}:
        raise UsageError(f"{FORM} (.onnx, .keras); found {displayed(target)}")
    return path, "", ""


def names_model(text: str) -> bool:
    """Return whether a text names a user's model, such as ``net.py:Net`` or ``net.onnx``."""
    suffix = Path(text).suffix.removeprefix(".")
    is_python = f".{suffix}" == PYTHON or MEMBER.fullmatch(text) is not None
    return is_python or suffix in {*available(), *available(FORMATS_GROUP)}


def _compute_checksum(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        for piece in read_pieces(path, MAX_WEIGHTS, "a model"):
            digest.update(piece)
    except FileFault as fault:
        raise UsageError(f"cannot read the model {displayed(path)}: {fault.reason}") from None
    return digest.hexdigest()


def _read_rules(maps: Sequence[str]) -> tuple[str, ...]:
    """Return the rules of ``--map``, and the rules in files that ``--map`` names. Such a file has
    one rule per line, and ``#`` begins a comment.

    Raises:
        UsageError: a file cannot be read, there are too many rules, or a rule is too long.
    """
    rules: list[str] = []
    for item in maps:
        if "=" in item:
            rules.append(_check_rule(item, "--map"))
            continue
        try:
            text = read_bytes(item, MAX_SOURCE, "rules of --map").decode()
        except FileFault as fault:
            raise UsageError(
                f"--map takes OURS=THEIRS, or a file of such lines: cannot read {fault}"
            ) from None
        except UnicodeDecodeError:
            raise UsageError(f"--map: {displayed(item)} is not UTF-8 text") from None
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        rules += (
            _check_rule(line, f"{displayed(item)}:{number}")
            for number, line in enumerate(lines, start=1)
            if line
        )
    if len(rules) > MOST_RULES:
        raise UsageError(f"--map: {len(rules):,} rules; at most {MOST_RULES:,} are allowed")
    return tuple(rules)


def _check_rule(text: str, place: str) -> str:
    # The message must not quote a line of the file: a wrong path may name a private file.
    if len(text) > LONGEST_RULE:
        raise UsageError(
            f"{place}: a rule of {len(text):,} characters; at most {LONGEST_RULE:,} are allowed"
        )
    if "=" not in text:
        raise UsageError(
            f"{place}: a rule must be OURS=THEIRS, such as rnn=gru; this rule has no '='"
        )
    return text
