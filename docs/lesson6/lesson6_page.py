"""Text of docs/lesson6.md, which is written from the record of lesson6.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.language.model import load_spec
from harness.training.feed import rates_of

Entry = Mapping[str, Any]

STORIES = Path(__file__).with_name("stories.txt")
MISTAKES = Path(__file__).with_name("mistakes.txt")
PICTURES = """\
Each plot shows the loss by epoch on each backend. Its lower part shows the relative difference
between a backend's loss and numpy's loss. In float32 this difference grows, because training
increases rounding errors. In float64 the losses of all backends agree.

Below each plot, the model continues the prompt with characters sampled at temperature
{temperatures}. The named backend trained the weights.
"""


def render(record: Mapping[str, Any], pictures: str) -> str:
    """Return the text of the page; ``pictures`` is the folder of its pictures."""
    told = stories()
    parts = [_head(record), _mistakes(record["mistakes"]), _overview(record["systems"])]
    for system, entry in record["systems"].items():
        parts.append(_system(system, entry, told[system], f"{pictures}/{system}.svg"))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def stories() -> dict[str, str]:
    """Read the description of each system."""
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
    losses = [_spread(entry) for entry in record["systems"].values()]
    return f"""# Lesson 6, retold

This page shows the twelve systems of fast.ai's notebook on character RNNs, trained with
`harness train` on every backend. Every backend then continues a prompt with `harness generate`.

- With the same trained weights, all backends generate the same text if they always choose the
  likeliest character.
- For each system, the largest final loss of the backends exceeds the smallest by at most
  {max(losses):.1%}. The median over the systems is {median(losses):.2%}.
- The notebook has [four mistakes](#the-notebooks-mistakes), and `harness check` finds each of them.

All systems are trained in float32 with seed 0, on the harness's text `{record["text"]}` (sha256
{checksum[:16]}...), with the epochs and learning rates of the specs{_cut_off(record["systems"])}.
The last 5% of the text's rows are held out. The results were measured on {cpu}, with {listed}.

`python docs/lesson6/lesson6.py run` trains all systems in some hours, and writes the results to
[docs/lesson6/record.json](lesson6/record.json). With `--text nietzsche`, the script trains on the
notebook's text. `python docs/lesson6/lesson6.py page` writes this page from the results.
"""


def _spread(entry: Entry) -> float:
    """Return the range of the backends' last losses, divided by the lowest loss."""
    losses = [run["epochs"][-1]["loss"] for run in entry["trained"].values()]
    return float(max(losses) / min(losses) - 1)


def _cut_off(systems: Mapping[str, Entry]) -> str:
    """Return a remark if a training had a different number of epochs than its spec."""
    for system, entry in systems.items():
        whole = len(rates_of(load_spec(f"lesson6/{system}"), None))
        if any(len(run["epochs"]) != whole for run in entry["trained"].values()):
            return ", cut off or carried on to as many epochs as the table says"
    return ""


def _overview(systems: Mapping[str, Entry]) -> str:
    backends = list(next(iter(systems.values()))["trained"])
    lines = [
        "## All systems",
        "",
        "The table of [models](semantics.md#the-models) describes the systems. Here, each entry",
        "has the last epoch's training loss, then the held-out loss after this epoch:",
        "",
    ]
    lines += _table(systems, _alike(systems, backends), _losses)
    temperatures = dict.fromkeys(f"{e['written']['temperature']}" for e in systems.values())
    pictures = PICTURES.format(temperatures=" or ".join(temperatures))
    return "\n".join([*lines, "", *_beside_bench(systems), *_memory(systems), "", pictures])


def _alike(systems: Mapping[str, Entry], backends: Sequence[str]) -> dict[str, str]:
    """Map the heading of each column of losses to a backend: one column for equal losses, e.g.
    ``{"torch, keras-torch": "torch"}``."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for backend in backends:
        losses = tuple(_losses(entry["trained"][backend]) for entry in systems.values())
        alike.setdefault(losses, []).append(backend)
    return {", ".join(names): names[0] for names in alike.values()}


def _table(
    systems: Mapping[str, Entry],
    columns: Mapping[str, str],
    cell: Callable[[Entry], str],
) -> Iterator[str]:
    """Yield a row for each system; ``columns`` maps headings to backends."""
    yield f"| {' | '.join(['system', 'epochs', *columns])} |"
    yield "|---|" + "---:|" * (len(columns) + 1)
    for system, entry in systems.items():
        runs = [entry["trained"][backend] for backend in columns.values()]
        count = str(len(runs[0]["epochs"]))
        yield f"| {' | '.join([f'[{system}](#{system})', count, *map(cell, runs)])} |"


def _losses(run: Entry) -> str:
    last = run["epochs"][-1]
    held_out = last["held_out_loss"]
    return f"{last['loss']:.4f}" + ("" if held_out is None else f", {held_out:.4f}")


def _beside_bench(systems: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the speed of training as a share of ``harness bench``: see lesson6_speed.py."""
    shares = [
        median(speed["bench"]) / median(speed["train"])
        for entry in systems.values()
        for speed in entry["speed"].values()
    ]
    yield (
        f"`harness train` reaches {min(shares):.2f} to {max(shares):.2f} times the speed of "
        f"`harness bench` (median {median(shares):.2f})."
    )


def _memory(systems: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a sentence about how much memory use grew from the second epoch to the last."""
    grown = {}
    for system, entry in systems.items():
        for backend, run in entry["trained"].items():
            held = [epoch["memory"]["resident"] for epoch in run["epochs"]]
            if len(held) > 2:
                grown[f"{system} on {backend}"] = (held[-1] - held[1]) / 2**20
    if grown:
        most = max(grown, key=lambda where: grown[where])
        yield (
            "From the second to the last epoch, the memory of a worker grew by a median of "
            f"{median(grown.values()):.1f} MiB, and by at most {grown[most]:.1f} MiB ({most})."
        )


def _system(system: str, entry: Entry, story: str, picture: str) -> str:
    lines = [f"## {system}", "", *([story, ""] if story else [])]
    lines += [f"![Loss of {system}]({picture})", ""]
    return "\n".join([*lines, _written(entry["written"])])


def _written(written: Entry) -> str:
    """Return the first 100 characters that a system writes, with signs for line ends."""
    sample = next(iter(written["sampled"]["texts"].values()))
    text = (written["greedy"]["prompt"] + sample).replace("\n", "⏎").replace("`", "'")
    return f"Backend {written['maker']}: `{text[:100].rstrip()}`"


def _mistakes(found: Mapping[str, Any]) -> str:
    """Return the section about the notebook's mistakes, with numbers and output of the harness."""
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
        # The fifth epoch is the first epoch with the second learning rate.
        applied=applied[4],
        types=found["types"],
        text=found["text"],
        said={mistake: "\n".join(_command(lines)) for mistake, lines in found["said"].items()},
    )


def _command(lines: list[str]) -> Iterator[str]:
    """Yield a command and its output. Of the tensors of a check, only the first is shown."""
    command, *printed = lines
    shown = (re.sub(r"; .*", "; ...", line) if ": differ: " in line else line for line in printed)
    return _block(f"$ {command}", *shown)


def _block(*lines: str) -> Iterator[str]:
    yield from ("```", *lines, "```")
