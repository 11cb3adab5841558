"""The text of an issue: what strangers name is shown, and means nothing to Markdown."""

from __future__ import annotations

from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell, CellResult
from harness.results.findings import Blame, Finding
from harness.upstream.bundle import issue_text, issue_title

OFF = "output.y off by 5.0e-01 of its largest entry in float32"
EVIL = "<script>alert(1)</script> [x](http://e.org) @everyone #1 `y` ```\n# head\x1b[31m"


def result(name: str = "lesson6/x") -> CellResult:
    finding = Finding("outputs", [Deviation("output.y", 0.5, 1e-7, 1e-6)]).judge()
    made = CellResult(Cell(name, name, "cpu", "float32", "native"), [finding])
    made.blame = Blame(who="layer", words=f"right without {name}")
    made.location = name
    return made


def test_no_text_of_a_stranger_is_markup() -> None:
    texts = ({EVIL: EVIL}, "x = 1", "````\nout", [EVIL])
    text = issue_text(result(EVIL), "outputs", EVIL, *texts).decode()
    assert "<script>" not in text.replace("\\<script", "")
    assert "@everyone" not in text
    assert "\x1b" not in text
    assert "(http://" not in text
    outside = text.split("`````")[0]
    assert outside.count("\n# ") == 1
    assert "\n# head" not in text


def test_the_title_names_the_layer_that_is_at_fault() -> None:
    made = result()
    made.layers = {"rnn": "torch.gru", "out": "torch.linear"}
    made.blame = Blame(who="layer", words="it is torch.gru (layer rnn), or how the plugin calls it")
    made.blamed_layers = ("rnn",)
    assert issue_title(made, "outputs") == f"torch.gru: {OFF}"
    made.blame, made.blamed_layers = None, ()
    made.wrong_layers = ("rnn",)
    assert issue_title(made, "outputs") == f"torch.gru: {OFF}"
    made.wrong_layers = ()
    assert issue_title(made, "outputs") == f"lesson6/x: {OFF}"
