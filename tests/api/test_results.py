"""What the functions of ``harness`` return: short in a repr, a table in print and in a notebook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from needed import need
from places import SPECS
from wording import Wording

import harness
from harness.api.checking import CheckReport
from harness.api.training import Generated
from harness.cli import cli
from harness.errors import HarnessError
from harness.output.notebook import NoPandas, html_table

SPEC = "lesson6/sequence_rnn"
SIZES = {"hidden": 8, "factors": 4}
OPTIONS: dict[str, Any] = {"sizes": SIZES, "dtypes": "float64", "checks": "loss"}
WHOLE = ("div", "style", "table", "caption", "thead", "tbody", "tr", "th", "td", "pre")


class Tags(HTMLParser):
    """The elements of a text of HTML; an end without a beginning is a fault."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.open.append(tag)
        # Nothing is fetched, and nothing acts.
        assert {name for name, _ in attrs} <= {"class"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def is_small_and_whole(found: Any) -> str:
    """The HTML of a result, which has the elements of a table and a short repr beside it."""
    assert len(repr(found)) < 200
    assert "\n" not in repr(found)
    html = found._repr_html_()
    assert set(Tags(html).found) <= set(WHOLE)
    assert "url(" not in html
    assert "<script" not in html
    assert isinstance(html, str)
    return html


@pytest.fixture(scope="module")
def report() -> CheckReport:
    return harness.check(SPEC, "numpy", **OPTIONS)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> CheckReport:
    """A report of a model whose name is markup, and of a backend that is not there."""
    folder = tmp_path_factory.mktemp("broken")
    return harness.check(SPEC, "numpy", pythons={"numpy": str(folder / "<b>py")}, **OPTIONS)


def test_a_report_is_the_table_of_the_command_line(report: CheckReport) -> None:
    command = ["check", SPEC, "--backend", "numpy", "--dtype", "float64", "--check", "loss"]
    for name, size in SIZES.items():
        command += ["--size", f"{name}={size}"]
    ran = CliRunner().invoke(cli, command)
    assert ran.exit_code == report.exit_code == 0
    table = [line for line in ran.stdout.splitlines() if line[:1] in "┏┃┡│└+|"]
    assert len(table) >= 5
    assert "\n".join(line.rstrip() for line in table) in str(report)


def test_a_report_is_short_and_whole(report: CheckReport, wording: Wording) -> None:
    html = is_small_and_whole(report)
    wording.line(repr(report), "<CheckReport: 1 ... 1 agree ... 0>")
    assert f'<td class="words">{SPEC}</td>' in html
    assert re.search(r'<td class="good">1\d\.\d</td>', html)
    assert report.agrees


def test_what_went_wrong_is_told_and_no_markup(broken: CheckReport) -> None:
    html = is_small_and_whole(broken)
    assert not broken.agrees
    assert '<td class="bad">' in html
    assert "&lt;b&gt;py" in html
    assert "<b>py" in str(broken)


def test_a_table_escapes_everything() -> None:
    evil = "<script>alert('x')</script>&\x1b[2J"
    html = html_table(evil, [evil], [[evil]], evil)
    Tags(html)
    assert "<script>" not in html
    assert html.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;\\x1b[2J") == 4
    texts = Generated(evil, {evil: evil, "other": evil})
    assert "<script>" not in is_small_and_whole(texts)


def test_columns_of_words_begin_at_the_left_and_keep_their_spaces() -> None:
    html = Generated("the ", {"numpy": " a  b"})._repr_html_()
    assert '<td class="words"> a  b</td>' in html
    assert ".words{text-align:left;white-space:pre-wrap}" in html
    figures = html_table("", ["system", "numpy"], [["gru", "4.9"]])
    assert '<td class="words">gru</td><td>4.9</td>' in figures


def test_colours_hold_in_the_dark_and_in_the_light() -> None:
    """Text has the page's own colour; all that a table adds is a tint that lets it through."""
    style = html_table("", [], []).partition("<style>")[2].partition("</style>")[0]
    assert set(re.findall(r"[^-]color:([^;}]+)", style)) == {"inherit"}
    tints = re.findall(r"background:rgba\([\d,]+,(\.\d+)\)", style)
    assert tints
    assert all(float(tint) < 0.4 for tint in tints)
    assert set(re.findall(r"background:(?!rgba)([^;}]+)", style)) == {"none"}


def test_a_report_becomes_a_frame(report: CheckReport) -> None:
    need("pandas")
    frame = report.to_pandas()
    assert list(frame["check"]) == [f.check for r in report.results for f in r.findings]
    assert set(frame["verdict"]) == {"agree"}
    assert frame["error"].max() < 1e-12


def test_without_pandas_it_says_what_to_install(
    report: CheckReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(NoPandas, match="pip install pandas"):
        report.to_pandas()
    assert issubclass(NoPandas, HarnessError)


def test_pandas_is_not_imported_before() -> None:
    program = f"import sys, harness; r = harness.run({SPEC!r}, 'oracle', want='outputs', "
    program += "inputs={'chars': [[1, 2, 3]]}); repr(r), str(r), r._repr_html_()\n"
    program += "assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_bench_shows_saves_and_compares_itself(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sizes": SIZES, "rounds": 2, "path": "equations"}
    page = str(tmp_path / "speeds.html")
    timed = harness.bench(SPEC, "numpy", modes="forward", batches=4, html=page, **options)
    assert "forward" in Path(page).read_text(encoding="utf-8")
    html = is_small_and_whole(timed)
    assert "forward, batch 4" in html
    assert "forward, batch 4" in str(timed)
    (result,) = timed.results
    assert timed.exit_code == {"measured": 0, "refused": 1}[result.status]
    timed.save(tmp_path / "now.json")
    for old in (timed, tmp_path / "now.json", str(tmp_path / "now.json")):
        compared = harness.compare(old, timed)
        is_small_and_whole(compared)
        assert compared.exit_code == 0
        assert "changed" in str(compared).splitlines()[-1]
    (tmp_path / "w.yaml").write_text("model: w", encoding="utf-8")
    with pytest.raises(HarnessError, match="cannot write"):
        timed.save(tmp_path / "w.yaml")
    need("pandas")
    assert list(timed.to_pandas()["status"]) == [result.status]
    assert len(compared.to_pandas()) == 0


def test_an_upgrade_of_a_check_is_compared(tmp_path: Path) -> None:
    before, after = tmp_path / "before.jsonl", tmp_path / "after.jsonl"
    harness.check(SPEC, "numpy", records=before, **OPTIONS)
    after.write_text(before.read_text(encoding="utf-8"), encoding="utf-8")
    assert harness.compare(before, str(after)).exit_code == 0
    lines = [json.loads(line) for line in before.read_text(encoding="utf-8").splitlines()]
    changed = [{**one, **({"verdict": "differ"} if "verdict" in one else {})} for one in lines]
    after.write_text("".join(json.dumps(one) + "\n" for one in changed), encoding="utf-8")
    found = harness.compare(before, after)
    assert found.exit_code == 1
    assert "new difference" in str(found)
    with pytest.raises(HarnessError, match=r"no\.json"):
        harness.compare(before, "no.json")
    assert '<td class="words bad">new difference</td>' in is_small_and_whole(found)
    need("pandas")
    assert len(found.to_pandas()) == len(found.changes) > 0


def test_two_columns_of_a_check_are_compared(tmp_path: Path, wording: Wording) -> None:
    need("torch")
    kept = tmp_path / "run.jsonl"
    harness.check(SPEC, ["numpy", "torch"], records=kept, **OPTIONS)
    found = harness.compare(kept, between=("numpy", "torch"))
    wording.line(found.sentence, "numpy ... torch")
    assert "has changed" not in str(found)
    for wrong, words in (
        ({}, "give two runs, or one file and two of its backends"),
        ({"new": kept, "between": ("numpy", "torch")}, "two backends of one file, but two runs"),
        ({"between": ("numpy", "jax")}, "has no backend 'jax'"),
        ({"between": "numpy"}, "between takes two names of backends, found 'numpy'"),
    ):
        with pytest.raises(HarnessError, match=words):
            harness.compare(kept, **wrong)  # type: ignore[arg-type]


def test_a_training_and_a_text_show_themselves(tmp_path: Path, wording: Wording) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 60, encoding="utf-8")
    made = harness.train(
        SPEC, "numpy", text=text, epochs=2, batch=8, sizes=SIZES, weights=tmp_path / "w.safetensors"
    )
    html = is_small_and_whole(made)
    wording(repr(made), f"<Trained: {SPEC} ... numpy: 2 ... loss {made.loss:.4f}>")
    assert len(str(made).splitlines()) == 4
    assert f"{made.loss:.4f}" in html
    with pytest.raises(HarnessError, match="already exists"):
        harness.train(SPEC, "numpy", text=text, weights=str(tmp_path / "w.safetensors"))
    made.save(tmp_path / "again.safetensors")
    wrote = [
        harness.generate(SPEC, "numpy", weights=tmp_path / name, prompt="the ", length=5)
        for name in ("w.safetensors", "again.safetensors")
    ]
    assert wrote[0].texts == wrote[1].texts
    assert len(wrote[0].text) == 9
    assert str(wrote[0]) == wrote[0].text
    assert is_small_and_whole(wrote[0]).count("<tr>") == 2
    assert "after 'the '" in unescape(wrote[0]._repr_html_())
    # What was trained can be run and checked at once.
    sizes = {**made.weights.sizes}
    ran = harness.run(
        SPEC, "oracle", parameters=made.parameters, inputs={"chars": [[1, 2]]}, want="outputs",
        sizes=sizes,
    )  # fmt: skip
    assert np.isfinite(ran.outputs["logits"]).all()
    need("pandas")
    assert list(made.to_pandas()["epoch"]) == [1, 2]
    assert list(wrote[0].to_pandas()["backend"]) == ["numpy"]


def test_a_pass_and_a_spec_show_themselves() -> None:
    ran = harness.run(SPEC, "oracle", inputs={"chars": [[1, 2, 3]]}, want="outputs")
    assert repr(ran) == "<RunResult: outputs 3>"
    assert '<td class="words">output.logits</td><td>1 x 3 x 86</td>' in is_small_and_whole(ran)
    assert "output.logits [1, 3, 86] float64" in str(ran).splitlines()
    spec = harness.load(SPEC)
    assert repr(spec) == f"<Spec {SPEC}: inputs chars; 102,258 trained parameters>"
    assert '<td class="words">rnn.U</td>' in is_small_and_whole(spec)
    assert (SPECS / f"models/{SPEC}.yaml").is_file()
    need("pandas")
    frame = ran.to_pandas().set_index("array")
    assert frame["shape"]["output.logits"] == (1, 3, 86)
