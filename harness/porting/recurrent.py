"""Write the recurrent layers of frameworks as chains of shipped layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.errors import UsageError
from harness.porting.rewriting import Calls
from harness.porting.sizes import Call

LAYERS = {
    ("lstm", False): "lstm",
    ("lstm", True): "bidirectional_lstm",
    ("gru", False): "gru_reset_after",
    ("gru", True): "bidirectional_gru_reset_after",
    ("rnn_tanh", False): "simple_rnn_two_biases",
}


def expand_recurrent(calls: Calls, call: Call, done: Mapping[str, Call]) -> Iterable[Call] | str:
    """Replace a ``recurrent`` call of several layers by one call per layer.

    Raises:
        UsageError: the layer has no shipped definition, or an initial state other than zeros.
    """
    if call.op == "final_state":
        return [_final_state(calls, call, done)]
    if call.op != "recurrent":
        return [call]
    a = call.attributes
    layer = LAYERS.get((a["cell"], bool(a["bidirectional"])))
    if layer is None or not a["bias"]:
        raise UsageError(
            f"{call.place}: {a['cell']} {'in two directions' if a['bias'] else 'without biases'} "
            "has no shipped layer"
        )
    if any(
        done[state].values is None or any(v.any() for v in done[state].values or ())
        for state in call.inputs[1:]
    ):
        raise UsageError(f"{call.place}: an initial state that is not zero is not supported")
    made: list[Call] = []
    value = call.inputs[0]
    source = done[value]
    if not a["batch_first"]:
        made.append(
            calls.new(
                call,
                "permute",
                [value],
                [source.shape[1], source.shape[0], source.shape[2]],
                axes=[1, 0, 2],
            )
        )
        value = made[-1].name
    shape = call.shape if a["batch_first"] else (call.shape[1], call.shape[0], call.shape[2])
    owner = a["weights"][0].rpartition(".")[0]
    units = call.shape[-1] // (2 if a["bidirectional"] else 1)  # type: ignore[operator]
    for number in range(a["layers"]):
        rule = (
            (
                ".*_l0*" if a["layers"] > 1 else "",
                f"{owner}.*_l{number}*" if a["layers"] > 1 else owner,
            ),
        )
        attributes = {
            "layer": layer,
            "settings": {"units": units},
            "weights": {},
            "channels": -1,
            "rules": rule,
            "owner": f"{owner}.{number}" if a["layers"] > 1 else owner,
        }
        made.append(replace(calls.new(call, "layer", [value], shape), attributes=attributes))
        value = made[-1].name
        if a["keep"] != 1 and number < a["layers"] - 1:
            attributes = {
                "layer": "dropout",
                "settings": {"keep": a["keep"]},
                "weights": {},
                "channels": -1,
            }
            made.append(replace(calls.new(call, "layer", [value], shape), attributes=attributes))
            value = made[-1].name
    if not a["batch_first"]:
        made.append(calls.new(call, "permute", [value], call.shape, axes=[1, 0, 2]))
    return made


def _final_state(calls: Calls, call: Call, done: Mapping[str, Call]) -> Call:
    raise UsageError(f"{call.place}: the final state of a recurrent layer is not supported")
