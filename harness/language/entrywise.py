"""Equations of an optimizer: entry by entry, and numbers that are made of a whole tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import Place, SpecError
from harness.language.evaluate import Evaluator
from harness.language.expressions import Call, Expr
from harness.language.library import Library
from harness.language.scope import Scope
from harness.program.builder import Builder
from harness.program.flops import ELEMENTWISE
from harness.program.infer import TypeMismatch
from harness.program.ir import Node, Type
from harness.program.primitives import EVERY

NUMBER = Type(())
# Primitives that make one number of all entries; their axes are those that the parameter has.
WHOLE = frozenset({"sum", "max"})
# All that an update may be made of: primitives whose every entry is made of one of each operand,
# and those.
ALLOWED = frozenset(
    {*ELEMENTWISE.intersection(EVERY), *WHOLE, "astype", "constant", "extent", "stop_gradient"}
)
REDUCTIONS = ("sum", "max", "mean", "var")
# What moves the entries of a matrix, and multiplies two.
OF_MATRICES = frozenset({"matmul", "permute_dims", "expand_dims", "squeeze"})


class UpdateBuilder(Builder):
    """Collects the nodes of an update, part by part."""

    def taken(self) -> tuple[Node, ...]:
        """The nodes made since this was last asked."""
        made = tuple(self.nodes)
        self.nodes.clear()
        return made


class EntrywiseBuilder(UpdateBuilder):
    """Refuses whatever makes an entry of some of the others, or moves it.

    In truth a parameter has two axes, or none, or five, and a framework keeps it transposed or
    joined with others: which entries stand in one row is nothing that a rule could know.
    """

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append a primitive.

        Raises:
            TypeMismatch: it is not elementwise, or the operands do not fit.
        """
        if op not in ALLOWED:
            what = f"{op} ({EVERY[op]})" if op in EVERY else op
            raise TypeMismatch(
                f"{what} is not elementwise, and an optimizer's update must be: backends run it "
                "on tensors of any shape (allowed: + - * / ** < <= > >= == !=, exp, log, tanh, "
                "sqrt, erf, sin, cos, floor, where, stop_gradient, functions made of them, and "
                "sum, max, mean and var over the whole tensor; for matrices alone see 'matrices')"
            )
        return super().emit(op, *inputs, **attributes)


class MatrixBuilder(UpdateBuilder):
    """Refuses what an update of matrices is not made of.

    A parameter of two axes is a matrix as the definition of its layer declares it, however a
    framework keeps it.
    """

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append a primitive.

        Raises:
            TypeMismatch: it is none of those, or the operands do not fit.
        """
        if op not in ALLOWED | OF_MATRICES:
            what = f"{op} ({EVERY[op]})" if op in EVERY else op
            raise TypeMismatch(
                f"an update of matrices has no {what} (allowed: what is elementwise, @, "
                "permute_dims, expand_dims, and sum, max, mean and var, over axes or over all)"
            )
        return super().emit(op, *inputs, **attributes)


class UpdateEvaluator(Evaluator):
    """Evaluates an optimizer's equations for parameters of one type."""

    def __init__(self, library: Library, builder: UpdateBuilder) -> None:
        super().__init__(library)
        self.builder = builder

    def typed(self, expr: Expr, scope: Scope, what: str, wanted: Sequence[Type]) -> int:
        """The value of an expression that is of one of some types.

        Raises:
            SpecError: it is of another.
        """
        value = self.tensor(expr, scope)
        found = self.type_of(value)
        if found not in wanted:
            told = " or ".join(map(str, wanted))
            raise SpecError(f"{what} is {told}, found {found}", expr.place)
        return value


class EntrywiseEvaluator(UpdateEvaluator):
    """Evaluates equations for a row of entries: a reduction is over the whole tensor."""

    def call(self, expr: Call, scope: Scope) -> int:
        """The value of a call.

        Raises:
            SpecError: a reduction names axes; or as for :meth:`.Evaluator.call`.
        """
        if expr.function in REDUCTIONS:
            for name, value in expr.keywords:
                if name == "axis":
                    raise SpecError(
                        f"{expr.function} over some axes is not elementwise, and an optimizer's "
                        "update must be: it is one rule for parameters with any number of axes, "
                        f"so leave out axis=, and {expr.function} is over the whole tensor; what "
                        "is done with matrices alone is the update of 'matrices'",
                        value.place,
                    )
        return super().call(expr, scope)

    def product(self, left: int, right: int, place: Place) -> int:
        """No product: which entries of a tensor it would sum over is nothing that a rule knows.

        Raises:
            SpecError: always.
        """
        return self.emit("matmul", left, right, place=place)
