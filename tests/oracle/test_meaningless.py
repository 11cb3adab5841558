"""A model that gives no number is refused: all backends would agree on nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import TO_BE_WRITTEN
from wording import Wording

from harness.checking.request import Request, make_case
from harness.errors import UsageError
from harness.language.model import load_spec
from harness.oracle.case import Case, check_finite_results

LOSS = "targets:\n  t: {shape: [batch, 2]}\nloss: mean(squared_error(y, t))\n"


def case(tmp_path: Path, equation: str, loss: str = LOSS) -> Case:
    file = tmp_path / "odd.yaml"
    file.write_text(f"{TO_BE_WRITTEN}  s = out(x)\n  y = {equation}\n{loss}", encoding="utf-8")
    spec = load_spec(str(file))
    return make_case(spec, Request(specs=(spec.name,)), own=False)


@pytest.mark.parametrize(
    ("equation", "loss", "words"),
    [
        ("s / 0", LOSS, "loss ... odd.yaml:10"),
        ("s * 10**400", LOSS, "loss"),
        ("sqrt(-1 - s * s)", LOSS, "loss ... NaN ... odd.yaml:10"),
        ("log(s - s)", "", ""),
    ],
)
def test_a_model_without_numbers_is_refused(
    tmp_path: Path, equation: str, loss: str, words: str, wording: Wording
) -> None:
    with wording.raises(UsageError, words):
        check_finite_results(case(tmp_path, equation, loss))


@pytest.mark.parametrize("equation", ["s", "where(arange(2)[None, :] < 1, s, log(s - s))"])
def test_a_model_some_of_whose_outputs_are_numbers_is_not(tmp_path: Path, equation: str) -> None:
    check_finite_results(case(tmp_path, equation, ""))
