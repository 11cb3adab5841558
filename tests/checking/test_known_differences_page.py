"""The example of docs/known-differences.md, run: it excuses what it says, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from places import DOCS, TESTS

import harness
from harness.checking.known_differences import Difference, Match, known_differences

PAGE = (DOCS / "known-differences.md").read_text(encoding="utf-8")
EXAMPLE, OF_A_PARAMETER = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, of a backend that has such a fault when its device says so."""
    monkeypatch.syspath_prepend(TESTS / "mutants")
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "mutants"))
    text = EXAMPLE.replace('"mylib 1.*"', '"numpy *"').replace("mylib\n", "mutants-1\n")
    assert "backend: mutants-1" in text
    (tmp_path / "known_differences.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def verdicts(device: str, folder: Path | None) -> tuple[int, set[str], str]:
    """What comes of the command that the page shows."""
    report = harness.check(
        "lesson6/sequence_onehot",
        "mutants-1",
        device=device,
        dtypes="float32",
        checks="values",
        sizes={"hidden": 8},
        folders=() if folder is None else folder,
    )
    return report.exit_code, {f.verdict for f in report.results[0].findings}, str(report)


def test_the_example_excuses_the_fault(folder: Path) -> None:
    assert verdicts("matmul-in-bfloat16", None)[:2] == (1, {"differ"})
    code, found, text = verdicts("matmul-in-bfloat16", folder)
    assert (code, found) == (0, {"known-difference"})
    assert "known difference mylib-bfloat16-products: mylib multiplies float32 matrices" in text


def test_a_fault_that_is_gone_is_told(folder: Path) -> None:
    code, found, text = verdicts("control", folder)
    assert (code, found) == (1, {"differ"})
    assert "known difference mylib-bfloat16-products no longer occurs" in text
    assert "known difference mylib-bfloat16-products no longer occurs: remove it from" in " ".join(
        PAGE.split()
    )


def test_the_page_tells_of_every_key() -> None:
    tables = [
        set(re.findall(r"^\| `(\w+)` \|", part, re.M))
        for part in PAGE.split("The values in `match` are case-sensitive shell patterns")
    ]
    assert tables == [set(Difference.model_fields), set(Match.model_fields)]


def test_the_example_is_of_the_form(tmp_path: Path) -> None:
    (tmp_path / "known_differences.yaml").write_text(EXAMPLE, encoding="utf-8")
    found = known_differences([tmp_path]).entries
    assert found["mylib-float64-mean"].match is None
    assert found["mylib-bfloat16-products"].match is not None


def test_the_example_of_a_parameter_is_the_match_of_an_entry_that_ships() -> None:
    shown = Match.model_validate(yaml.safe_load(OF_A_PARAMETER)["match"])
    shipped = known_differences().entries["keras-torch-conv1x1-strided"].match
    assert shipped is not None
    assert shown.parameter == shipped.parameter
