"""What a pydantic model refuses, in a user's words and at its place."""

import re
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from wording import Wording

from harness.errors import SpecError, SpecErrors
from harness.language.document import parse, validate


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Gru(Strict):
    kind: Literal["gru"]
    hidden: int
    activation: str = "tanh"


class Dense(Strict):
    kind: Literal["dense"]
    units: int | tuple[int | str, ...]


class Target(Strict):
    shape: list[int | str]


class Range(Strict):
    start: int
    stop: int


Lower = Annotated[str, StringConstraints(pattern="^[a-z]+$")]


class Model(Strict):
    name: str = Field(alias="model")
    sizes: dict[str, float] = {}
    layers: dict[Lower, Annotated[Gru | Dense, Field(discriminator="kind")]] = {}
    stateful: bool = False
    equations: str = ""
    loss: str = ""
    target: Target | str | None = None
    source: Target | Range | None = None
    reduce: Literal["sum", "mean"] = "mean"
    rate: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _check_loss(self):
        if self.loss == "none":
            raise ValueError("a model without a loss cannot be trained")
        return self


UNMODELLED = [
    ("layers: {a: {kind: gru, hiden: 1}}", "1:1 ... 'model' ... 1:13 ... 'hidden' ... 1:25"),
    ("model: a\nlayers: {a: {kind: gru, hidden: many}}", "2:33 ... 'many'"),
    ("model: 3", "1:8 ... 3"),
    ("model: a\nstateful: 0", "2:11 ... 0"),
    ("model: a\nsizes: {a: [1]}", "2:12"),
    (
        "model: a\nlayers: {a: many}",
        "2:13 ... 'kind' ... 'hidden' ... 'many'",
    ),
    ("model: a\nlayers: {a: {hidden: 3}}", "2:13 ... 'kind'"),
    ("model: a\nlayers: {a: {kind: gruu}}",
     "2:20 ... 'gruu' ... 'gru'"),
    ("model: a\nlayers: {A: {kind: dense, units: 1}}", "2:10"),
    ("model: a\nlayers: {a: {kind: dense, units: [1, true]}}",
     "2:38"),
    ("model: a\nlayers: {a: {kind: dense, units: x}}",
     "2:34 ... 'x'"),
    ("model: a\ntarget: 3", "2:9 ... 'shape' ... 3"),
    ("model: a\ntarget: {shap: [1]}", "2:9 ... 'shape' ... 2:10 ... 'shap' ... 'shape'"),
    ("model: a\nsource: {shape: 3}", "2:17 ... 3"),
    ("model: a\nsource: {start: 1, stop: x}", "2:26 ... 'x'"),
    ("model: a\nreduce: men",
     "2:9 ... 'sum', 'mean' ... 'men' ... 'mean'"),
    ("model: a\nrate: 0", "2:7 ... 0 ... 0"),
    ("model: a\nloss: none", "1:1 ... without ... loss"),
    ("mode: a", "1:1 ... 'model' ... 1:1 ... 'mode' ... 'model'"),
    ("hello", "1:1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), UNMODELLED, ids=[text[:45] for text, _ in UNMODELLED])
def test_what_the_model_refuses_is_said_at_its_place(text, message, wording: Wording):
    with pytest.raises(SpecError) as caught:
        validate(parse(text, "m.yaml"), Model)
    error = caught.value
    wording(error, f"m.yaml:{message}")
    places = re.findall(r"^m\.yaml:(\d+:\d+): ", str(error), re.MULTILINE)
    assert isinstance(error, SpecErrors) == (len(places) > 1)
