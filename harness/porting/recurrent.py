"""Write the recurrent layers of frameworks as chains of shipped layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from harness.errors import UsageError
from harness.porting.graph import Dim, TracedCall, minus_one
from harness.porting.rewriting import Calls

LAYERS = {
    ("lstm", False): "lstm",
    ("lstm", True): "bidirectional_lstm",
    ("gru", False): "gru_reset_after",
    ("gru", True): "bidirectional_gru_reset_after",
    ("rnn_tanh", False): "simple_rnn_two_biases",
    ("rnn_relu", False): "simple_rnn_two_biases",
}


class RecurrentLayers:
    """The rewrite of ``recurrent`` and ``final_state`` calls; :meth:`__call__` is the rule."""

    def __init__(self) -> None:
        # The last value of each recurrent call -> its layers' outputs, ``[batch, time, units]``.
        self._outputs: dict[str, list[TracedCall]] = {}

    def __call__(
        self, calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
    ) -> Iterable[TracedCall] | str:
        """Replace a recurrent call by one call per layer; see :class:`Calls`.

        Raises:
            UsageError: the layer has no shipped definition, or an initial state other than zeros.
        """
        if call.op == "final_state":
            return self._final_state(calls, call)
        if call.op != "recurrent":
            return [call]
        a = call.attributes
        layer = _shipped_layer(call)
        _check_states(call, done)
        new_calls: list[TracedCall] = []
        source, shape = done[call.inputs[0]], call.shape
        if not a["batch_first"]:
            new_calls.append(_swapped(calls, call, source))
            source, shape = new_calls[0], (shape[1], shape[0], *shape[2:])
        outputs: list[TracedCall] = []
        for number in range(a["layers"]):
            outputs.append(_layer_call(calls, call, layer, number, source.name, shape))
            new_calls.append(outputs[-1])
            if a["keep"] != 1 and number < a["layers"] - 1:
                new_calls.append(
                    calls.layer(call, "dropout", [new_calls[-1].name], shape, {"keep": a["keep"]})
                )
            source = new_calls[-1]
        if not a["batch_first"]:
            new_calls.append(_swapped(calls, call, source))
        self._outputs[new_calls[-1].name] = outputs
        return new_calls

    def _final_state(self, calls: Calls, call: TracedCall) -> list[TracedCall]:
        """Return the final states of all layers and directions, ``[layers, batch, units]``.

        Raises:
            UsageError: the state is the cell state of an LSTM in two directions.
        """
        outputs = self._outputs[call.inputs[0]]
        _, batch, units = call.shape
        new_calls: list[TracedCall] = []
        rows: list[str] = []
        for output in outputs:
            length, width = output.shape[1:]
            if call.attributes["number"] > 0:
                if width != units:
                    raise UsageError(
                        f"{call.place}: the final cell state of an LSTM in two directions is not "
                        "supported"
                    )
                # The results of the layer ``lstm`` are y, h and c.
                new_calls.append(calls.new(call, "result", [output.name], (batch, units), number=2))
                new_calls.append(
                    calls.new(call, "reshape", [new_calls[-1].name], (1, batch, units))
                )
                rows.append(new_calls[-1].name)
                continue
            for start in range(0, int(width), int(units)):
                # The second direction ends at the first time step.
                cut = {"axis": 1, "index": 0 if start else minus_one(length), "length": length}
                last = calls.new(call, "select", [output.name], (batch, width), **cut)
                new_calls.append(last)
                if width != units:
                    part = {"axis": 1, "start": start, "stop": start + int(units), "step": 1}
                    new_calls.append(
                        calls.new(call, "slice", [last.name], (batch, units), **part, length=width)
                    )
                new_calls.append(
                    calls.new(call, "reshape", [new_calls[-1].name], (1, batch, units))
                )
                rows.append(new_calls[-1].name)
        if len(rows) > 1:
            new_calls.append(replace(call, op="concat", inputs=tuple(rows), attributes={"axis": 0}))
        return new_calls


def _shipped_layer(call: TracedCall) -> str:
    a = call.attributes
    layer = LAYERS.get((a["cell"], bool(a["bidirectional"])))
    if layer is None:
        raise UsageError(f"{call.place}: {a['cell']} in two directions has no shipped layer")
    no_bias = layer == "simple_rnn_two_biases" and not a["bias"]
    return "simple_rnn_without_bias" if no_bias else layer


def _check_states(call: TracedCall, done: Mapping[str, TracedCall]) -> None:
    states = [done[state].values for state in call.inputs[1:]]
    if any(values is None or any(v.any() for v in values) for values in states):
        raise UsageError(f"{call.place}: an initial state that is not zero is not supported")


def _swapped(calls: Calls, call: TracedCall, source: TracedCall) -> TracedCall:
    """Return a permutation of ``[time, batch, units]`` to ``[batch, time, units]``, or back."""
    one, two, *rest = source.shape
    return calls.new(call, "permute", [source.name], (two, one, *rest), axes=[1, 0, 2])


def _layer_call(
    calls: Calls, call: TracedCall, layer: str, number: int, source: str, shape: tuple[Dim, ...]
) -> TracedCall:
    """Return the call of one layer. Its rule for ``--map`` does not name the gates."""
    a = call.attributes
    owner = a["weights"][0].rpartition(".")[0]
    several = a["layers"] > 1
    settings: dict[str, Any] = {"units": int(shape[-1]) // (2 if a["bidirectional"] else 1)}
    if a["cell"] == "rnn_relu":
        settings["activation"] = "relu"
    return calls.layer(
        call,
        layer,
        [source],
        shape,
        settings if a["bias"] or "rnn" in layer else {**settings, "bias": False},
        rules=((".*_l0*", f"{owner}.*_l{number}*") if several else ("", owner),),
        owner=f"{owner}.{number}" if several else owner,
    )
