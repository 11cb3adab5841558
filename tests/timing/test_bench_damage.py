"""Files of results that are damaged: a message, and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_results import REQUEST, refused, result
from click.testing import CliRunner
from damage import changed, flips, mutations
from wording import Wording

from harness.cli import cli
from harness.timing.json_file import DocumentError, document, read

GOOD = document(REQUEST, [result("numpy"), result("torch"), refused("jax")]).plain()


def compared(tmp_path: Path, content: bytes, *more: str) -> tuple[int, str]:
    """Exit code and output of comparing a file with a good one, both ways round."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(GOOD))
    bad.write_bytes(content)
    told = []
    for pair in ((good, bad), (bad, good)):
        run = CliRunner().invoke(cli, ["compare", *map(str, pair), *more])
        if run.exception is not None and not isinstance(run.exception, SystemExit):
            raise run.exception
        told.append((run.exit_code, run.output))
    return told[0]


def test_a_good_file_is_read(tmp_path: Path) -> None:
    code, output = compared(tmp_path, json.dumps(GOOD).encode())
    assert code == 0, output
    assert "nothing changed" in output


@pytest.mark.parametrize("seed", range(3))
def test_any_field_may_be_damaged(seed: int, tmp_path: Path) -> None:
    refusals = 0
    for bad in mutations(GOOD, 100, seed):
        code, output = compared(tmp_path, json.dumps(bad).encode())
        assert code in (0, 1, 2)
        assert "\x1b" not in output
        refusals += code == 2
    assert refusals >= 5, "most of a file is not read by compare, but some is"


def test_any_byte_may_be_damaged(tmp_path: Path) -> None:
    for content in flips(json.dumps(GOOD).encode(), 200):
        assert compared(tmp_path, content, "--json")[0] in (0, 1, 2)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("benchmarks", 0, "stats", "median"), 0.0, "benchmarks.0.stats.median"),
        (("benchmarks", 0, "stats", "median"), "x", "'x'"),
        (("benchmarks", 0, "stats", "data"), [], "benchmarks.0.stats.data"),
        (("benchmarks", 1, "fullname"), None, "benchmarks.1.fullname"),
        (("machine_info",), {}, "machine_info ... 'harness'"),
        (("harness", "without_speed"), {}, "harness.without_speed"),
    ],
)
def test_the_place_is_told(
    path: tuple, value: object, words: str, tmp_path: Path, wording: Wording
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(changed(GOOD, path, value)))
    with pytest.raises(DocumentError) as caught:
        read(file)
    wording.line(caught.value, words)
    assert str(file) in str(caught.value)


def test_deep_nesting_and_long_numbers_are_told(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    for text, words in (("[" * 100_000, "nested too deeply"), ("1" * 10_000, "is not JSON")):
        file.write_text(text)
        with pytest.raises(DocumentError, match=words):
            read(file)
