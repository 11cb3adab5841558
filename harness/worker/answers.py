"""Validation of the answers of workers, which the parent process does not trust.

A worker runs foreign code. Each call names a method of a service (the argument ``verb``), and the
method's return annotation is the type of the answer. If an answer has another type, the call fails
with the error :class:`IllFormed`. Whatever a worker sends, no other exception is raised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from harness.runtime.answers import EqualLength, Greeting, IllFormed, short_text


class Forms(Mapping[str, "TypeAdapter[Any]"]):
    """The types of a service's answers: a mapping from the name of a method to a pydantic
    TypeAdapter. Because an adapter is slow to make, it is made when it is first needed.

    Args:
        service: The class whose public methods a worker serves.
        prefix: The prefix that the methods' names have in calls, e.g. ``train_``.
    """

    def __init__(self, service: type, prefix: str = "") -> None:
        self.service, self.prefix = service, prefix
        self._made: dict[str, TypeAdapter[Any]] = {}

    @cached_property
    def types(self) -> dict[str, Any]:
        """A dictionary from a method's name in calls to its return annotation."""
        verbs = {n: getattr(self.service, n) for n in dir(self.service) if not n.startswith("_")}
        return {
            self.prefix + name: get_type_hints(method, include_extras=True)["return"]
            for name, method in verbs.items()
            if callable(method)
        }

    def __getitem__(self, verb: str) -> TypeAdapter[Any]:
        if verb not in self._made:
            self._made[verb] = TypeAdapter(self.types[verb])
        return self._made[verb]

    def __iter__(self) -> Iterator[str]:
        return iter(self.types)

    def __len__(self) -> int:
        return len(self.types)

    def counted(self, verb: str) -> Iterator[EqualLength]:
        """Yield the annotations of the method ``verb`` that say which list in its answer must be as
        long as which argument of the call."""
        for mark in getattr(self.types[verb], "__metadata__", ()):
            if isinstance(mark, EqualLength):
                yield mark


_GREETING: TypeAdapter[Any] = TypeAdapter(Greeting)


def validate(form: TypeAdapter[Any], value: Any) -> Any:
    """Return ``value`` after checking that it has the type of the adapter ``form``.

    Raises:
        IllFormed: the value has another type; the message shows the position and the wrong value.
    """
    try:
        return form.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part!r}]" for part in first["loc"] if part != "[key]")
        if "ctx" in first and "error" in first["ctx"]:
            raise IllFormed(f"answer{where}: {first['ctx']['error']}") from None
        raise IllFormed(
            f"answer{where}: {first['msg']}, found {short_text(first['input'])}"
        ) from None


def check_answer(forms: Forms, verb: str, payload: Mapping[str, Any], value: Any) -> Any:
    """Return ``value``, a worker's answer, after checking its type and the lengths of its lists.

    ``verb`` is the name of the called method, ``payload`` are its arguments, and ``forms`` has the
    types of all answers.

    Raises:
        IllFormed: the answer has another type or length.
    """
    value_found = validate(forms[verb], value)
    for annotation in forms.counted(verb):
        argument = payload[annotation.argument]
        count = argument if isinstance(argument, int) else len(argument)
        entries = value_found[annotation.within] if annotation.within else value_found
        if len(entries) != count:
            raise IllFormed(f"answer: expected {count} entries, found {len(entries)}")
    return value_found


def check_greeting(value: Any, backend: str) -> Mapping[str, Any]:
    """Return the greeting (first message) of a backend's worker after checking its type.

    Raises:
        IllFormed: the value is not a greeting, or is the greeting of another backend.
    """
    try:
        greeting: Mapping[str, Any] = validate(_GREETING, value)
    except IllFormed as error:
        raise IllFormed(f"the greeting of the worker is malformed: {error}") from None
    if greeting["backend"] != backend:
        raise IllFormed(
            f"backend {backend!r} was requested, but {greeting['backend']!r} answered: in the "
            f"module of the plugin's entry point {backend!r}, set name = {backend!r} in the class "
            "of the backend"
        )
    return greeting


def is_answer(message: Any, number: int) -> bool:
    """Return whether a message is a well-formed answer to the call with this number. If it is not,
    the worker has broken the protocol, and cannot be used any more."""
    if not isinstance(message, dict) or message.get("id") != number:
        return False
    seconds, status = message.get("seconds"), message.get("status")
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        return False
    texts = (message.get(name) for name in ("kind", "message", "traceback"))
    failed = status in ("error", "out-of-memory") and all(isinstance(t, str) for t in texts)
    return status == "ok" or failed
