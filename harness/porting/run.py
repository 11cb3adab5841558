"""Port a user's model: trace it, write a spec, and prove that both compute the same."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.checking.engine import Engine
from harness.checking.own_model.against import Against, parse_against
from harness.checking.own_model.check_table import PASS_CHECKS
from harness.checking.own_model.process import ModelProcess
from harness.checking.report import describe_problems
from harness.checking.shared_cases import SharedCases
from harness.command.options import NEXT_NAME, interpreter_of, interpreters
from harness.convert import weights
from harness.convert.agreement import Agreement, Batch, draw_batches
from harness.convert.request import Export
from harness.convert.run import Exporting, export
from harness.convert.weights import Weights
from harness.environments.columns import complete_options
from harness.errors import SpecError, UsageError, check_known, shorten
from harness.files.system import RESERVED
from harness.given.make_request import make_check_request
from harness.language.initial_values import listed_constants
from harness.language.library import Library, content
from harness.language.model import Spec, fingerprint, load_spec
from harness.language.schema import Layer, LayerAttributes
from harness.porting.graph import ModelGraph
from harness.porting.inputs import (
    FORM,
    InputDeclaration,
    check_indices,
    explain_failure,
    free_sizes,
)
from harness.porting.large import LoadedWeights, check_form, compare_batch, load_weights
from harness.porting.loss import add_loss
from harness.porting.options import PortRequest
from harness.porting.passes import simplify
from harness.porting.proof import Ported, export_problem
from harness.porting.readme import README, check_folder, describe, write_folder
from harness.porting.sizes import trace_at_sizes
from harness.porting.spec import PortedSpec, write_spec
from harness.porting.templates import snake_case
from harness.program.serial import encode
from harness.program.signature import input_sizes
from harness.results.cell import CellResult
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.labels import backend_of
from harness.runtime.own_model.graph import TracedGraph
from harness.runtime.plugins import available

# A part of the error of a model that does not run.
FAILED = "cannot be traced"
# A function that shows the current stage.
Tell = Callable[[str], None]


class PortProcess(ModelProcess):
    """The process in which the user's model is traced and its weights are read."""

    def trace(
        self, inputs: Sequence[str]
    ) -> tuple[ModelGraph, TracedGraph, list[InputDeclaration]]:
        """Return the model's graph with free sizes, its first trace, and its inputs.

        Raises:
            UsageError: the inputs are unknown, or :func:`trace_at_sizes` refuses the model.
        """
        place = self.against.place()
        if not inputs:
            by_name = self.call("default_inputs", **place)
            inputs = [f"{name}={lengths}" for name, lengths in by_name.items()]
        if not inputs:
            raise UsageError(f"{self.against}: its inputs are unknown: {FORM}")
        declarations = [InputDeclaration.of(text) for text in inputs]

        def trace(lengths: Mapping[str, int]) -> TracedGraph:
            arrays = {d.name: d.array(lengths) for d in declarations}
            try:
                traced: TracedGraph = self.call("trace", **place, inputs=arrays)
            except UsageError as error:
                if FAILED not in str(error):
                    raise
                raise explain_failure(error, declarations, lengths) from None
            return traced

        graph, first = trace_at_sizes(trace, free_sizes(declarations))
        check_indices(graph, declarations)
        return graph, first, declarations

    def attach(self, spec: Spec, rules: Sequence[str]) -> None:
        """Open the model with float32 weights that have the spec's names."""
        self.call(
            "attach",
            **self.against.place(),
            training=encode(spec.program("training")),
            inference=encode(spec.program("inference")),
            dtype="float32",
            device="cpu",
            maps=list(rules),
        )

    def read_weights(self, spec: Spec) -> Weights:
        """Return the values of the attached model's weights, by the spec's names."""
        arrays, training = self.call("read_weights"), spec.program("training")
        listed = {
            name: array.astype(np.float32) if array.dtype.kind == "f" else array
            for name, array in listed_constants(training).items()
        }
        return Weights(
            spec.name,
            fingerprint(spec),
            dict(training.sizes),
            arrays["parameters"],
            {**listed, **arrays["statistics"]},
            (),
            {"ported": str(self.against)},
        )


def port(options: PortRequest, tell: Tell) -> Ported:
    """Port a model; write the spec and the proof if every comparison agrees.

    Raises:
        UsageError: the model cannot be ported, or an option is wrong.
        CouldNotRun: a process failed.
    """
    asked = options
    against, options = _find_model(options)
    for format_ in options.formats:
        check_known("format", backend_of(format_), available(FORMATS_GROUP))
    for backend in options.checked:
        check_known("backend", backend_of(backend), available())
    check_folder(options.output, options.force)
    with (
        tempfile.TemporaryDirectory() as temporary,
        _own_faults(against, temporary),
        PortProcess(against, options.python, options.timeout) as process,
    ):
        folder = Path(temporary, "port")
        tell(f"tracing {against}")
        traced = _trace(process, options.inputs, options.name, options.loss)
        if options.large is None:
            path, real = _write_spec(traced, folder), traced
            written = _write_weights(process, traced, path, options)
        else:
            path = _write_spec(traced, Path(temporary, "small"))
            real, written = _write_large(traced, folder, options, tell)
        compared, checked, problems = _check_spec(path, options, against, traced, tell)
        path = folder / f"{real.name}.yaml"
        exports = _write_exports(path, written.batches, options, tell)
        problems += written.problems
        problems += [line for f, e in exports.items() if (line := export_problem(f, e))]
        remarks = [
            *real.remarks,
            *(fixed_sizes(load_spec(str(path)), real.sizes) if exports else []),
        ]
        shown = real.label, compared, checked, exports, problems, remarks
        ported = Ported(real.name, real.spec, *shown, batch=written.agreement)
        if ported.proved or options.force:
            readme = describe(ported, real.declarations, real.sizes, asked)
            (folder / README).write_text(readme, encoding="utf-8")
            return replace(ported, written=write_folder(folder, options.output))
    return ported


@contextmanager
def _own_faults(against: Against, folder: str) -> Iterator[None]:
    """Turn an error about a written spec, which is deleted, into one that shows its lines."""
    try:
        yield
    except (SpecError, UsageError) as error:
        places = re.findall(rf"({re.escape(folder)}/[^:\n]+):(\d+):\d+", str(error))
        if not places:
            raise
        lines = [f"harness port wrote a wrong spec of {against}; please report this:"]
        for file, number in dict.fromkeys(places):
            text = Path(file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
            lines.append(f"{Path(file).name}:{number}: {text.strip()}")
        lines.append(re.sub(rf"{re.escape(folder)}/(?:port|small)/", "", str(error)))
        raise UsageError("\n".join(lines)) from None


def _find_model(options: PortRequest) -> tuple[Against, PortRequest]:
    """Return the model, and the options with its framework and its interpreter."""
    items = NEXT_NAME.split(options.python) if options.python else ()
    # A file of flax also imports jax: the name in --python chooses.
    named = [*interpreters(items, tuple)]
    chosen = [options.backend] if options.backend else []
    against = parse_against(options.model, chosen, preferred=named)
    if not options.python:
        return against, options
    framework = backend_of(against.column)
    python = interpreter_of(options.python, framework, sys.executable)
    return against, replace(options, python=python, backend=framework)


def _trace(
    process: PortProcess, inputs: Sequence[str], name: str | None, loss: str | None
) -> TracedSpec:
    """Trace a model, and add the loss of ``--loss`` to its spec."""
    traced = trace_spec(process, inputs, name)
    return replace(traced, spec=add_loss(traced.spec, traced.name, loss)) if loss else traced


def _write_spec(traced: TracedSpec, folder: Path) -> Path:
    """Write a spec and its map of names into a new folder; return the path of the spec."""
    folder.mkdir()
    path = folder / f"{traced.name}.yaml"
    path.write_text(traced.spec.text, encoding="utf-8")
    path.with_suffix(".map").write_text("\n".join(traced.rules) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class WrittenWeights:
    """The weights of a port: batches at their sizes, the comparison of one batch with the model
    (None without ``--weights`` and ``--large``), and a line for each problem."""

    batches: Sequence[Batch]
    agreement: Agreement | None
    problems: Sequence[str]


def _write_weights(
    process: PortProcess, traced: TracedSpec, path: Path, options: PortRequest
) -> WrittenWeights:
    """Write the weights of a model, or of the file ``--weights``. With ``--weights`` or
    ``--large``, compare one batch of the spec and the model."""
    spec = load_spec(str(path))
    process.attach(spec, traced.rules)
    loaded = load_weights(process, options.weights) if options.weights else LoadedWeights()
    stored = process.read_weights(spec)
    weights.save(path.with_suffix(".safetensors"), stored)
    compares = bool(options.weights or options.large)
    if not (compares or options.formats):
        return WrittenWeights((), None, ())
    batches = draw_batches(spec, stored, 0, gradients=bool(options.formats))
    if not compares:
        return WrittenWeights(batches, None, ())
    if loaded.before:
        process.call("put_arrays", arrays=loaded.before)
    compared = compare_batch(process, batches[0])
    problems = [] if compared.agrees else [f"{process.against}, one batch: {compared.worst}"]
    if loaded.differing:
        names = shorten(", ".join(loaded.differing), 300)
        problems.append(f"{options.weights}: {names} differ from the values in {process.against}")
    return WrittenWeights(batches, compared, problems)


def _write_large(
    small: TracedSpec, folder: Path, options: PortRequest, tell: Tell
) -> tuple[TracedSpec, WrittenWeights]:
    """Trace the large model, and write its spec and weights.

    Raises:
        UsageError: its equations differ from those of the small model.
    """
    against = parse_against(str(options.large), [options.backend] if options.backend else [])
    with PortProcess(against, options.python, options.timeout) as process:
        tell(f"tracing {against}")
        inputs = options.large_inputs or options.inputs
        large = _trace(process, inputs, small.name, options.loss)
        check_form(small.spec, large.spec)
        return large, _write_weights(process, large, _write_spec(large, folder), options)


@dataclass(frozen=True)
class TracedSpec:
    """The spec of a traced model. ``label`` describes the model; ``remarks`` are sentences about
    parts of the model that the spec does not have. ``sizes`` has the length of each free size in
    each trace."""

    name: str
    spec: PortedSpec
    label: str
    remarks: Sequence[str]
    declarations: Sequence[InputDeclaration]
    sizes: Mapping[str, tuple[int, ...]]

    @property
    def rules(self) -> list[str]:
        """The rules of ``--map`` for the model."""
        return [f"{ours} = {theirs}" for ours, theirs in self.spec.rules]


def trace_spec(process: PortProcess, inputs: Sequence[str], name: str | None = None) -> TracedSpec:
    """Trace a model and write its spec. ``inputs`` are the values of ``--input``.

    Raises:
        UsageError: the inputs are unknown, or the model cannot be ported.
    """
    against, library = process.against, Library(())
    name = spec_name(name or against.name or against.path.stem, library)
    graph, traced, declarations = process.trace(inputs)
    label = traced["label"]
    about = {"summary": f"{label} of {against}.", "source": f"Ported from {against}."}
    entries = {d.name: d.entry() for d in declarations}
    layers = layer_attributes(library)
    functions = library.names("function")
    spec = write_spec(simplify(graph), name, entries, about, functions, layers)
    remarks = list(traced["remarks"])
    if unused := graph.unused_weights:
        remarks.append(f"no output depends on {shorten(', '.join(unused), 200)}: not in the spec")
    if (shipped := name.removesuffix("_port")) in library.names("model"):
        remarks.append(f"the spec is named {name}, because {shipped} is a shipped model")
    spec = replace(spec, rules=(*spec.rules, *(("-", name) for name in unused)))
    return TracedSpec(name, spec, label, remarks, declarations, graph.sizes)


def layer_attributes(library: Library) -> dict[str, LayerAttributes]:
    """Return the attributes of each layer's definition."""
    names = library.names("layer")
    return {n: content(library.find("layer", n), Layer).attributes for n in names}


def _check_spec(
    path: Path, options: PortRequest, against: Against, traced: TracedSpec, tell: Tell
) -> tuple[list[CellResult], list[CellResult], list[str]]:
    """Compare the spec with the model, and check it on the backends. Return the results of both,
    and a line for each problem."""
    # All comparisons share the test cases, so that the oracle runs once.
    cases = SharedCases(make_check_request(complete_options({"specs": (str(path),)})))
    cases.plan([traced.name])  # never done, so that the cases outlive the first comparison
    tell("comparing outputs and gradients of the spec and the model")
    compared, problems = _check_against(path, options, against, traced.rules, cases)
    tell("checking the spec on the backends")
    checked, more = _check_backends(path, options, cases)
    return compared, checked, [*problems, *more]


def _check_against(
    path: Path,
    options: PortRequest,
    against: Against,
    rules: Sequence[str],
    cases: SharedCases,
) -> tuple[list[CellResult], list[str]]:
    """Compare the spec with the model. Return the results, and a line for each problem."""
    framework = backend_of(against.column)
    return _run(
        {
            "specs": (str(path),),
            "against": options.model,
            "maps": tuple(rules),
            # A file format names its program by its suffix.
            "backends": () if against.is_format else (framework,),
            "pythons": {framework: options.python} if options.python else {},
            "checks": (*PASS_CHECKS, *(["training*"] if options.loss else [])),
            "timeout": options.timeout,
        },
        cases,
    )


def _check_backends(
    path: Path, options: PortRequest, cases: SharedCases
) -> tuple[list[CellResult], list[str]]:
    """Check the spec on the backends, in training and inference. Return the results, and a line for
    each problem."""
    settings: dict[str, Any] = {"specs": (str(path),), "quick": True, "timeout": options.timeout}
    settings["checks"] = ("values", "inference")
    if options.checked:
        settings["backends"] = options.checked
    results, problems = _run(settings, cases)
    if any(f.verdict == "not-applicable" for r in results for f in r.findings):
        # E.g. a batch norm of few values increases rounding errors so much that float32 has no
        # correct digits.
        more, more_problems = _run({**settings, "dtypes": ("float64",)}, cases)
        return [*results, *more], [*problems, *more_problems]
    return results, problems


def _run(options: Mapping[str, Any], cases: SharedCases) -> tuple[list[CellResult], list[str]]:
    with Engine(make_check_request(complete_options(options)), cases=cases) as engine:
        report = engine.run()
    problems = [] if report.exit_code == 0 else list(describe_problems(report))
    return list(report.results), problems


def _write_exports(
    path: Path, batches: Sequence[Batch], options: PortRequest, tell: Tell
) -> dict[str, Exporting]:
    """Write code of each format, and compare it with the spec. Two formats are written at a time,
    because most of the time is the start of frameworks."""
    if not options.formats:
        return {}
    tell(f"writing code for {', '.join(options.formats)}, and comparing it with the spec")
    stored = path.with_suffix(".safetensors")

    def write(format_: str) -> Exporting:
        request = Export(
            spec=str(path),
            weights=stored,
            format_=format_,
            output=path.parent,
            timeout=options.timeout,
        )
        return export(request, batches=batches)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(options.formats, pool.map(write, options.formats), strict=True))


def fixed_sizes(spec: Spec, free: Collection[str]) -> list[str]:
    """Return a sentence for each of the ``free`` sizes whose number written code contains."""
    program = spec.program()
    fixed = [n for n in program.sizes if n in free and n not in input_sizes(program)]
    return [
        f"the code of --to is only for {name} = {program.sizes[name]}, because a window or an "
        "array of the model depends on it"
        for name in fixed
    ]


def spec_name(text: str, library: Library) -> str:
    """Return a name for a spec that no shipped spec and no device of Windows has: ``GPT2`` becomes
    ``gpt2``."""
    name = re.sub(r"\W", "_", snake_case(text), flags=re.ASCII).strip("_")[:50]
    name = name if name[:1].isalpha() else f"model_{name}".rstrip("_")
    return f"{name}_port" if name in library.names("model") or name in RESERVED else name
