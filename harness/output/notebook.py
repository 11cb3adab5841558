"""Results in a notebook: small tables in HTML, and pandas DataFrames.

Untrusted names never become markup. Colours are readable in dark and light themes, and everything
that a colour shows is also in the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError
from harness.output.html import escaped

if TYPE_CHECKING:
    from pandas import DataFrame

Tint = Literal["", "good", "known", "bad", "faint"]


@cache
def _style() -> str:
    """Return the style sheet of tables, without line breaks."""
    return Path(__file__).with_suffix(".css").read_text(encoding="utf-8").replace("\n", "")


class NoPandas(HarnessError):
    """Error: a DataFrame is requested, but pandas is not installed."""


@dataclass(frozen=True)
class TintedText:
    """A text in a table of a notebook, with its colour."""

    text: str
    tint: Tint = ""


def html_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | TintedText]],
    notes: str = "",
    words: int = 1,
) -> str:
    """Return an HTML table with its style sheet. ``notes`` is plain text below the table.

    The first ``words`` columns contain text, and are aligned left. All other columns contain
    numbers, and are aligned right.
    """
    head = "".join(_cell("th", title, number < words) for number, title in enumerate(columns))
    lines = (
        "".join(_cell("td", content, number < words) for number, content in enumerate(row))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    below = f"<pre>{escaped(notes)}</pre>" if notes else ""
    return (
        f'<div class="harness-table"><style>{_style()}</style><table><caption>{escaped(title)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"
    )


def frame(records: Iterable[Mapping[str, object]]) -> DataFrame:
    """Return a pandas DataFrame with one row for each of ``records``. pandas is imported only in
    this function.

    Raises:
        NoPandas: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise NoPandas(
            "a DataFrame needs pandas, which is not installed here: pip install pandas"
        ) from None
    return pandas.DataFrame(list(records))


def _cell(tag: str, content: str | TintedText, words: bool) -> str:
    tinted = content if isinstance(content, TintedText) else TintedText(content)
    classes = " ".join(filter(None, ("words" if words else "", tinted.tint)))
    class_attribute = f' class="{classes}"' if classes else ""
    return f"<{tag}{class_attribute}>{escaped(tinted.text)}</{tag}>"
