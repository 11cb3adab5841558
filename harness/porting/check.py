"""Trace a user's model that ``harness check`` names in place of a spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from harness.checking.own_model.against import names_model, parse_against
from harness.errors import UsageError
from harness.runtime.labels import backend_of
from harness.runtime.paths import PATHS

REFUSED = {"against": "against", "maps": "map", "takes": "takes", "returns": "returns"}


def trace_model(options: Mapping[str, Any], tell: Callable[[str], None]) -> Mapping[str, Any]:
    """Replace a model in the options of ``harness check`` by its traced spec.

    The result has the spec's YAML in ``texts``, and checks the model against the spec. Options
    without a model are returned unchanged. ``tell`` shows a line of text.

    Raises:
        UsageError: an option cannot be used with a model, or the model cannot be traced.
        CouldNotRun: the process of the model failed.
    """
    specs = tuple(map(str, options.get("specs", ())))
    model = next(filter(names_model, specs), None)
    if model is None:
        if options.get("traced_inputs"):
            raise UsageError("--input needs a model in place of SPEC, such as net.py:Net")
        return options
    if len(specs) > 1:
        raise UsageError(f"{model} must be the only SPEC, found {', '.join(specs)}")
    for name, option in REFUSED.items():
        if options.get(name):
            raise UsageError(
                f"--{option} cannot be used with {model}, whose spec is its trace: write a spec "
                "with 'harness port', and name the spec"
            )
    from harness.porting.run import PortProcess, trace_spec  # slow to import, and rarely needed

    against = parse_against(model, preferred=options.get("backends", ()))
    framework = backend_of(against.column)
    python, environment = (options.get(n, {}).get(framework) for n in ("pythons", "environment"))
    with PortProcess(against, python, options["timeout"], environment) as process:
        tell(f"tracing {against}")
        paths = options.get("paths", against.paths)
        against = process.choose_paths(paths, PATHS)
        traced = trace_spec(process, options.get("traced_inputs", ()))
    for remark in traced.remarks:
        tell(remark)
    return {
        **options,
        "specs": (traced.name,),
        "texts": {traced.name: traced.spec.text},
        "paths": [path for path in paths if path in (*PATHS, "all")],
        "against": replace(
            against, maps=tuple(traced.rules), inputs=tuple(map(str, traced.declarations))
        ),
    }
