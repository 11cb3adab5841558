"""What is said of a function that there is none of."""

from __future__ import annotations

from collections.abc import Iterable

from harness.errors import Place, did_you_mean, known_names
from harness.language import schema
from harness.language.instead import INSTEAD
from harness.language.library import Library, content


def as_attribute(name: str) -> str:
    """The same for an attribute, which names a function: what to write stands in one; "" where
    nothing is known."""
    told = f"; {INSTEAD[name]}" if name in INSTEAD else ""
    own = f" in a function of your own, functions/{name}.yaml in a folder of --specs"
    return told + own * told.startswith("; write ")


def unknown_function(
    library: Library, name: str, known: Iterable[str], place: Place, layers: Iterable[str] = ()
) -> str:
    """What to say of a function that there is none of, asked for at a place: what to write, where
    that is known, or where the file is that was meant. ``layers`` are those of ``known`` that a
    model or a layer has named."""
    if name in INSTEAD:
        return f"the language has no function {name!r}: {INSTEAD[name]}"
    if library.has("layer", name):
        declared = content(library.find("layer", name), schema.Layer).attributes
        sizes = "".join(f", {n}: ..." for n, default in declared.items() if default == "size")
        return (
            f"{name!r} is a layer: name it under 'layers', as in "
            f"'{name}_1: {{layer: {name}{sizes}}}', and call that name"
        )
    known, layers = tuple(known), tuple(layers)
    files = (library.misplaced(kind, name, place) for kind in ("function", "loss"))
    hint = next(filter(None, files), did_you_mean(name, known))
    if hint or not layers:
        return f"unknown function {name!r}{hint}{known_names(known, hint)}"
    others = known_names((n for n in known if n not in layers), hint)
    return f"unknown function or layer {name!r} (layers here: {', '.join(layers)}){others}"
