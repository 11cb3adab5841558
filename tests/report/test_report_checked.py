"""What a report says of the run itself: how far backends agree, which models, how long it took."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import report_files
from report_pages import HOSTILE, markdown, page
from wording import Wording

from harness.checking.request import Request
from harness.checking.runner import CellRunner

PAIR = {"kind": "pair", "spec": "lesson6/first_rnn", "device": "cpu", "dtype": "float32"}
PAIR |= {"path": "native", "worst": "gradient.W"}


def with_pairs(files: Path, place: Path, backends: str) -> Path:
    """The records with a line for each pair of some backends of one letter."""
    pairs = [[a, b] for n, a in enumerate(backends) for b in backends[n + 1 :]]
    lines = [json.dumps({**PAIR, "backends": two, "error": 10**-5.1}) for two in pairs]
    place.write_text((files / "run.jsonl").read_text() + "".join(f"{line}\n" for line in lines))
    return place


def test_the_top_says_to_how_many_digits_backends_agree(files: Path, tmp_path: Path) -> None:
    records = with_pairs(files, tmp_path / "two.jsonl", "ab")
    told = "a and b agree to 5.1 digits in float32 (gradient.W)"
    assert f"<p>{told}</p>" in page(tmp_path, records)
    assert f"\n{told}  \n" in markdown(tmp_path, records)


def test_of_many_pairs_the_furthest_is_at_the_top_and_all_are_below(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    records = with_pairs(files, tmp_path / "four.jsonl", "abcd")
    text = page(tmp_path, records)
    wording.line(text, "largest ... 6 ... agree")
    assert "<summary>All 6 pairs of backends</summary>" in text
    assert text.count("agree to 5.1 digits") == 7
    assert markdown(tmp_path, records).count("agree to 5.1 digits") == 7


def test_a_red_cell_shows_the_check_that_failed(files: Path, tmp_path: Path) -> None:
    """The digits of the checks that agree say nothing of why a cell is red."""
    failed = {"verdict": "differ", "error": 0.005, "worst": "output.logits"}
    failed |= {"yardstick": 1e-9, "tolerance": 1e-8}
    where = {"check": "batch-independence", "backend": "numpy", "kind": "result"}
    bad = report_files.changed(files / "run.jsonl", tmp_path / "bad.jsonl", failed, **where)
    text = page(tmp_path, bad)
    told = re.findall(r'title="lesson6/first_rnn on numpy: ([^"]*)"', text)
    assert "differ (batch-independence: error 5.0e-03)" in told[0]
    assert "</span>2.3 batch-independence" in text
    assert "2.3 batch-independence" in markdown(tmp_path, bad)


def test_the_models_that_were_checked_have_their_sizes_equations_and_loss(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    found = page(tmp_path, files / "run.jsonl").partition('<section id="models">')[2]
    told = unescape(found.partition("</section>")[0])
    assert "<b>lesson6/first_rnn</b>" in told
    wording.line(told, "3 ... 4")
    assert "layers: " in told
    assert re.search(r"<pre>.+\n.*next_char = softmax\(logits\)</pre>", told, re.DOTALL)
    assert "loss: <code>mean(" in told
    written = markdown(tmp_path, files / "run.jsonl")
    assert "**lesson6/first\\_rnn**" in written
    assert "- loss: `mean(" in written
    head = json.loads((files / "run.jsonl").read_text().splitlines()[0])
    (name,) = head["models"]
    model = {"sizes": {HOSTILE: 3}, "layers": {HOSTILE: HOSTILE}}
    change = {"models": {name: {**model, "equations": HOSTILE, "loss": HOSTILE}}}
    bad = report_files.changed(files / "run.jsonl", tmp_path / "bad", change, kind="head")
    assert "<img" not in page(tmp_path, bad)
    # A block or a span of code ends at no backtick of the text.
    assert "\n```\n</script><img" in markdown(tmp_path, bad)
    assert "- loss: ``</script><img" in markdown(tmp_path, bad)


def test_the_top_says_what_was_checked_and_by_which_command(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    told = r"only the checks values, training, batch-independence, in float32 and float64: "
    told += r"\d\d checks of 5 kinds, [\d,]{3,} comparisons"
    found = page(tmp_path, files / "run.jsonl")
    assert re.search(f"<p>{told}</p>", found)
    written = markdown(tmp_path, files / "run.jsonl")
    assert re.search(f"\n{told}  \n", written)
    assert "\n`harness check --backend numpy`  \n" in written
    head = {"notes": [f"m.yaml:3: {HOSTILE}"]}
    head["request"] = lambda asked: {**asked, "checks": ["values"]}
    quick = report_files.changed(files / "run.jsonl", tmp_path / "quick", head, kind="head")
    wording.line(page(tmp_path, quick), "<p>quick ... check (values ... float32")
    assert "<p>note: m.yaml:3: &lt;/script&gt;" in page(tmp_path, quick)
    assert "note: m.yaml:3: " in markdown(tmp_path, quick)
    # Records of an older version do not tell how many tensors each check has compared.
    old = report_files.changed(quick, tmp_path / "old", {"compared": None}, kind="result")
    assert "comparisons" not in markdown(tmp_path, old)


def test_attributes_that_differ_from_their_defaults_are_shown(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    spec = tmp_path / "m.yaml"
    spec.write_text(
        "model: m\nsummary: One.\nsource: Here.\ninputs: {x: {shape: [batch, 3]}}\n"
        "layers:\n  norm: {layer: batch_norm, momentum: 0.1, epsilon: 1.0e-3}\n"
        "  drop: {layer: dropout, keep: 0.75}\n  same: {layer: dropout, keep: 0.5}\n"
        "equations: y = same(drop(norm(x)))\n"
    )
    with CellRunner(Request((str(spec),), ("numpy",))) as runner:
        head = runner.new_head().plain()
    (note,) = head["notes"]
    assert f"{spec}:6" in note
    assert "momentum 0.1" in note
    model = head["models"]["m"]
    assert model["attributes"] == {"norm": {"momentum": "0.1"}, "drop": {"keep": "0.75"}}
    (name,) = json.loads((files / "run.jsonl").read_text().splitlines()[0])["models"]
    change = {"models": {name: model}}
    shown = report_files.changed(files / "run.jsonl", tmp_path / "m", change, kind="head")
    wording.line(page(tmp_path, shown), "batch_norm ... 0.1 ... 0.75")


def test_the_duration_is_that_of_the_runs_and_not_of_their_cells(
    files: Path, tmp_path: Path
) -> None:
    lasted = report_files.changed(  # of two runs
        files / "run.jsonl", tmp_path / "done.jsonl", {"seconds": 16.6}, kind="done"
    )
    assert "<p>took 33 s</p>" in page(tmp_path, lasted)
    assert "\ntook 33 s  \n" in markdown(tmp_path, lasted)
    # One of them did not come to its end: nothing is known.
    lines = lasted.read_text().splitlines()
    assert '"done"' in lines[-1]
    lasted.write_text("\n".join(lines[:-1]) + "\n")
    assert not re.search(r"<p>took \d+ s</p>", page(tmp_path, lasted))


def test_a_cell_says_once_what_all_layers_ran_as(files: Path, tmp_path: Path) -> None:
    layers = {"embed": "equations", "gru": "GRU", "out": "equations"}
    mixed = report_files.changed(
        files / "run.jsonl", tmp_path / "mixed", {"layers": layers}, backend="numpy", kind="result"
    )
    text = page(tmp_path, mixed)
    assert '"gru: GRU; embed, out: equations"' in text
    assert '"all layers: equations"' in text
