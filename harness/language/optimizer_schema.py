"""Form of an optimizer's file, and of a model's ``optimizer`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from harness.language.names import FreeName, Name
from harness.language.strict import Axes, Documented, Strict, key


class ShapedSlot(Strict):
    """A slot of a shape of its own, in ``rows``, ``columns`` and numbers; it starts as zeros."""

    shape: Axes = key("Numbers, `rows` and `columns`.", ["rows", 1])


class Matrices(Strict):
    """The update of an optimizer for two-dimensional parameters, ``[rows, columns]``.

    Slots are declared as in ``Optimizer``, or with a shape.
    """

    slots: dict[Name, str | float | ShapedSlot] = key(
        "Slots of the matrix's shape, or of a declared shape.", {"m": "zeros"}, {}
    )
    update: str = key(
        "Equations of the matrix `p` and its gradient `g`.", "p = p - learning_rate * g"
    )


class Optimizer(Documented):
    """The update of a parameter ``p`` with gradient ``g`` at step ``t`` (1, 2, ...).

    A slot starts as ``zeros``, ``ones``, a number, the value of an attribute, or as ``p``. Each
    expression in ``total`` is summed over all entries of all parameters. With ``matrices``,
    two-dimensional parameters have different slots and a different update.
    """

    optimizer: FreeName = key("The name, which is also the name of the file.", "nudge")
    attributes: dict[Name, float] = key("Numbers with their defaults.", {"learning_rate": 0.01})
    slots: dict[Name, str | float] = key(
        "A value per parameter, kept from step to step: `zeros`, `ones`, a number, an attribute, "
        "or `p` for the initial parameter.",
        {"m": "zeros"},
        {},
    )
    total: dict[Name, str] = key(
        "One number for the whole model: the sum over all entries of all parameters.",
        {"square": "g * g"},
        {},
    )
    update: str = key(
        "Elementwise equations of `p`, `g`, `t`, slots and totals.", "p = p - learning_rate * g"
    )
    matrices: Matrices | None = key(
        "Another update for parameters with exactly two axes.",
        {"update": "p = p - learning_rate * g"},
        None,
    )


class ParameterGroup(BaseModel):
    """Parameters by pattern of their names, with attributes and a schedule of their own.

    Without ``matrices`` those of two axes are updated as all others are.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    parameters: str | list[str] = key(
        "Patterns of parameter names; `*` matches any part.", ["*.b", "embed.table"]
    )
    schedule: str | float | None = key("The schedule of this group; 0 freezes it.", 0.1, None)
    matrices: bool = key("`false` updates matrices like other parameters.", False, True)

    @property
    def patterns(self) -> list[str]:
        """The patterns in ``parameters``, always as a list."""
        return [self.parameters] if isinstance(self.parameters, str) else self.parameters


class OptimizerUse(BaseModel):
    """The optimizer's name, and its attributes where they differ from the definition's.

    ``schedule`` is a factor of the learning rate, of step ``t``. ``gradient`` is what the
    definition is given as ``g``, of ``g``, ``p``, ``t`` and ``total``. ``accumulate`` steps make
    one update, of the mean of their gradients. ``average`` is how much of a mean of the parameters
    over the updates each of them leaves.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    optimizer: str = key("The optimizer's name.", "adam")
    schedule: str | float | None = key(
        "Factor of the learning rate, as an equation of the step `t` (1, 2, ...).",
        "minimum(1, t / 100)",
        None,
    )
    total: dict[Name, str] = key(
        "One number for the whole model: the sum over all entries of all parameters.",
        {"square": "g * g"},
        {},
    )
    gradient: str | None = key(
        "The gradient passed to the optimizer, as an equation of `g`, `p`, `t` and totals.",
        "maximum(minimum(g, 1), -1)",
        None,
    )
    accumulate: Annotated[int, Field(ge=2)] | None = key(
        "Steps per update; the update uses the mean of their gradients.", 4, None
    )
    average: Annotated[float, Field(gt=0, lt=1)] | None = key(
        "Decay of an exponential moving average of the parameters.", 0.999, None
    )
    groups: list[ParameterGroup] = key(
        "Parameter groups with other attributes; the first matching group counts.",
        [{"parameters": "*.b", "weight_decay": 0}],
        [],
    )
