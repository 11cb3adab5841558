"""The framework of a user's model, as the file of the model and the modules that it imports show.
Files are parsed, not executed."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Collection, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from harness.errors import UsageError, shorten
from harness.files.user_file import FileFault, displayed, read_bytes
from harness.runtime.plugins import available

MAX_SOURCE = 16 << 20  # bytes


def find_framework(path: Path, preferred: Sequence[str]) -> str:
    """Return the installed backend that a Python file uses.

    The file, or a module beside it that it imports, imports the framework. Otherwise an installed
    library that they import requires the framework, as transformers requires torch. ``preferred``
    are the backends to choose from if the file imports several.

    Raises:
        UsageError: a file cannot be parsed, or not exactly one framework is found.
    """
    backends = available()
    modules = _modules(path)
    frameworks = _choose(modules & backends.keys(), preferred)
    if not frameworks:  # slower, because it reads the metadata of all installed libraries
        always, extras = _required(modules - sys.stdlib_module_names)
        found = (names & backends.keys() - {"numpy"} for names in (always, extras))
        frameworks = next(filter(None, (_choose(names, preferred) for names in found)), [])
    if len(frameworks) != 1:
        problem = (
            f"uses {' and '.join(frameworks)}" if frameworks else "imports no installed framework"
        )
        raise UsageError(
            f"{displayed(path)} {problem}: choose the framework of the model with --backend "
            f"({', '.join(backends)})"
        )
    return frameworks[0]


def _choose(found: Collection[str], preferred: Sequence[str]) -> list[str]:
    frameworks = sorted(found)
    # Files that use another framework often import numpy as well, and files of flax import jax.
    frameworks = [name for name in frameworks if name != "numpy"] or frameworks
    if len(frameworks) > 1:
        frameworks = [name for name in frameworks if name in preferred] or frameworks
    return [name for name in frameworks if name != "jax" or "flax" not in frameworks]


def _modules(path: Path) -> set[str]:
    """Return the top-level names of all modules that a file imports, and that the modules beside it
    import in turn."""
    modules: set[str] = set()
    files, waiting = {path}, [path]
    while waiting:
        found = _imported(waiting.pop())
        modules |= found
        for name in found:
            beside = (path.with_name(f"{name}.py"), path.with_name(name) / "__init__.py")
            local = [file for file in beside if file.is_file() and file not in files]
            files |= {*local}
            waiting += local
    return modules


def _imported(path: Path) -> set[str]:
    try:
        source = read_bytes(path, MAX_SOURCE, "a Python file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parsing the user's code may warn
            tree = ast.parse(source)
    except FileFault as fault:
        raise UsageError(f"cannot read the model {displayed(path)}: {fault.reason}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        error_text = error.msg if isinstance(error, SyntaxError) else shorten(str(error))
        raise UsageError(f"{displayed(path)} is not valid Python: {error_text}{line}") from None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level < 2:
            names.add(node.module.partition(".")[0])
    return names


def _required(modules: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the names of the distributions that the installed libraries of these modules require:
    always, and only for some of their extras."""
    libraries = metadata.packages_distributions() if modules else {}
    always, extras = set[str](), set[str]()
    for library in {name for module in modules for name in libraries.get(module, ())}:
        for text in metadata.requires(library) or ():
            with suppress(InvalidRequirement):  # in the metadata of old libraries
                requirement = Requirement(text)
                (extras if "extra" in str(requirement.marker) else always).add(requirement.name)
    return always, extras
