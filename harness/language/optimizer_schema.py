"""Pydantic models of an optimizer's file and of a model's ``optimizer`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from harness.language.base_models import Axes, Documented, Strict, key
from harness.language.names import FreeName, Name


class ShapedSlot(Strict):
    """A slot (an array that the optimizer stores for each parameter) whose shape is declared with
    ``rows``, ``columns`` and numbers. It starts as zeros."""

    shape: Axes = key("the lengths of the slot's axes: numbers, `rows` or `columns`", ["rows", 1])


class Matrices(Strict):
    """The update of an optimizer for two-dimensional parameters ``[rows, columns]``.

    Slots are declared as in :class:`Optimizer`, or with a shape.
    """

    slots: dict[Name, str | float | ShapedSlot] = key(
        "arrays stored for each parameter, with the parameter's shape or a declared shape",
        {"m": "zeros"},
        {},
    )
    update: str = key("equations that assign `p` and the slots", "p = p - learning_rate * g")


class Optimizer(Documented):
    """The update of a parameter ``p`` with gradient ``g`` at step ``t`` (1, 2, ...).

    A slot starts as ``zeros``, ``ones``, a number, the value of an attribute, or as ``p``. Each
    expression in ``total`` is summed over all entries of all parameters. With ``matrices``,
    two-dimensional parameters have different slots and a different update.
    """

    optimizer: FreeName = key("the name of the optimizer and its file", "nudge")
    attributes: dict[Name, float] = key("the default of each attribute", {"learning_rate": 0.01})
    slots: dict[Name, str | float] = key(
        "arrays stored for each parameter, which start as `zeros`, `ones`, a number, an "
        "attribute, or the parameter `p`",
        {"m": "zeros"},
        {},
    )
    total: dict[Name, str] = key(
        "expressions to sum over all entries of all parameters",
        {"square": "g * g"},
        {},
    )
    update: str = key(
        "elementwise equations that assign `p` and the slots", "p = p - learning_rate * g"
    )
    matrices: Matrices | None = key(
        "a different update for two-dimensional parameters",
        {"update": "p = p - learning_rate * g"},
        None,
    )


class ParameterGroup(BaseModel):
    """Parameters that match patterns of names, with different attributes or a different schedule.

    With ``matrices: false``, two-dimensional parameters are updated elementwise, like all others.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    parameters: str | list[str] = key(
        "patterns of parameter names, in which `*` matches any characters", ["*.b", "embed.table"]
    )
    schedule: str | float | None = key("replaces the model's `schedule` for this group", 0.1, None)
    matrices: bool = key(
        "with `false`, update two-dimensional parameters elementwise",
        False,
        True,
    )

    @property
    def patterns(self) -> list[str]:
        """The patterns in ``parameters``, always as a list."""
        return [self.parameters] if isinstance(self.parameters, str) else self.parameters


class OptimizerUse(BaseModel):
    """The ``optimizer`` section of a model: the optimizer's name, and values of its attributes.

    ``schedule`` is a factor of the learning rate, which may depend on the step ``t``. ``gradient``
    is the expression that the optimizer's equations read as ``g``. With ``accumulate``, this number
    of steps makes one update with the mean of their gradients. ``average`` is the decay of a moving
    average of the parameters.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    optimizer: str = key("the optimizer's name", "adam")
    schedule: str | float | None = key(
        "multiplies the learning rate; it can depend on the step number `t`",
        "minimum(1, t / 100)",
        None,
    )
    total: dict[Name, str] = key(
        "expressions to sum over all entries of all parameters",
        {"square": "g * g"},
        {},
    )
    gradient: str | None = key(
        "an expression that replaces the gradient `g`; it can use `g`, `p`, `t` and the "
        "names in `total`",
        "maximum(minimum(g, 1), -1)",
        None,
    )
    accumulate: Annotated[int, Field(ge=2)] | None = key(
        "steps per update; the update uses their mean gradient", 4, None
    )
    average: Annotated[float, Field(gt=0, lt=1)] | None = key(
        "the decay of an exponential moving average of the parameters", 0.999, None
    )
    groups: list[ParameterGroup] = key(
        "parameter groups with different attributes; the first matching group applies",
        [{"parameters": "*.b", "weight_decay": 0}],
        [],
    )
