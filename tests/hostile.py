"""What the tests of hostile text share: strings that want out of their quotes, and how to tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from harness.formats import Exported
from harness.program import Block, Node, Port, Program

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
    """All that a source does, without what it says: docstrings, and the characters by index."""
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
    """The kinds of nodes of a source, and what it imports."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    return {type(n).__name__ for n in nodes} | set(imports)


def renamed(exported: Exported, name: Callable[[str], str]) -> Exported:
    """The same model with every name of its spec replaced, as no spec that loads could have it."""

    def path(old: str) -> str:
        return re.sub(r"[A-Za-z_]\w*", lambda match: name(match[0]), old)

    def port(old: Port) -> Port:
        return replace(old, name=path(old.name))

    def node(old: Node) -> Node:
        attributes = dict(old.attributes)
        if old.op == "call":
            attributes |= {
                "definition": name(attributes["definition"]),
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
