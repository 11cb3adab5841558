"""The commands ``train`` and ``generate``. What they need is imported when they are run."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from harness.command.declared import build, takes, values
from harness.command.interrupts import stoppable
from harness.command.options import variables
from harness.training.generate.request import GenerateOptions, GenerateRequest
from harness.training.options import TrainOptions


@takes(TrainOptions)
def train(spec: str, backend: str, **given: Any) -> None:
    """Train SPEC on a text or on arrays, as the spec's own phases say.

    Exit code 0: done; 1: the loss became NaN or infinite, the last good weights are kept; 2: wrong
    usage or a wrong file; 3: the backend failed; 130: interrupted.
    """
    from harness.environments.columns import process_of
    from harness.training.console import run_train
    from harness.training.request import TrainRequest

    column, python, environment = process_of(given, backend)
    process = {"backend": column, "python": python, "environment": environment}
    request = build(TrainRequest, {"spec": spec, **values(TrainOptions, given), **process})
    path = given["weights"]
    run = partial(run_train, request, path, given["resume"], given["force"], given["as_json"])
    sys.exit(stoppable(run))


@takes(GenerateOptions)
def generate(spec: str, backends: tuple[str, ...], **given: Any) -> None:
    """Continue a prompt with SPEC and weights that were trained.

    Greedy unless a temperature is given; then the same text comes from every backend, and several
    --backend prove it.

    Exit code 0: done; 1: the backends' texts differ; 2: wrong usage or a wrong file; 3: a backend
    failed.
    """
    from harness.environments.columns import of_options
    from harness.training.generate.console import run_generate

    columns = of_options(backends, given["pythons"])
    process = {
        "backends": columns.names,
        "pythons": columns.pythons,
        "environments": variables(given["environments"], lambda: columns.names),
    }
    request = build(GenerateRequest, {"spec": spec, **values(GenerateOptions, given), **process})
    sys.exit(stoppable(partial(run_generate, request, given["as_json"])))
