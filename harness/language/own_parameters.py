"""The parameters of a model itself, beside those of its layers: ``own.latents``."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import SpecError
from harness.language import schema
from harness.language.document import Document
from harness.language.instances import Instance, LayerCall
from harness.language.layer_calls import LayerEvaluator
from harness.language.library import Definition
from harness.language.scope import Scope
from harness.program.dims import Dim
from harness.program.ir import Meaning

# What stands before their names, as the name of a layer stands before those of its parameters.
OWN = "own"
# Who else may have a name in the files of frameworks.
NAMED = ("inputs", "state", "targets", "layers")


def declared(model: schema.Model) -> Mapping[str, schema.Parameter]:
    """The parameters that a model declares itself."""
    return model.parameters if isinstance(model.parameters, dict) else {}


def bring_in(
    evaluator: LayerEvaluator,
    model: schema.Model,
    document: Document,
    scope: Scope,
    sizes: Mapping[str, Dim],
) -> list[Instance]:
    """Bring a model's own parameters into the scope of its equations, as if a layer gave them.

    Returns that layer; none where there are no such parameters.

    Raises:
        SpecError: a shape or a law is wrong, or the layer's name is taken.
    """
    own = declared(model)
    if not own:
        return []
    for section in NAMED:
        if OWN in getattr(model, section):
            raise SpecError(
                f"{OWN!r} is taken: the model's own parameters are {OWN}.{next(iter(own))} and so "
                "on; choose another name",
                document.place_of_key((section, OWN)),
            )
    layer = schema.Layer.model_construct(
        layer=f"{OWN}_parameters",
        summary=model.summary,
        source=model.source,
        inputs={},
        parameters=dict(own),
    )
    instance = Instance(OWN, Definition(document, layer), {}, {}, document.place_of, calls=1)
    place = document.place_of_key(("parameters",))
    call = LayerCall(instance, place, OWN, {}, scope, dict(sizes))
    evaluator.own(call, Meaning(model.model, ""))
    return [instance]
