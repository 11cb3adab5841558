"""``harness.load`` and ``harness.run``: a model, and one pass of it."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from harness.api.arguments import Folders, Names
    from harness.api.run_result import RunResult
    from harness.language.model import Spec
    from harness.oracle.given import Numbers as Arrays
    from harness.oracle.given import Source
    from harness.program.ir import Phase


def load(name: str | PathLike[str], folders: Folders = ()) -> Spec:
    """A model by name (``lesson6/simple_rnn``) or by its file's path, checked in every part.

    Args:
        name: The name, or the path.
        folders: Folders of further definitions, searched before those that ship.

    Raises:
        SpecError: a file is wrong; the message has line and column.
        UsageError: nothing is named so, or there is no such folder.
    """
    from harness.api import arguments
    from harness.language.model import load_spec

    path = arguments.path(name, "a model")
    if path is None:
        raise arguments.refused("a model", "a name, or the path of its file", name)
    return load_spec(str(name), arguments.folders(folders))


def run(
    spec: str | PathLike[str] | Spec,
    backend: str,
    *,
    parameters: Source = None,
    inputs: Source = None,
    state: Arrays = None,
    targets: Arrays = None,
    want: Names = ("outputs", "loss", "gradients"),
    dtype: str = "float64",
    device: str = "cpu",
    path: str = "native",
    phase: Phase = "training",
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    folders: Folders = (),
    timeout: float = 120.0,
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> RunResult:
    """One pass of a model over numbers of your own, on a backend, or on the ``"oracle"``: numpy in
    float64, what every backend is compared with. Nothing is judged; NaN and infinity are allowed.

    Arrays are given by the names that the spec declares, as anything that numpy makes an array of.
    Batch and time are those of the arrays. A group is given as a whole, or not at all.

    Args:
        spec: A name, the path of a file, or a spec that is loaded.
        backend: A name of ``harness list``, or ``oracle``.
        parameters: By name, moving statistics with them or not, or a ``.safetensors`` file; the
            spec's initial values, drawn from ``seed``, if left out.
        inputs: ``[batch, time, ...]`` as the spec declares them, indices as integers; or an
            ``.npz`` file with ``NAME``, ``state.NAME`` and ``target.NAME``.
        state: The state before the batch; zeros if left out.
        targets: What the loss compares with.
        want: ``outputs`` (with the new state and statistics), ``loss`` (with metrics) and
            ``gradients`` (of the loss), or one of them.
        dtype: ``float64`` or ``float32``.
        device: As the backend names it.
        path: ``native``, ``equations`` or ``derived``.
        phase: ``training`` or ``inference``.
        sizes: Sizes that differ from the spec's, by name.
        seed: Of initial parameters.
        folders: Folders of further definitions.
        timeout: Seconds for the pass.
        python: The interpreter of another environment.
        environment: Variables of the backend's process.

    Raises:
        HarnessError: a name is unknown, a shape or an index does not fit, something that is needed
            was not given, or the backend could not be run
            (:class:`harness.given.run.BackendError`).
    """
    from harness.api import arguments
    from harness.api.run_result import RunResult
    from harness.given.files import gather
    from harness.given.run import Settings, run_once
    from harness.language.model import Spec

    loaded = spec if isinstance(spec, Spec) else load(spec, folders)
    asked = arguments.mapping(sizes, "sizes")
    wanted = arguments.names(want, "want")
    variables = arguments.texts(environment, "environment")
    given = gather(
        loaded, asked, parameters=parameters, inputs=inputs, state=state, targets=targets
    )
    settings = Settings(dtype, device, path, phase, seed, timeout, python, variables)
    return RunResult(**vars(run_once(loaded, backend, given, wanted, settings)))
