"""Checks of a definition before its use: names, shapes, and the combination of keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.errors import SpecError, did_you_mean
from harness.files.forms import KeyPath
from harness.language import schema
from harness.language.axes import REST, axes_text, check_entries
from harness.language.base_models import Documented
from harness.language.builtins import BUILTINS
from harness.language.document import Document
from harness.language.names import is_name
from harness.language.optimizer_schema import Matrices, Optimizer

SECTIONS: Mapping[type[Documented], tuple[str, ...]] = {
    schema.Layer: (
        *("inputs", "attributes", "parameters", "layers", "state", "noise", "statistics", "scans"),
        "constants",
    ),
    schema.Function: ("inputs", "attributes"),
    schema.Loss: ("inputs", "attributes", "state"),
    Optimizer: ("attributes", "slots", "total"),
}
# Reserved names in an optimizer's equations: the parameter, its gradient and the step number.
UPDATE_NAMES = ("p", "g", "t")
# Reserved names in an optimizer's equations for matrices: the lengths of the two axes.
MATRIX_NAMES = ("rows", "columns")
# Keys of a model's ``optimizer`` section. Attributes of an optimizer cannot have these names.
USE_NAMES = (
    *("optimizer", "schedule", "total", "gradient", "groups", "parameters"),
    *("accumulate", "average"),
)


def check_definition(document: Document, spec: Documented) -> None:
    """Check a definition for errors that can be found before the definition is called. Raises
    :class:`SpecError`."""
    if isinstance(spec, schema.Model):
        return
    if isinstance(spec, Optimizer):
        reserved = UPDATE_NAMES if spec.matrices is None else (*UPDATE_NAMES, *MATRIX_NAMES)
        check_distinct(document, spec, SECTIONS[Optimizer], reserved)
        _check_attributes(document, spec)
        if spec.matrices is not None:
            _check_slots(document, spec, spec.matrices)
        return
    check_distinct(document, spec, SECTIONS[type(spec)])
    if isinstance(spec, schema.Layer):
        _check_form(document, spec)
        _check_unusual(document, spec)
        _check_when(document, spec)
    if isinstance(spec, schema.Loss):
        _check_loss(document, spec)
    if isinstance(spec, schema.Layer | schema.Loss | schema.Function):
        _check_inputs(document, spec)


def _check_attributes(document: Document, spec: Optimizer) -> None:
    """Check that no attribute of an optimizer has the name of a key in a model's ``optimizer``
    section."""
    for name in spec.attributes:
        if name in USE_NAMES:
            at = document.place_of_key(("attributes", name))
            raise SpecError(f"{name!r} is reserved: it is a key of a model's 'optimizer'", at)


def _check_slots(document: Document, spec: Optimizer, matrices: Matrices) -> None:
    """Check the names of the slots in ``matrices`` (arrays that an optimizer stores for each
    matrix). They must differ from attributes, totals and reserved names. They may equal names of
    slots outside ``matrices``."""
    sections: Mapping[str, Iterable[str]] = {"attributes": spec.attributes, "total": spec.total}
    for name in matrices.slots:
        at = document.place_of_key(("matrices", "slots", name))
        for section, names in sections.items():
            if name in names:
                first = document.place_of_key((section, name))
                raise SpecError(f"{name!r} is also declared in {section}, at {first}", at)
        if name in (*BUILTINS, *UPDATE_NAMES, *MATRIX_NAMES):
            raise SpecError(f"{name!r} is reserved: it is a name of the language", at)


def check_distinct(
    document: Document,
    spec: Documented,
    sections: Iterable[str],
    reserved: Iterable[str] = (),
) -> None:
    """Check that each name is declared in a single section and is not reserved. ``reserved`` lists
    names in addition to the built-in functions.

    Raises:
        SpecError: a name is declared twice or reserved.
    """
    seen: dict[str, str] = {}
    reserved = (*BUILTINS, *reserved)
    for section in sections:
        for name in getattr(spec, section):
            at = document.place_of_key((section, name))
            if name in seen:
                first = document.place_of_key((seen[name], name))
                raise SpecError(f"{name!r} is also declared in {seen[name]}, at {first}", at)
            if name in reserved:
                raise SpecError(f"{name!r} is reserved: it is a name of the language", at)
            seen[name] = section


def _check_form(document: Document, layer: schema.Layer) -> None:
    """Check which keys a layer has: either ``equations``, or a ``scan``, or both ``training`` and
    ``inference``."""
    by_phase = layer.training is not None or layer.inference is not None
    forms = [layer.equations is not None, layer.scan is not None, by_phase]
    root = document.place_of_key(("layer",))
    if sum(forms) != 1 or (by_phase and (layer.training is None or layer.inference is None)):
        message = "a layer needs 'equations', or 'scan', or both 'training' and 'inference'"
        raise SpecError(message, root)
    if (layer.scan is None) == (layer.output is None):
        raise SpecError("'output' must be next to the equations, or inside 'scan'", root)
    for number, name in enumerate(layer.outputs):
        if name in layer.outputs[:number]:
            at = document.place_of(("output", number))
            raise SpecError(f"output {name!r} is listed twice", at)
    if layer.state and layer.scan is None and not layer.scans:
        raise SpecError("'state' needs a 'scan'", document.place_of_key(("state",)))
    if layer.scans:
        _check_scans(document, layer)
    if layer.layers:
        _check_layers(document, layer)
    if layer.statistics and not by_phase:
        at = document.place_of_key(("statistics",))
        raise SpecError("'statistics' need both 'training' and 'inference'", at)
    if layer.scan is not None:
        _check_scan(document, layer, layer.scan, ("scan",))


def _check_unusual(document: Document, layer: schema.Layer) -> None:
    numbers = [n for n, default in layer.attributes.items() if type(default) in (int, float)]
    for name in layer.unusual:
        if name not in numbers:
            at = document.place_of_key(("unusual", name))
            hint = did_you_mean(name, numbers)
            known = ", ".join(numbers) or "none"
            raise SpecError(f"{name!r} is not a numeric attribute{hint} (known: {known})", at)


def _check_when(document: Document, layer: schema.Layer) -> None:
    """Check the key ``when`` of each parameter: it must name a boolean attribute."""
    truths = [n for n, default in layer.attributes.items() if isinstance(default, bool)]
    for name, parameter in layer.parameters.items():
        if parameter.when is not None and parameter.when not in truths:
            hint = did_you_mean(parameter.when, truths)
            raise SpecError(
                f"{parameter.when!r} is not an attribute that is true or false{hint} "
                f"(known: {', '.join(truths) or 'none'})",
                document.place_of(("parameters", name, "when")),
            )


def _check_loss(document: Document, loss: schema.Loss) -> None:
    if bool(loss.state) != (loss.scan is not None):
        here, other = ("state", "scan") if loss.state else ("scan", "state")
        raise SpecError(f"{here!r} needs a {other!r}", document.place_of_key((here,)))
    if loss.scan is not None:
        _check_slices(document, loss, loss.scan.over, ("scan",))


def _check_layers(document: Document, layer: schema.Layer) -> None:
    """Check that a layer with nested ``layers`` has ``equations``, no scan, and no separate
    equations for training and inference."""
    at = document.place_of_key(("layers",))
    if layer.equations is None or layer.scans:
        form = "'training' and 'inference'"
        if layer.scan is not None or layer.scans:
            form = "'scans'" if layer.scans else "'scan'"
        raise SpecError(
            f"'layers' need 'equations', found {form}: move that part, with its state or "
            "statistics, to a separate layer, and list that layer under 'layers'",
            at,
        )


def _check_scans(document: Document, layer: schema.Layer) -> None:
    """Check a layer with the key ``scans`` (several loops): it must have ``equations``, and each
    state must be carried by exactly one loop."""
    if layer.equations is None:
        at = document.place_of_key(("scans",))
        raise SpecError("'scans' need 'equations', which read their outputs by name", at)
    carried: dict[str, str] = {}
    for name, scan in layer.scans.items():
        path = ("scans", name)
        _check_scan(document, layer, scan, path)
        for number, state in enumerate(scan.carries):
            at = document.place_of((*path, "carries", number))
            if state not in layer.state:
                hint = did_you_mean(state, layer.state)
                raise SpecError(f"{state!r} is not declared under 'state'{hint}", at)
            if state in carried:
                raise SpecError(f"state {state!r} is already carried by {carried[state]!r}", at)
            carried[state] = name
    for state in layer.state:
        if state not in carried:
            at = document.place_of_key(("state", state))
            raise SpecError(f"state {state!r} is not in the 'carries' of any scan", at)


def _check_scan(document: Document, layer: schema.Layer, scan: schema.Scan, path: KeyPath) -> None:
    if not scan.over:
        at = document.place_of((*path, "over"))
        raise SpecError("a scan needs an input to loop over, as in {x_t: x}", at)
    if next(iter(scan.over.values())) in layer.noise:
        at = document.place_of((*path, "over", next(iter(scan.over))))
        raise SpecError("the first entry of 'over' must be an input; list noise after it", at)
    _check_slices(document, layer, scan.over, path)


def _check_slices(
    document: Document, spec: schema.Layer | schema.Loss, over: Iterable[str], path: KeyPath
) -> None:
    declared = [n for section in SECTIONS[type(spec)] for n in getattr(spec, section)]
    for name in over:
        if name in declared or name in BUILTINS:
            at = document.place_of_key((*path, "over", name))
            raise SpecError(
                f"{name!r} is already declared; choose a different name for the slice", at
            )


def _check_inputs(document: Document, spec: schema.Layer | schema.Loss | schema.Function) -> None:
    """Check that each axis of an input is a number, ``...`` or a name. If an attribute has this
    name, the attribute must be a size."""
    defaults: Mapping[str, object] = spec.attributes
    sizes = {name for name, default in defaults.items() if default == "size"}
    declared = {n for section in SECTIONS[type(spec)] for n in getattr(spec, section)} - sizes
    for name, declaration in spec.inputs.items():
        if declaration == "any":
            continue
        has_keys = isinstance(declaration, schema.Input)
        path = ("inputs", name, "shape") if has_keys else ("inputs", name)
        axes = declaration.shape if isinstance(declaration, schema.Input) else declaration
        if isinstance(declaration, schema.Input):
            check_entries(document, declaration, ("inputs", name))
        for number, axis in enumerate(axes):
            at = document.place_of((*path, number))
            if axis in declared:
                raise SpecError(f"axis {axis!r} has the name of something that is not a size", at)
            if axis != REST and not isinstance(axis, int) and not is_name(axis):
                raise SpecError(
                    f"an input's axis must be a name, an integer or '...', found {axis!r}", at
                )
        if axes.count(REST) > 1:
            raise SpecError(
                f"a shape can have only one '...', found {axes_text(axes)}",
                document.place_of(path),
            )
