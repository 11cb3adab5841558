"""The folder of a port: its ``README.md``, and how it is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.command.declared import options_of
from harness.defaults.catalogue import DefaultEntry, catalogue
from harness.errors import UsageError
from harness.files.atomic import staging
from harness.files.user_file import displayed
from harness.output.markdown import escaped, table
from harness.output.shell import command_line
from harness.porting.inputs import InputDeclaration
from harness.porting.options import PortRequest
from harness.porting.proof import Ported
from harness.results.cell import not_compared

README = "README.md"
# The columns of the table of comparisons.
PROOF = ("compared with the spec", "dtype", "tensors", "comparisons", "digits")
# The first line of the README, by which a later port recognises a folder that it may replace.
MARK = "<!-- written by backend-comparison-harness port -->"
# Defaults of calls that no spec of a model has: a softmax without an axis, assignments, optimizers.
NOT_IN_MODELS = {"softmax-axis", "repeated-index-add", "repeated-rows-adam", "absent-rows-adam"}
# The library whose layers people use with a target framework that has none of its own.
LIBRARIES = {"jax": "flax", "onnx": "ONNX"}


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
        with staging(target) as temporary:
            complete = temporary / "port"
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
    name, path = ported.name, options.output / ported.name
    check = ["harness", "check", f"{path}.yaml", "--against", options.large or options.model]
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
        "Each line compares tensors with the spec, computed in float64. A comparison is a tensor "
        "in one batch. Weights are the arrays of the spec, which may be parts of the model's. The "
        "code in the files ran without the harness.",
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
        f"$ {_command(declarations, options)}",
        f"$ {command_line([*check, '--map', f'{path}.map'])}",
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
    pairs = [(ported.framework, target) for target in ported.exports if target != ported.framework]
    texts = [
        text
        for source, target in pairs
        for name, entry in catalogue().items()
        if name not in NOT_IN_MODELS
        if {*entry.layers} & ported.spec.used and (text := _difference(entry, source, target))
    ]
    title = "## Defaults that differ"
    about = "The written code has the model's values. A port by hand must set these:"
    lines = [f"- {escaped(text)}" for text in texts]
    return ["", title, "", about, "", *lines] if lines else []


def _difference(entry: DefaultEntry, source: str, target: str) -> str:
    """Return sentences on a default that a port by hand must set, or an empty text. The port has
    the weights of the model, and the model does not use what is an error in its framework."""
    facts = entry.frameworks
    if source not in facts or "initial_values" in entry.layers or facts[source].measured == "error":
        return ""
    start = f"{entry.parts} {source}: {facts[source].does}"
    if target not in facts:
        return (
            f"{start}. {entry.elsewhere}"
            if LIBRARIES.get(target, target) in entry.elsewhere
            else ""
        )
    if not entry.differs((source, target)):
        return ""
    # The setting leads to what the catalogue recommends: often the target's own default.
    change = "" if facts[target].set == "nothing" else f" In {target}, set {facts[target].set}."
    return f"{start}; {target}: {facts[target].does}.{change}"


def _command(declarations: Sequence[InputDeclaration], options: PortRequest) -> str:
    """Return the command that repeats a port; inputs from the model's config are written out."""
    inputs = options.inputs or (() if options.large else tuple(map(str, declarations)))
    values = vars(replace(options, inputs=inputs))
    named = [one for one in options_of(PortRequest) if one.name != "model"]
    words = [word for one in named for word in one.words(values[one.name])]
    return command_line(["harness", "port", options.model, *words])
