"""Source lines as a formatter leaves them: what is too long is broken inside its brackets."""

from __future__ import annotations

from collections.abc import Sequence

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
    pairs = [f'"{key}": {text}' for key, text in items]
    if len(line := f"{space}{head}{{{', '.join(pairs)}}}") <= LINE:
        return [line]
    return [f"{space}{head}{{", *(f"{space}{INDENT}{p}," for p in pairs), f"{space}}}"]


def statement(indent: int, text: str) -> list[str]:
    """One statement; a call at its end is broken inside its brackets where it is too long."""
    if len(INDENT) * indent + len(text) <= LINE or not text.endswith(")"):
        return [INDENT * indent + text]
    depth, start = 0, len(text)
    while start == len(text) or depth:
        start = max(text.rfind("(", 0, start), text.rfind(")", 0, start))
        depth += 1 if text[start] == ")" else -1
    return bracketed(indent, text[: start + 1], _items(text[start + 1 : -1]), ")")


def _items(text: str) -> list[str]:
    """The arguments of a call, as they are parted by commas outside of all brackets."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            items.append("")
        elif items[-1] or character != " ":
            items[-1] += character
    return items
