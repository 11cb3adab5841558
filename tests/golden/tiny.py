"""The smallest model that calls one definition, and its run on the oracle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.language import schema
from harness.language.library import Library
from harness.language.lower_optimizer import lower_update
from harness.language.model import load_spec
from harness.oracle import oracle
from harness.program.autodiff.differentiate import differentiate
from harness.program.ir import Phase, Port, Program, needed_nodes
from harness.program.updates import at_shape
from harness.runtime.updates import initial_slots

Array = npt.NDArray[Any]
Arrays = Mapping[str, Any]
Overrides = Mapping[tuple[str, str], str]
SIZES = {"features": 2, "units": 4, "classes": 7, "rows": 6}
SIZES |= {"multiplier": 2, "states": 3, "inner": 4, "symbols": 4, "narrow": 3}
SIZES |= {"experts": 4, "chosen": 2, "half": 2, "nodes": 6, "edges": 9, "tall": 3}
SIZES |= {"heads": 2, "head": 3, "wide": 5, "context": 7, "groups": 2, "each": 3, "places": 4}
# What is normalised over two numbers is 1 and -1, whatever they were.
WIDE = ("layer_norm", "rms_norm", "causal_attention", "gpt_block")
WIDE += ("llama_block",)
WIDE += ("self_attention", "cross_attention", "masked_attention")
WIDE += ("vit_block", "bert_block", "mamba_block")
OWN = {name: {"features": 6} for name in WIDE}
IMAGES = ("conv1d", "conv2d", "conv2d_transpose", "max_pool", "avg_pool")
IMAGES += ("unet_convs", "basic_block", "basic_block_down")
IMAGES += ("bottleneck_block", "bottleneck_block_down", "max_pool_first")
IMAGES += ("resize_bilinear", "resize_nearest")
OWN |= {name: {"groups": 1, "each": 2} for name in IMAGES}
# An axis that is a product has no name that the definition knows as one.
PRODUCTS = {"channels": "groups * each", "width": "2 * half"}
PRODUCTS |= {"rows": "2 * each", "columns": "2 * heads", "steps": "2 * each"}
# How many windows of a size by its name fit by steps of 2 could not be told.
NUMBERS = {"kernel": 3, "window": 3}
FREE = {"batch": 3, "time": 5}


@dataclass(frozen=True)
class Tiny:
    """One call of a definition: ``outputs`` are its results, ``against`` its float arguments."""

    program: Program
    values: Mapping[str, Port]  # what comes in, by neutral name
    outputs: tuple[Port, ...]
    moved: tuple[Port, ...]  # statistics after the call

    @property
    def against(self) -> dict[str, Port]:
        """Everything that has a gradient."""
        statistics = {port.value for port in self.program.statistics}
        targets = {port.value for port in self.program.targets}
        return {
            name: port
            for name, port in self.values.items()
            if port.value not in statistics | targets and self.program.type_of(port).kind == "float"
        }

    @property
    def sizes(self) -> dict[str, int]:
        """All sizes in numbers."""
        return {**self.program.sizes, **FREE}


def tiny(
    kind: str,
    name: str,
    attributes: Arrays | None = None,
    phase: Phase = "training",
    overrides: Overrides | None = None,
) -> Tiny:
    """Lower a model of one call. Sizes among the attributes keep the names of :data:`SIZES`."""
    changed = dict(overrides or {})
    content = Library((), changed).find(kind, name).content
    text = _WRITERS[kind](content, dict(attributes or {}))
    spec = load_spec("tiny", overrides={**changed, ("model", "tiny"): text})
    program = spec.program(phase)
    given = (*program.inputs, *program.targets)
    values = {port.name.removeprefix("cell."): port for port in given}
    values |= {port.name.removeprefix("cell."): port for port in program.parameters}
    values |= {port.name.removeprefix("cell."): port for port in program.statistics}
    moved = tuple(
        Port(f"after.{p.name.removeprefix('cell.')}", p.value) for p in program.new_statistics
    )
    outputs = program.outputs
    if kind == "loss":
        (call,) = program.calls
        outputs = (Port("y", call.output),)
    return Tiny(program, values, outputs, moved)


def _text(sections: Mapping[str, Any]) -> str:
    lines = ["model: tiny", "summary: One call.", "source: none"]
    for section, content in sections.items():
        if isinstance(content, str):
            lines.append(f"{section}: {content}")
        elif content:
            lines.append(f"{section}:")
            lines.extend(f"  {name}: {value}" for name, value in content.items())
    return "\n".join(lines) + "\n"


def _axes(axes: Any) -> list[str]:
    if axes == "any":
        return ["batch", "time"]
    flat: list[str] = []
    for axis in axes:
        flat.extend([axis] if axis != "..." else ["batch"] if "time" in axes else ["batch", "time"])
    # [batch, time, ...] stands for any further axes: one is enough.
    flat = [*flat[:2], *(["features"] if axes[2:] == ["..."] else flat[2:])]
    return [PRODUCTS.get(axis, axis) for axis in flat]


def _input(declared: Any) -> str:
    if isinstance(declared, schema.Input | schema.State):
        shape = ", ".join(_axes(declared.shape))
        entries = {name: getattr(declared, name, None) for name in ("index", "at_most", "boolean")}
        told = [f"{name}: {str(value).lower()}" for name, value in entries.items() if value]
        return f"{{{', '.join([f'shape: [{shape}]', *told])}}}"
    return f"{{shape: [{', '.join(_axes(declared))}]}}"


def _sizes(name: str, *texts: str) -> str:
    sizes = SIZES | OWN.get(name, {})
    used = {n: s for n, s in sizes.items() if any(re.search(rf"\b{n}\b", t) for t in texts)}
    return "{" + ", ".join(f"{n}: {s}" for n, s in used.items()) + "}"


def _layer(layer: schema.Layer, attributes: dict[str, Any]) -> str:
    inputs = {n: _input(d) for n, d in {**layer.inputs, **layer.state}.items()}
    declared: Mapping[str, Any] = layer.attributes
    sizes = {n: n for n, default in declared.items() if default == "size" or "size" in str(default)}
    given = sizes | {n: NUMBERS[n] for n in sizes if n in NUMBERS} | attributes
    use = "".join(f", {n}: {str(v).lower()}" for n, v in given.items())
    results = ", ".join(["y", *(f"last_{n}" for n in layer.state)])
    arguments = ", ".join([*layer.inputs, *(f"{n}={n}" for n in layer.state)])
    return _text(
        {
            "sizes": _sizes(layer.layer, *map(str, given.values()), *inputs.values()),
            "inputs": inputs,
            "layers": {"cell": f"{{layer: {layer.layer}{use}}}"},
            "equations": f"{results} = cell({arguments})",
        }
    )


def _function(function: schema.Function, attributes: dict[str, Any]) -> str:
    inputs = {n: _input(d) for n, d in function.inputs.items()}
    sizes_given = {n: n for n, default in function.attributes.items() if default == "size"}
    values = {n: str(v).lower() for n, v in (sizes_given | attributes).items()}
    given = [*inputs, *(f"{n}={v}" for n, v in values.items())]
    call = f"y = {function.function}({', '.join(given)})"
    sizes = _sizes(function.function, *inputs.values(), *values.values())
    return _text({"sizes": sizes, "inputs": inputs, "layers": "{}", "equations": call})


def _loss(loss: schema.Loss, attributes: dict[str, Any]) -> str:
    first, *targets = loss.inputs
    declared = {n: _input(d) for n, d in loss.inputs.items()}
    keywords = [f"{name}={value}" for name, value in attributes.items()]
    return _text(
        {
            "sizes": _sizes(loss.loss, *declared.values()),
            "inputs": {first: declared[first]},
            "layers": "{}",
            "equations": f"same = {first}",
            "targets": {n: declared[n] for n in targets},
            "loss": f"sum({loss.loss}({', '.join([*declared, *keywords])}))",
        }
    )


_WRITERS: Mapping[str, Any] = {"layer": _layer, "function": _function, "loss": _loss}


def draw(case: Tiny, seed: int) -> dict[str, Array]:
    """Random material for everything that comes in: nothing at its initial value, nothing 0."""
    rng = np.random.default_rng(seed)
    given: dict[str, Array] = {}
    for name, port in case.values.items():
        type_ = case.program.type_of(port)
        shape = case.program.shape(port, FREE)
        if type_.kind == "bool":
            given[name] = np.arange(shape[-1]) < rng.integers(1, shape[-1] + 1, (*shape[:-1], 1))
        elif type_.bound is not None:
            given[name] = rng.integers(0, type_.bound.resolve(case.sizes), shape)
        elif "variance" in name or name == "probabilities":
            given[name] = rng.uniform(0.2, 0.8, shape)
        else:
            given[name] = rng.normal(0.0, 0.8, shape)
    return given


def draw_cotangents(case: Tiny, seed: int) -> dict[str, Array]:
    """One random array of the shape of each output."""
    rng = np.random.default_rng([seed, 1])
    return {p.name: rng.normal(size=case.program.shape(p, FREE)) for p in case.outputs}


def evaluate(case: Tiny, given: Arrays, cotangents: Arrays) -> dict[str, Array]:
    """The oracle's outputs, statistics and, where cotangents are given, ``gradient.NAME``."""
    against = case.against
    derived = differentiate(
        case.program, case.outputs, list(against.values()), [p.value for p in case.moved]
    )
    env = environment(case, given)
    for seed in derived.seeds:
        shape = tuple(d.resolve(case.sizes) for d in derived.program.types[seed.value].shape)
        env[seed.value] = np.asarray(cotangents.get(seed.name, np.zeros(shape)), np.float64)
    result = oracle.run(derived.program.nodes, env, case.sizes)
    found = {p.name: result[p.value] for p in (*case.outputs, *case.moved)}
    if cotangents:
        pairs = zip(against, derived.gradients, strict=True)
        found |= {f"gradient.{name}": result[port.value] for name, port in pairs}
    return found


def environment(case: Tiny, given: Arrays) -> dict[int, Array]:
    """The given arrays by value number: floats as float64, indices as int64."""
    env = {}
    for name, port in case.values.items():
        kind = case.program.type_of(port).kind
        dtypes = {"float": np.float64, "bool": np.bool_, "index": np.int64}
        env[port.value] = np.asarray(given[name], dtypes[kind])
    return env


def project(case: Tiny, env: Mapping[int, Array], cotangents: Arrays, dtype: str) -> Any:
    """The inner product of the outputs with their cotangents: one number."""
    nodes = needed_nodes(case.program.nodes, [p.value for p in case.outputs])
    result = oracle.run(nodes, env, case.sizes, dtype)
    return sum(np.sum(cotangents[p.name] * result[p.value]) for p in case.outputs)


def train(
    name: str, attributes: Arrays, given: Arrays, overrides: Overrides | None = None
) -> dict[str, Array]:
    """Run an optimizer: ``gradients`` ``[steps, *axes]``, one learning rate a step.

    Returns the parameter and the slots after every step, each ``[steps, *axes]``.
    """
    found = lower_update(Library((), dict(overrides or {})), name, dict(attributes), None)
    p = np.asarray(given["p"], np.float64)
    slots = {n: starts["p"] for n, starts in initial_slots(found, {"p": p}).items()}
    rule = found.of("p", p.ndim)
    nodes = at_shape(rule, rule.nodes, p.shape)
    history: dict[str, list[Array]] = {"p": [], **{n: [] for n in slots}}
    gradients = np.asarray(given["gradients"], np.float64)
    for step, (g, rate) in enumerate(zip(gradients, given["learning_rates"], strict=True), 1):
        env = {rule.parameter: p, rule.gradient: g}
        env |= {rule.step: np.float64(step), rule.learning_rate: np.float64(rate)}
        env |= {port.value: slots[port.name] for port in rule.slots}
        for total in rule.totals:
            env = oracle.run(at_shape(rule, total.nodes, p.shape), env, {"entries": p.size})
            env[total.value] = env[total.part]
        result = oracle.run(nodes, env, {"entries": p.size})
        p = result[rule.new_parameter]
        slots = {port.name: result[port.value] for port in rule.new_slots}
        for key, value in {"p": p, **slots}.items():
            history[key].append(value)
    return {key: np.stack(values) for key, values in history.items()}
