"""Measurement of how often ``harness check --against`` names a planted mistake.

    python tests/named_mistakes.py             # all models: updates docs/own-model.md
    python tests/named_mistakes.py lstm ...    # some models: prints each answer

The models and the mistakes are in ``tests/mistakes``. A mistake is a class of a model. It is named
if the answer contains all texts in ``mistakes.yaml``: the wrong module, or the modules before and
after the mistake. Models that start with ``hf_`` need the package transformers.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS / "support")]

from users_models import checked  # noqa: E402

from harness.runtime.own_model.service import OwnModelService  # noqa: E402
from harness.runtime.plugins import load  # noqa: E402

FOLDER = TESTS / "mistakes"
PAGE = TESTS.parent / "docs" / "own-model.md"
MARK, END = "<!-- named mistakes -->", "<!-- end of named mistakes -->"
RIGHT = "Right"
MODELS: Mapping[str, Any] = yaml.safe_load((FOLDER / "mistakes.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Answer:
    """The answer of a check of a model with a planted mistake."""

    model: str
    mistake: str
    verdict: str
    text: str
    seconds: float

    @property
    def is_named(self) -> bool:
        """True if the answer names the mistake."""
        texts = MODELS[self.model]["mistakes"][self.mistake]
        return self.verdict == "differ" and all(text in self.text for text in texts)


def answer(service: OwnModelService, model: str, mistake: str, dtype: str = "float64") -> Answer:
    """Check one class of a model's file."""
    entry, started = MODELS[model], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        spec = entry["spec"]
        if "\n" in spec:
            spec = Path(folder) / f"{model}.yaml"
            spec.write_text(entry["spec"], encoding="utf-8")
        target, checks = f"{FOLDER / model}.py:{mistake}", ("repeatability", "inference")
        result = checked(service, spec, target, dtype, maps=entry["map"], checks=checks)
    seconds = time.perf_counter() - started
    return Answer(model, mistake, result.verdict, result.location, seconds)


def answers(models: list[str]) -> Iterator[Answer]:
    """Check all mistakes of some models.

    Raises:
        AssertionError: a model without a mistake does not agree.
    """
    service = OwnModelService("torch", load("torch"))
    for model in models:
        right = answer(service, model, RIGHT, "float32" if model == "hf_llama" else "float64")
        assert right.verdict == "agree", right
        for mistake in MODELS[model]["mistakes"]:
            yield answer(service, model, mistake)


def write_numbers(every: list[Answer]) -> None:
    """Replace the numbers of the page by the numbers of these answers."""
    titles = [entry["title"] for entry in MODELS.values()]
    named = sum(a.is_named for a in every)
    text = f"The check named {named} of {len(every)} mistakes, in {', '.join(titles[:-1])}"
    text += f" and {titles[-1]}."
    if missed := [f"`{a.model}.{a.mistake}`" for a in every if not a.is_named]:
        text += f" Not named: {', '.join(missed)}."
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    lines = textwrap.fill(text, 120)
    PAGE.write_text(f"{before}{MARK}\n{lines}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    """Print each answer, and update the page if all models are checked."""
    every = []
    for each in answers(sys.argv[1:] or list(MODELS)):
        every.append(each)
        word = "named" if each.is_named else "NOT NAMED"
        print(f"{each.model} {each.mistake}: {each.verdict}, {word}, {each.seconds:.1f} s")
        print(f"  {each.text}", flush=True)
    print(f"{sum(a.is_named for a in every)} of {len(every)} mistakes are named")
    if not sys.argv[1:]:
        write_numbers(every)


if __name__ == "__main__":
    main()
