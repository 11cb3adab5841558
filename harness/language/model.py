"""Loading of a model: its programs for training and inference, its update rule, and the description
of its data."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources.abc import Traversable
from math import prod
from pathlib import Path
from typing import Any

from harness.errors import ErrorList, Place, SpecError, did_you_mean, shorten, with_place
from harness.language import schema
from harness.language.axis_attributes import common_value
from harness.language.checksums import known_name
from harness.language.definitions import check_definition
from harness.language.document import parse, validate
from harness.language.library import Definition, Library, content, name_clash, same_file
from harness.language.lower_model import Lowering
from harness.language.lower_optimizer import lower_section, lower_update
from harness.language.optimizer_schema import OptimizerUse
from harness.language.program_checks import check_numbers
from harness.language.schema import KINDS
from harness.output.notebook import html_table
from harness.program.ir import Node, Phase, Program
from harness.program.signature import nearest_sizes
from harness.program.updates import UpdateRule

# Messages about valid definitions that may not be what the user meant.


def notes(library: Library) -> list[str]:
    """Return messages for the user about shipped definitions that a folder replaces, and about
    unusual attribute values."""
    messages = []
    for (kind, name), (place, shipped) in library.replaced.items():
        same = known_name(library, kind, name) == name
        means = "is equivalent" if same else "differs: no backend has a native version of it"
        messages.append(f"{kind} {name!r} comes from {place} instead of {shipped}, and {means}")
    return [*messages, *(f"{place}: {text}" for place, text in library.unusual.items())]


PHASES: tuple[Phase, ...] = ("training", "inference")
# The sequence length if the spec's data have none, and the batch size for the search of a length.
DEFAULT_LENGTH = 8
DEFAULT_BATCH = 64


class Spec:
    """A loaded model: its programs for training and inference, its update rule, the learning rate
    of each epoch, and its data.

    Loading checks the whole model, so every instance is valid.
    """

    def __init__(self, library: Library, definition: Definition) -> None:
        self.library = library.for_model(definition)
        self.definition, self.document = definition, definition.document
        self.model = content(definition, schema.Model)
        self.name = self.model.model
        # Programs for other numbers of layers. Keys are the sizes that differ from the model's.
        self._lowered: dict[tuple[tuple[str, int], ...], dict[Phase, Program]] = {}
        errors = ErrorList()
        with errors.part():
            self.programs = self._lower({})
            self._check_parameters()
        with errors.part():
            self.update: UpdateRule | None = self._lower_optimizer()
        with errors.part():
            self._check_data()
        errors.end()
        self.library.check_local_used()
        if self.model.optimizer is not None:
            self._check_groups(self.model.optimizer)

    def __repr__(self) -> str:
        program = self.programs["training"]
        trained = sum(prod(program.shape(port)) for port in program.parameters)
        inputs = ", ".join(port.name for port in program.inputs)
        return f"<Spec {self.name}: inputs {inputs}; {trained:,} trained parameters>"

    def _repr_html_(self) -> str:
        program = self.programs["training"]
        kinds = ("inputs", "targets", "state", "parameters", "statistics")
        rows = [
            [kind, port.name, ", ".join(map(str, program.type_of(port).shape))]
            for kind in kinds
            for port in getattr(program, kind)
        ]
        return html_table(repr(self)[1:-1], ("what", "name", "shape"), rows, words=3)

    def program(self, phase: Phase = "training", /, **sizes: int) -> Program:
        """Return the program for ``phase``: training or inference. ``sizes`` replace sizes of the
        model. Raises SpecError for an unknown or impossible size."""
        known_sizes = self.programs[phase].sizes
        at = self.document.place_of_key(("sizes",))
        for name, size in sizes.items():
            if name not in known_sizes:
                names = sorted(known_sizes)
                raise SpecError(
                    f"{self.name} has no size {name!r}{did_you_mean(name, names)} "
                    f"(known: {', '.join(names)})",
                    at,
                )
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise SpecError(
                    f"size {name!r} must be an integer of at least 1, found {size!r}", at
                )
        deciding = self.programs[phase].structural
        programs = self._lower({n: size for n, size in sizes.items() if n in deciding})
        program = programs[phase].with_sizes(**sizes)
        if sizes:
            check_numbers(program, {}, at)
        return program

    def _lower(self, sizes: Mapping[str, int]) -> dict[Phase, Program]:
        """Return a dictionary from phase ("training", "inference") to program. ``sizes`` has the
        sizes that determine the number of layers. The programs are cached."""
        key = tuple(sorted((n, s) for n, s in sizes.items() if s != self.model.sizes[n]))
        if key not in self._lowered:
            with with_place(self.document.place_of_key(("equations",))):
                self._lowered[key] = {
                    phase: self._lower_phase(phase, dict(key)) for phase in PHASES
                }
        return self._lowered[key]

    def _lower_phase(self, phase: Phase, sizes: Mapping[str, int]) -> Program:
        return Lowering(self.library, self.model, self.document, phase, sizes).program()

    @property
    def length(self) -> int:
        """The number of time steps of sequences: the window length if the data are windows of a
        text. Otherwise it is the length that the model accepts and that is nearest to the default.
        """
        data = self.model.data
        if isinstance(data, schema.Data):
            return data.windows.length
        return nearest_sizes(self.programs["training"], DEFAULT_BATCH, DEFAULT_LENGTH)[1]

    def rule(self, name: str, **attributes: float) -> UpdateRule:
        """Return the update rule of the optimizer ``name``. It may be a different optimizer than
        the model's."""
        return lower_update(self.library, name, attributes, None)

    def _check_parameters(self) -> None:
        """Check that the number of parameters equals the declared number, if the spec declares
        one."""
        program, declared = self.programs["training"], self.model.parameters
        counts = {
            p.name: prod(program.shape(p)) for p in (*program.parameters, *program.statistics)
        }
        total = sum(counts.values())
        if isinstance(declared, int) and declared != total:
            parameter_list = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            at = self.document.place_of(("parameters",))
            raise SpecError(
                f"the spec declares {declared:,} parameters, but its layers have {total:,}: "
                f"{parameter_list}",
                at,
            )

    def _lower_optimizer(self) -> UpdateRule | None:
        use = self.model.optimizer
        if use is None:
            if self.model.training is not None:
                at = self.document.place_of_key(("training",))
                raise SpecError("'training' needs an 'optimizer'", at)
            return None
        if self.model.loss is None:
            at = self.document.place_of_key(("optimizer",))
            raise SpecError("an 'optimizer' needs a 'loss'", at)
        return lower_section(self.library, use, self.document)

    def _check_groups(self, use: OptimizerUse) -> None:
        """Check the patterns of the optimizer's parameter groups: every pattern must match a
        parameter, and every group must have a parameter that no earlier group matches."""
        names = [port.name for port in self.programs["training"].parameters]
        matched_before: set[str] = set()
        for number, group in enumerate(use.groups):
            at = self.document.place_of(("optimizer", "groups", number, "parameters"))
            matched_here: set[str] = set()
            for pattern in group.patterns:
                matched = {name for name in names if fnmatchcase(name, pattern)}
                matched_here |= matched
                if not matched:
                    raise SpecError(
                        f"{shorten(repr(pattern))} matches no parameter; '*' stands for any "
                        f"characters (known: {', '.join(names)})",
                        at,
                    )
            if matched_here <= matched_before:
                message = (
                    "earlier groups match all parameters of this group "
                    f"({', '.join(sorted(matched_here))}), and the first match applies: move it up"
                    if matched_here
                    else "this group has no parameters: give a pattern of parameter names"
                )
                raise SpecError(message, at)
            matched_before |= matched_here

    def _check_data(self) -> None:
        if self.model.data is None:
            return
        arrays: Mapping[str, schema.Source | str] = self.model.data.arrays
        array_names = [*self.model.inputs, *self.model.targets]
        for name, source in arrays.items():
            at = self.document.place_of_key(("data", "arrays", name))
            if name not in array_names:
                hint = did_you_mean(name, array_names)
                raise SpecError(f"{name!r} is neither an input nor a target{hint}", at)
            if isinstance(source, str):
                continue
            declaration = {**self.model.inputs, **self.model.targets}[name]
            if declaration.at_most is not None or declaration.boolean:
                raise SpecError(f"{name!r} has lengths or a mask, which text cannot give", at)
            if (source.offset is None) == (not source.zeros):
                raise SpecError(f"{name}: set either offset or zeros", at)
        for name in array_names if isinstance(self.model.data, schema.Data) else ():
            if name not in arrays:
                at = self.document.place_of(("data", "arrays"))
                raise SpecError(f"'arrays' has no entry for {name!r}", at)


def load_spec(
    name: str,
    folders: Iterable[str | Path] = (),
    overrides: Mapping[tuple[str, str], str] | None = None,
) -> Spec:
    """Load a model by its name or by the path of its file.

    ``folders`` contain additional definitions (e.g. ``layers/NAME.yaml``), which take precedence
    over shipped definitions. ``overrides`` maps (kind, name) to a text that replaces any file.
    Raises :class:`~harness.errors.SpecError` for an invalid file, and ``UsageError`` for an unknown
    name.
    """
    library = Library(tuple(Path(f) for f in folders), dict(overrides or {}))
    if not library.folders and not library.overrides and library.has("model", name):
        return _load_shipped(name)
    return Spec(library, library.model(name))


@cache
def _load_shipped(name: str) -> Spec:
    """Return a shipped model. It is loaded once per process."""
    library = Library()
    return Spec(library, library.model(name))


def load_specs(names: Iterable[str], folders: Iterable[str | Path] = ()) -> list[Spec]:
    """Load several models by name or path; drop repeated models.

    Raises the errors of :func:`load_spec`. Also raises :class:`~harness.errors.SpecError` if two
    files declare the same name, because results are stored by name.
    """
    folders = tuple(folders)
    specs: dict[str, Spec] = {}
    for name in dict.fromkeys(names):
        spec = load_spec(name, folders)
        first = specs.setdefault(spec.name, spec)
        if not same_file(first.definition.path, spec.definition.path):
            places = (each_spec.definition.name[1] for each_spec in (spec, first))
            raise name_clash("model", spec.name, *places)
    return list(specs.values())


def notes_on(specs: Iterable[Spec]) -> list[str]:
    """Return the messages of :func:`notes` about ``specs``, without repeated messages."""
    return list(dict.fromkeys(message for spec in specs for message in notes(spec.library)))


# The fingerprint of a spec, which is stored in weights and records to identify the spec. It depends
# on what the spec computes, not on the text of its file.

# Fields of programs that are not part of the fingerprint: the model's name, sizes, positions in
# files, and names of values for messages. (The names of inputs and outputs are in the ports.) The
# meanings of definitions and the calls of nested layers are left out too, because the nodes contain
# the equations.
IGNORED_FIELDS = {
    Program: {"name", "sizes", "names", "structural", "room", "composites"},
    Node: {"place"},
    UpdateRule: {"meaning"},
}

# Fields that were added in later versions. They are part of a fingerprint only if they are set, so
# that fingerprints of older versions stay valid.
OPTIONAL_FIELDS: Mapping[type, set[str]] = {
    UpdateRule: {"totals", "rate", "fed", "varying", "groups", "added", "matrices"}
}
# Attributes of shipped layers that were added in later versions, with their defaults. They are part
# of a fingerprint only with another value.
LATER_ATTRIBUTES: Mapping[str, Any] = {
    "bias": True,
    "second_bias": False,
    "groups": 1,
    "count_padding": True,
}


def fingerprint(spec: Spec) -> str:
    """Return the sha256 checksum (hexadecimal) of the computations of a spec.

    It covers the programs for training and inference (with the initializers and the loss) and the
    optimizer. It does not depend on sizes, comments, descriptions and names inside definitions.
    """
    meaning = _meaning([spec.programs["training"], spec.programs["inference"], spec.update])
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _older_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's attributes as earlier versions of the shipped layers had them: without the
    attributes in :data:`LATER_ATTRIBUTES` that have their defaults, with one number for all axes if
    these have the same, and without the checksum."""
    own = {
        name: common_value(value)
        for name, value in attributes.get("attributes", {}).items()
        if name not in LATER_ATTRIBUTES or value != LATER_ATTRIBUTES[name]
    }
    rest = {name: value for name, value in attributes.items() if name != "meaning"}
    if rest.get("definition") == "dense" and own.get("bias") is False:
        rest["definition"] = "dense_without_bias"
        del own["bias"]
    return {**rest, "attributes": own} if "attributes" in rest else rest


def _meaning(value: Any) -> Any:
    """Convert a program, or part of a program, to JSON data without the fields in
    :data:`IGNORED_FIELDS`, for a checksum."""
    if is_dataclass(value) and not isinstance(value, type):
        field_names = [
            f.name for f in fields(value) if f.name not in IGNORED_FIELDS.get(type(value), ())
        ]
        later = OPTIONAL_FIELDS.get(type(value), ())
        field_names = [
            n for n in field_names if n not in later or getattr(value, n) not in (None, (), {})
        ]
        if isinstance(value, Node) and value.op == "call":
            value = replace(value, attributes=_older_attributes(value.attributes))
        return [type(value).__name__, *(_meaning(getattr(value, name)) for name in field_names)]
    if isinstance(value, Mapping):
        return {str(key): _meaning(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_meaning(item) for item in value]
    return value


# A collection of many models. Some stay in memory; the others are parsed again at their next use.

MAX_LOADED = 64
"""The largest number of models in memory. A loaded model takes about 60 KiB."""


@dataclass(frozen=True)
class _Text:
    """The text of a model's file. The collection stores it, because the file may change after
    loading."""

    file: str
    text: str
    path: Path | Traversable | None
    place: Place  # the position of the model's name

    @classmethod
    def of(cls, definition: Definition) -> _Text:
        document = definition.document
        text = "\n".join(document.lines)
        return cls(document.file, text, definition.path, definition.name[1])

    def definition(self) -> Definition:
        document = parse(self.text, self.file)
        content = validate(document, KINDS["model"])
        check_definition(document, content)
        return Definition(document, content, self.path)


class ModelCollection:
    """Models by name, in the order in which they were added. All models use one cache of
    definitions. At most ``limit`` models stay in memory; the others are parsed again when they are
    needed."""

    def __init__(self, library: Library, limit: int = MAX_LOADED) -> None:
        self.library, self.limit = library, limit
        self._texts: dict[str, _Text] = {}
        self._loaded: OrderedDict[str, Spec] = OrderedDict()
        self._local_notes: list[str] = []  # about the definitions in the models' own files
        self._lock = threading.Lock()

    def add(self, name: str) -> Spec:
        """Load a model by its name or by the path of its file, and add it.

        Raises:
            SpecError: the file is invalid, or another file has declared the same name.
            UsageError: the name is unknown.
        """
        definition = self.library.model(name)
        self.library.forget("model", name)
        spec = Spec(self.library, definition)
        text = _Text.of(definition)
        first = self._texts.setdefault(spec.name, text)
        if first is not text and not same_file(first.path, text.path):
            raise name_clash("model", spec.name, text.place, first.place)
        if spec.library is not self.library:
            self._local_notes += notes(spec.library)
        with self._lock:
            self._keep_loaded(spec)
        return spec

    def __getitem__(self, name: str) -> Spec:
        with self._lock:
            spec = self._loaded.get(name)
            if spec is None:
                spec = Spec(self.library, self._texts[name].definition())
            self._keep_loaded(spec)
            return spec

    def __iter__(self) -> Iterator[Spec]:
        return (self[name] for name in self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all models in the collection."""
        return tuple(self._texts)

    @property
    def notes(self) -> list[str]:
        """The messages of :func:`notes` about the definitions that the models use."""
        return list(dict.fromkeys([*notes(self.library), *self._local_notes]))

    def _keep_loaded(self, spec: Spec) -> None:
        self._loaded[spec.name] = spec
        self._loaded.move_to_end(spec.name)
        while len(self._loaded) > self.limit:
            self._loaded.popitem(last=False)
