"""Users' modules of flax.linen and flax.nnx, as functions of a tree of arrays and inputs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from harness.extend import UsageError
from harness.extend.models import ModelFile, made, parameters_of, whole_numbers

from .flax_calls import (
    CALL,
    Around,
    linen_calls,
    nnx_calls,
    nnx_names,
    subclasses,
    wrapped_methods,
)
from .jaxprs import MODULE
from .modes import MODES, chosen, inputs_of

# A field of a batch norm, and of modules that contain one.
AVERAGE = "use_running_average"


@dataclass
class FlaxModel:
    """A module as a function of its arrays.

    Attributes:
        label: The model's description.
        function: The function of the tree of arrays and the inputs, in evaluation mode.
        trained: The same in training mode; it returns the results and the new tree of arrays. None
            if the module has no training mode.
        drawing: The function in training mode, but with the moving statistics of evaluation mode.
        tree: The tree of arrays.
        takes: The names of the inputs; None if they cannot be determined.
        is_trained: Returns whether an array is trained, by its name.
        config: The whole numbers of the module's fields and of its field ``config``.
        momentum: The momentum of each batch norm, by its path; None if training mode also uses the
            moving statistics. Filled by the function's call.
    """

    label: str
    function: Callable[..., Any]
    trained: Callable[..., Any] | None
    drawing: Callable[..., Any] | None
    tree: Any
    takes: tuple[str, ...] | None
    is_trained: Callable[[str], bool]
    config: Mapping[str, int] = field(default_factory=dict)
    momentum: dict[str, float | None] = field(default_factory=dict)


def open_flax(
    file: ModelFile, target: Any, tree: Any, sizes: Mapping[str, int]
) -> FlaxModel | None:
    """Return a module of linen or nnx as a function; None for any other target.

    Args:
        file: The user's file.
        target: A module, a class of modules, or a function that makes a module.
        tree: The variables of a linen module, or None.
        sizes: The sizes that a class or a function may take.
    """
    nnx, linen = sys.modules.get("flax.nnx"), sys.modules.get("flax.linen")
    kinds = tuple(flax.Module for flax in (nnx, linen) if flax is not None)
    if _makes_module(kinds, target, sizes):
        random = {} if nnx is None else {"rngs": nnx.Rngs(0)}
        target = made(file, file.name, _maker(target), sizes, **random)
    if nnx is not None and isinstance(target, nnx.Module):
        return _open_nnx(nnx, target)
    if linen is not None and isinstance(target, linen.Module):
        if tree is None:
            raise UsageError(
                f"{file}: a linen module needs its variables: write "
                f"{file.path.name}:{file.name}:VARIABLES, where VARIABLES is the result of the "
                "module's init, or a function of a key that returns it"
            )
        return _open_linen(linen, target, tree)
    return None


def _makes_module(kinds: tuple[type, ...], target: Any, sizes: Mapping[str, int]) -> bool:
    """Return whether a target is a class of these modules, or a function that needs only sizes and
    ``rngs``. Without such modules, no function makes one."""
    if inspect.isclass(target):
        return issubclass(target, kinds)
    if not kinds or not inspect.isfunction(target):
        return False
    required = {n for n, p in parameters_of(target).items() if p.default is p.empty}
    return required <= {"rngs", *sizes}


def _maker(target: Any) -> Any:
    """Return a function with the signature of the constructor of a class."""
    if not inspect.isclass(target):
        return target

    def make(**arguments: Any) -> Any:
        return target(**arguments)

    signature = inspect.signature(target.__init__)
    make.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(signature.parameters.values())[1:]
    )
    return make


def _scoped(
    model: FlaxModel, batch_norm: Any, name_of: Callable[[Any], str], frozen: bool
) -> Around:
    """Return a function that runs calls of inner modules in named scopes, which stand for them.

    Args:
        model: The model, which gets the momentum of each batch norm.
        batch_norm: The class of batch norms.
        name_of: Returns the path of a module; empty for the outermost.
        frozen: Whether batch norms use their moving statistics in any mode.
    """
    counts: dict[str, int] = {}

    def run(module: Any, call: Callable[..., Any], args: Any, keywords: Any) -> Any:
        path = name_of(module)
        if isinstance(module, batch_norm):
            model.momentum[path] = module.momentum
            if frozen:
                chosen = args[1] if len(args) > 1 else keywords.get(AVERAGE)
                if getattr(module, AVERAGE) if chosen is None else chosen:
                    model.momentum[path] = None
                object.__setattr__(module, AVERAGE, True)
                args, keywords = args[:1], {n: keywords[n] for n in keywords if n == "mask"}
        if not path:
            return call(*args, **keywords)
        counts[path] = number = counts.get(path, -1) + 1
        scope = f"{MODULE}{path}{f'@{number}' if number else ''}|{type(module).__name__}"
        with jax.named_scope(scope):
            return call(*args, **keywords)

    return run


def _open_linen(linen: Any, module: Any, tree: Any) -> FlaxModel:
    call = module.__call__
    # Fields of the module that choose its mode, if no argument of its call does.
    own = {*MODES, AVERAGE} & {*module.__dataclass_fields__} - {*parameters_of(call)}
    moving = [name for name in tree if name != "params"]

    def name_of(inner: Any) -> str:
        return ".".join(("params", *inner.path)) if inner.path else ""

    def run_in(training: bool, frozen: bool = False) -> Callable[..., Any]:
        fields = {n: training != MODES.get(n, True) for n in own}
        modes = chosen(call, training)
        key = jax.random.PRNGKey(0)
        more = {"rngs": {"params": key, "dropout": key}, "mutable": moving} if training else {}

        def run(variables: Any, *arguments: Any, **keywords: Any) -> Any:
            scopes = linen_calls(linen, _scoped(model, linen.BatchNorm, name_of, frozen))
            used = module.clone(**fields) if fields else module
            with carries_in_session_dtype(), scopes:
                return used.apply(variables, *arguments, **{**modes, **keywords}, **more)

        return run

    has_mode = bool(own or chosen(call, True))
    drawing = run_in(True, frozen=True)
    model = FlaxModel(
        f"flax.linen module {type(module).__name__}",
        run_in(False),
        run_in(True) if has_mode else None,
        (lambda *args, **keywords: drawing(*args, **keywords)[0]) if has_mode else None,
        tree,
        inputs_of(call),
        lambda name: name.startswith("params."),
        _config(module),
    )
    return model


def _config(module: Any) -> dict[str, int]:
    return whole_numbers(module) | whole_numbers(getattr(module, "config", None))


@contextmanager
def carries_in_session_dtype() -> Iterator[None]:
    """Let recurrent cells of Flax start in the session's dtype; they start in float32 also if all
    parameters are float64."""
    loaded = [sys.modules[n] for n in ("flax.linen", "flax.nnx") if n in sys.modules]
    cells = [cell for flax in loaded for cell in subclasses(flax.RNNCellBase)]

    def cast(method: Any) -> Any:
        @wraps(method)
        def start(self: Any, *arguments: Any, **keywords: Any) -> Any:
            first = method(self, *arguments, **keywords)
            # A cell with a dtype of its own computes in this dtype.
            own = getattr(self, "dtype", None) is not None
            return first if own else jax.tree.map(in_session_dtype, first)

        return start

    own_starts = [cell for cell in cells if "initialize_carry" in vars(cell)]
    with wrapped_methods(own_starts, "initialize_carry", cast):
        yield


def in_session_dtype(array: Any) -> Any:
    """Return an array with floats in the session's dtype."""
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(jnp.result_type(float)) if floats else array


def _open_nnx(nnx: Any, module: Any) -> FlaxModel:
    call = module.__call__
    graphs = {}
    for training, choose in ((True, module.train), (False, module.eval)):
        choose()
        parts = nnx.split(module, nnx.RngState, nnx.Param, ...)
        graphs[training], random, weights, rest = parts
    trained = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(weights)}
    tree = nnx.to_pure_dict(nnx.merge_state(weights, rest))

    def run_in(training: bool, frozen: bool = False) -> Callable[..., Any]:
        def run(arrays: Any, *arguments: Any, **keywords: Any) -> Any:
            # New variables, as those of another trace cannot be changed.
            noise, state = jax.tree.map(lambda a: a, (random, nnx.merge_state(weights, rest)))
            nnx.replace_by_pure_dict(state, arrays)
            own = nnx.merge(graphs[training], noise, state)
            names = nnx_names(nnx, own)
            kinds = {type(inner) for _, inner in nnx.iter_modules(own)}
            called = [kind for kind in kinds if CALL in dir(kind)]
            around = _scoped(model, nnx.BatchNorm, lambda inner: names.get(id(inner), ""), frozen)
            modes = chosen(call, training, nnx.Rngs(0))
            with carries_in_session_dtype(), nnx_calls(called, around):
                returned = own(*arguments, **{**modes, **keywords})
            if not training or frozen:
                return returned
            _, _, new = nnx.split(own, nnx.RngState, ...)
            return returned, nnx.to_pure_dict(new)

        return run

    model = FlaxModel(
        f"flax.nnx module {type(module).__name__}",
        run_in(False),
        run_in(True),
        run_in(True, frozen=True),
        tree,
        inputs_of(call),
        trained.__contains__,
        _config(module),
    )
    return model
