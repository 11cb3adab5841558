"""Results in a notebook: small tables in HTML, and pandas DataFrames.

Untrusted names never become markup. Colours are readable in dark and light themes, and everything
that a colour shows is also in the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError
from harness.output.html import escaped

if TYPE_CHECKING:
    from pandas import DataFrame

Tint = Literal["", "good", "known", "bad", "faint"]

STYLE = """
.harness-table{overflow-x:auto}
.harness-table table{border-collapse:collapse;color:inherit;background:none;margin:.3em 0}
.harness-table caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .3em}
.harness-table th,.harness-table td{color:inherit;background:none;text-align:right;
 padding:.2em .6em;border:1px solid rgba(128,128,128,.35);white-space:pre-line}
.harness-table th.words,.harness-table td.words{text-align:left;white-space:pre-wrap}
.harness-table td.good{background:rgba(46,160,90,.20)}
.harness-table td.known{background:rgba(60,140,220,.22)}
.harness-table td.bad{background:rgba(220,70,60,.30);font-weight:bold}
.harness-table td.faint{opacity:.7}
.harness-table pre{color:inherit;background:none;white-space:pre-wrap;margin:.3em 0;
 word-break:normal;overflow-wrap:anywhere}
""".replace("\n", "")


class NoPandas(HarnessError):
    """Error: a DataFrame is requested, but pandas is not installed."""


@dataclass(frozen=True)
class TintedText:
    """A text in a table, with its colour."""

    text: str
    tint: Tint = ""


def html_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | TintedText]],
    notes: str = "",
    words: int = 1,
) -> str:
    """Return a self-contained HTML table; ``notes`` is plain text below the table.

    The first ``words`` columns are text, aligned left. All other columns are numbers, aligned
    right.
    """
    head = "".join(_cell("th", title, number < words) for number, title in enumerate(columns))
    lines = (
        "".join(_cell("td", given, number < words) for number, given in enumerate(row))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    below = f"<pre>{escaped(notes)}</pre>" if notes else ""
    return (
        f'<div class="harness-table"><style>{STYLE}</style><table><caption>{escaped(title)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"
    )


def frame(records: Iterable[Mapping[str, object]]) -> DataFrame:
    """Return records as a DataFrame with one row per record; only this function imports pandas.

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


def _cell(tag: str, given: str | TintedText, words: bool) -> str:
    found = given if isinstance(given, TintedText) else TintedText(given)
    classes = " ".join(filter(None, ("words" if words else "", found.tint)))
    named = f' class="{classes}"' if classes else ""
    return f"<{tag}{named}>{escaped(found.text)}</{tag}>"
