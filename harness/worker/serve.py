"""The worker process of one backend: loads the backend, greets the parent, then answers calls.

:mod:`harness.worker.worker` starts this module with ``--backend NAME --fd N`` under a supervisor
(:mod:`harness.worker.supervisor`). N is the worker's end of a socket pair. Only frames go over the
socket. The backend's printed output, also from C code, goes to the file descriptors 1 and 2, which
the parent has opened on the worker's log.

A request is ``{id, verb, payload}``. The answer to a successful call is ``{id, status: ok, value,
seconds}``. The answer to a failed call is ``{id, status, kind, message, traceback, spent,
seconds}``, with status ``error`` or ``out-of-memory``. If ``spent`` is true, the parent must not
send further calls to this process. Before the first call, the worker sends a greeting in the format
of an answer. Its value describes the worker. If the backend cannot be loaded, the greeting is an
``error``, and the process ends.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from harness.errors import HarnessError, blamed, shorten
from harness.files.system import restrict_cores
from harness.program.primitives import OFFERED
from harness.runtime import plugins, promises
from harness.runtime.code_digest import digest
from harness.worker import frames
from harness.worker.ending import open_connection, replace_process

# The environment variables that a worker reports, because they affect digits or speed.

REPORTED = (
    *("KERAS_BACKEND", "XLA_FLAGS", "JAX_ENABLE_X64", "JAX_PLATFORMS", "JAX_DISABLE_JIT"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "GLIBC_TUNABLES"),
    *("PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH"),
)
REPORTED_PREFIXES = (
    *("MALLOC_", "OPENBLAS_", "TF_", "JAX_DEFAULT_", "JAX_NUMPY_", "CUBLAS", "CUDNN_"),
    *("CUDA_LAUNCH_", "CUDA_DEVICE_", "CUDA_MODULE_", "CUDA_VISIBLE_"),
    *("PYTORCH_", "XLA_PYTHON_CLIENT_"),  # PYTORCH_: its allocator
    *("OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_"),  # threads, and the order of sums
    *("ATEN_", "DNNL_", "ONEDNN_", "NPY_", "TORCHDYNAMO_", "TORCHINDUCTOR_"),  # which kernels
)
# These variables affect neither digits nor speed: cache folders, and permissions to load a library
# twice or after a fork. torch sets cache folders when it compiles, and importing scikit-learn sets
# the permissions.
UNREPORTED = ("_CACHE_DIR", "_CACHE_PATH", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")


def relevant_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those environment variables of a process that can change digits or speed."""
    deciding = (n for n in sorted(variables) if n in REPORTED or n.startswith(REPORTED_PREFIXES))
    return {name: variables[name] for name in deciding if not name.endswith(UNREPORTED)}


Handler = Callable[[str, dict[str, Any]], Any]


class LostModules(HarnessError):
    """Error: a backend has replaced modules of numpy or of the harness in ``sys.modules``. Its
    process cannot be used any more."""


GREETING = 0
"""The id of the greeting; the ids of calls start at 1."""

_TEXT_LIMIT = 64 << 10
# The most characters of a framework's message on one line. The traceback has the full message.
LONGEST = 300
_OUT_OF_MEMORY_KINDS = ("OutOfMemoryError", "ResourceExhaustedError")
_OUT_OF_MEMORY_WORDS = (
    "resource_exhausted",
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cuda_error_out_of_memory",
    "cudaerrormemoryallocation",
)
# Errors of a device, after which all later calls of the process may fail.
_DEVICE_KINDS = ("AcceleratorError", "InternalError")
_DEVICE_WORDS = (
    "cuda error",
    "cudaerror",
    "cuda_error_",
    "cublas_status_",
    "cudnn_status_",
    "cudnn error",
    "cusolver_status_",
    "cusparse_status_",
    "cufft_",
    "nccl error",
    "device-side assert",
    "illegal memory access",
    "misaligned address",
    "unspecified launch failure",
    "hiperror",
    "hip error",
    "hip_error_",
    "rocblas_status_",
    "miopenstatus",
    "ze_result_error_",
    "mps backend",
)
# The kinds of XLA's errors, and the starts of their messages, that are not the caller's fault.
_XLA_KINDS, _XLA_WORDS = ("XlaRuntimeError", "JaxRuntimeError"), ("internal:", "data_loss:")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one backend: answer calls until the parent closes the socket or ends."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    own_pid, own_modules = os.getpid(), _own_modules()
    if options.cores is not None:
        # XLA and other libraries take the number of cores from this setting, and threads inherit
        # it.
        restrict_cores(options.cores)
    faulthandler.enable()
    started = time.perf_counter()
    answer = None
    try:
        answer, value = _prepare(options, arguments, own_pid)
        greeting: dict[str, Any] = {"status": "ok", "value": value}
    except BaseException as error:
        greeting = _failed_reply(error)
    _leave_if_forked(own_pid)
    greeting |= {"id": GREETING, "seconds": time.perf_counter() - started}
    connection = open_connection(options.fd)
    with contextlib.suppress(frames.EndOfStream, ConnectionError):
        frames.send(connection, greeting)
        if answer is not None:
            _serve(connection, answer, own_pid, own_modules)


def _leave_if_forked(own_pid: int) -> None:
    """End this process if it is not the worker but a fork of it, made by the backend: a child must
    not answer for its parent."""
    if os.getpid() != own_pid:
        os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.worker.serve", description=__doc__)
    parser.add_argument("--backend", required=True, help="name of the backend to serve")
    parser.add_argument("--fd", required=True, type=int, help="number of the inherited socket")
    parser.add_argument(
        "--service",
        help="module:function that gets the backend and returns the function that answers",
    )
    parser.add_argument("--handler", help="module:function that gets only the name of the backend")
    parser.add_argument("--cores", type=int, help="number of cores that the worker may use")
    parser.add_argument(
        "--deterministic", action="store_true", help="make identical calls give identical bits"
    )
    parser.add_argument(
        "--environment-set",
        action="store_true",
        help="the plugin's environment variables are already set",
    )
    return parser


def _prepare(
    options: argparse.Namespace, arguments: Sequence[str], own_pid: int
) -> tuple[Handler, dict[str, Any]]:
    """Return the function that answers calls, and the greeting (first message). If the backend
    needs environment variables that are not set, first restart this process with them."""
    name: str = options.backend
    if options.handler is not None:
        served = answer = _resolve(options.handler)(name)
    else:
        if not options.environment_set:
            environment = plugins.environment(name, options.deterministic)
            _leave_if_forked(own_pid)
            _restart_with(environment, arguments)
        served = plugins.load(name)
        answer = _resolve(options.service)(served)
        if options.deterministic:
            served.deterministic = True
    return answer, _greeting(name, served)


def _restart_with(environment: dict[str, str], arguments: Sequence[str]) -> None:
    """Restart this program with the variables ``environment``, unless they are set already.

    A framework and its C libraries read their variables when the process starts.
    """
    if all(os.environ.get(name) == text for name, text in environment.items()):
        return
    command = [sys.executable, "-P", "-m", "harness.worker.serve", *arguments, "--environment-set"]
    replace_process(command, {**os.environ, **environment})


def _resolve(path: str) -> Callable[[Any], Any]:
    module, _, function = path.partition(":")
    resolved: Callable[[Any], Any] = getattr(importlib.import_module(module), function)
    return resolved


def _greeting(name: str, served: Any) -> dict[str, Any]:
    # The backend has usually imported this module already, so the import takes no time here.
    from harness.runtime.backend import misspelling_warnings

    versions, devices = getattr(served, "versions", dict), getattr(served, "devices", list)
    dtypes = promises.check_names(getattr(served, "dtypes", list)(), "dtypes()")
    device_names = promises.check_names(devices(), "devices()")
    refuses = getattr(served, "refuses", lambda _: ())
    return {
        "backend": getattr(served, "name", name),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "code": plugins.code(name),
        "harness": digest("harness"),
        "versions": promises.check_texts(versions(), "versions()"),
        "devices": device_names,
        "dtypes": dtypes,
        "primitives": sorted(op for op in OFFERED if op in getattr(served, "primitives", ())),
        "lacks": {dtype: promises.missing_primitives(served, dtype) for dtype in dtypes},
        "refuses": {n: promises.check_names(refuses(n), f"refuses({n!r})") for n in device_names},
        "compiles": promises.check_names(sorted(getattr(served, "compiles", ())), "compiles"),
        "environment": relevant_variables(os.environ),
        "doubts": misspelling_warnings(served),
    }


def _own_modules() -> dict[str, ModuleType]:
    """Return a dictionary from name to module, for the imported modules of numpy and of the
    harness. It is used later to test that the backend has not replaced them."""
    packages = ("harness", "numpy")
    return {n: m for n, m in sys.modules.items() if n.partition(".")[0] in packages}


def _serve(
    connection: socket.socket, answer: Handler, own_pid: int, modules: Mapping[str, ModuleType]
) -> None:
    while True:
        # This is a separate function, so that no object of a call stays in memory until the next
        # call.
        _serve_one(connection, answer, own_pid, modules)


def _serve_one(
    connection: socket.socket, answer: Handler, own_pid: int, modules: Mapping[str, ModuleType]
) -> None:
    request = frames.receive(connection)
    reply = _reply(answer, request)
    _leave_if_forked(own_pid)
    lost = [name for name, module in modules.items() if sys.modules.get(name) is not module]
    if lost:
        # Importing them again would make second copies, with other classes and settings.
        text = f"{len(lost)} modules, such as {lost[0]}, were removed from sys.modules or replaced"
        error = LostModules(f"{text} during this call: the worker process ends")
        reply |= {**_failed_reply(error), "spent": True}
    try:
        # A plugin's text may hold any characters: escape them.
        frames.send(connection, reply, escape=True)
    except frames.Unencodable as error:
        failed = {"id": reply["id"], "seconds": reply["seconds"], **_failed_reply(error)}
        frames.send(connection, failed)


def _reply(answer: Handler, request: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    # Catch everything, even sys.exit: an exception must not cost the warm worker.
    try:
        value = answer(request["verb"], request["payload"])
        outcome: dict[str, Any] = {"status": "ok", "value": value}
    except BaseException as error:
        outcome = _failed_reply(error)
    return {"id": request["id"], "seconds": time.perf_counter() - started, **outcome}


def _failed_reply(error: BaseException) -> dict[str, Any]:
    """Return the fields of an answer that describe ``error``, by name (e.g. ``message``), as plain
    text."""
    out_of_memory = any(map(_is_out_of_memory, _error_chain(error)))
    return {
        "status": "out-of-memory" if out_of_memory else "error",
        "kind": type(error).__name__,
        "message": _plain_text(
            _message(error, None if isinstance(error, HarnessError) else LONGEST)
        ),
        "traceback": _plain_text(_traceback(error)),
        "spent": not out_of_memory and any(map(_is_device_error, _error_chain(error))),
    }


def _traceback(error: BaseException) -> str:
    """Return the traceback of ``error``, or the text ``error.traceback`` if it has one. Return an
    empty text for an error that the user caused (HarnessError), because its message suffices."""
    inner = getattr(error, "traceback", "")
    if isinstance(inner, str) and inner:
        return inner
    return "" if isinstance(error, HarnessError) else "".join(traceback.format_exception(error))


def _error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, the error that caused it, and so on."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY_KINDS:
        return True
    return _message_contains(error, _OUT_OF_MEMORY_WORDS)


def _is_device_error(error: BaseException) -> bool:
    kind = type(error).__name__
    xla = kind in _XLA_KINDS and _message(error).lower().startswith(_XLA_WORDS)
    return kind in _DEVICE_KINDS or xla or _message_contains(error, _DEVICE_WORDS)


def _message_contains(error: BaseException, words: Sequence[str]) -> bool:
    message = _message(error).lower()
    return any(word in message for word in words)


def _message(error: BaseException, limit: int | None = None) -> str:
    try:
        note, text = blamed(error), str(error)
        text = text if limit is None else shorten(text, limit)
        return f"{text} ({note})" if note else text
    except Exception as second:
        return f"(its message cannot be shown: {type(second).__name__})"


def _plain_text(text: str) -> str:
    # Keep the end of a long traceback, which has the error.
    return text[-_TEXT_LIMIT:].encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    main()
