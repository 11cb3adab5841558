"""What is said of figures that are not to be relied on, and of two models of one name."""

from __future__ import annotations

from bench_results import REQUEST, result

from harness.timing.compare import compare, environment_changes, relative
from harness.timing.json_file import document


def test_figures_that_are_not_to_be_relied_on_are_told_as_such() -> None:
    before, after = result(step=0.001), result(step=0.002)
    before.record.doubts = ["not to be relied on: the machine had other work"]
    (change,) = compare(document(REQUEST, [before]), document(REQUEST, [after])).changes
    assert str(change).endswith("(the older figure is not to be relied on)")
    other = result("torch")
    (line,) = relative(document(REQUEST, [before, other]), "numpy")
    assert str(line).endswith("(numpy's figure is not to be relied on)")


def test_nothing_is_said_to_be_unchanged_where_no_figure_can_be_relied_on() -> None:
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
        assert found.sentence.endswith(
            ": nothing can be said of the speed of 4 of 5 cells; nothing else changed"
        )
        (told,) = found.limits
        assert told.startswith("4 of 5 cells cannot be relied on: lesson6/sequence_rnn[numpy-")
        assert told.count(f" (the {which} figure: the machine had other work)") == 3
        assert told.endswith(", and 1 more")
        assert told in found.lines()
        assert "4 of 5 cells cannot be relied on" in found.markdown()
        assert found.record()["limits"] == [told]
    # What changed all the same is told, with its doubt.
    slower = [result(step=0.002), *cells[1:]]
    found = compare(unsure, document(REQUEST, slower))
    assert found.sentence.endswith(": 1 slower; nothing can be said of the speed of 3 of 5 cells")
    once = document(REQUEST, [result(noise=(1.0,))])
    assert "of the speed of 1 of 1 cell;" in compare(once, once).sentence


def test_another_model_of_one_name_is_told() -> None:
    before, after = result(), result()
    before.record.model, after.record.model = "a", "b"
    files = [document(REQUEST, [one]) for one in (before, after)]
    (told,) = map(str, environment_changes(*files))
    assert told == f"the spec, or sizes of its own, have changed: {before.cell.spec}"
    assert environment_changes(files[0], files[0]) == []
