"""Wrap the calls of a user's flax modules: flax.linen and flax.nnx."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

from harness.extend.models import Recorder

CALL = "__call__"
# Runs a module's call: it gets the module, the call without the module, and its arguments.
Around = Callable[[Any, Callable[..., Any], Any, Any], Any]


@contextmanager
def recorded_calls(recorder: Recorder, prefix: str) -> Iterator[None]:
    """Record calls of flax modules inside this context, if the user's file has imported flax.

    Args:
        recorder: The recorder of the pass.
        prefix: The text before the names of modules in the names of arrays, e.g. ``params.``.
    """

    def record(name: str, call: Callable[..., Any], args: Any, keywords: Any) -> Any:
        recorded = recorder.start(prefix + name if name else "", args, keywords)
        returned = call(*args, **keywords)
        recorder.finish(recorded, returned)
        return returned

    with ExitStack() as stack:
        if linen := sys.modules.get("flax.linen"):
            stack.enter_context(
                linen_calls(linen, lambda module, *call: record(".".join(module.path), *call))
            )
        if nnx := sys.modules.get("flax.nnx"):
            names: dict[int, str] = {}

            def around_nnx(module: Any, *call: Any) -> Any:
                # The first module that is called is the outermost.
                if id(module) not in names:
                    names.update(nnx_names(nnx, module))
                return record(names[id(module)], *call)

            classes = [cls for cls in subclasses(nnx.Module) if CALL in vars(cls)]
            stack.enter_context(nnx_calls(classes, around_nnx))
        yield


def linen_calls(linen: Any, around: Around) -> AbstractContextManager[Any]:
    """Run ``around`` instead of each call of a linen module inside this context."""

    def intercept(call: Callable[..., Any], args: Any, keywords: Any, context: Any) -> Any:
        if context.method_name != CALL:
            return call(*args, **keywords)
        return around(context.module, call, args, keywords)

    interception: AbstractContextManager[Any] = linen.intercept_methods(intercept)
    return interception


def nnx_calls(classes: Iterable[type], around: Around) -> AbstractContextManager[None]:
    """Run ``around`` instead of each call of a module of these nnx classes inside this context."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def wrapped(self: Any, *args: Any, **keywords: Any) -> Any:
            return around(self, partial(method, self), args, keywords)

        return wrapped

    return wrapped_methods(classes, CALL, wrap)


def nnx_names(nnx: Any, module: Any) -> dict[int, str]:
    """Return the path of a module and of each inner module, by the module's ``id``."""
    return {id(inner): ".".join(map(str, path)) for path, inner in nnx.iter_modules(module)}


@contextmanager
def wrapped_methods(
    classes: Iterable[type], name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Replace a method of classes by ``wrap(method)`` inside this context."""
    # An inherited method is read before the method of the base class is replaced.
    originals = {cls: getattr(cls, name) for cls in classes}
    with ExitStack() as stack:
        for cls, original in originals.items():
            stack.enter_context(patch.object(cls, name, wrap(original)))
        yield


def subclasses(cls: type) -> Iterator[type]:
    """Yield the classes that inherit from a class."""
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from subclasses(child)
