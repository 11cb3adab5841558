"""What a pydantic model refuses, in a user's words and at its place."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

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
    ("layers: {a: {kind: gru, hiden: 1}}", "1:1: missing key 'model'\n1:13: missing key 'hidden'\n"
     "1:25: unknown key 'hiden'; did you mean 'hidden'? (known: activation, hidden, kind)"),
    ("model: a\nlayers: {a: {kind: gru, hidden: many}}", "2:33: expected an integer, found 'many'"),
    ("model: 3", "1:8: expected text, found 3"),
    ("model: a\nstateful: 0", "2:11: expected true or false, found 0"),
    ("model: a\nsizes: {a: [1]}", "2:12: expected a number, found a list"),
    (
        "model: a\nlayers: {a: many}",
        "2:13: expected a mapping with 'kind' and 'hidden', found 'many'",
    ),
    ("model: a\nlayers: {a: {hidden: 3}}", "2:13: missing key 'kind'"),
    ("model: a\nlayers: {a: {kind: gruu}}",
     "2:20: unknown kind 'gruu'; did you mean 'gru'? (known: dense, gru)"),
    ("model: a\nlayers: {A: {kind: dense, units: 1}}", "2:10: string should match pattern"),
    ("model: a\nlayers: {a: {kind: dense, units: [1, true]}}",
     "2:38: expected an integer or text, found true"),
    ("model: a\nlayers: {a: {kind: dense, units: x}}",
     "2:34: expected an integer or a list, found 'x'"),
    ("model: a\ntarget: 3", "2:9: expected a mapping with 'shape' or text, found 3"),
    ("model: a\ntarget: {shap: [1]}", "2:9: missing key 'shape'\n"
     "2:10: unknown key 'shap'; did you mean 'shape'? (known: shape)"),
    ("model: a\nsource: {shape: 3}", "2:17: expected a list, found 3"),
    ("model: a\nsource: {start: 1, stop: x}", "2:26: expected an integer, found 'x'"),
    ("model: a\nreduce: men",
     "2:9: expected one of 'sum', 'mean', found 'men'; did you mean 'mean'?"),
    ("model: a\nrate: 0", "2:7: must be greater than 0, found 0"),
    ("model: a\nloss: none", "1:1: a model without a loss cannot be trained"),
    ("mode: a", "1:1: missing key 'model'\n1:1: unknown key 'mode'; did you mean 'model'? (known:"),
    ("hello", "1:1: expected a mapping, found text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), UNMODELLED, ids=[text[:45] for text, _ in UNMODELLED])
def test_what_the_model_refuses_is_said_at_its_place(text, message):
    with pytest.raises(SpecError) as caught:
        validate(parse(text, "m.yaml"), Model)
    error = caught.value
    assert str(error).replace("m.yaml:", "").startswith(message)
    assert isinstance(error, SpecErrors) == ("\n" in message)
