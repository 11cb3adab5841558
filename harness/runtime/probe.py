"""A test that calls each primitive by itself, and checks the shape and dtype of its result.

In a whole model, a later primitive may hide a wrong dtype, or a wrong shape may cause an error far
from its origin. So this test runs every primitive that a session needs once by itself, eagerly, on
arrays of the shapes and dtypes that occur in the session. It does not compare values: the other
checks do that.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import shorten
from harness.program.builder import Builder
from harness.program.dims import Dim, resolve_shape
from harness.program.ir import Kind, Node, Phase, Type
from harness.program.primitives import OFFERED
from harness.program.signature import call_key
from harness.runtime.answers import ProbeAnswer
from harness.runtime.backend import Backend
from harness.runtime.interpreter import Interpreter, call_text, perform
from harness.runtime.native import Tensors
from harness.runtime.paths import DERIVED_PATHS
from harness.runtime.precision import host_dtype
from harness.runtime.promises import ContractError, check_array
from harness.runtime.session import Session


def every_primitive(offers: Collection[str]) -> Builder:
    """Return a builder (a program under construction) with a call of every required primitive, and
    of the optional primitives in ``offers``."""
    builder = Builder()
    value = partial(_value, builder)
    matrix, row, cube = value(2, 3), value(3), value(2, 3, 4)
    for op in ("exp", "log", "tanh", "sqrt", "negative", "stop_gradient"):
        builder.emit(op, matrix)
    for op in ("add", "subtract", "multiply", "divide", "power", "less", "less_equal", "equal"):
        builder.emit(op, matrix, row)
    _call_optional(builder, offers, matrix, cube)
    truth = value(2, 3, kind="bool")
    builder.emit("where", truth, matrix, row)
    places, other = (value(2, 3, kind="index", bound=5) for _ in range(2))
    builder.emit("where", truth, places, other)
    builder.emit("where", truth, truth, value(2, 3, kind="bool"))
    builder.emit("astype", truth)
    builder.emit("astype", value(2, kind="index", bound=4))
    builder.emit("permute_dims", cube, axes=(2, 0, 1))
    builder.emit("broadcast_to", row, shape=_dims(2, 3))
    builder.emit("expand_dims", matrix, axis=1)
    builder.emit("squeeze", value(2, 1, 3), axis=1)
    builder.emit("concat", matrix, value(4, 3), axis=0)
    builder.emit("concat", places, other, axis=1)
    builder.emit("concat", truth, truth, axis=0)
    builder.emit("slice", cube, axis=1, start=1, stop=3)
    builder.emit("flip", matrix, axis=1)
    builder.emit("take", value(5, 3), value(2, 4, kind="index", bound=5))
    builder.emit("take", value(5, 3, kind="index", bound=4), value(2, kind="index", bound=5))
    builder.emit("take_along_axis", value(2, 5), value(2, 3, kind="index", bound=5))
    builder.emit("take_along_axis", value(2, 5, kind="index", bound=4), places)
    builder.emit("one_hot", value(2, kind="index", bound=4), classes=Dim.of(4))
    builder.emit("segment_sum", value(4, 3), value(4, kind="index", bound=5), rows=Dim.of(5))
    for op in ("sum", "max"):
        for axes in ((0, 2), (0, 1, 2), ()):
            builder.emit(op, cube, axis=axes, keepdims=False)
        builder.emit(op, cube, axis=(1,), keepdims=True)
    builder.emit("matmul", matrix, value(3, 4))
    builder.emit("tensordot", cube, value(3, 4, 5), axes=((1, 2), (0, 1)))
    return builder


def _call_optional(builder: Builder, offers: Collection[str], matrix: int, cube: int) -> None:
    """Call each optional primitive in ``offers``. The shapes are ``matrix`` [2, 3] and ``cube``
    [2, 3, 4]."""
    ones = dict.fromkeys(("stride", "dilation", "padding", "after"), _dims(1, 1))
    frame = {"axes": (1, 2), "size": _dims(2, 3), **ones}
    calls: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
        **{
            op: ((matrix,), {})
            for op in ("erf", "sin", "cos", "floor", "cumulative_sum", "argsort")
        },
        "arange": ((), {"stop": Dim.of(4)}),
        "reshape": ((cube,), {"shape": _dims(3, 8)}),
        "windows": (
            (_value(builder, 2, 3, 4, 2),),
            {**frame, "length": _dims(4, 4), "lowest": False},
        ),
        "overlap_add": ((_value(builder, 2, 4, 4, 2, 3, 2),), {**frame, "length": _dims(3, 4)}),
    }
    for op, (operands, attributes) in calls.items():
        if op in offers:
            builder.emit(op, *operands, **attributes)


def _value(builder: Builder, *shape: int, kind: Kind = "float", bound: int | None = None) -> int:
    return builder.value(Type(_dims(*shape), kind, None if bound is None else Dim.of(bound)))


def _dims(*sizes: int) -> tuple[Dim, ...]:
    return tuple(map(Dim.of, sizes))


# The number of entries of the parameter for which an optimizer's primitives are tested.
ENTRIES = 5
# Operations that the interpreter computes without calling a primitive.
WALKED = frozenset({"constant", "extent"})
KINDS: Mapping[str, str] = {"index": "iu", "bool": "b"}


@dataclass(frozen=True)
class TensorForm:
    """The shape of a tensor, and its kind: "float", "index" or "bool". An index is at least 0 and
    less than ``bound``."""

    shape: tuple[int, ...]
    kind: Kind = "float"
    bound: int = 0

    def __str__(self) -> str:
        return f"{'' if self.kind == 'float' else f'{self.kind} '}{list(self.shape)}"


@dataclass(frozen=True)
class PrimitiveCall:
    """A call of a primitive, described by the shapes and kinds of its inputs and of its result."""

    op: str
    inputs: tuple[TensorForm, ...]
    attributes: tuple[tuple[str, Any], ...]
    result: TensorForm


@dataclass
class Probe:
    """A test of each primitive of a backend by itself. Calls that were correct before are not
    repeated.

    ``traceback`` is the traceback of the call that raised an error; it is empty if no call did.
    """

    traceback: str = ""
    _right: set[Any] = field(default_factory=set)

    def run(self, session: Session, sizes: Mapping[str, int], setting: Any) -> ProbeAnswer:
        """Test the primitives; return a dictionary with the number of tested calls (``tried``), the
        ``faults`` and a ``traceback``.

        ``faults`` has the first fault of each primitive as text. ``sizes`` are the batch size and
        the sequence length. ``setting`` holds everything else that a result may depend on, such as
        the dtype and the device.
        """
        self.traceback = ""
        trips = (
            TensorForm((2, 3)),
            TensorForm(()),
            TensorForm((3,), "index", 4),
            TensorForm((2,), "bool"),
        )
        broken = next(filter(None, (self._check_round_trip(session, form) for form in trips)), "")
        if broken:  # results cannot be read, so no primitive can be tested
            return {"tried": len(trips), "faults": [broken], "traceback": self.traceback}
        faults: dict[str, str] = {}
        every = dict.fromkeys([*calls(session, sizes), *_sample_calls(session)])
        tried = len(trips) + len(every)
        pending = [call for call in every if (setting, call) not in self._right]
        if self._all_right_together(session, pending):
            self._right.update((setting, call) for call in pending)
            pending = []
        for call in pending:
            if call.op in faults:
                continue
            if fault := self._find_fault(session, call):
                faults[call.op] = fault
            else:
                self._right.add((setting, call))
            if self.traceback:  # later faults may be consequences of this one
                break
        return {"tried": tried, "faults": list(faults.values()), "traceback": self.traceback}

    def _check_round_trip(self, session: Session, form: TensorForm) -> str:
        try:
            return self._describe_misfit(session, _tensor(session, form), form, "tensor()")
        except Exception as error:
            return self._describe_error(f"tensor() of an array of shape {list(form.shape)}", error)

    def _all_right_together(self, session: Session, pending: Sequence[PrimitiveCall]) -> bool:
        """Return whether all calls in ``pending`` are correct, if one compiled function makes all
        of them.

        This saves the time of compiling each call by itself. If the result is False, the calls are
        tested one by one.
        """
        table = session.table

        def make(_: Tensors, tensors: Tensors) -> Tensors:
            return {
                str(number): perform(
                    table,
                    call.op,
                    [tensors[repr(form)] for form in call.inputs],
                    dict(call.attributes),
                )
                for number, call in enumerate(pending)
            }

        try:
            forms = {form for call in pending for form in call.inputs}
            results = session.backend.compile(make)(
                {}, {repr(f): _tensor(session, f) for f in forms}
            )
            returned = [results[str(number)] for number in range(len(pending))]
        except Exception:  # testing the calls one by one then finds the faulty call
            return False
        wrong = (
            self._describe_misfit(session, m, c.result, "")
            for m, c in zip(returned, pending, strict=True)
        )
        right = not any(wrong)
        self.traceback = ""
        return right

    def _find_fault(self, session: Session, call: PrimitiveCall) -> str:
        attributes = dict(call.attributes)
        try:
            inputs = [_tensor(session, form) for form in call.inputs]
            text = call_text(call.op, inputs, attributes)
            result = perform(session.table, call.op, inputs, attributes)
        except Exception as error:
            raised = self._describe_error(call.op, error)
            if call.op not in OFFERED:
                return raised
            hint = f"if the framework has no {call.op} in {session.dtype}, list it in lacks()"
            return f"{raised}; {hint}"
        return self._describe_misfit(session, result, call.result, text)

    def _describe_misfit(self, session: Session, result: Any, form: TensorForm, text: str) -> str:
        shape = getattr(result, "shape", None)
        try:
            found_shape = tuple(int(length) for length in shape)  # type: ignore[union-attr]
        except Exception:
            return (
                f"{text} returned a {type(result).__name__} whose shape is not a tuple of numbers"
            )
        if found_shape != form.shape:
            return f"{text} returned shape {list(found_shape)}; expected {list(form.shape)}"
        try:
            values = check_array(session.backend.numpy(result), f"the result of {text}")
        except ContractError as error:
            return str(error)
        except Exception as error:
            return self._describe_error(f"numpy() of the result of {text}", error)
        if values.shape != form.shape:
            return f"numpy() of {text} has shape {list(values.shape)}; expected {list(form.shape)}"
        others = {"index": "int64", "bool": "bool"}
        expected = others.get(form.kind, host_dtype(session.dtype))
        right = expected == values.dtype.name or values.dtype.kind in KINDS.get(form.kind, "")
        return "" if right else f"{text} returned dtype {values.dtype}; expected {expected}"

    def _describe_error(self, what: str, error: Exception) -> str:
        self.traceback = "".join(traceback.format_exception(error))
        notes = shorten("; ".join(getattr(error, "__notes__", ())), 200)
        where = f" ({notes})" if notes else ""
        return f"{what} raised {type(error).__name__}: {shorten(str(error), 200)}{where}"


def calls(session: Session, sizes: Mapping[str, int]) -> Iterator[PrimitiveCall]:
    """Yield every call of a primitive that the functions of a session may make at these sizes, in
    program order.

    Calls inside the framework's own layers, losses and optimizers are left out. The calls of the
    derived gradient are left out if the framework has automatic differentiation.
    """
    phases: tuple[Phase, ...] = ("training", "inference")
    for phase in phases:
        program = session.programs[phase]
        claimed = session.natives[phase].keys()
        every = {**program.sizes, **sizes}
        yield from _calls_of_nodes(
            _primitive_nodes(program.nodes, claimed), program.types, every, session
        )
    program = session.programs["training"]
    loss = session.plain("training", "loss")
    derived = session.path in DERIVED_PATHS or not session.automatic(loss)
    if program.loss is not None and derived and not session.natives["training"]:
        gradient_program = session.derivative("training", "loss").program
        yield from _calls_of_nodes(
            _primitive_nodes(gradient_program.nodes, ()),
            gradient_program.types,
            {**gradient_program.sizes, **sizes},
            session,
        )
    rule = session.rule
    if rule is not None and session.optimizer is None:
        nodes = _primitive_nodes(rule.own_nodes, ())
        yield from _calls_of_nodes(nodes, rule.types, {"entries": ENTRIES}, session)


def _sample_calls(session: Session) -> Iterator[PrimitiveCall]:
    """Yield a sample call of every primitive that the backend has, even if the model does not use
    the primitive."""
    backend = session.backend
    builder = every_primitive(backend.primitives.keys() - set(backend.lacks(session.dtype)))
    yield from _calls_of_nodes(builder.nodes, builder.types, {}, session)


def _primitive_nodes(nodes: Iterable[Node], claimed: Iterable[str]) -> Iterator[Node]:
    """Yield the operations of a program that call primitives, including those inside loops and
    calls. Calls in ``claimed`` are left out, because the framework itself runs them."""
    for node in nodes:
        if node.op == "call" and call_key(node) in claimed:
            continue
        if node.op not in ("call", *WALKED):
            yield node
        if node.body is not None:
            yield from _primitive_nodes(node.body.nodes, claimed)


def _calls_of_nodes(
    nodes: Iterable[Node], types: Mapping[int, Type], sizes: Mapping[str, int], session: Session
) -> Iterator[PrimitiveCall]:
    def form(value: int) -> TensorForm:
        found = types[value]
        bound = found.bound.resolve(sizes) if found.bound is not None else 0
        return TensorForm(resolve_shape(found.shape, sizes), found.kind, bound)

    interpreter = Interpreter({}, sizes, session.dtype, session.scalar)
    plain = type(session.backend).scan is Backend.scan
    for node in nodes:
        if node.op == "scan":
            yield from _loop_calls(node, form) if plain else ()
        else:
            attributes = tuple(sorted(interpreter.attributes(node).items()))
            yield PrimitiveCall(
                node.op, tuple(map(form, node.inputs)), attributes, form(node.output)
            )


def _loop_calls(node: Node, form: Callable[[int], TensorForm]) -> Iterator[PrimitiveCall]:
    """Yield the calls of primitives with which :func:`.interpreter.loop` slices the inputs of a
    loop and stacks its outputs. ``form`` returns the shape and kind of a value, given its number.
    """
    count = node.carries
    for value in node.inputs[count:]:
        sequence = form(value)
        slice_, row = (
            replace(sequence, shape=(1, *sequence.shape[1:])),
            replace(sequence, shape=sequence.shape[1:]),
        )
        yield PrimitiveCall("slice", (sequence,), (("axis", 0), ("start", 0), ("stop", 1)), slice_)
        yield PrimitiveCall("squeeze", (slice_,), (("axis", 0),), row)
    for value in node.outputs[count:]:
        stacked = form(value)
        row = replace(stacked, shape=stacked.shape[1:])
        slice_ = replace(stacked, shape=(1, *stacked.shape[1:]))
        yield PrimitiveCall("expand_dims", (row,), (("axis", 0),), slice_)
        yield PrimitiveCall("concat", (slice_,) * stacked.shape[0], (("axis", 0),), stacked)


def _tensor(session: Session, form: TensorForm) -> Any:
    """Return a tensor with the given shape and kind. It holds numbers above 0 (kind "float"),
    random valid indices ("index") or booleans ("bool")."""
    random = np.random.default_rng(0)
    if form.kind == "float":
        return session.float_tensor(random.uniform(0.5, 1.5, form.shape))
    values: Array = random.integers(
        0, max(form.bound, 1) if form.kind == "index" else 2, form.shape
    )
    return session.backend.tensor(values.astype(np.int64 if form.kind == "index" else np.bool_))
