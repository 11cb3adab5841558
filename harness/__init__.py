"""Compare how frameworks run one model: declared as data, checked against a float64 oracle.

>>> import harness
>>> spec = harness.load("lesson6/simple_rnn")
>>> report = harness.check(["lesson6/simple_rnn"], backends=["numpy"])
>>> report.exit_code
0
>>> characters = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
>>> result = harness.run("lesson6/simple_rnn", "numpy", inputs={"chars": characters},
...                      want=("outputs",))
>>> result.outputs["logits"].shape
(2, 86)
"""

from __future__ import annotations

# Python binds a package's name in its parent when it is first imported: before `check` is defined.
import harness.check  # noqa: F401

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from harness.check.events import Report
    from harness.given.files import Source
    from harness.given.run import Result
    from harness.oracle.given import Numbers
    from harness.program.ir import Phase
    from harness.spec.model import Spec

__all__ = ["check", "load", "run"]


def load(name: str, folders: Sequence[str | Path] = ()) -> Spec:
    """A model by name (``lesson6/simple_rnn``) or by its file's path, checked in every part.

    ``folders`` hold further definitions. Raises :class:`harness.errors.SpecError`.
    """
    from harness.spec.model import load_spec

    return load_spec(name, folders)


def check(
    specs: str | Sequence[str] = (),
    backends: str | Sequence[str] = (),
    *,
    weights: Source = None,
    inputs: Source = None,
    state: Numbers = None,
    targets: Numbers = None,
    **options: Any,
) -> Report:
    """Check backends on specs, each in a process of its own, as ``harness check`` does.

    Specs and backends are names (a spec's also the path of its file), one or several. No specs
    mean all of Lesson 6, no backends all that are installed. ``weights``, ``inputs``, ``state`` and
    ``targets`` are numbers of your own for one spec, as in :func:`run`: the checks that compare
    values are made at them. ``options`` are the other fields of
    :class:`harness.check.request.Request`. Raises :class:`harness.errors.HarnessError`.
    """
    from harness.check.request import Request
    from harness.check.run import Engine

    specs = (specs,) if isinstance(specs, str) else tuple(specs)
    backends = (backends,) if isinstance(backends, str) else tuple(backends)
    if any(numbers is not None for numbers in (weights, inputs, state, targets)):
        from harness.given.files import gather_for

        options["given"] = gather_for(
            specs,
            options.get("folders", ()),
            options.get("sizes", {}),
            parameters=weights,
            inputs=inputs,
            state=state,
            targets=targets,
        )
    with Engine(Request(specs=specs, backends=backends, **options)) as engine:
        return engine.run()


def run(
    spec: str | Spec,
    backend: str,
    *,
    parameters: Source = None,
    inputs: Source = None,
    state: Numbers = None,
    targets: Numbers = None,
    want: Collection[str] = ("outputs", "loss", "gradients"),
    dtype: str = "float64",
    device: str = "cpu",
    path: str = "native",
    phase: Phase = "training",
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    folders: Sequence[str | Path] = (),
    timeout: float = 120.0,
    python: str | None = None,
) -> Result:
    """One pass of a model over numbers of your own, on a backend, or on the ``"oracle"``: numpy in
    float64, what every backend is compared with. Nothing is judged; NaN and infinity are allowed.

    Arrays are given by the names that the spec declares, as anything that numpy makes an array of:
    inputs and targets ``[batch, time, ...]`` as there, indices as integers. Batch and time are
    those of the arrays. What is left out is what a training starts with: ``parameters`` the spec's
    initial values, drawn from ``seed``, and ``state`` zeros. A group is given as a whole, or not at
    all. ``parameters`` hold moving statistics too, or none of them, or are a file of weights
    (``.safetensors``); ``inputs`` may be an ``.npz`` file with ``NAME``, ``state.NAME`` and
    ``target.NAME``. ``sizes`` are those that differ from the spec's.

    ``want`` are ``outputs`` (with the new state and statistics), ``loss`` (with metrics) and
    ``gradients`` (of the loss). ``path`` is ``native``, ``equations`` or ``derived``; ``phase`` is
    ``training`` or ``inference``; ``timeout`` is in seconds; ``python`` is the interpreter of
    another environment.

    Raises:
        HarnessError: a name is unknown, a shape or an index does not fit, something that is needed
            was not given, or the backend could not be run
            (:class:`harness.given.run.BackendError`).
    """
    from harness.given.files import gather
    from harness.given.run import Settings, run_once
    from harness.spec.model import Spec

    loaded = spec if isinstance(spec, Spec) else load(spec, folders)
    given = gather(
        loaded, sizes or {}, parameters=parameters, inputs=inputs, state=state, targets=targets
    )
    settings = Settings(dtype, device, path, phase, seed, timeout, python)
    return run_once(loaded, backend, given, want, settings)
