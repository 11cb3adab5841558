"""Backends that are correct except for one fault: ``wrong-NAME`` has the fault NAME.

All backends are numpy with the oracle's table of primitives. ``wrong-nothing`` has no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.oracle.oracle import TABLE
from harness.runtime.backend import Backend
from harness.runtime.hookspecs import hookimpl
from harness.runtime.native import Native, NativeOptimizer
from harness.runtime.packing import Packing, Part
from harness.runtime.session import Session

PREFIX = "wrong-"


class Plain(Backend):
    """A backend with only a table of primitives, and conversions of arrays."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._table: Any = dict(TABLE)

    @property
    def primitives(self) -> Any:
        return self._table

    def tensor(self, array: np.ndarray) -> Any:
        return np.array(array)

    def numpy(self, tensor: Any) -> Any:
        return np.array(tensor)


class Optimizer(NativeOptimizer):
    """An optimizer that forgets to return its next state."""

    label = "Optimizer"

    def start(self, variables: Any) -> Any:
        return {}

    def update(self, *arguments: Any, **named: Any) -> Any:
        return {}

    def slots(self, state: Any) -> Any:
        return {}


class Clipper(Optimizer):
    """An optimizer that clips gradients although the model does not clip."""

    label, clips = "Clipper", True


def _table(**changes: Callable[..., Any]) -> Callable[[Plain], None]:
    return lambda backend: backend._table.update(changes)


def _method(**methods: Callable[..., Any]) -> Callable[[Plain], None]:
    """Replace methods of the backend; the replacements do not take ``self``."""
    return lambda backend: backend.__dict__.update(methods)


def _session(**methods: Callable[..., Any]) -> Callable[[Plain], None]:
    """Replace methods of the backend's sessions."""

    def change(backend: Plain) -> None:
        def session(training: Any, inference: Any, **choices: Any) -> Session:
            made = Session(backend, training, inference, **choices)
            made.__dict__.update(methods)
            return made

        backend.__dict__["session"] = session

    return change


def _reading(change: Callable[[np.ndarray], Any]) -> Callable[[Plain], None]:
    """Change the parameters that the backend's sessions return."""

    def change_sessions(backend: Plain) -> None:
        def session(training: Any, inference: Any, **choices: Any) -> Session:
            made = Session(backend, training, inference, **choices)
            right = made.read

            def read() -> dict[str, Any]:
                found = right()
                return {
                    **found,
                    "parameters": {n: change(a) for n, a in found["parameters"].items()},
                }

            made.__dict__["read"] = read
            return made

        backend.__dict__["session"] = session

    return change_sessions


def _second_path_lost() -> Callable[[Plain], None]:
    """Raise a CUDA error while a process prepares its second path."""
    seen: list[str] = []

    def change(backend: Plain) -> None:
        def session(training: Any, inference: Any, **choices: Any) -> Session:
            seen.append(choices["path"])
            if len(seen) > 1:
                raise RuntimeError("CUDA error: device-side assert triggered")
            return Session(backend, training, inference, **choices)

        backend.__dict__["session"] = session

    return change


def _two_results_too_few(layer: Any) -> Native | None:
    """Claim dense layers, but return no results for them."""
    if layer.definition != "dense":
        return None
    packing = Packing({name: Part(name) for name in layer.shapes})
    return Native("Nothing", lambda values, packed: [], packing)


def _whatever_it_computes(result: Any) -> Callable[[Plain], None]:
    return _method(compile=lambda function: lambda variables, constants: result)


def _after_the_first(word: str) -> Callable[[Plain], None]:
    """Fail in the second ``exp`` of float64 and in every later call, like a lost device.

    A process that runs only float32 never loses its device.
    """
    state = {"calls": 0, "lost": False}

    def change(backend: Plain) -> None:
        def watched(op: str, right: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **named: Any) -> Any:
                state["calls"] += op == "exp" and arguments[0].dtype == np.float64
                if state["lost"] or state["calls"] == 2:
                    state["lost"] = True
                    raise RuntimeError(word)
                return right(*arguments, **named)

            return run

        backend._table = {op: watched(op, right) for op, right in TABLE.items()}

    return change


def _wide(op: str) -> Callable[..., Any]:
    return lambda *arguments, **named: TABLE[op](*arguments, **named).astype(np.float64)


def _narrow(op: str) -> Callable[..., Any]:
    return lambda *arguments, **named: TABLE[op](*arguments, **named).astype(np.float32)


def _half_a_pair(x: Any) -> Any:
    raise RuntimeError("odd \ud800 text")


def _at_least_one_axis(x: Any, axis: Any, keepdims: bool) -> Any:
    return np.atleast_1d(np.sum(x, axis=axis, keepdims=keepdims))


def _sqrt_in_lanes(x: Any) -> Any:
    """Return roots in which infinity becomes NaN, as in a vectorized loop.

    The loop handles blocks of 8 entries; the entries after the last block are right.
    """
    found = np.sqrt(x)
    whole = found.reshape(-1)[: found.size // 8 * 8]
    whole[np.isinf(whole)] = np.nan
    return found


def _no_erf_in_float64(x: Any) -> Any:
    if x.dtype == np.float64:
        raise NotImplementedError("there is no kernel of Erf for tensor(double)")
    return TABLE["erf"](x)


def _lacking_erf(backend: Plain) -> None:
    backend._table["erf"] = _no_erf_in_float64
    backend.__dict__["lacks"] = lambda dtype: ["erf"] if dtype == "float64" else []


def _lacking_windows(backend: Plain) -> None:
    del backend._table["windows"], backend._table["overlap_add"]


def _no_device(array: Any) -> Any:
    raise RuntimeError("no usable devices")


def _talkative(x: Any) -> Any:
    raise AssertionError(f"not what is wanted: {np.ones((99, 9))!r}, so there")


FAULTS: Mapping[str, Callable[[Plain], None]] = {
    "nothing": lambda backend: None,
    "numpy-none": _method(numpy=lambda tensor: None),
    "numpy-list": _method(numpy=lambda tensor: np.array(tensor).tolist()),
    "numpy-text": _method(numpy=lambda tensor: np.array(tensor).astype(str)),
    "numpy-object": _method(numpy=lambda tensor: np.array(tensor, object)),
    "tensor-narrow": _method(tensor=lambda array: np.array(array, np.float32)),
    "tensor-none": _method(tensor=lambda array: None),
    "primitive-none": _table(tanh=lambda x: None, exp=lambda x: None),
    "primitive-list": _table(matmul=lambda a, b: np.matmul(a, b).tolist()),
    "primitive-raises": _table(expand_dims=lambda x, axis: [][1]),
    "primitive-signature": _table(broadcast_to=lambda x, to: np.broadcast_to(x, to)),
    "primitive-dtype": _table(add=_narrow("add")),
    "primitive-hidden-dtype": _table(max=_narrow("max")),
    "primitive-axes": _table(permute_dims=lambda x, axes: x),
    "primitive-shape": _table(sum=_at_least_one_axis),
    "equal-floats": _table(equal=_wide("equal")),
    "less-equal-bytes": _table(less_equal=lambda a, b: np.less_equal(a, b).astype(np.uint8)),
    "one-hot-integers": _table(one_hot=lambda x, classes, dtype: TABLE["one_hot"](x, classes, int)),
    "table-list": lambda backend: setattr(backend, "_table", list(TABLE)),
    "table-number": _table(exp=2.718),  # type: ignore[arg-type]
    "compile-none": _method(compile=lambda function: None),
    "compiled-none": _whatever_it_computes(None),
    "compiled-list": _whatever_it_computes([1.0]),
    "execute-none": _method(execute=lambda plan: None),
    "execute-empty": _method(execute=lambda plan: lambda inputs: {}),
    "execute-list": _method(execute=lambda plan: lambda inputs: [1.0]),
    "advance-none": _method(advance=lambda step: None),
    "several-text": _method(several=lambda step: "several"),
    "gradient-text": _method(value_and_gradient=lambda function: "gradient"),
    "gradient-single": _method(value_and_gradient=lambda function: lambda *_: ({},)),
    "session-text": _method(session=lambda *_, **__: "a session"),
    "claim-text": _method(claim=lambda layer: "a layer"),
    "claim-packing": _method(claim=lambda layer: Native("Layer", lambda *_: [], None)),
    "claim-few": _method(claim=_two_results_too_few),
    "optimizer-text": _method(claim_optimizer=lambda rule: "adam"),
    "optimizer-single": _method(claim_optimizer=lambda rule: Optimizer()),
    "optimizer-clips": _method(claim_optimizer=lambda rule: Clipper()),
    "versions-list": _method(versions=lambda: ["1.0"]),
    "versions-many": _method(versions=lambda: {f"part {n}": "1.0" for n in range(1000)}),
    "fused-number": _method(fused=5),
    "primitive-surrogate": _table(tanh=_half_a_pair),
    "memory-huge": _method(device_memory=lambda: 10**400),
    "devices-text": _method(devices=lambda: "cpu"),
    "dtypes-none": _method(dtypes=lambda: None),
    "settings-list": _method(settings=lambda: ["fast"]),
    "paths-list": _session(paths=lambda: ["native"]),
    "forward-none": _session(forward=lambda *_: None),
    "forward-list": _session(forward=lambda *_: [1.0]),
    "forward-odd": _session(forward=lambda *_: {1: None, "output.next_char": "x"}),
    "forward-flat": _session(forward=lambda *_: {"output.next_chars": np.zeros(11)}),
    "forward-empty": _session(forward=lambda *_: {}),
    "forward-texts": _session(forward=lambda *_: {"output.next_chars": np.full((1, 2, 11), "x")}),
    "gradients-odd": _session(gradients=lambda *_: ({"loss": None}, {"gradient": [1]})),
    "step-empty": _session(step=lambda *_: {}),
    "read-empty": _session(read=dict),
    "read-odd": _session(
        read=lambda: {"parameters": {"no.such": 1}, "statistics": {}, "slots": {"m": None}}
    ),
    "read-narrow": _reading(lambda array: array.ravel()[:1]),
    "read-integers": _reading(lambda array: array.astype(np.int64)),
    "trace-odd": _session(
        trace=lambda *_: [("loss", "now", None), None],
        gradients=lambda *_: ({}, {}),
    ),
    "trace-lists": _session(
        trace=lambda *_: [("embed_1/y", None, [1.0])],
        gradients=lambda *_: ({}, {}),
    ),
    "second-path-lost": _second_path_lost(),
    "device-lost": _after_the_first("CUDA error: an illegal memory access was encountered"),
    "sqrt-in-lanes": _table(sqrt=_sqrt_in_lanes),
    "erf-undeclared": _table(erf=_no_erf_in_float64),
    "erf-lacking": _lacking_erf,
    "windows-lacking": _lacking_windows,
    "lacks-text": _method(lacks=lambda dtype: "erf"),
    "lacks-required": _method(lacks=lambda dtype: ["tanh"]),
    "no-device": _method(tensor=_no_device),
    "talkative": _table(tanh=_talkative),
    "poisoned": _after_the_first("no more"),
}


@hookimpl
def harness_backend(name: str) -> Any:
    fault = name.removeprefix(PREFIX)
    if fault == "dict":
        return {"name": name, "primitives": dict(TABLE)}
    if fault == "no-name":
        backend = Plain(name)
        del backend.name
        return backend
    if fault == "other":
        return SimpleNamespace(name=name, primitives=dict(TABLE))
    made = Plain(name)
    FAULTS[fault](made)
    return made
