"""``harness.train`` and ``harness.generate``: weights from a text, and texts from weights."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from harness.api.arguments import Folders, Names
    from harness.api.trained import Generated, Trained
    from harness.language.model import Spec


def train(
    spec: str | PathLike[str] | Spec,
    backend: str,
    *,
    text: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    encoding: str = "utf-8",
    epochs: int | None = None,
    batch: int | None = None,
    weights: str | PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    every: int = 1000,
    held_out: float = 0.05,
    proof: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
    path: str = "derived",
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    folders: Folders = (),
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
    threads: int = 0,
    timeout: float = 600.0,
) -> Trained:
    """Train a model on a text, as the spec's own phases say, in a process of the backend's own.

    Args:
        spec: A name, the path of a file, or a spec that is loaded.
        backend: A name of ``harness list``.
        text: ``builtin`` (Python's own documentation), ``nietzsche`` (the notebook's), or a file;
            the built-in one if left out.
        data: An npz file, for a spec that is trained on arrays, in place of what it names.
        encoding: The encoding of a file.
        epochs: How many; the spec's own phases if left out.
        batch: Rows of a step; the spec's own if left out.
        weights: Where the weights are kept, with checkpoints beside; nowhere if left out.
        resume: Go on from the last checkpoint, if there is one.
        force: Begin anew in place of weights that are there.
        every: Steps between checkpoints.
        held_out: Share of the text to test on, its end.
        proof: Hold the first steps against the oracle.
        device: As the backend names it.
        dtype: ``float32``, ``float64``, ``bfloat16``, ``float16`` or ``tf32``.
        path: ``derived`` (the program's own gradient), ``native`` (the framework's layers and
            gradient), ``equations`` (its gradient of the equations), or ``fastest`` of them.
        sizes: Sizes that differ from the spec's, by name.
        seed: Of the first weights, and of the order of the batches.
        folders: Folders of further definitions.
        python: The interpreter of another environment.
        environment: Variables of the backend's process.
        threads: Threads of the backend; 0 for all cores.
        timeout: Seconds for one call.

    Returns:
        The weights and the history of the training; ``to_pandas()`` has a row for each epoch.

    Raises:
        UsageError: an argument is none that there is, or files are there and nothing says what is
            to become of them.
        Diverged: the loss, or a parameter, became NaN or infinite.
        Disproved: the first steps do not agree with the oracle.
        TrainingError: the backend failed.
        HarnessError: the spec or the text is wrong.
    """
    from harness.api import arguments
    from harness.api.trained import Trained
    from harness.environments.columns import one
    from harness.training.console import check_place
    from harness.training.request import TrainRequest, prepare
    from harness.training.run import TrainingRun

    name, all_folders = arguments.model(spec, folders)
    place = arguments.path(weights, "weights")
    own = arguments.path(python, "python")
    column, interpreter = one(arguments.text(backend, "backend"), None if own is None else str(own))
    request = TrainRequest(
        name,
        column,
        text=None if text is None else str(arguments.path(text, "text")),
        data=arguments.path(data, "data"),
        encoding=arguments.text(encoding, "encoding"),
        epochs=epochs,
        batch=batch,
        device=device,
        dtype=dtype,
        path=path,
        seed=seed,
        held_out=held_out,
        every=every,
        sizes=arguments.mapping(sizes, "sizes"),
        folders=all_folders,
        python=interpreter,
        environment=arguments.texts(environment, "environment"),
        threads=threads,
        timeout=timeout,
        proof=proof,
    )
    if place is not None:
        check_place(place, resume, force)
    setup = prepare(request)
    with TrainingRun(setup, place) as training:
        if place is not None:
            # Again: another training may have come to its end since.
            check_place(place, resume, force, mine=True)
        return Trained(training.run(resume), place)


def generate(
    spec: str | PathLike[str] | Spec,
    backends: Names,
    *,
    weights: str | PathLike[str],
    prompt: str,
    length: int = 200,
    temperature: float = 0.0,
    top_k: int = 0,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float64",
    path: str = "native",
    cache: bool = True,
    folders: Folders = (),
    pythons: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    environments: Mapping[str, Mapping[str, str]] | None = None,
) -> Generated:
    """Continue a prompt with weights that were trained, on one backend or on several.

    Args:
        spec: A name, the path of a file, or a spec that is loaded.
        backends: Names of ``harness list``; one is enough. Greedy texts are the same on all.
        weights: A file that :func:`train`, ``harness train`` or ``harness import`` wrote.
        prompt: The text to continue.
        length: Characters to write.
        temperature: 0 takes the likeliest character each time.
        top_k: Choose among so many; 0 for all.
        seed: Of the choice.
        device: As the backends name it.
        dtype: What to compute in.
        path: ``native``, ``equations`` or ``derived``.
        cache: Read each character once, and keep what later ones need, where the model allows it.
        folders: Folders of further definitions.
        pythons: Interpreters of other environments, by backend.
        environment: Variables of all backends' processes.
        environments: Variables of a backend's process, by backend.

    Returns:
        The texts by backend; ``print`` shows the prompt with its continuation.

    Raises:
        UsageError: an argument is none that there is.
        GenerateError: a backend failed.
        HarnessError: the spec or the weights are wrong.
    """
    from harness.api import arguments
    from harness.api.trained import Generated
    from harness.environments.columns import choose
    from harness.errors import UsageError
    from harness.training.generate.request import GenerateRequest
    from harness.training.generate.writing import prepare

    name, all_folders = arguments.model(spec, folders)
    file = arguments.path(weights, "weights")
    if file is None:
        raise arguments.refused("weights", "the path of a file that 'harness train' wrote", None)
    if not isinstance(prompt, str):
        raise arguments.refused("prompt", "a text", prompt)
    chosen = arguments.names(backends, "backends")
    if not chosen:
        raise UsageError("backends is empty: name one, or several whose texts are compared")
    columns = choose(chosen, arguments.interpreters(pythons))
    request = GenerateRequest(
        name,
        columns.names,
        file,
        prompt,
        length=length,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        device=device,
        dtype=dtype,
        path=path,
        cache=cache,
        folders=all_folders,
        pythons=columns.pythons,
        environment=arguments.texts(environment, "environment"),
        environments=arguments.variables(environments, "environments"),
    )
    writer = prepare(request)
    return Generated(prompt, {one: "".join(writer.write(one)) for one in request.backends})
