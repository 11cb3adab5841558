"""Shared code for tests of hostile text: strings that try to escape from quotes, and detectors."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from harness.convert import weights
from harness.convert.formats import Exported
from harness.convert.weights import Weights
from harness.language.model import fingerprint, load_spec
from harness.oracle.draw import draw
from harness.program.ir import Block, Node, Port, Program

SENTINEL = "PWNED"
CODE = f"import os; os.system('touch {SENTINEL}')"
PAYLOADS = (
    f'x"""\n{CODE}\n"""',
    f"x'''\n{CODE}\n'''",
    f'x"\n{CODE}\n"',
    f'x\\"""\n{CODE}\n"""',
    f'")\n{CODE}\n("',
    f'"])\n{CODE}\n(["',
    f'"); {CODE} #',
    f"x\n{CODE}",
    f"x\r{CODE}",
    f"x\u2028{CODE}",
    f"x\x0c{CODE}",
    f"{{{CODE}}}",
    "{0} {axis} {__class__}",
    "%0 ^1 %s %(x)s",
    '""""""',
    '"',
    "\\",
    '\\"',
    "",
    " ",
    "\0",
    "\udcff",
    "()[]{},:#",
    "__import__('os')",
    "batch time",
    "ﬁ",
    "x" * 300,
)
TEXTS = st.one_of(
    st.sampled_from(PAYLOADS),
    st.text(st.sampled_from("\"'\\\n\r\t{}()[],;:#%^ xX_.=@0é\u2028\0"), max_size=24),
    st.text(st.characters(), max_size=12),
)


def structure(source: str) -> str:
    """Return the syntax tree of a source without the text of docstrings and of the vocabulary."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body[0] = ast.Expr(ast.Constant("docstring"))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VOCABULARY":
            node.value = ast.Constant("characters")
    return ast.dump(tree)


def kinds(source: str) -> set[str]:
    """Return the kinds of syntax nodes in a source, and its imports."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    return {type(n).__name__ for n in nodes} | set(imports)


def renamed(exported: Exported, name: Callable[[str], str]) -> Exported:
    """Return the model with every name replaced by ``name``, also by names that no spec may
    have."""

    def path(old: str) -> str:
        return re.sub(r"[A-Za-z_]\w*", lambda match: name(match[0]), old)

    def port(old: Port) -> Port:
        return replace(old, name=path(old.name))

    def node(old: Node) -> Node:
        attributes = dict(old.attributes)
        if old.op == "call":
            attributes |= {
                "definition": name(attributes["definition"]),
                "meaning": replace(attributes["meaning"], name=name(attributes["meaning"].name)),
                "label": path(attributes["label"]),
                "roles": tuple(map(name, attributes["roles"])),
                "results": tuple(map(name, attributes["results"])),
                "attributes": {name(k): v for k, v in attributes["attributes"].items()},
            }
            if attributes.get("instance") is not None:
                attributes["instance"] = name(attributes["instance"])
        body = None if old.body is None else block(old.body)
        return replace(old, attributes=attributes, body=body)

    def block(old: Block) -> Block:
        return replace(old, nodes=tuple(map(node, old.nodes)))

    def program(old: Program) -> Program:
        ports: dict[str, Any] = {
            field: tuple(map(port, getattr(old, field)))
            for field in (
                *("inputs", "targets", "state", "statistics", "parameters"),
                *("outputs", "new_state", "new_statistics", "metrics"),
            )
        }
        names = {value: path(text) for value, text in old.names.items()}
        nodes = tuple(map(node, old.nodes))
        return replace(old, name=name(old.name), names=names, nodes=nodes, **ports)

    return replace(
        exported,
        spec=name(exported.spec),
        training=program(exported.training),
        inference=program(exported.inference),
        parameters={path(n): a for n, a in exported.parameters.items()},
        statistics={path(n): a for n, a in exported.statistics.items()},
    )


NAMED = """model: {model}
summary: Names that Python and the frameworks have.
source: none
sizes: {{self: 3, phase: 4, kwargs: 5}}
inputs:
  torch: {{shape: [batch, time, self]}}
  zip: {{shape: [batch, time, phase]}}
  len: {{shape: [batch], index: kwargs}}
state:
  steps: {{shape: [batch, phase]}}
  carry: {{shape: [batch, phase]}}
layers:
  list: {{layer: lambda_, units: phase}}
  nn: {{layer: none, units: phase}}
  jax: {{layer: dense, units: phase}}
  keras: {{layer: embedding, rows: kwargs, units: phase}}
  train: {{layer: dense, units: phase}}
  train_: {{layer: dense, units: phase}}
  forward: {{layer: super, units: phase}}
equations: |
  float, steps, carry = list(torch, zip, steps=steps, carry=carry)
  reversed = nn(float)
  np = jax(reversed) + nn(zip)
  jnp = mean(train(np) - train_(np), axis=1)
  ops = forward(jnp) + keras(len)
  self_ = mean(float, axis=1) * ops
  math = np[:, -1] + self_
  _ = math * 2
  state = _ + math
  outputs = where(state < 0, 0, state)
  params = outputs + mean(zip, axis=1)
  batch_2 = one_hot(len, kwargs)
targets:
  dtype: {{shape: [batch, phase]}}
loss: mean(squared_error(params, dtype))
optimizer: {{optimizer: sgd}}
"""
DEFINITIONS = {
    "layers/lambda_": """layer: lambda_
summary: Two states, whose names the loops have.
source: none
inputs:
  slices: [batch, time, features]
  sequence: [batch, time, units]
attributes: {units: size}
parameters:
  name: {shape: [features, units], init: glorot_uniform}
  weight_name: {shape: [units], init: zeros}
  forward_2: {shape: [units], init: ones}
  call: {shape: [units], init: ones}
state:
  steps: {shape: [batch, units]}
  carry: {shape: [batch, units]}
scan:
  over: {training: slices, mask: sequence}
  step: |
    stacked = tanh(training @ name + weight_name) * forward_2
    steps = steps + 0.1 * (stacked - carry) * call
    carry = carry * 0.5 + mask * stacked
    each = steps * carry
  output: each
""",
    "layers/none": """layer: none
summary: Called with sequences of two kinds.
source: none
inputs:
  inputs: [..., features]
attributes: {units: size}
parameters:
  zip: {shape: [features, units], init: glorot_uniform}
equations: |
  torch = inputs @ zip
  super = tanh(torch)
output: super
""",
    "layers/super": """layer: super
summary: Its class would be Python's.
source: none
inputs:
  form: [..., features]
attributes: {units: size}
parameters:
  training: {shape: [features, units], init: glorot_uniform}
equations: form_1 = form @ training
output: form_1
""",
}


def weighted(folder: Path, file: str, text: str) -> Any:
    """Write a spec and random weights of it to files."""
    (folder / file).write_text(text, encoding="utf-8")
    for name, definition in DEFINITIONS.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(definition)
    spec = load_spec(str(folder / file), [folder])
    drawn = draw(spec.program(), 1, 1, 3)
    arrays = [
        {n: a.astype(np.float32) for n, a in every.items()}
        for every in (drawn.parameters, drawn.statistics)
    ]
    made = Weights(spec.name, fingerprint(spec), dict(spec.program().sizes), *arrays)
    weights.save(folder / "w.st", made)
    return spec
