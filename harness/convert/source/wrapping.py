"""Source lines as a formatter leaves them: what is too long is broken inside its brackets."""

from __future__ import annotations

from collections.abc import Sequence

from harness.convert.source.literals import text

INDENT = "    "
LINE = 99


def bracketed(indent: int, head: str, items: Sequence[str], tail: str) -> list[str]:
    """``head(items)tail`` on one line, with the items on a line of theirs, or one item a line."""
    space, joined = INDENT * indent, ", ".join(items)
    if len(line := f"{space}{head}{joined}{tail}") <= LINE:
        return [line]
    if len(line := f"{space}{INDENT}{joined}") <= LINE:
        return [f"{space}{head}", line, f"{space}{tail}"]
    return [f"{space}{head}", *(f"{space}{INDENT}{i}," for i in items), f"{space}{tail}"]


def mapping(indent: int, head: str, items: Sequence[tuple[str, str]]) -> list[str]:
    """``head{"key": value, ...}``, one item a line where that is too long for one."""
    space = INDENT * indent
    pairs = [f"{text(key)}: {item}" for key, item in items]
    if len(line := f"{space}{head}{{{', '.join(pairs)}}}") <= LINE:
        return [line]
    return [f"{space}{head}{{", *(f"{space}{INDENT}{p}," for p in pairs), f"{space}}}"]


def statement(indent: int, line: str) -> list[str]:
    """One statement; a call at its end is broken inside its brackets where it is too long."""
    if len(INDENT) * indent + len(line) <= LINE or not line.endswith(")"):
        return [INDENT * indent + line]
    depth, start = 0, len(line)
    while start == len(line) or depth:
        start = max(line.rfind("(", 0, start), line.rfind(")", 0, start))
        depth += 1 if line[start] == ")" else -1
    return bracketed(indent, line[: start + 1], _items(line[start + 1 : -1]), ")")


def _items(arguments: str) -> list[str]:
    """The arguments of a call, as they are parted by commas outside of all brackets."""
    items, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            items.append("")
        elif items[-1] or character != " ":
            items[-1] += character
    return items
