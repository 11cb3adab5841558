"""Constants: arrays that are read in equations and not trained."""

from __future__ import annotations

import numpy as np
import pytest
from constant_model import CONSTANTS, NAMES, with_constants
from wording import Wording

from harness.errors import SpecError, UsageError
from harness.language.checksums import checksum
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.library import Library
from harness.language.model import fingerprint
from harness.oracle.case import Case
from harness.oracle.draw import draw
from harness.oracle.oracle import Oracle
from harness.oracle.user_arrays import check_user_arrays
from harness.program.signature import index_names, result_ports, variable_ports
from harness.runtime.session import Session


def test_they_have_no_gradient_and_no_new_value() -> None:
    program = with_constants().program("training")
    assert [port.name for port in program.statistics] == NAMES
    assert not program.new_statistics
    assert not set(NAMES) & set(variable_ports(program))
    assert not [name for name in result_ports(program, "loss") if name.startswith("statistics.")]
    assert index_names(program) == {"own.places", "block.order"}


def test_entries_come_from_the_spec_or_are_drawn() -> None:
    program = with_constants().program("training")
    for arrays in (initial_statistics(program), draw(program, 2, 3, seed=5).statistics):
        assert arrays["own.rates"].tolist() == [1.0, 0.5, 0.25, 0.125]
        assert arrays["block.order"].tolist() == [2, 0, 3, 1]
        assert arrays["block.share"].tolist() == 0.5
        assert arrays["own.places"].dtype == arrays["block.order"].dtype == np.int64
        assert 0 <= arrays["own.places"].min() <= arrays["own.places"].max() < 6
        for name in ("scaled.0.scale", "scaled.1.scale"):
            assert 0.5 <= arrays[name].min() <= arrays[name].max() < 2
        assert (arrays["own.shift"] != 0).all()
        assert (arrays["scaled.0.scale"] != arrays["scaled.1.scale"]).all()


def test_entries_in_the_spec_are_not_rounded() -> None:
    text = CONSTANTS.replace("[1.0, 0.5, 0.25, 0.125]", "[0.1, 0.2, 0.3, 0.7]")
    arrays = draw(with_constants(text).program("training"), 2, 3, seed=5).statistics
    assert arrays["own.rates"].tolist() == [0.1, 0.2, 0.3, 0.7]


def test_given_arrays_need_no_entries_that_the_spec_lists() -> None:
    spec = with_constants()
    program = spec.program("training")
    arrays = initial_statistics(program)
    listed = {"own.rates", "block.order", "block.share"}
    given = {n: a for n, a in arrays.items() if n not in listed}
    found = check_user_arrays(spec, {}, statistics=given).arrays.statistics
    assert {n: a.tolist() for n, a in found.items()} == {n: a.tolist() for n, a in arrays.items()}
    with pytest.raises(UsageError, match=r"'rnn.keep' is missing"):
        check_user_arrays(spec, {}, statistics={n: a for n, a in given.items() if n != "rnn.keep"})
    with pytest.raises(UsageError, match=r"own.places\[0\] is 6"):
        check_user_arrays(spec, {}, statistics={**given, "own.places": np.full(5, 6)})


def test_equations_read_them_and_training_keeps_them() -> None:
    spec = with_constants()
    program = spec.program("training")
    material = draw(program, 2, 3, seed=1)
    session = Session(
        Oracle(), program, spec.program("inference"), dtype="float64", rule=spec.update
    )
    session.load(material.parameters, material.statistics)
    before = session.forward("inference", material.inputs, {})["output.logits"]
    session.step(material.inputs, {}, material.targets, 0.1)
    after = session.read()
    for name in NAMES:
        np.testing.assert_array_equal(after["statistics"][name], material.statistics[name])
    assert all((after["parameters"][n] != a).any() for n, a in material.parameters.items())
    assert set(after["slots"]["m"]) == set(material.parameters)
    for name in NAMES:
        array = material.statistics[name]
        other = (array + 1) % 4 if array.dtype.kind == "i" else array + 0.25
        session.load(material.parameters, {**material.statistics, name: other})
        assert (session.forward("inference", material.inputs, {})["output.logits"] != before).any()


def test_an_index_beyond_its_bound_is_refused(wording: Wording) -> None:
    spec = with_constants()
    program = spec.program("training")
    statistics = {**initial_statistics(program), "own.places": np.full(5, 6)}
    session = Session(Oracle(), program, spec.program("inference"), dtype="float64")
    with wording.raises(UsageError, "own.places[0] is 6 ... 5"):
        session.load(initial_parameters(program, 0), statistics)


def test_checks_of_a_case_draw_them_at_other_sizes() -> None:
    case = Case(with_constants(), {"vocab": 3, "offsets": 2}, 2, 3)
    assert case.material.statistics["own.places"].shape == (3,)
    assert case.material.statistics["own.places"].max() < 2


def test_they_are_part_of_the_meaning() -> None:
    texts = {
        CONSTANTS,
        CONSTANTS.replace("[2, 0, 3, 1]", "[2, 1, 3, 0]"),
        CONSTANTS.replace("value: 0.5", "value: 0.25"),
        CONSTANTS.replace("rates: {shape: [4], value: [1.0", "rates: {shape: [4], value: [2.0"),
    }
    assert len(texts) == len({fingerprint(with_constants(text)) for text in texts}) == 4
    layers = {checksum(with_constants(text).library, "layer", "block") for text in texts}
    assert len(layers) == 3
    assert checksum(Library(), "layer", "dense") == checksum(Library(), "layer", "dense")


PLACES = {
    "value too short": ("[1.0, 0.5, 0.25, 0.125]", "[1.0, 0.5]", ":8:30 ... 2"),
    "value nested": ("[1.0, 0.5, 0.25, 0.125]", "[1.0, [0.5], 2, 3]", ":8:36"),
    "value of text": ("[1.0, 0.5, 0.25, 0.125]", "[1.0, a, 2, 3]", ":8:36 ... 'a'"),
    "index beyond": ("[2, 0, 3, 1]", "[2, 0, 4, 1]", ":37:51 ... 3 ... 4"),
    "index of floats": ("[2, 0, 3, 1]", "[2, 0, 0.5, 1]", ":37:51 ... 0.5"),
    "named size": ("rates: {shape: [4], value", "rates: {shape: [vocab], value", ":8:34 ... vocab"),
    "unused": (" * rates", "", ":8:3 ... 'rates'"),
    "unused in a layer": ("share * moved", "moved", ":38:7 ... 'share'"),
    "bound": ("index: offsets", "index: offset", ":9:35 ... 'offset' ... 'offsets'"),
    "time": ("shift: {shape: [4]}", "shift: {shape: [time]}", ":11:1 ... own.shift"),
    "assigned": ("  x = embed(i)", "  rates = embed(i)", ":61:3 ... 'rates'"),
    "taken": ("  shift: {shape: [4]}", "  vocab: {shape: [4]}", ":10:3 ... 'vocab'"),
    "distribution": ("{low: start, high: 2}", "{low: start}", ":28:40"),
    "key": ("shift: {shape: [4]}", "shift: {shape: [4], values: 1}", ":10:23 ... 'values'"),
}


@pytest.mark.parametrize("case", PLACES)
def test_errors_name_the_place(case: str, wording: Wording) -> None:
    old, new, facts = PLACES[case]
    assert old in CONSTANTS
    with pytest.raises(SpecError) as caught:
        with_constants(CONSTANTS.replace(old, new))
    wording.line(caught.value, f"<models/consts.yaml>{facts}")
