"""The explanation of a spec: its parameters, its program with shapes, its number of operations, and
the code that runs each layer."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import groupby
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checking.explain_definition import Definitions
from harness.checking.options import ExplainOptions
from harness.command.options import variables
from harness.command.outcome import CommandResult
from harness.command.ranges import CELL_SECONDS
from harness.environments.columns import complete_options
from harness.errors import UsageError, did_you_mean, shorten
from harness.files import kinds
from harness.files.user_file import displayed
from harness.language.library import FOLDERS, Library
from harness.language.model import Spec, load_spec, notes_on
from harness.output.printing import tell
from harness.program import flops
from harness.program.autodiff.differentiate import differentiate
from harness.program.dims import Dim
from harness.program.ir import Node, Port, Program
from harness.program.signature import (
    call_key,
    is_constant,
    is_listed,
    noise_ports,
    owner_of,
    variable_ports,
)

if TYPE_CHECKING:
    from harness.worker.launch import Launch

# In long listings, only the first of several similar repeated blocks is shown.

# If there are at most this many similar blocks, all are shown.
MOST_ALIKE = 4
# The most lines of a listing, and the most characters of a line. The longest shipped model has
# 1,200 lines.
MOST_LINES, LONGEST = 5000, 500
# The name and the number of a repeated block, e.g. ``blocks.3``.
_LINK = re.compile(r"([A-Za-z_]\w*)\.(\d+)(?![\w])")


def shorten_blocks(parts: Iterable[tuple[str, list[str]]]) -> list[str]:
    """Join the lines of a listing. ``parts`` are pairs (name, lines).

    If many repeated blocks (e.g. ``blocks.3``) have the same lines except for the block's number,
    only the first block is listed.
    """
    # For each part: the name and number of the outermost repeated block that contains it, or else
    # the part's own name and an empty text.
    found_links = ((_LINK.match(name), name, lines) for name, lines in parts)
    links = (((m[1], m[2]) if m else (name, ""), lines) for m, name, lines in found_links)
    joined = [
        (link, [line for _, lines in group for line in lines])
        for link, group in groupby(links, key=lambda part: part[0])
    ]
    result: list[str] = []
    for _, group in groupby(joined, key=lambda part: _make_block_key(*part)):
        similar = [*group]
        printed = similar if len(similar) <= MOST_ALIKE else similar[:1]
        result += [line for _, lines in printed for line in lines]
        if printed is not similar:
            (block, first), (_, second), (_, last) = (similar[n][0] for n in (0, 1, -1))
            result.append(f"  {block}.{second} to {block}.{last}: same as {block}.{first}")
    return cut_lines(result)


def cut_lines(lines: list[str]) -> list[str]:
    """Cut a listing to MOST_LINES lines, and each line to LONGEST characters. If lines were cut
    off, the last line says how many."""
    omitted = len(lines) - MOST_LINES
    lines_shown = [
        f"{line[:LONGEST]}..." if line[LONGEST:] else line for line in lines[:MOST_LINES]
    ]
    return [
        *lines_shown,
        *([f"and {omitted:,} more lines (--json has all)"] if omitted > 0 else []),
    ]


def _make_block_key(link: tuple[str, str], lines: list[str]) -> tuple[str, str]:
    """Return a key that is equal for repeated blocks whose ``lines`` differ only in the block's
    number.

    ``link`` has the name and the number of the block, e.g. ``("blocks", "3")``. If the lines do not
    belong to a repeated block, the number is empty, and the key is the name.
    """
    block, number = link
    if not number:
        return block, ""
    values: dict[str, str] = {}
    text = re.sub(
        rf"\b{re.escape(block)}\.(\d+)\b",
        lambda match: f"{block}.[{int(match[1]) - int(number)}]",
        "\n".join(re.sub(" +", " ", line) for line in lines),
    )
    # Number the values without a name in the order in which they appear.
    return block, re.sub(r"%\d+", lambda v: values.setdefault(v[0], f"%[{len(values)}]"), text)


@dataclass(frozen=True)
class ModelExplanation:
    """The explanation of a model. ``free`` has numbers for the sizes that a spec leaves open,
    ``batch`` and ``time``. ``launches`` has the backends that the explanation asks which code runs
    each layer."""

    spec: Spec
    program: Program
    free: Mapping[str, int]
    launches: Sequence[Launch] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by name, including batch and time."""
        return {**self.program.sizes, **self.free}

    @cached_property
    def paths(self) -> dict[str, dict[str, str] | str]:
        """The code that runs each layer, by backend; a text says why it is unknown."""
        return {launch.backend: _find_paths(self.spec, launch) for launch in self.launches}

    def text(self) -> str:
        """Return the text that ``harness explain`` prints for the model."""
        from harness.output.templates import filled  # Jinja2 is slow to import

        program = self.program
        crossing = [
            f"  {title:8} {port.name:16} {_format_type(program, port)}"
            for title, ports in _group_ports(program).items()
            for port in ports
        ]
        text = filled(
            "harness.checking",
            "explain_model.txt",
            spec=self.spec,
            sizes=self.sizes,
            crossing=cut_lines(crossing),
            parameters=_list_parameters(program),
            listing=_list_program(program),
            counts=_count_operations(self),
            paths=self.paths,
        )
        return text.rstrip("\n")

    def data(self) -> list[dict[str, object]]:
        """Return the explanation as dictionaries that can be written as JSON."""
        spec, program = self.spec, self.program
        model = spec.model.model_dump(mode="json", exclude_none=True)
        keys = ("summary", "source", "equations", "loss", "metrics", "optimizer", "training")
        notes = notes_on([spec])
        return [
            {
                "kind": "model",
                "name": spec.name,
                **{key: model[key] for key in (*keys, "data") if key in model},
                **({"notes": notes} if notes else {}),
                "sizes": self.sizes,
                **{
                    title: {port.name: _format_type(program, port) for port in ports}
                    for title, ports in _group_ports(program).items()
                },
                "parameters": [
                    {
                        "name": port.name,
                        "shape": list(program.shape(port)),
                        "initial": _format_init(program, port),
                        "trained": port in program.parameters,
                    }
                    for port in (*program.parameters, *program.statistics)
                ],
                "program": _list_nodes(program, program.nodes, ""),
                "operations": {
                    title.replace(" ", "_"): asdict(count)
                    for title, count in _count_operations(self).items()
                },
                "paths": self.paths,
            }
        ]

    def page(self) -> str:
        """Return the HTML page that draws the model."""
        from harness.checking.model_page import model_page  # Jinja2 is slow to import

        program = self.program
        trained = sum(prod(program.shape(port)) for port in program.parameters)
        ports = {
            title: [f"{port.name} {_format_type(program, port)}" for port in group]
            for title, group in _group_ports(program).items()
        }
        facts = [
            f"{trained:,} trained parameters",
            *(f"{n} {size}" for n, size in self.sizes.items()),
        ]
        return model_page(self.spec, program, ports, self.paths, facts, self.text())


def run_explain(options: ExplainOptions) -> CommandResult:
    """Run the command ``harness explain``.

    Raises:
        UsageError: nothing has that name.
    """
    launches = []
    variables(
        tuple(options.environment), tuple
    )  # rejects invalid values even if no backend is named
    if options.backends:
        from harness.worker.launch import Launch

        arguments = complete_options(vars(options))
        launches = [
            Launch(
                name,
                arguments["pythons"].get(name, sys.executable),
                arguments["environment"].get(name, {}),
            )
            for name in arguments["backends"]
        ]
    if options.html is not None:
        kinds.check_output(options.html, kinds.DRAWING)
    explanation = explain(
        options.spec, options.folders, options.sizes, launches, partial(tell, error=True)
    )
    if options.html is not None:
        _write_page(options.html, explanation)
    return CommandResult(explanation.data, "" if options.as_json else explanation.text())


def _write_page(path: Path, explanation: ModelExplanation | Definitions) -> None:
    if isinstance(explanation, Definitions):
        raise UsageError(
            f"--html draws models, not definitions such as {explanation.name} "
            f"({', '.join(explanation.kinds)}): name a model, or omit --html"
        )
    kinds.write_output(path, explanation.page().encode("utf-8", "replace"))
    tell(f"the page is in {displayed(path)}", error=True)


def explain(
    name: str,
    folders: Iterable[Path],
    sizes: Mapping[str, int],
    launches: Sequence[Launch] = (),
    note: Callable[[str], None] = lambda text: None,
) -> ModelExplanation | Definitions:
    """Explain the model ``name``. If there is no such model, explain all other definitions (layers,
    functions, losses etc.) with this name. ``launches`` has the backends that are asked which code
    runs each layer.

    ``note`` is called with each remark on the model's definitions.

    Raises:
        UsageError: nothing has that name.
    """
    library = Library(tuple(folders))
    if not library.is_model(name):
        definitions = Definitions.of(name, library)
        if definitions.kinds:
            return definitions
        all_names = [n for kind in FOLDERS for n in library.names(kind)]
        hint = library.misplaced_hint("model", name) or did_you_mean(name, all_names)
        raise UsageError(
            f"unknown model or definition {shorten(name)!r}{hint}; 'harness list' shows all of them"
        )
    spec = load_spec(name, library.folders)
    training = spec.model.training
    free = {
        "batch": sizes.get("batch", training.batch if training else 1),
        "time": sizes.get("time", spec.length),
    }
    model_sizes = {n: v for n, v in sizes.items() if n not in free}
    explanation = ModelExplanation(spec, spec.program("training", **model_sizes), free, launches)
    for text in notes_on([spec]):
        note(text)
    return explanation


def _group_ports(program: Program) -> dict[str, Sequence[Port]]:
    noise = noise_ports(program)
    return {
        "inputs": [port for port in program.inputs if port not in noise],
        "noise": noise,
        "targets": program.targets,
        "state": program.state,
        "outputs": program.outputs,
    }


def _format_type(program: Program, port: Port) -> str:
    """Return the type of an input as text, e.g. ``index [batch, time] below vocab``. For noise, the
    text has the distribution instead of the bound."""
    type_ = program.type_of(port)
    below = f" below {type_.bound}" if type_.bound is not None else ""
    if port.init is not None and "noise" in port.init:
        arguments = ", ".join(f"{n} {v:g}" for n, v in port.init["arguments"].items())
        below = f" {port.init['noise']}({arguments})"
    return f"{type_}{below}"


def _list_parameters(program: Program) -> list[str]:
    parts: list[tuple[str, list[str]]] = []
    layers: dict[str, int] = {}
    trained = 0
    for port in (*program.parameters, *program.statistics):
        shape = program.shape(port)
        layer = owner_of(port.name)
        layers[layer] = layers.get(layer, 0) + prod(shape)
        trained += prod(shape) if port in program.parameters else 0
        kind = "" if port in program.parameters else "  (statistic)"
        kind = "  (constant)" if is_constant(port) else kind
        init = _format_init(program, port)
        line = f"  {port.name:24} {list(shape)!s:14} {prod(shape):>9,}  {init}{kind}"
        parts.append((layer, [line]))
    total = sum(layers.values())
    lines = shorten_blocks(parts)
    lines += shorten_blocks((n, [f"  {n:24} {'':14} {count:>9,}"]) for n, count in layers.items())
    return [*lines, f"  {'total':24} {'':14} {total:>9,}  ({trained:,} trained)"]


def _format_init(program: Program, port: Port) -> str:
    if is_listed(port):
        return "given in the spec"
    bound = program.type_of(port).bound
    if bound is not None:
        return f"index below {bound}"
    blocks = (port.init or {}).get("stripes", ())
    texts = []
    for part in blocks:
        arguments = ", ".join(f"{n} {v:g}" for n, v in part["arguments"].items())
        texts.append(f"{part['law']}({arguments})" if arguments else part["law"])
    shared_block = (port.init or {}).get("block")
    return " over ".join(texts) + (f", drawn with block {shared_block}" if shared_block else "")


def _list_program(program: Program) -> list[str]:
    parts: list[tuple[str, list[str]]] = []
    for node in program.nodes:
        # A value without a name belongs to the part of the previous node.
        names = [program.names.get(output, "") for output in node.outputs]
        name = str(node.attributes["label"]) if node.op == "call" else next(filter(None, names), "")
        name = name or (parts[-1][0] if parts else "")
        parts.append((name, _list_nodes(program, [node], "  ")))
    return shorten_blocks(parts)


def _list_nodes(program: Program, nodes: Iterable[Node], indent: str) -> list[str]:
    lines = []
    for node in nodes:
        names = ", ".join(_get_value_name(program, o) for o in node.outputs)
        if node.op == "call":
            lines.append(f"{indent}{node.attributes['label']}: {_format_definition(node)}")
            lines += _list_nodes(program, node.block.nodes, indent + "  ")
        elif node.op == "scan":
            first = node.inputs[node.carries]
            length = program.types[first].shape[0]
            lines.append(f"{indent}{names} = scan over {length}")
            lines += _list_nodes(program, node.block.nodes, indent + "  ")
        else:
            inputs = ", ".join(_get_value_name(program, i) for i in node.inputs)
            attributes = ", ".join(f"{k}={_format_value(v)}" for k, v in node.attributes.items())
            arguments = ", ".join(filter(None, (inputs, attributes)))
            type_ = program.types[node.output]
            lines.append(f"{indent}{names} = {node.op}({arguments})  {type_}")
    return lines


def _format_definition(node: Node) -> str:
    """Return the name of the definition that a call node calls. If backends recognise the
    definition by a different name, e.g. of a shipped definition with the same equations, the text
    includes this name."""
    name, meaning = str(node.attributes["definition"]), node.attributes["meaning"]
    attributes = node.attributes["attributes"]
    backend_names = [] if meaning.name == name else [meaning.name]
    backend_names += [f"{a} {n}" for a, n in meaning.functions.items() if n != attributes[a]]
    suffix = f", known to backends as {', '.join(backend_names)}" if backend_names else ""
    shipped = Library().has(node.attributes["kind"], name)
    return name + suffix + ("" if shipped else f", checksum {meaning.checksum}")


def _format_value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_format_value(item) for item in value) + "]"
    return str(value) if isinstance(value, Dim | int | float) else repr(value)


def _get_value_name(program: Program, number: int) -> str:
    return program.names.get(number, f"%{number}")


def _count_operations(explanation: ModelExplanation) -> dict[str, flops.Flops]:
    """Return a dictionary with the number of operations of a forward pass, and of a forward pass
    with gradients."""
    program, sizes = explanation.program, explanation.sizes
    counts = {"forward and loss": flops.count(program.nodes, program.types, sizes)}
    if program.loss is not None:
        variables = list(variable_ports(program).values())
        derived = differentiate(program, [Port("loss", program.loss)], variables).program
        counts["with derived gradient"] = flops.count(derived.nodes, derived.types, sizes)
    return counts


def _find_paths(spec: Spec, launch: Launch) -> dict[str, str] | str:
    """Return a dictionary from layer to the code that runs it on the backend. If the code is
    unknown, return a text that says why."""
    from harness.worker.remote import Remote, WorkerFault, check_offered  # slow to import
    from harness.worker.worker import Worker

    training, inference = spec.program("training"), spec.program("inference")
    with Worker(launch) as worker:
        try:
            remote = Remote(worker, CELL_SECONDS)
            programs = (training, inference, spec.update)
            check_offered(worker, "cpu", "float32", programs)
            paths = remote.open(*programs, "native", "float32", "cpu")
        except (WorkerFault, UsageError) as fault:
            return str(fault)
    keys = [*dict.fromkeys(call_key(node) for node in training.calls), "optimizer"]
    return {key: paths[key] for key in keys if key in paths}
