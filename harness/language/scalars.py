"""The meaning of an unquoted word of a spec file: YAML 1.2's core schema, less its traps.

YAML 1.1 readers take 1e-3 for text, ``no`` for false, 010 for 8 and 1:30 for 90. A
spelling that two YAML versions read differently is refused, with what to write.
"""

import math
import re

from harness.files.complaints import Scalar

MAX_INTEGER = 2**63 - 1

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_OR_QUOTE = "or put it in quotes if it is text"
_BOOLEANS = {"true": True, "false": False}
_REFUSED = [
    (r"null|Null|NULL|~", "a value is missing"),
    (r"true|false", f"write true or false in small letters, {_OR_QUOTE}"),
    (r"yes|no|on|off", f"this is ambiguous in YAML; write true or false, {_OR_QUOTE}"),
    (r"[-+]?\.(inf|nan)", f"only finite numbers are allowed; write a decimal number, {_OR_QUOTE}"),
    (r"[-+]?0[xob][0-9a-f_]+", f"write a decimal number, {_OR_QUOTE}"),
    (r"[-+]?0[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?", f"leave out the leading zeros, {_OR_QUOTE}"),
    (r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])++(\.[0-9_]*)?", f"write a plain number, {_OR_QUOTE}"),
    (r"[-+]?(?=[0-9.]*_)\.?[0-9][0-9_.]*(e[-+]?[0-9_]+)?", f"leave out the '_', {_OR_QUOTE}"),
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t ].*)?", "put a date in quotes"),
]
_TRAPS = [(re.compile(pattern, re.IGNORECASE | re.ASCII), hint) for pattern, hint in _REFUSED]


def plain_value(text: str) -> Scalar:
    """The value of an unquoted scalar; raises ValueError with what to write instead."""
    if not text:
        raise ValueError("a value is missing")
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    # Length first: Python refuses to convert integers of more than 4,300 digits.
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
            raise ValueError(f"this number is too large; at most {MAX_INTEGER} is allowed")
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise ValueError("this number is too large for a 64-bit float")
        return value
    for pattern, hint in _TRAPS:
        if pattern.fullmatch(text):
            raise ValueError(hint)
    return text
