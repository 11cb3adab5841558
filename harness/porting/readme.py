"""The folder of a port: its ``README.md``, and how it is written."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.defaults.catalogue import catalogue, frameworks, select_entries
from harness.errors import UsageError
from harness.files.user_file import displayed
from harness.output.markdown import escaped, table
from harness.porting.inputs import InputDeclaration
from harness.porting.options import PortRequest
from harness.porting.proof import Ported
from harness.results.cell import not_compared

README = "README.md"
# The columns of the table of comparisons.
PROOF = ("compared with the spec", "dtype", "tensors", "number", "digits")
# The first line of the README, by which a later port recognises a folder that it may replace.
MARK = "<!-- written by backend-comparison-harness port -->"


def check_folder(folder: Path, force: bool) -> None:
    """Raise :class:`UsageError` if a folder has files that a port must not replace."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    readme = folder / README
    if not folder.is_dir():
        raise UsageError(f"{displayed(folder)} is not a folder: name another folder with --output")
    if not (readme.is_file() and readme.read_bytes().startswith(MARK.encode())):
        raise UsageError(
            f"{displayed(folder)} has files that no port has written: name another folder"
        )
    if not force:
        raise UsageError(f"{displayed(folder)} has an earlier port: --force replaces its files")


def write_folder(source: Path, folder: Path) -> list[str]:
    """Copy all files to a folder; return their names.

    A new folder gets its name when it is complete, so an interrupted port leaves no folder. In the
    folder of an earlier port, each file is replaced when all new files are written.

    Raises:
        UsageError: the folder cannot be written.
    """
    names = [README, *sorted(path.name for path in source.iterdir() if path.name != README)]
    target = folder.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # On the same file system, so that the folder can be renamed.
        with tempfile.TemporaryDirectory(prefix=".port.", dir=target.parent) as temporary:
            complete = Path(temporary, "port")
            complete.mkdir()
            for name in names:
                shutil.copyfile(source / name, complete / name)
            if (target / README).exists():
                for name in names:
                    os.replace(complete / name, target / name)
            else:
                os.rename(complete, target)
    except OSError as error:
        raise UsageError(f"cannot write {displayed(folder)}: {error.strerror}") from None
    return names


def describe(
    ported: Ported,
    declarations: Sequence[InputDeclaration],
    sizes: Mapping[str, tuple[int, ...]],
    options: PortRequest,
) -> str:
    """Return the text of the README: what was ported, the proof, and how to repeat it. ``sizes``
    has the length of each free size in each trace."""
    inputs = _inputs(declarations, options)
    name, model = ported.name, shlex.quote(options.model)
    real = shlex.quote(options.large or options.model)
    lines = [
        MARK,
        f"# {escaped(name)}",
        "",
        f"A port of {escaped(ported.label)} ({escaped(options.large or options.model)}).",
        "",
        f"- `{name}.yaml` is the spec, `{name}.safetensors` its weights.",
        f"- `{name}.map` has the name of each weight in the original model.",
        *(f"- The code for {f} is `{name}_{f}.*`." for f in ported.exports),
        "",
        "## Proof",
        "",
        "Each line compares tensors with the spec, computed in float64. The code in the files ran "
        "without the harness.",
        "",
        table(PROOF, list(ported.proof_rows())),
        "",
        *(f"Not compared: {escaped(text)}." for text in not_compared(ported.against)),
        *_longest(sizes),
    ]
    lines += _differing_defaults(ported)
    if ported.remarks:
        lines += ["", "## Not ported", "", *(f"- {escaped(remark)}" for remark in ported.remarks)]
    if ported.problems:
        lines += ["", "**This port is not proved.** These comparisons differ:", ""]
        lines += [f"    {line}" for line in ported.problems]
    lines += [
        "",
        "## Repeat",
        "",
        "```console",
        f"$ harness port {model} {inputs}".rstrip(),
        f"$ harness check {shlex.quote(str(options.output / name))}.yaml --against {real} "
        f"--map {shlex.quote(str(options.output / name))}.map",
        "```",
        "",
    ]
    return "\n".join(lines)


def _longest(sizes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return a sentence on the largest lengths in the traces, if there are free sizes."""
    if not sizes:
        return []
    listed = ", ".join(f"{name} {max(lengths)}" for name, lengths in sizes.items())
    return ["", f"The model was traced up to these lengths: {listed}. Longer ones are not proved."]


def _differing_defaults(ported: Ported) -> list[str]:
    """Return the section on defaults of the target frameworks that differ from the model's."""
    source, known = ported.framework, frameworks(catalogue())
    lines: list[str] = []
    for target in ported.exports:
        if {source, target} <= {*known} and source != target:
            entries = select_entries(None, (source, target)).values()
            lines += [
                f"- {escaped(entry.parts)} {source}: {escaped(entry.frameworks[source].does)}; "
                f"{target}: {escaped(entry.frameworks[target].does)}. In {target}, set "
                f"{escaped(entry.frameworks[target].set)}."
                for entry in entries
                if ported.spec.used & {*entry.layers}
            ]
    title = "## Defaults that differ"
    about = "The written code has the model's values. A port by hand must set these:"
    return ["", title, "", about, "", *lines] if lines else []


def _inputs(declarations: Sequence[InputDeclaration], options: PortRequest) -> str:
    """Return the options that declare the inputs and the weights of a port."""
    words = [f"--input {d}" for d in (options.inputs if options.large else declarations)]
    words += [f"--large {shlex.quote(options.large)}"] if options.large else []
    words += [f"--large-input {text}" for text in options.large_inputs]
    words += [f"--loss {options.loss}"] if options.loss else []
    words += [f"--weights {shlex.quote(str(options.weights))}"] if options.weights else []
    return " ".join(words)
