"""The explanation of a layer, function, loss, optimizer or initializer, and the command ``harness
list``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from harness.checking.options import LISTED, ListOptions
from harness.command.outcome import CommandResult
from harness.language.initializers import argument_names
from harness.language.initializers import names as initializers
from harness.language.library import FOLDERS, Library
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.needs import missing_here
from harness.runtime.plugins import Origin, available

KINDS = tuple(kind for kind in FOLDERS if kind != "model")


@cache
def load_distributions() -> Mapping[str, str]:
    """Return a dictionary from an initializer's name to a description of its distribution."""
    text = files("harness.specs").joinpath("initializers.yaml").read_text(encoding="utf-8")
    texts: dict[str, str] = yaml.safe_load(text)
    return texts


@dataclass(frozen=True)
class Definitions:
    """Definitions with the same ``name``, e.g. a layer and a function; models are left out."""

    name: str
    library: Library
    kinds: tuple[str, ...]

    @staticmethod
    def of(name: str, library: Library) -> Definitions:
        """Find all definitions (layers, functions, losses etc.) named ``name``. If there are none,
        the ``kinds`` of the result are empty."""
        kinds = [kind for kind in KINDS if library.has(kind, name)]
        initializer = ["initializer"] if name in initializers() else []
        return Definitions(name, library, (*kinds, *initializer))

    def text(self) -> str:
        """Return the text that ``harness explain`` prints for the definitions."""
        return "\n\n".join(
            f"initializer {self.name}: {load_distributions()[self.name]}\n\n"
            f"arguments: {', '.join(argument_names(self.name)) or 'none'}"
            if kind == "initializer"
            else _definition(kind, self.name, self.library)
            for kind in self.kinds
        )

    def data(self) -> list[dict[str, object]]:
        """Return one dictionary for each definition, for JSON: the content of its file, and the
        models that use it. For an initializer, the dictionary has its summary and its arguments."""
        return [
            {"kind": kind, "name": self.name}
            | (
                {
                    "summary": load_distributions()[self.name],
                    "arguments": [*argument_names(self.name)],
                }
                if kind == "initializer"
                else {
                    **_load_content(kind, self.name, self.library, mode="json"),
                    "models": [*_find_models(kind, self.name, self.library)],
                }
            )
            for kind in self.kinds
        ]


def _load_content(kind: str, name: str, library: Library, **how: Any) -> dict[str, Any]:
    return library.find(kind, name).content.model_dump(exclude_none=True, **how)


def _definition(kind: str, name: str, library: Library) -> str:
    from harness.output.templates import filled  # Jinja2 is slow to import

    content = _load_content(kind, name, library)
    # If a definition has several loops, the title of each loop is its name.
    loops = {"": content["scan"]} if "scan" in content else {}
    text = filled(
        "harness.checking",
        "explain_definition.txt",
        kind=kind,
        of=name,
        given=content,
        loops={**loops, **content.get("scans", {})},
        models=[*_find_models(kind, name, library)],
        words=_format_value,
    )
    return text.rstrip("\n")


def _format_value(value: Any) -> str:
    """Return a value of a spec file as text, e.g. ``[features, units], init glorot_uniform``."""
    if isinstance(value, Mapping):
        shape = [_format_value(value["shape"])] if "shape" in value else []
        rest = {k: v for k, v in value.items() if k != "shape" and v != {}}
        return ", ".join([*shape, *(f"{k} {_format_value(v)}" for k, v in rest.items())])
    if isinstance(value, list):
        return f"[{', '.join(map(_format_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _find_models(kind: str, name: str, library: Library) -> Iterable[str]:
    """Yield the models that use a definition directly in their layers, optimizer or equations."""
    for model in library.names("model"):
        content = library.model(model).content.model_dump(exclude_none=True)
        if kind == "layer":
            is_used = any(use["layer"] == name for use in content.get("layers", {}).values())
        elif kind == "optimizer":
            is_used = content.get("optimizer", {}).get("optimizer") == name
        else:
            texts = [
                content.get("equations", ""),
                content.get("loss", ""),
                str(content.get("layers")),
            ]
            is_used = any(f"{name}(" in text or f"'{name}'" in text for text in texts)
        if is_used:
            yield model


# The command ``harness list``: installed plugins and shipped definitions, by kind.

# The plural on the command line -> the kind of definition.
DEFINED = {folder: kind for kind, folder in FOLDERS.items()}


def run_list(options: ListOptions) -> CommandResult:
    """Run the command ``harness list`` for the requested kinds, or for all kinds."""
    chosen = [kind for kind in LISTED if getattr(options, kind)]
    kinds = chosen or LISTED
    # Making the text is slow because it reads every definition, so skip the text for --json.
    text = "" if options.as_json else list_text(kinds, options.folders, described=bool(chosen))
    return CommandResult(list_data(kinds, options.folders), text)


def list_data(kinds: Sequence[str], folders: tuple[Path, ...]) -> dict[str, object]:
    """Return a dictionary with a list for each kind, e.g. ``"model"`` or ``"backend"``. The list
    has the names of the definitions, or the plugins with their packages."""
    library = Library(folders)
    entries: dict[str, object] = {}
    for kind in kinds:
        if kind in DEFINED:
            entries[DEFINED[kind]] = library.names(DEFINED[kind])
        elif kind == "initializers":
            entries["initializer"] = tuple(load_distributions())
        else:
            missing = missing_here() if kind == "backends" else {}
            entries[kind] = {
                name: {
                    "distribution": o.distribution,
                    "version": o.version,
                    "module": o.module,
                    **(
                        {"runs": name not in missing, "on_request": o.on_request}
                        if kind == "backends"
                        else {}
                    ),
                    **({"install": missing[name]} if name in missing else {}),
                }
                for name, o in _find_plugins(kind).items()
            }
    return entries


def list_text(kinds: Sequence[str], folders: tuple[Path, ...], described: bool) -> str:
    """Return a paragraph of text for each kind. With ``described``, the text includes the summary
    of each definition."""
    library = Library(folders)
    return "\n".join(line for kind in kinds for line in _format_kind(kind, library, described))


def _format_kind(kind: str, library: Library, described: bool) -> Iterator[str]:
    yield kind
    if kind in DEFINED:
        rows = dict.fromkeys(library.names(DEFINED[kind]), "")
        if described:
            rows = {n: library.find(DEFINED[kind], n).content.summary for n in rows}
    elif kind == "initializers":
        rows = {
            name: meaning if described else "" for name, meaning in load_distributions().items()
        }
    else:
        missing = missing_here() if kind == "backends" else {}
        rows = {
            n: f"{o.distribution} {o.version} ({o.module})"
            + ("; runs only if --backend names it" if o.on_request else "")
            + (f"; cannot run, its framework is missing: {missing[n]}" if n in missing else "")
            for n, o in _find_plugins(kind).items()
        }
    widest = max(map(len, rows), default=0)
    for name, text in rows.items():
        yield f"  {name:{widest}}  {' '.join(text.split())}".rstrip()


def _find_plugins(kind: str) -> dict[str, Origin]:
    return available() if kind == "backends" else available(FORMATS_GROUP)
