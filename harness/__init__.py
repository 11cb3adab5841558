"""Compare how frameworks run one model: declared as data, checked against a float64 oracle.

>>> import harness
>>> spec = harness.load("lesson6/simple_rnn")
>>> report = harness.check(["lesson6/simple_rnn"], backends=["numpy"])
>>> report.exit_code
0
"""

from __future__ import annotations

# Python binds a package's name in its parent when it is first imported: before `check` is defined.
import harness.check  # noqa: F401

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from harness.check.events import Report
    from harness.spec.model import Spec

__all__ = ["check", "load"]


def load(name: str, folders: Sequence[str | Path] = ()) -> Spec:
    """A model by name (``lesson6/simple_rnn``) or by its file's path, checked in every part.

    ``folders`` hold further definitions. Raises :class:`harness.errors.SpecError`.
    """
    from harness.spec.model import load_spec

    return load_spec(name, folders)


def check(
    specs: str | Sequence[str] = (), backends: str | Sequence[str] = (), **options: Any
) -> Report:
    """Check backends on specs, each in a process of its own, as ``harness check`` does.

    Specs and backends are names (a spec's also the path of its file), one or several. No specs
    mean all of Lesson 6, no backends all that are installed; ``options`` are the other
    fields of :class:`harness.check.request.Request`. Raises :class:`harness.errors.HarnessError`.
    """
    from harness.check.request import Request
    from harness.check.run import Engine

    specs = (specs,) if isinstance(specs, str) else tuple(specs)
    backends = (backends,) if isinstance(backends, str) else tuple(backends)
    with Engine(Request(specs=specs, backends=backends, **options)) as engine:
        return engine.run()
