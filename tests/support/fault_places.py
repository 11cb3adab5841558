"""The place of each planted fault, and tests whether a reported cause is at this place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.checking.causes.cause import Cause
from harness.language.library import FOLDERS
from harness.language.model import load_spec
from harness.program.ir import Program, walk_nodes

# The places of faults in sessions: the reported cause must contain one of these texts.
PLANTED: dict[str, tuple[str, ...]] = {
    "first-load-wins": ("keeps state", "loading again"),
    "square-matrices-transposed": ("is transposed",),
    "biases-not-loaded": ("dense.yaml:10",),
    "gradient-missing": ("out.W",),
    "gradient-of-bias-missing": ("gru.b_r",),
    "gradient-of-initial-state-missing": ("h0",),
    "gradient-of-carried-state-missing": ("state.h", "state.c"),
    "gradient-through-new-state-missing": ("along state.",),
    "gradient-over-batch": ("every gradient is 0.333333 times",),
    "gradient-clipped-by-value": ("a wrong gradient of out.", "a wrong gradient of gru."),
    "gradient-clipped-by-norm": ("every gradient is",),
    "gradients-swapped": ("gru.U_r, gru.U_z",),
    "gradient-transposed": ("gradient of rnn.U",),
    "gradient-negated": ("gradient of rnn.c",),
    "gradient-is-ascalar": ("gradient of rnn.U",),
    "gradient-of-last-use-only": ("dense_in.W",),
    "gradient-divided-by-uses": ("dense_in.W",),
    "computes-in-float32": ("found float32", "float32"),
    "returns-float64": ("wrong when returned",),
    "returns-float32": ("wrong when returned",),
    "loads-bfloat16": ("embedding.yaml",),
    "reads-float32": ("moved",),
    "loop-one-step-late": ("layer rnn",),
    "loop-results-backwards": ("layer gru",),
    "loop-state-one-step-before": ("layer lstm",),
    "loop-state-reset": ("layer lstm",),
    "loop-gradient-one-step-late": ("layer rnn",),
    "loop-gradient-forwards": ("layer rnn",),
    "loop-one-step-early": ("layer rnn",),
    "loop-backwards": ("layer gru",),
    "rate-in-float16": ("sgd receives right gradients",),
    "rate-in-bfloat16": ("adam_epsilon_hat receives right gradients",),
    "state-ignored": ("layer lstm", "lstm.yaml"),
    "state-kept": ("keeps state", "carried-state"),
    "state-returned-unchanged": ("state.h", "state.c"),
    "state-swapped": ("state.h", "state.c"),
    "state-reset-by-training": ("to the next step", "step 2: loss", "step 1: state"),
    "always-training": ("norm",),
    "always-inference": ("norm",),
    "statistics-frozen": ("norm.moving_",),
    "statistics-one-step-late": ("norm.moving_",),
    "statistics-moved-by-inference": ("carried-state", "norm"),
    "rate-frozen": ("learning rate is always that of the first step",),
    "rate-one-step-late": ("learning rate is that of the previous step",),
    "update-twice": ("every update is applied twice",),
    "update-one-step-late": ("gradient is that of the previous step",),
    "update-omits-biases": ("dense_hidden.b moved", ".b moved"),
    "loss-after-update": ("step 1: loss",),
    "reads-initial-values": ("moved",),
    "slots-reset-each-step": ("slots start from zeros",),
    "slots-of-another-parameter": ("gru.U_z", "gru.U_r"),
    "slots-swapped": (" m", " v"),
    "slots-kept-by-load": ("keeps state", "loading again"),
    "step-not-counted": ("every step counts as the first",),
    "step-counted-per-call": ("adam_epsilon_hat receives right gradients", "keeps state"),
    "squares-per-occurrence": ("embed.table",),
    "update-inside-the-loop": ("sgd receives right gradients", "moved"),
    "examples-mixed": ("output.logits",),
    "state-leaks-from-training": ("wrong in a later call",),
    "gradient-accumulates": ("wrong in a later call",),
    "gradient-of-last-call": ("wrong in a later call",),
    "embedding-drops-out": ("embed", "repeatability"),
    "partial-batch-dropped": ("partial-batch",),
}


def lines_of(text: str, old: str) -> Iterator[int]:
    """Yield the numbers of the lines of a text in which ``old`` occurs."""
    at = text.find(old)
    while at >= 0:
        first = text.count("\n", 0, at) + 1
        yield from range(first, first + old.strip("\n").count("\n") + 1)
        at = text.find(old, at + 1)


def at_altered(spec: str, row: dict[str, Any], cause: Cause) -> bool:
    """Return whether a cause is in an altered line, or in a line that calls an altered function."""
    kind, name = row["kind"], row["definition"]
    text = files("harness.specs").joinpath(f"{FOLDERS[kind]}/{name}.yaml").read_text("utf-8")
    numbers = {n for old in row["replace"] for n in lines_of(text, old)}
    file = f"{name.rpartition('/')[2]}.yaml"
    if any(cause.place.endswith(f"/{file}:{number}") for number in numbers):
        return True
    said = f"{cause.what} {' '.join(cause.names)}"
    keys = {_key(text, number) for number in numbers}
    if keys & {"attributes"} and f"/{file}:" in cause.place:
        return True  # a default value, which an equation of the definition reads
    if kind == "model" and keys & set(cause.names):
        return True
    if kind == "model":  # an altered model changes an argument or an attribute of a layer
        changed = " ".join(text.splitlines()[n - 1] for n in numbers)
        words = {word.split("/")[0].split("#")[0] for word in cause.names}
        return any(word and word in changed for word in words)
    if kind == "function":
        if cause.phase == "backward":
            return uses_function(spec, name, cause)
        line = _line(cause.place)
        return name in line or any(word in line for word in ("activation(", "gate(", "log_softmax"))
    if cause.phase == "backward":
        return f"({name})" in said
    return cause.phase == "update" and kind == "optimizer" and name in said


def _key(text: str, number: int) -> str:
    """Return the key of a spec that a line belongs to."""
    lines = [line for line in text.splitlines()[:number] if line[:1].isalpha()]
    return lines[-1].partition(":")[0] if lines else ""


def uses_function(spec: str, name: str, cause: Cause) -> bool:
    """Return whether the layer or loss with the wrong gradient calls a function."""
    for node in load_spec(spec).program().calls:
        named = f"layer {node.attributes.get('instance', node.attributes['label'])} " in cause.what
        folder = FOLDERS[str(node.attributes["kind"])]
        text = files("harness.specs").joinpath(f"{folder}/{node.attributes['definition']}.yaml")
        used = {*node.attributes["attributes"].values(), *text.read_text("utf-8").split("(")}
        if named and any(str(one).endswith(name) for one in used):
            return True
    return False


def _line(place: str) -> str:
    path, _, number = place.rpartition(":")
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    except (OSError, ValueError, IndexError):
        return ""


def at_operation(spec: str, op: str, cause: Cause) -> bool:
    """Return whether a cause is an equation or layer whose code or gradient uses the operation."""
    if op in f"{cause.what} {' '.join(cause.names)}":
        return True
    found = load_spec(spec)
    gradients = {"tensordot": "matmul", "segment_sum": "take", "one_hot": "take_along_axis"}
    wanted = {op, gradients.get(op, op)}
    for program in found.programs.values():
        for node in walk_nodes(program.nodes):
            inner = [n.op for n in walk_nodes(node.body.nodes)] if node.body else [node.op]
            if node.place == cause.place and wanted.intersection(inner):
                return True
        if wanted & set(behind(program, cause.names)):
            return True
    rule = found.update
    return cause.phase == "update" and rule is not None and op in {n.op for n in rule.nodes}


def behind(program: Program, names: Iterable[str]) -> Iterator[str]:
    """Yield the operations that compute the named values from other named values.

    These include operations in functions, and operations that split and join the steps of a loop.
    """
    made, outer = {}, {}
    for node in walk_nodes(program.nodes):
        made |= dict.fromkeys(node.outputs, node)
        if node.op == "scan":
            outer |= dict(zip(node.block.inputs, node.inputs, strict=True))
    wanted = [value for value, name in program.names.items() if name in names]
    seen = set()
    while wanted:
        value = wanted.pop()
        if value in seen:
            continue
        seen.add(value)
        before: tuple[int, ...] = ()
        if value in outer:
            yield from ("slice", "squeeze")
            before = (outer[value],)
        elif (node := made.get(value)) is not None and node.op == "scan":
            yield from ("expand_dims", "concat")
            before = (node.block.outputs[node.outputs.index(value)],)
        elif node is not None and node.op != "call":
            yield node.op
            before = node.inputs
        wanted += [v for v in before if v not in program.names or v in outer]
