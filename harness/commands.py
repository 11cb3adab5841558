"""The click commands. Each command imports the function that does its work when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

# This import registers the values that shells complete.
import harness.completion_values  # noqa: F401
from harness.caching.options import CacheOptions
from harness.checking.options import (
    CheckOptions,
    ExplainOptions,
    ListOptions,
    LocaliseOptions,
    ReduceOptions,
    ReplayOptions,
    SchemaOptions,
)
from harness.command.declared import make_options
from harness.command.interrupts import run_stoppable
from harness.command.verbs import Verb, Verbs, origins
from harness.comparison.options import CompareOptions, MergeOptions, UpgradeOptions
from harness.convert.request import ExportOptions, ImportOptions
from harness.defaults.options import DifferencesOptions
from harness.demo.options import DemoOptions
from harness.environments.options import EnvOptions
from harness.errors import HarnessError, SpecError, SpecErrors, UsageError, with_trace
from harness.files.system import check_variable
from harness.fuzz.options import FuzzOptions
from harness.given.options import PassOptions
from harness.output.printing import tell
from harness.porting.options import PortOptions
from harness.report.options import ReportOptions
from harness.scaffold.options import NewBackendOptions
from harness.timing.options import BenchOptions
from harness.training.generate.request import GenerateOptions
from harness.training.options import TrainOptions

if TYPE_CHECKING:
    from harness.command.outcome import CommandResult


def execute(verb: Verb, **values: Any) -> None:
    """Run a command and exit with its exit code; print the message of a :class:`HarnessError`."""
    try:
        check_variable()
        work = verb.prepare(verb.parse_options(values))
        # `check` and `bench` handle signals themselves, because they still write reports then.
        handles_signals = verb.work in (_check, _bench)
        code = work() if handles_signals else run_stoppable(partial(_show, work, values))
    except HarnessError as error:
        text = f"{error}{_backend_hint(values)}"
        text += origins(text)
        if trace := getattr(error, "traceback", ""):
            text = with_trace(text, trace)
        tell(text, error=True)
        # Do not show this if the command did run and a backend failed.
        if error.exit_code == UsageError.exit_code:
            _show_on_github(error, text)
        code = error.exit_code
    sys.exit(code)


def _show(work: Callable[[], CommandResult | int], given: Mapping[str, Any]) -> int:
    """Run a command's work and print its outcome; return the exit code."""
    outcome = work()
    if isinstance(outcome, int):
        return outcome
    outcome.print(given.get("as_json", False))
    return int(outcome.exit_code)


def _show_on_github(error: HarnessError, text: str) -> None:
    """Show an error in GitHub Actions: annotate the wrong lines and extend the step summary."""
    from harness.output import github, markdown
    from harness.output.printing import annotate, annotating, say

    title = f"harness {click.get_current_context().info_name}"
    if annotating():
        errors = error.errors if isinstance(error, SpecErrors) else (error,)
        annotations = []
        for error_ in errors:
            place = error_.place if isinstance(error_, SpecError) else None
            message = error_.message if isinstance(error_, SpecError) and place else text
            annotations.append(github.annotation(title, message, [str(place)] if place else ()))
        for line in github.limit(annotations):
            annotate(line)
    lines = [f"### {markdown.escaped(title)}: not run", ""]
    lines += [f"- {markdown.escaped(line)}" for line in text.splitlines()]
    if failed := github.summarise("\n".join([*lines, ""])):
        say(failed, error=True)


def _backend_hint(given: Mapping[str, Any]) -> str:
    """Return a hint about commas if a spec on the command line has the name of a backend, as in
    ``--backend torch jax``. Otherwise return ""."""
    backends = given.get("backends") or ()
    if not backends or not given.get("specs"):
        return ""
    from harness.runtime.plugins import available

    backend_names = [name for name in given["specs"] if name in available()]
    return (
        f"; {backend_names[0]} is a backend: --backend {','.join([*backends, *backend_names])}"
        if backend_names
        else ""
    )


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="backend-comparison-harness", prog_name="harness")
def cli() -> None:
    """Compare how frameworks run one model, declared once as data."""


def _check(options: CheckOptions) -> int:
    from harness.checking.console import run_check
    from harness.report.run_reports import RunReports
    from harness.results.file import has_finished_cell

    with RunReports(options, worth=has_finished_cell) as reported:
        request = check_request_of({**vars(options), "records": reported.results})

        def run() -> int:
            if options.reproducers is None:
                return run_check(request, sys.argv[1:], options)
            from harness.upstream.bundle import Upstream

            with Upstream(request) as upstream:
                return run_check(request, sys.argv[1:], options, upstream.write)

        def note_results() -> str:
            if not request.records:
                return ""
            if not has_finished_cell(request.records):
                return "no cell had finished yet"
            return f"finished cells are in {request.records}"

        reported.code = run_stoppable(run, note_results)
    return reported.code


def check_request_of(given: Mapping[str, Any]) -> Any:
    """Build the request of ``harness check`` from the command's options; raise :class:`UsageError`
    for invalid options."""
    from harness.environments.columns import complete_options
    from harness.given.make_request import make_check_request
    from harness.porting.check import trace_model

    return make_check_request(trace_model(complete_options(given), partial(tell, error=True)))


def _bench(options: BenchOptions) -> int:
    from harness.report.run_reports import RunReports
    from harness.timing.console import run_bench

    with RunReports(options) as reported:
        request = bench_request_of(vars(options))
        complete_options = make_options(
            BenchOptions, {**vars(options), "records": reported.results}
        )
        reported.code = run_stoppable(partial(run_bench, request, sys.argv[1:], complete_options))
    return reported.code


def bench_request_of(given: Mapping[str, Any]) -> Any:
    """Build the request of ``harness bench`` from the command's options; raise :class:`UsageError`
    for invalid options."""
    from harness.environments.columns import complete_options
    from harness.timing.request import BenchRequest

    for name in given.get("specs", ()) if given.get("as_json") else ():
        if name.endswith(".json"):
            raise UsageError(
                f"--json prints to standard output; to keep the results, give --records {name}"
            )
    return BenchRequest.of(complete_options(given))


# Each function takes the options and returns an outcome or an exit code.
for _verb in (
    Verb("check", CheckOptions, _check),
    Verb("bench", BenchOptions, _bench),
    Verb("compare", CompareOptions, "harness.comparison.two_runs:run_compare"),
    Verb("upgrade", UpgradeOptions, "harness.comparison.upgrade:run_upgrade"),
    Verb("merge", MergeOptions, "harness.comparison.merging:run_merge"),
    Verb("report", ReportOptions, "harness.report.console:run_report"),
    Verb("demo", DemoOptions, "harness.demo.console:run_demo"),
    Verb("run", PassOptions, "harness.given.run:run_run"),
    Verb("explain", ExplainOptions, "harness.checking.explain:run_explain"),
    Verb("differences", DifferencesOptions, "harness.defaults.console:run_differences"),
    Verb("localise", LocaliseOptions, "harness.checking.causes.localise:run_localise"),
    Verb("reduce", ReduceOptions, "harness.upstream.bundle:run_reduce"),
    Verb("replay", ReplayOptions, "harness.checking.replay:run_replay"),
    Verb("fuzz", FuzzOptions, "harness.fuzz.console:run_fuzz"),
    Verb("train", TrainOptions, "harness.training.console:run_train"),
    Verb("generate", GenerateOptions, "harness.training.generate.console:run_generate"),
    Verb("export", ExportOptions, "harness.convert.console:run_export"),
    Verb("import", ImportOptions, "harness.convert.console:run_import"),
    Verb("port", PortOptions, "harness.porting.console:run_port"),
    Verb("list", ListOptions, "harness.checking.explain_definition:run_list"),
    Verb("schema", SchemaOptions, "harness.language.schema:run_schema"),
    Verb("new-backend", NewBackendOptions, "harness.scaffold.package:run_new_backend"),
    Verb("env", EnvOptions, "harness.environments.console:run_env"),
    Verb("cache", CacheOptions, "harness.caching.console:run_cache"),
):
    _verb.callback = partial(execute, _verb)
    cli.add_command(_verb)
