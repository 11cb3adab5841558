"""Recording of the calls of a user's flax modules: flax.linen and flax.nnx."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

from harness.extend.models import Recorder

CALL = "__call__"


@contextmanager
def recorded_calls(recorder: Recorder, prefix: str) -> Iterator[None]:
    """Record calls of flax modules inside this context, if the user's file has imported flax.

    Args:
        recorder: The recorder of the pass.
        prefix: The text before the names of modules in the names of arrays, e.g. ``params.``.
    """
    with ExitStack() as stack:
        if linen := sys.modules.get("flax.linen"):
            intercept = partial(_record_linen, recorder, prefix)
            stack.enter_context(linen.intercept_methods(intercept))
        if nnx := sys.modules.get("flax.nnx"):
            names: dict[int, str] = {}
            for cls in _subclasses(nnx.Module):
                if CALL in vars(cls):
                    call = _wrap_nnx(nnx, vars(cls)[CALL], recorder, prefix, names)
                    stack.enter_context(patch.object(cls, CALL, call))
        yield


def _record_linen(
    recorder: Recorder,
    prefix: str,
    call: Callable[..., Any],
    args: Any,
    keywords: Any,
    context: Any,
) -> Any:
    if context.method_name != CALL:
        return call(*args, **keywords)
    name = prefix + ".".join(context.module.path) if context.module.path else ""
    recorded = recorder.start(name, args, keywords)
    returned = call(*args, **keywords)
    recorder.finish(recorded, returned)
    return returned


def _wrap_nnx(
    nnx: Any, call: Callable[..., Any], recorder: Recorder, prefix: str, names: dict[int, str]
) -> Callable[..., Any]:
    """Wrap the method ``__call__`` of a class. ``names`` maps the identity of a module to its name;
    the first module that is called is the outermost."""

    @wraps(call)
    def wrapped(self: Any, *args: Any, **keywords: Any) -> Any:
        if id(self) not in names:
            for path, module in nnx.iter_modules(self):
                names[id(module)] = prefix + ".".join(map(str, path)) if path else ""
        recorded = recorder.start(names[id(self)], args, keywords)
        returned = call(self, *args, **keywords)
        recorder.finish(recorded, returned)
        return returned

    return wrapped


def _subclasses(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)
