"""The form of an optimizer's file, and of what a model says of its optimizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from harness.language.names import FreeName, Name
from harness.language.strict import Axes, Documented, Strict


class ShapedSlot(Strict):
    """A slot of a shape of its own, in ``rows``, ``columns`` and numbers; it starts as zeros."""

    shape: Axes


class Matrices(Strict):
    """What an optimizer does with a parameter of two axes, ``[rows, columns]``.

    Slots are those of ``Optimizer``, or of a shape of their own.
    """

    slots: dict[Name, str | float | ShapedSlot] = {}
    update: str


class Optimizer(Documented):
    """One update of parameter ``p`` with gradient ``g`` at step ``t`` (1, 2, ...).

    A slot starts as ``zeros``, ``ones``, a number, the value of an attribute, or as ``p``. Each of
    ``total`` is summed over all entries of all parameters. With ``matrices``, parameters of two
    axes have slots and an update of their own.
    """

    optimizer: FreeName
    attributes: dict[Name, float]
    slots: dict[Name, str | float] = {}
    total: dict[Name, str] = {}
    update: str
    matrices: Matrices | None = None


class ParameterGroup(BaseModel):
    """Parameters by pattern of their names, with attributes and a schedule of their own.

    Without ``matrices`` those of two axes are updated as all others are.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    parameters: str | list[str]
    schedule: str | float | None = None
    matrices: bool = True

    @property
    def patterns(self) -> list[str]:
        """Those of ``parameters``, also of one by itself."""
        return [self.parameters] if isinstance(self.parameters, str) else self.parameters


class OptimizerUse(BaseModel):
    """The optimizer's name, and its attributes where they differ from the definition's.

    ``schedule`` is a factor of the learning rate, of step ``t``. ``gradient`` is what the
    definition is given as ``g``, of ``g``, ``p``, ``t`` and ``total``. ``accumulate`` steps make
    one update, of the mean of their gradients. ``average`` is how much of a mean of the parameters
    over the updates each of them leaves.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    optimizer: str
    schedule: str | float | None = None
    total: dict[Name, str] = {}
    gradient: str | None = None
    accumulate: Annotated[int, Field(ge=2)] | None = None
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    groups: list[ParameterGroup] = []
