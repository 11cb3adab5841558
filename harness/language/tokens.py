"""The words and signs of the equation language, checked before Python's parser sees them.

Python's own parser accepts far more than an equation needs, raises its errors of
depth in four ways that differ by version, and folds non-ASCII letters together. A
text that passes here holds only plain names, decimal numbers and known signs.
"""

import keyword
import re
from collections.abc import Callable

from harness.errors import Place, SpecError, shorten
from harness.language.instead import INSTEAD
from harness.language.names import LONGEST

MAX_BLOCK = 20_000
MAX_LINE = 2_000
MAX_NESTING = 40
MAX_SIGNS = 40
MAX_NUMBER = 100

_TOKEN = re.compile(
    r"(?P<space>[ ]+)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<number>(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<bad_number>\.?\d[\w.]*)"
    r"|(?P<refused>:=|//=?|\*\*=|[-+*/@%&|^]=|->|<<=?|>>=?|<>)"
    r"|(?P<sign>\*\*|\.\.\.|[<>=!]=|[-+*/@<>=,:&|~])"
    r"|(?P<open>[(\[])"
    r"|(?P<close>[)\]])"
    r"|(?P<other>.)",
    re.ASCII | re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]"}
_USE_WHERE = "use where(condition, a, b)"
_WORDS = {
    **dict.fromkeys(("if", "else"), _USE_WHERE),
    "and": "write (a < b) & (c < d)",
    "or": "write (a < b) | (c < d)",
    "not": "write ~(a < b)",
    **dict.fromkeys(("True", "False"), "write true or false for an attribute, 1 or 0 for a number"),
    "lambda": "write a layer of your own instead",
    **dict.fromkeys(("for", "while"), "use a scan to repeat a step"),
    **dict.fromkeys(("is", "in"), "choose another name, or compare with == or !="),
}
_SIGNS = {
    "'": "text in quotes is not part of the language; use a name",
    '"': "text in quotes is not part of the language; use a name",
    ".": "what stands behind a dot is not part of the language: write sum(x, axis=1) for x.sum(1), "
    "exp(x) for np.exp(x)",
    ";": "write one equation a line",
    "\t": "use spaces, not tabs",
    "\\": "wrap a long line inside brackets instead",
    "{": "dictionaries and sets are not part of the language",
    "}": "dictionaries and sets are not part of the language",
    "//": "write floor(a / b) for a // b; of a size declare the half as one of its own",
    "%": "write a - b * floor(a / b) for a % b",
    "!": "write ~(a < b)",
    "^": "write ** for a power, != for the exclusive or of two conditions",
    ":=": "write an equation on a line of its own",
    "->": "annotations are not part of the language",
    **dict.fromkeys(
        ("+=", "-=", "*=", "/=", "@=", "**=", "//=", "%=", "&=", "|=", "^=", "<<=", ">>="),
        "write it out, as in 'a = a + b'",
    ),
}
# What is behind a dot, or before text in quotes.
_BEHIND = re.compile(r"\.\s*([A-Za-z_]\w*)", re.ASCII)
_BEFORE = re.compile(r"([A-Za-z_]\w*)\s*([.(])\s*$", re.ASCII)
_ATTRIBUTES = {
    "T": INSTEAD["transpose"],
    "mT": INSTEAD["swapaxes"],
    "ndim": "a value has as many axes as are declared",
    "dtype": "a value has the dtype of the run",
    **dict.fromkeys(("to", "cpu", "cuda", "device", "item", "numpy"), "leave it out"),
}
# Modules by the names that people give them.
_MODULES = frozenset(
    {"np", "numpy", "torch", "F", "nn", "jnp", "jax", "lax", "tf", "keras", "ops", "math", "K"}
)


def check_tokens(text: str, locate: Callable[[int, int], Place]) -> str:
    """Return ``text`` without its comments, or raise SpecError at the first word refused."""
    if len(text) > MAX_BLOCK:
        message = f"{len(text):,} characters of equations; at most {MAX_BLOCK:,} are allowed"
        raise SpecError(message, locate(0, 0))
    # No text in quotes exists in the language, so '#' always starts a comment.
    lines = [line.partition("#")[0] for line in text.split("\n")]
    _Checker(locate).check(lines)
    return "\n".join(lines)


class _Checker:
    def __init__(self, locate: Callable[[int, int], Place]) -> None:
        self.locate = locate
        self.brackets: list[tuple[str, Place]] = []
        self.signs = 0

    def check(self, lines: list[str]) -> None:
        for number, line in enumerate(lines):
            if len(line) > MAX_LINE:
                message = f"a line of {len(line):,} characters; at most {MAX_LINE:,} are allowed"
                raise SpecError(message, self.locate(number, MAX_LINE))
            for match in _TOKEN.finditer(line):
                if match.lastgroup in ("refused", "other"):
                    raise SpecError(_refusal(match), self.locate(number, match.start()))
                if match.lastgroup != "space":
                    place = self.locate(number, match.start())
                    self.token(str(match.lastgroup), match.group(), place)
        if self.brackets:
            bracket, place = self.brackets[-1]
            raise SpecError(f"{bracket!r} is never closed", place)

    def token(self, kind: str, source: str, place: Place) -> None:
        self.signs = self.signs + 1 if source in ("+", "-", "~") else 0
        if self.signs > MAX_SIGNS:
            raise SpecError(f"more than {MAX_SIGNS} signs in a row", place)
        match kind:
            case "name":
                _check_name(source, place)
            case "number" if len(source) <= MAX_NUMBER:
                pass
            case "number" | "bad_number":
                message = "write a plain decimal number, such as 10, 0.5 or 1e-3"
                raise SpecError(f"{message}, found {shorten(source)!r}", place)
            case "open":
                self.open(source, place)
            case "close":
                self.close(source, place)

    def open(self, source: str, place: Place) -> None:
        self.brackets.append((source, place))
        if len(self.brackets) > MAX_NESTING:
            raise SpecError(f"brackets are nested more than {MAX_NESTING} deep", place)

    def close(self, source: str, place: Place) -> None:
        if not self.brackets:
            raise SpecError(f"{source!r} closes nothing", place)
        opened, where = self.brackets.pop()
        if _CLOSING[opened] != source:
            message = f"expected {_CLOSING[opened]!r} to close {opened!r} of {where}"
            raise SpecError(f"{message}, found {source!r}", place)


def _check_name(name: str, place: Place) -> None:
    if keyword.iskeyword(name) and name != "None":
        hint = _WORDS.get(name, "it is a word of Python's own; choose another name")
        raise SpecError(f"{name!r} is not part of the language; {hint}", place)
    if len(name) > LONGEST:
        message = f"a name has at most {LONGEST} characters, found {len(name)}: {shorten(name)!r}"
        raise SpecError(message, place)
    if name.startswith("__"):
        raise SpecError(
            f"a name may not begin with two underscores, found {shorten(name)!r}", place
        )


def _refusal(match: re.Match[str]) -> str:
    """What to say of a sign that is none, and where it is known, what to write instead."""
    source, line = match.group(), match.string
    if not source.isascii():
        return f"only ASCII characters are allowed outside comments, found {source!r}"
    if source not in _SIGNS:
        return f"{source!r} is not part of the language"
    before, behind = _BEFORE.search(line[: match.end()]), _BEHIND.match(line, match.start())
    if behind is not None:
        called = before.group(1) if before is not None else ""
        return _attribute(called, behind.group(1))
    called_with = _BEFORE.search(line[: match.start()])
    if source in "'\"" and called_with is not None and called_with.group(1) in INSTEAD:
        return f"text in quotes is not part of the language; {INSTEAD[called_with.group(1)]}"
    return f"{_SIGNS[source]}; found {source!r}"


def _attribute(owner: str, name: str) -> str:
    """What to say of ``owner.name``, of a value or of a module."""
    written = f"write {name}(...)" if owner in _MODULES else f"write {name}(x, ...)"
    told = _ATTRIBUTES.get(name) or INSTEAD.get(name, written)
    return f"what stands behind a dot is not part of the language: {told}; found '.{shorten(name)}'"
