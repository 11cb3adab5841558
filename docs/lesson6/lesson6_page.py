"""docs/lesson6.md from the record of lesson6.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from harness.checking.explain import explain
from harness.language.model import load_spec
from harness.training.phases import rates_of

Entry = Mapping[str, Any]

STORIES = Path(__file__).with_name("stories.md")
MISTAKES = Path(__file__).with_name("mistakes.md")
PICTURES = """\
In the pictures below, the curves of all backends lie on one another, so each has its own width.
The lower part shows how far each is from numpy's, as a share of the loss. Float32 runs drift apart
with the steps: a rounding grows as it does in any training. In float64 the backends' losses are the
same ([training.md](training.md)).
"""


def render(record: Mapping[str, Any], pictures: str) -> str:
    """The whole page; ``pictures`` is their folder beside it."""
    told = stories()
    parts = [_head(record), _mistakes(record["mistakes"]), _overview(record["systems"])]
    for system, entry in record["systems"].items():
        parts.append(_system(system, entry, told[system], f"{pictures}/{system}.svg"))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def stories() -> dict[str, str]:
    """What each system is, in words."""
    _, *sections = re.split(r"^## ", STORIES.read_text(), flags=re.MULTILINE)
    return {name: text.strip() for name, text in (s.split("\n", 1) for s in sections)}


def _head(record: Mapping[str, Any]) -> str:
    first = next(iter(record["systems"].values()))
    runs = list(first["trained"].values())
    versions: dict[str, str] = {}
    for run in runs:
        versions |= run["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    cpu = record["machine"].get("cpu", "a CPU")
    checksum = runs[0]["text"]["sha256"]
    return f"""# Lesson 6, retold

The twelve systems of fast.ai's notebook on character RNNs, each trained on every backend by
`harness train`, and each continuing a prompt by `harness generate`. First what the notebook got
wrong, and how the harness tells; then [how all of them compare](#all-systems); then each system by
itself, with its shapes and a sample folded away.

The text is `{record["text"]}` (sha256 {checksum[:16]}...), the dtype float32, the seed 0; epochs
and learning rates are the specs' own{_cut_off(record["systems"])}. The last 5% of the rows are held
out. {cpu}; {listed}.

`python docs/lesson6/lesson6.py page` writes this page from `docs/lesson6/record.json`, and
`python docs/lesson6/lesson6.py run` the record, in hours; with `--text nietzsche` on the notebook's
own text.
"""


def _cut_off(systems: Mapping[str, Entry]) -> str:
    """What is to be said if a run has not as many epochs as its spec."""
    for system, entry in systems.items():
        whole = len(rates_of(load_spec(f"lesson6/{system}"), None))
        if any(len(run["epochs"]) != whole for run in entry["trained"].values()):
            return ", cut off or carried on to as many epochs as the table says"
    return ""


def _overview(systems: Mapping[str, Entry]) -> str:
    backends = list(next(iter(systems.values()))["trained"])
    lines = ["## All systems", "", "Last epoch's loss, and thousands of characters a second.", ""]
    lines.append("| system | epochs | " + " | ".join(backends) + " |")
    lines.append("|---|---:|" + "---:|" * len(backends))
    for system, entry in systems.items():
        cells = []
        for backend in backends:
            epochs = entry["trained"][backend]["epochs"]
            cells.append(f"{epochs[-1]['loss']:.4f}, {_rate(epochs) / 1000:,.1f}")
        count = len(entry["trained"][backends[0]]["epochs"])
        lines.append(f"| [{system}](#{system}) | {count} | " + " | ".join(cells) + " |")
    lines += ["", PICTURES, *_folded("Beside `harness bench`", _beside_bench(systems))]
    return "\n".join([*lines, "", *_memory(systems)])


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines that a reader opens. The empty ones let what stands between them be Markdown."""
    title = re.sub(r"`(.*?)`", r"<code>\1</code>", title)
    yield from ("", f"<details><summary>{title}</summary>", "", *lines, "", "</details>", "")


def _beside_bench(systems: Mapping[str, Entry]) -> Iterator[str]:
    """The speed of training as a share of that of ``harness bench``: see lesson6_speed.py."""
    backends = list(next(iter(systems.values()))["speed"])
    shares = {
        (system, backend): median(speed["bench"]) / median(speed["train"])
        for system, entry in systems.items()
        for backend, speed in entry["speed"].items()
    }
    yield "Steps that are fed from the text beside the same steps in `harness bench`, whose batches"
    yield "lie on the device: the speed of training as a share of the other, medians of rounds that"
    yield (
        f"take turns. {min(shares.values()):.2f} to {max(shares.values()):.2f}, median "
        f"{median(shares.values()):.2f}; {sum(s >= 0.95 for s in shares.values())} of "
        f"{len(shares)} are 0.95 or more."
    )
    yield from ("", "| system | " + " | ".join(backends) + " |")
    yield "|---|" + "---:|" * len(backends)
    for system in systems:
        cells = " | ".join(f"{shares[system, backend]:.2f}" for backend in backends)
        yield f"| {system} | {cells} |"


def _memory(systems: Mapping[str, Entry]) -> Iterator[str]:
    """How much the processes grew from their second epoch to their last."""
    grown = {}
    for system, entry in systems.items():
        for backend, run in entry["trained"].items():
            held = [epoch["memory"]["resident"] for epoch in run["epochs"]]
            if len(held) > 2:
                grown[f"{system} on {backend}"] = (held[-1] - held[1]) / 2**20
    if grown:
        most = max(grown, key=lambda where: grown[where])
        yield (
            "Memory is flat: from the second epoch to the last the workers grew by "
            f"{median(grown.values()):.1f} MiB (median), at most by {grown[most]:.1f} ({most})."
        )


def _rate(epochs: list[Entry]) -> float:
    """The median over the epochs; the first holds the compilation, and counts if it is alone."""
    return median(e["characters_per_second"] for e in epochs[1:] or epochs)


def _system(system: str, entry: Entry, story: str, picture: str) -> str:
    summary = explain(f"lesson6/{system}", (), {}, ()).partition("\n\nprogram\n")[0]
    lines = [f"## {system}", "", story]
    lines += _folded(f"Shapes and parameters: `harness explain lesson6/{system}`", _block(summary))
    lines += [f"![Loss of {system} by epoch on each backend]({picture})", ""]
    # Of one epoch, the first is the last.
    several = len(next(iter(entry["trained"].values()))["epochs"]) > 1
    losses = "first epoch | last epoch" if several else "loss"
    lines += [f"| backend | {losses} | held out | thousand characters/s |"]
    lines += ["|---|---:|---:|---:|" + "---:|" * several]
    for backend, run in entry["trained"].items():
        first, last = run["epochs"][0], run["epochs"][-1]
        held_out = last["held_out_loss"]
        shown = "" if held_out is None else f"{held_out:.4f}"
        before = f"{first['loss']:.4f} | " if several else ""
        lines.append(
            f"| {backend} | {before}{last['loss']:.4f} | {shown} "
            f"| {_rate(run['epochs']) / 1000:,.1f} |"
        )
    return "\n".join([*lines, "", *_written(entry["written"])])


def _written(written: Entry) -> Iterator[str]:
    greedy, sampled = written["greedy"], written["sampled"]
    maker = written["maker"]
    prompt = greedy["prompt"]
    yield (
        f"Trained on {maker}, continued by {', '.join(greedy['texts'])}. All of them wrote the "
        "same (the likeliest character each time):"
    )
    yield from ("", *_block(_shown(prompt + greedy["texts"][maker])))
    sample = _shown(prompt + next(iter(sampled["texts"].values())))
    yield from _folded(f"Drawn at a temperature of {written['temperature']}", _block(sample))


def _shown(text: str) -> str:
    """Text that stays within its block: line ends as signs, in lines of 100 characters."""
    signs = text.replace("\n", "⏎").replace("`", "'")
    return "\n".join(signs[i : i + 100] for i in range(0, len(signs), 100))


def _mistakes(found: Mapping[str, Any]) -> str:
    """The section on them: numbers and what the harness printed, in the text's places."""
    stays, applied = found["rate"]["stays"], found["rate"]["applied"]
    (low, small), (high, large) = found["in_place"].items()
    return MISTAKES.read_text().format(
        scalar=found["scalar"],
        literal=found["training"]["literal"],
        right=found["training"]["right"],
        low=float(low),
        small=small,
        high=float(high),
        large=large,
        epochs=len(stays),
        stays=stays[-1],
        # The fifth epoch is the first at the second rate.
        applied=applied[4],
        types=found["types"],
        text=found["text"],
        said={mistake: "\n".join(_command(lines)) for mistake, lines in found["said"].items()},
    )


def _command(lines: list[str]) -> Iterator[str]:
    command, *printed = lines
    return _block(f"$ {command}", *printed)


def _block(*lines: str) -> Iterator[str]:
    yield from ("```", *lines, "```")
