"""What is said of figures that are not to be relied on, and of two models of one name."""

from __future__ import annotations

from bench_results import REQUEST, result
from wording import Wording

from harness.timing.compare import compare, environment_changes, relative_speeds
from harness.timing.json_file import document


def test_figures_that_are_not_to_be_relied_on_are_told_as_such(wording: Wording) -> None:
    before, after = result(step=0.001), result(step=0.002)
    before.record.doubts = ["not to be relied on: the machine had other work"]
    (change,) = compare(document(REQUEST, [before]), document(REQUEST, [after])).changes
    wording(change)
    other = result("torch")
    (line,) = relative_speeds(document(REQUEST, [before, other]), "numpy")
    wording(line)


def test_nothing_is_said_to_be_unchanged_where_no_figure_can_be_relied_on(wording: Wording) -> None:
    doubt = "not to be relied on: the machine had other work"
    cells = [result(), result("torch"), result("jax"), result("keras"), result("onnx")]
    sure = document(REQUEST, cells)
    cells[4].record.doubts = ["timed short"]  # no doubt of the figure itself
    for one in cells[:4]:
        one.record.doubts = ["timed short", doubt]
    unsure = document(REQUEST, cells)
    for old, new, which in ((sure, unsure, "newer"), (unsure, sure, "older")):
        found = compare(old, new)
        assert found.exit_code == 0
        wording.line(found.sentence, "4 ... 5")
        (told,) = found.limits
        wording.line(told, "4 ... 5 ... lesson6/sequence_rnn[numpy-")
        assert told.count(f" (the {which} speed: the machine had other work)") == 3
        assert told.endswith(", and 1 more")
        assert told in found.lines()
        wording.line(found.markdown(), "4 of 5")
        assert found.record()["limits"] == [told]
    # What changed all the same is told, with its doubt.
    slower = [result(step=0.002), *cells[1:]]
    found = compare(unsure, document(REQUEST, slower))
    wording.line(found.sentence, "1 ... 3 ... 5")
    once = document(REQUEST, [result(noise=(1.0,))])
    wording.line(compare(once, once).sentence, "1 ... 1")


def test_another_model_of_one_name_is_told(wording: Wording) -> None:
    before, after = result(), result()
    before.record.model, after.record.model = "a", "b"
    files = [document(REQUEST, [one]) for one in (before, after)]
    (told,) = map(str, environment_changes(*files))
    wording(told, f"{before.cell.spec}")
    assert environment_changes(files[0], files[0]) == []
