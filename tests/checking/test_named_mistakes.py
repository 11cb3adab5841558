"""Planted mistakes in torch models of the tests: ``check --against`` names the module."""

from __future__ import annotations

import re

import named_mistakes
import pytest
from named_mistakes import MODELS, PAGE, answer
from sampling import sampled

from harness.runtime.own_model.service import OwnModelService

RUN = [model for model in MODELS if not model.startswith("hf_")]
OWN = [(m, name) for m in RUN for name in MODELS[m]["mistakes"]]
KEPT = [("lstm", "ActiveDropout"), ("lstm", "ForgetBias"), ("resnet", "ShortcutWithoutNorm")]
KEPT += [("resnet", "StrideInSecond"), ("seq2seq", "StartsFromReader")]
KEPT += [("unet", "OneEpsilon"), ("tcn", "CutsStart"), ("vit", "Unscaled"), ("tagger", "TimeFirst")]


@pytest.mark.parametrize("model", sampled(RUN, ["resnet"]))
def test_a_model_without_a_mistake_agrees(torch_service: OwnModelService, model: str) -> None:
    assert answer(torch_service, model, named_mistakes.RIGHT).verdict == "agree"


@pytest.mark.parametrize(("model", "mistake"), sampled(OWN, KEPT))
def test_a_planted_mistake_is_named(
    torch_service: OwnModelService, model: str, mistake: str
) -> None:
    assert answer(torch_service, model, mistake).is_named


def test_the_page_counts_the_mistakes() -> None:
    ((named, count),) = re.findall(r"(\d+) of (\d+) mistakes", PAGE.read_text("utf-8"))
    assert int(count) == sum(len(entry["mistakes"]) for entry in MODELS.values())
    assert int(named) >= 0.9 * int(count)
