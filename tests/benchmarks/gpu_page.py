"""docs/gpu/CARD.md from the results of gpu.py: what each backend reaches on a card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Document = Mapping[str, Any]
# By dtype and path of the request.
Documents = Mapping[tuple[str, str], Document]
OWN, BEST = "native", "fastest"
CUDNN = "(cuDNN)"


def slug(card: str) -> str:
    """The name of a card as that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def render(card: Mapping[str, str], documents: Documents, verdicts: Mapping[str, int]) -> str:
    """The whole page; ``verdicts`` count the cells that ``make check-gpu`` has checked."""
    dtypes = list(dict.fromkeys(dtype for dtype, _ in documents))
    parts = [_head(card, documents, verdicts)]
    parts += [_speeds(dtype, documents) for dtype in dtypes]
    parts += [_peaks(documents), _lacking(documents)]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def without_names(content: dict[str, Any]) -> dict[str, Any]:
    """Results without the name of the machine, for a folder that others read."""
    content["machine_info"].pop("node", None)
    content["machine_info"]["harness"]["machine"].pop("host", None)
    return content


def _head(card: Mapping[str, str], documents: Documents, verdicts: Mapping[str, int]) -> str:
    versions: dict[str, str] = {}
    for document in documents.values():
        for worker in document["machine_info"]["harness"]["workers"].values():
            versions |= worker["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    checked = f"`make check-gpu`: {told}." if told else "`make check-gpu` was not run before."
    return f"""# {card["name"]}

Made by `make bench-gpu`; its results lie beside this page. Driver {card["driver_version"]},
power limit {card["power.limit"]}, MIG {card["mig.mode.current"].lower()}. {listed}.
{checked}

Thousand characters per second of the fastest right path, which is named, and in brackets how many
times the speed of the framework's own layers that is, where those run on cuDNN. Below 1, the
framework's own are faster. ! marks a figure that is not to be relied on: its file says why.
"""


def _speeds(dtype: str, documents: Documents) -> str:
    best, own = (_timed(documents.get((dtype, path))) for path in (BEST, OWN))
    backends = list(dict.fromkeys(entry["params"]["backend"] for entry in best.values()))
    rows: dict[str, dict[str, str]] = {}
    for key, entry in best.items():
        row = f"{key[0].removeprefix('lesson6/')} {key[2]} {key[3]}"
        rows.setdefault(row, {})[key[1]] = _speed(entry, own.get(key))
    lines = [f"## {dtype}", "", "| system, mode, batch | " + " | ".join(backends) + " |"]
    lines.append("|---|" + "---:|" * len(backends))
    lines += [
        f"| {n} | " + " | ".join(r.get(b, "") for b in backends) + " |" for n, r in rows.items()
    ]
    return "\n".join(lines) + "\n"


def _speed(entry: Mapping[str, Any], own: Mapping[str, Any] | None) -> str:
    extra = entry["extra_info"]
    doubt = "!" if extra.get("doubts") else ""
    text = f"{extra['rate']['median'] / 1000:,.0f}{doubt} {extra['path']}"
    if own is None or not any(CUDNN in label for label in own["extra_info"]["paths"].values()):
        return text
    ratio = median(own["stats"]["data"]) / median(entry["stats"]["data"])
    return f"{text} ({ratio:.2f})"


def _peaks(documents: Documents) -> str:
    lines = ["## Peaks", "", "| dtype | product | by | bandwidth |", "|---|---:|---|---:|"]
    for (dtype, path), document in documents.items():
        extras = [e["extra_info"] for e in document["benchmarks"] if "peak" in e["extra_info"]]
        if path != BEST or not extras:
            continue
        best = max(extras, key=lambda extra: extra["peak"]["large"])["peak"]
        moved = max(extra["bandwidth"]["measured"] for extra in extras)
        size = best["large_size"][0]
        rate = f"{best['large'] / 1e12:.1f} TFLOP/s of squares of {size}"
        lines.append(f"| {dtype} | {rate} | {best['large_by']} | {moved / 1e9:,.0f} GB/s |")
    return "\n".join(lines) + "\n"


def _lacking(documents: Documents) -> str:
    lines = [
        f"- {item['name']}: {item['status']}: {item['reason']}"
        for document in documents.values()
        for item in document["harness"]["without_speed"]
    ]
    return "\n".join(["## Without a speed", "", *dict.fromkeys(lines)]) + "\n" if lines else ""


def _timed(document: Document | None) -> dict[tuple[str, str, str, int], Any]:
    """The entries of a file, by system, backend, mode and batch."""
    entries: Sequence[Any] = document["benchmarks"] if document else ()
    names = ("spec", "backend", "mode", "batch")
    return {tuple(e["params"][n] for n in names): e for e in entries}  # type: ignore[misc]


def counted(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many cells of a record file ended with each verdict."""
    found: dict[str, int] = {}
    for line in lines:
        if line["kind"] == "end":
            found[line["verdict"]] = found.get(line["verdict"], 0) + 1
    return found
