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


def test_another_model_of_one_name_is_told() -> None:
    before, after = result(), result()
    before.record.model, after.record.model = "a", "b"
    files = [document(REQUEST, [one]) for one in (before, after)]
    (told,) = map(str, environment_changes(*files))
    assert told == f"the spec, or sizes of its own, have changed: {before.cell.spec}"
    assert environment_changes(files[0], files[0]) == []
