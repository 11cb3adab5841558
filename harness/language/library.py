"""Search for definitions of models, layers, functions and so on, in the user's folders and in the
shipped specs."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from harness.errors import (
    ErrorList,
    Place,
    SpecError,
    UsageError,
    did_you_mean,
    known_names,
    shorten,
)
from harness.files.user_file import FileFault, displayed, read_bytes
from harness.language.base_models import Documented
from harness.language.definitions import check_definition
from harness.language.document import MAX_BYTES, Document, load, parse, validate
from harness.language.hints import Hints, read_hints
from harness.language.names import is_model_name
from harness.language.schema import KINDS, Model

# Detection of duplicate names: two files must not declare the same name.

# A regular expression finds the name, because another file in the folder may be invalid YAML.
_DECLARATION = r"^{}:[ \t]*[\"']?([^\s\"'#]+)"


def same_file(one: Path | Traversable | None, other: Path | Traversable | None) -> bool:
    """Return whether two paths lead to the same file, also through symbolic links."""
    if not isinstance(one, Path) or not isinstance(other, Path):
        return one is not None and one == other
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def find_declarations(kind: str, paths: Iterable[Path]) -> dict[str, list[tuple[Path, Place]]]:
    """Find the definitions of a kind (e.g. ``layer``) in files. Return a dictionary from each
    declared name to a list of pairs: the file, and the position of the name in it."""
    pattern = re.compile(_DECLARATION.format(kind), re.MULTILINE)
    declarations: dict[str, list[tuple[Path, Place]]] = {}
    for path in paths:
        try:
            text = read_bytes(path, MAX_BYTES, "a spec").decode("utf-8", "replace")
        except FileFault:
            continue
        if match := pattern.search(text):
            start = match.start(1)
            line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
            place = Place(displayed(path), line, column)
            declarations.setdefault(match[1], []).append((path, place))
    return declarations


def name_clash(kind: str, name: str, place: Place, other_place: Place) -> SpecError:
    """Return the error for a name that two files declare: one at ``place``, the other at
    ``other_place``."""
    return SpecError(
        f"{kind} {name!r} is also declared in another file: {other_place}. Results are stored by "
        f"name, so give one of the two a different name",
        place,
    )


def find_name_clash(
    kind: str, name: str, place: Place, path: Path, others: Sequence[tuple[Path, Place]]
) -> SpecError | None:
    """Return an error if a file in ``others`` declares the same ``name`` as the different file
    ``path``; otherwise return None. ``others`` are pairs (file, position)."""
    other_places = (
        other_place for other_path, other_place in others if not same_file(other_path, path)
    )
    other_place = next(other_places, None)
    return None if other_place is None else name_clash(kind, name, place, other_place)


FOLDERS: Mapping[str, str] = {
    "model": "models",
    "layer": "layers",
    "function": "functions",
    "loss": "losses",
    "optimizer": "optimizers",
}
_MAX_DEPTH = 4
D = TypeVar("D", bound=Documented)


@dataclass(frozen=True)
class Definition:
    """The content of a spec file after validation. ``document`` has the positions of keys and
    values.

    ``path`` is None if the text does not come from a file.
    """

    document: Document
    content: Documented
    path: Path | Traversable | None = None

    @property
    def kind(self) -> str:
        """The kind of the definition, e.g. ``layer``."""
        return next(kind for kind, form in KINDS.items() if isinstance(self.content, form))

    @property
    def name(self) -> tuple[str, Place]:
        """The name that the file declares, and the position of this name."""
        return getattr(self.content, self.kind), self.document.place_of((self.kind,))


@dataclass
class Library:
    """A cache of definitions by kind (e.g. ``layer``) and name.

    Definitions are searched first in ``local`` (see :meth:`for_model`), then in ``folders``, and
    then in the shipped specs. ``overrides`` maps ``(kind, name)`` to a text that is used instead of
    a file.
    """

    folders: tuple[Path, ...] = ()
    overrides: Mapping[tuple[str, str], str] = field(default_factory=dict)
    local: Mapping[tuple[str, str], Definition] = field(default_factory=dict)
    _read: dict[tuple[str, str], Definition] = field(default_factory=dict)
    _names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _declarations: dict[str, dict[str, list[tuple[Path, Place]]]] = field(default_factory=dict)
    replaced: dict[tuple[str, str], tuple[Place, Place]] = field(default_factory=dict)
    """Positions of definitions in folders and of the shipped definitions that they replace."""
    unusual: dict[Place, str] = field(default_factory=dict)
    """Messages about unusual values of attributes, by the position of the value."""
    checksums: dict[tuple[str, str], str] = field(default_factory=dict)
    """Cached checksums of definitions, by kind and name."""
    reading: list[str] = field(default_factory=list)
    """A stack of the definitions whose checksum is being computed."""

    def __post_init__(self) -> None:
        for folder in self.folders:
            # Path.is_dir raises if a folder is not accessible or its name is too long.
            if not os.path.isdir(folder):
                raise UsageError(f"there is no folder {displayed(folder)!r} of definitions")

    @cached_property
    def hints(self) -> Hints:
        """The hints on what to write in place of names of frameworks; they are read at the first
        use."""
        return read_hints(self.folders)

    def find(self, kind: str, name: str, place: Place | None = None) -> Definition:
        """Return the definition of a kind and name. Raises :class:`SpecError` at ``place`` if the
        name is unknown."""
        key = (kind, name)
        if key not in self._read:
            self._read[key] = self._load(kind, name, place)
        return self._read[key]

    def lines(self, file: str) -> tuple[str, ...]:
        """Return the lines of a file; () if no definition in the cache was read from this file."""
        documents = (definition.document for definition in self._read.values())
        return next((d.lines for d in documents if d.file == file), ())

    def is_cached(self, kind: str, name: str) -> bool:
        """Return whether the cache holds a definition."""
        return (kind, name) in self._read

    def forget(self, kind: str, name: str) -> None:
        """Drop a definition from the cache."""
        self._read.pop((kind, name), None)

    def _load(self, kind: str, name: str, place: Place | None) -> Definition:
        relative = f"{FOLDERS[kind]}/{name}.yaml"
        if (kind, name) in self.overrides:
            return _validate(kind, parse(self.overrides[kind, name], f"<{relative}>"), name)
        if (kind, name) in self.local:
            return self.local[kind, name]
        if not is_model_name(name) or name not in self.names(kind):
            all_names = self.names(kind)
            common = name.rpartition(".")[2].lower().replace("_", "")
            framework_hint = self.hints.definitions.get(common)
            hint = f"; write {framework_hint}" if framework_hint else did_you_mean(name, all_names)
            hint = self.misplaced_hint(kind, name, place) or hint
            names_text = known_names(all_names, hint, f"harness list --{FOLDERS[kind]}")
            message = f"unknown {kind} {shorten(name)!r}{hint}{names_text}"
            raise SpecError(message, place) if place else UsageError(message)
        for folder in self.folders:
            if (folder / relative).exists():
                return self._check_unique(kind, _load_file(kind, folder / relative, name))
        return _load_shipped(kind, name)

    def misplaced_hint(self, kind: str, name: str, place: Place | None = None) -> str:
        """Return a hint if a file named like the definition exists in a folder in which this kind
        of definition is not searched; otherwise ""."""
        if not is_model_name(name):
            return ""
        if kind == "model" and place is None and (file := Path(f"{name}.yaml")).is_file():
            return f"; did you mean the file {displayed(file)!r}?"
        subfolders = ["", *(subfolder for of, subfolder in FOLDERS.items() if of != kind)]
        for path in (
            f / subfolder / f"{name}.yaml" for f in self.folders for subfolder in subfolders
        ):
            if path.is_file():
                expected = f"{FOLDERS[kind]}/{name}.yaml"
                return f"; {displayed(path)} is not read: move it to {expected}"
        spec_folder = Path(place.file).parent if place else Path()
        for folder in (spec_folder, spec_folder.parent, Path()):
            path = folder / FOLDERS[kind] / f"{name}.yaml"
            if path.is_file():
                return f"; to read {displayed(path)}, add --specs {displayed(folder)}"
        return ""

    def _check_unique(self, kind: str, definition: Definition) -> Definition:
        """Return ``definition`` if no other file declares the same name; otherwise raise
        :class:`SpecError`.

        A layer, function, loss or optimizer may replace a shipped definition. A model must not,
        because results are stored under the model's name.
        """
        (name, place), path = definition.name, definition.path
        assert isinstance(path, Path)
        error = find_name_clash(
            kind, name, place, path, self._find_all_declarations(kind).get(name, ())
        )
        if error is not None:
            raise error
        if name in _find_shipped_names(kind):
            shipped = _load_shipped(kind, name)
            if not same_file(path, shipped.path):
                if kind == "model":
                    raise name_clash(kind, name, place, shipped.name[1])
                self.replaced[kind, name] = place, shipped.name[1]
        return definition

    def _find_all_declarations(self, kind: str) -> dict[str, list[tuple[Path, Place]]]:
        """Search all folders. Return a dictionary from each declared name of this kind to a list of
        pairs: the file, and the position of the name in it."""
        if kind not in self._declarations:
            paths = [
                folder / FOLDERS[kind] / f"{name}.yaml"
                for folder in self.folders
                for name in _find_names(folder / FOLDERS[kind])
            ]
            self._declarations[kind] = find_declarations(kind, paths)
        return self._declarations[kind]

    def has(self, kind: str, name: str) -> bool:
        """Return whether there is a definition of this kind and name."""
        return name in self.names(kind)

    def is_model(self, name: str) -> bool:
        """Return whether ``name`` is the name of a model or the path of a model's file."""
        return self.has("model", name) or is_model_file(name)

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of all definitions of a kind, sorted."""
        if kind not in self._names:
            names = {name for k, name in (*self.overrides, *self.local) if k == kind}
            for folder in self.folders:
                names.update(_find_names(folder / FOLDERS[kind]))
            names.update(_find_shipped_names(kind))
            self._names[kind] = tuple(sorted(names))
        return self._names[kind]

    def expand_patterns(self, names: Iterable[str]) -> tuple[str, ...]:
        """Replace patterns such as ``lesson6/*`` by the names of matching models; drop repeated
        names.

        Raises:
            UsageError: a pattern matches no model.
        """
        models: list[str] = []
        for name in names:
            if not set(name) & set("*?[") or is_model_file(name):
                models.append(name)
                continue
            matches = fnmatch.filter(self.names("model"), name)
            if not matches:
                names_text = ", ".join(self.names("model"))
                raise UsageError(f"no model matches {shorten(name)!r} (known: {names_text})")
            models += matches
        return tuple(dict.fromkeys(models))

    def for_model(self, model: Definition) -> Library:
        """Return a library that also has the definitions in a model's file (section
        ``definitions``). They may replace shipped definitions.

        Raises:
            SpecError: a definition is wrong, or a folder has a definition of this name too.
        """
        forms = content(model, Model).definitions
        if not forms:
            return self
        local: dict[tuple[str, str], Definition] = {}
        library = replace(self, local=local, _read={}, _names={}, replaced={}, unusual={})
        library.checksums, library.reading = {}, []
        errors = ErrorList()
        for number, form in enumerate(forms):
            definition = Definition(model.document.part(("definitions", number)), form, model.path)
            with errors.part():
                library._add_local(local, definition)
        errors.end()
        return library

    def _add_local(self, local: dict[tuple[str, str], Definition], definition: Definition) -> None:
        (name, place), kind = definition.name, definition.kind
        others = [local[kind, name].name[1]] if (kind, name) in local else []
        others += [other for _, other in self._find_all_declarations(kind).get(name, ())]
        if others:
            message = f"{kind} {name!r} is also declared at {others[0]}: rename one of the two"
            raise SpecError(message, place)
        check_definition(definition.document, definition.content)
        local[kind, name] = definition
        if name in _find_shipped_names(kind):
            self.replaced[kind, name] = place, _load_shipped(kind, name).name[1]

    def unit_of(self, place: Place) -> object:
        """Return the key of the definition in the model's file at a position, or else the file."""
        units = (key for key, each in self.local.items() if each.document.covers(place))
        return next(units, place.file)

    def check_local_used(self) -> None:
        """Check that the model uses each definition in the section ``definitions`` of its file.
        Raises :class:`SpecError` for an unused definition."""
        for (kind, name), definition in self.local.items():
            if not self.is_cached(kind, name):
                message = f"{kind} {name!r} is defined but never used"
                raise SpecError(message, definition.name[1])

    def model(self, name: str) -> Definition:
        """Return a model by name (``lesson6/simple_rnn``) or by the path of its file."""
        if is_model_file(name) and not self.has("model", name):
            return self._check_unique("model", _load_file("model", Path(name), None))
        return self.find("model", name)


def is_model_file(name: str) -> bool:
    """Return whether ``name`` is the path of a model's file."""
    return name.endswith((".yaml", ".yml")) or os.path.exists(name)


@cache
def _find_shipped_names(kind: str) -> tuple[str, ...]:
    return tuple(_find_names(files("harness.specs").joinpath(FOLDERS[kind])))


@cache
def _load_shipped(kind: str, name: str) -> Definition:
    """Return a shipped definition, which is read only once per process."""
    relative = f"{FOLDERS[kind]}/{name}.yaml"
    path = files("harness.specs").joinpath(relative)
    document = parse(path.read_text(encoding="utf-8"), f"specs/{relative}")
    return replace(_validate(kind, document, name), path=path)


def _find_names(folder: Traversable | Path, prefix: str = "") -> Iterator[str]:
    """Yield the names of the YAML files in a folder and its subfolders. The depth is limited,
    because symbolic links may form cycles."""
    try:
        entries = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise UsageError(f"the folder {str(folder)!r} cannot be read: {error.strerror}") from None
    for entry in entries:
        if not entry.name.endswith(".yaml"):
            if prefix.count("/") < _MAX_DEPTH and entry.is_dir():
                yield from _find_names(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name.removesuffix(".yaml")


def _load_file(kind: str, path: Path, name: str | None) -> Definition:
    return replace(_validate(kind, load(path), name), path=path)


def _validate(kind: str, document: Document, name: str | None) -> Definition:
    content = validate(document, KINDS[kind])
    declared_name = getattr(content, kind)
    if name is not None and declared_name != name:
        message = (
            f"{kind} {declared_name!r} is in a file named {name!r}: the two names must be the same"
        )
        raise SpecError(message, document.place_of((kind,)))
    check_definition(document, content)
    return Definition(document, content)


def content(definition: Definition, kind: type[D]) -> D:
    """Return the content of a definition, typed as ``kind``, e.g. the class ``Layer``."""
    assert isinstance(definition.content, kind)
    return definition.content


def lesson6() -> tuple[str, ...]:
    """Return the names of the Lesson 6 models, in the order of the notebook."""
    return tuple(
        f"lesson6/{name}"
        for name in (
            "three_char",
            "first_rnn",
            "simple_rnn",
            "sequence_unrolled",
            "sequence_rnn",
            "sequence_onehot",
            "stateful_lstm",
            "theano_rnn",
            "pure_python_rnn",
            "keras_gru",
            "theano_gru",
            "theano_gru_combined",
        )
    )
