"""The forms of what a worker with a model of a user's own answers."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from harness.worker.answers import FORM, Forms, Gradients, Tensors, Texts


@with_config(FORM)
class DescribedModel(TypedDict):
    sizes: list[str]


@with_config(FORM)
class AttachedModel(TypedDict):
    label: str
    weights: Texts
    kept: list[str]
    takes: list[str]
    differentiates: bool
    trains: bool


# Those of a session's verbs that a model has, and its own.
OWN_MODEL = Forms(
    describe=DescribedModel,
    attach=AttachedModel,
    load=None,
    forward=Tensors,
    gradients=Gradients,
)
