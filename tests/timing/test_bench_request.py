"""Which cells a request stands for, what it refuses, and the command line that makes it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from wording import Wording

from harness.cli import cli
from harness.command.declared import values
from harness.commands import bench_request_of
from harness.errors import UsageError
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle.oracle import Oracle
from harness.oracle.tolerance import Deviation
from harness.runtime.session import Session
from harness.timing.options import BenchOptions
from harness.timing.proofs.values import count_correct_digits
from harness.timing.rates import count_operations, largest_product, least_bytes
from harness.timing.request import (
    TUNINGS,
    BenchRequest,
    Group,
    characters_read,
    check_request,
    entries_from,
    groups_of,
)
from harness.timing.workload import ROTATING, TimedCase


def test_default_is_all_of_lesson_6_in_both_modes() -> None:
    groups = groups_of(BenchRequest())
    assert [g.spec.name for g in groups] == [n for n in lesson6() for _ in range(2)]
    assert {g.mode for g in groups} == {"train", "forward"}
    assert {g.batch for g in groups} == {64}
    assert {g.time for g in groups} == {3, 8}


def test_quick_is_one_model_with_few_rounds_unless_the_user_says_otherwise() -> None:
    quick = BenchRequest.of({"quick": True, "specs": ()})
    assert [(g.spec.name, g.mode) for g in groups_of(quick)] == [("lesson6/keras_gru", "train")]
    assert (quick.path, quick.rounds) == ("native", 2)
    plain = values(BenchOptions, {"quick": True, "modes": ("forward", "train"), "rounds": 5})
    assert (BenchRequest.of(plain).modes, BenchRequest.of(plain).rounds) == (("train",), 2)
    other = BenchRequest.of({"quick": True, "specs": ("gpt",), "path": "derived"})
    assert (other.specs, other.path, other.modes) == (("gpt",), "derived", ("train",))


def test_sweep() -> None:
    groups = groups_of(
        BenchRequest(
            specs=("lesson6/sequence_rnn",),
            batches=(16, 64),
            times=(8, 32),
            sizes={"hidden": (32, 64)},
            modes=("train",),
        )
    )
    found = {(g.batch, g.time, g.sizes["hidden"]) for g in groups}
    assert found == {(b, t, h) for b in (16, 64) for t in (8, 32) for h in (32, 64)}
    assert len(groups) == len(found)


def test_length_of_an_unrolled_model_is_its_own() -> None:
    groups = groups_of(BenchRequest(specs=("lesson6/three_char",), times=(8, 32), modes=("train",)))
    assert [g.time for g in groups] == [3]


@pytest.mark.parametrize(
    ("name", "characters"),
    [("three_char", 3), ("first_rnn", 8), ("sequence_unrolled", 8), ("theano_rnn", 5)],
)
def test_characters_read(name: str, characters: int) -> None:
    assert characters_read(load_spec(f"lesson6/{name}"), 5) == (characters, "characters")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, "'float8'"),
        ({"path": "nativ"}, "'nativ' ... 'native'"),
        ({"modes": ("trian",)}, "'trian' ... 'train'"),
        ({"modes": ()}, ""),
        ({"batches": ()}, ""),
        ({"batches": (0,)}, "0"),
        ({"sizes": {"hidden": (0,)}}, "0"),
        ({"threads": -1}, ""),
        ({"rounds": 0}, ""),
        ({"timeout": 0.0}, ""),
    ],
)
def test_impossible_requests(options: dict[str, Any], message: str, wording: Wording) -> None:
    with wording.raises(UsageError, message):
        check_request(BenchRequest(**options))


def test_unknown_sizes_and_names(wording: Wording) -> None:
    with wording.raises(UsageError, "'hiden' ... 'hidden'"):
        groups_of(BenchRequest(sizes={"hiden": (3,)}))
    with pytest.raises(UsageError, match=r"--batch"):
        groups_of(BenchRequest(sizes={"batch": (3,)}))
    with wording.raises(UsageError, "'tosch' ... 'torch'"):
        entries_from(BenchRequest(backends=("torch",), environment={"tosch": {"A": "1"}}))


def test_a_size_is_that_of_the_specs_that_have_it() -> None:
    specs = ("lesson6/simple_rnn", "lesson6/theano_rnn")
    groups = groups_of(
        BenchRequest(specs=specs, modes=("forward",), sizes={"factors": (3, 4), "hidden": (5,)})
    )
    assert [(g.spec.name, g.sizes) for g in groups] == [
        (specs[0], {"factors": 3, "hidden": 5}),
        (specs[0], {"factors": 4, "hidden": 5}),
        (specs[1], {"hidden": 5}),
    ]


def test_environment_of_workers() -> None:
    request = BenchRequest(
        backends=("torch",), threads=3, environment={"torch": {"A": "1", "MKL_NUM_THREADS": "1"}}
    )
    (entry,) = entries_from(request)
    assert entry.launch.environment == {
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "3",
        "TF_NUM_INTEROP_THREADS": "1",
        "A": "1",
    }


def test_tunings_run_beside_the_plain_worker() -> None:
    found = entries_from(BenchRequest(backends=("torch",), tune=True))
    assert [c.label for c in found] == ["torch", "torch+malloc", "torch+hugepages"]
    plain, malloc, _ = (c.launch.environment for c in found)
    assert {n: v for n, v in malloc.items() if n not in plain} == TUNINGS["malloc"]


def case(mode: str, batch: int = 4) -> TimedCase:
    spec = load_spec("lesson6/sequence_rnn")
    return TimedCase(Group(spec, mode, batch, 3, {"hidden": 7}), "float32", 0)


def test_batches_differ_and_fresh_ones_are_never_seen_before() -> None:
    made = case("train")
    sets = [made.batches, made.make_batches(1), made.make_batches(2)]
    seen = {b["inputs"]["chars"].tobytes() for batches in sets for b in batches}
    assert len(seen) == 3 * ROTATING


def test_work_is_counted_by_hand() -> None:
    # vocab 86, factors 42, hidden 7, 4 sequences of 3.
    rows = 4 * 3
    products = 2 * rows * (42 * 7 + 7 * 7 + 7 * 86)
    assert count_operations(case("forward"))["forward_products"] == products
    train = count_operations(case("train"))
    assert train["forward_products"] == products
    # Each product has two of its size in the gradient; the state before the first step is fixed.
    assert 1.8 * products < train["gradient_products"] <= 2 * products
    assert largest_product(case("train")) == (rows, 7, 86)
    entries = 86 * 42 + 42 * 7 + 7 * 7 + 7 + 7 * 86 + 86
    assert least_bytes(case("forward")) == 4 * (entries + rows)
    assert least_bytes(case("train")) == 4 * (8 * entries + 2 * rows)


def test_plain_descent_slows_with_the_batch() -> None:
    spec = load_spec("lesson6/theano_rnn")
    rates = [
        TimedCase(Group(spec, "train", batch, 3, {}), "float32", 0).learning_rate
        for batch in (1, 10)
    ]
    assert rates == pytest.approx([0.01, 0.001])
    assert case("train", batch=640).learning_rate == 0.001


def test_without_a_training_the_rate_is_that_of_the_optimizer() -> None:
    made = TimedCase(Group(load_spec("dlrm"), "train", 4, 8, {}), "float32", 0)
    assert made.learning_rate == 0.1
    moved = [a for n, a in made.expected.values.items() if n.endswith(" moved")]
    assert moved
    assert all(np.any(array) for array in moved), "what does not move proves nothing"


def test_expectation_of_equal_comparisons_is_sharp() -> None:
    noise = case("train").expected.noise("float32")
    assert max(n for name, n in noise.items() if name.endswith(": loss")) < 1e-6
    assert min(noise.values()) > 0


@pytest.mark.parametrize(("dtype", "least"), [("float32", 4.0), ("bfloat16", 1.5)])
def test_digits_are_those_of_what_is_more_than_rounding(dtype: str, least: float) -> None:
    spec = load_spec("lesson6/three_char")
    made = TimedCase(Group(spec, "train", 8, 3, {"hidden": 7}), dtype, 0)
    programs = (made.programs["train"], made.programs["forward"])
    honest = Session(Oracle("reversed"), *programs, path="derived", dtype=dtype, rule=made.rule)
    deviations = made.compare(made.run(honest))
    assert all(d.agrees for d in deviations)
    told = count_correct_digits(made, deviations)
    assert told is not None
    assert least < told < 8
    if dtype == "bfloat16":
        # What Adam makes of a gradient that is nothing but rounding may go the other way.
        assert max(d.error for d in deviations) > 1


def test_no_digits_are_told_of_rounding_alone() -> None:
    made = case("train")
    assert count_correct_digits(made, [Deviation("step 1: loss", 1.9, 0.5, 8.0)]) is None


def options(*arguments: str) -> BenchRequest:
    found: list[BenchRequest] = []
    command = cli.get_command(None, "bench")  # type: ignore[arg-type]
    assert command is not None
    with command.make_context("bench", list(arguments)) as context:
        found.append(bench_request_of(values(BenchOptions, context.params)))
    return found[0]


def test_command_line() -> None:
    found = options(
        *("lesson6/simple_rnn", "--batch", "16,64", "--time", "4", "--size", "hidden=8,16"),
        *("--mode", "train", "--env", "torch:A=b=c", "--backend", "torch", "--tune"),
    )
    assert found.specs == ("lesson6/simple_rnn",)
    assert found.batches == (16, 64)
    assert found.times == (4,)
    assert found.sizes == {"hidden": (8, 16)}
    assert found.modes == ("train",)
    assert found.environment == {"torch": {"A": "b=c"}}
    assert found.tune
    assert options() == BenchRequest()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "16,x"), "--batch ... 'x' ... '16,x'"),
        (("--batch", "0"), "--batch ... '0'"),
        (("--env", "torch"), "--env ... [BACKEND:]NAME=VALUE ... 'torch'"),
        (("--size", "hidden"), "--size ... NAME=N,N ... 'hidden'"),
        (("--threshold", "-1"), "--threshold"),
        (("--records", "no/such/a.json"), "no/such"),
        (("--backend", "tosch"), "'tosch' ... 'torch'"),
        (("no/such/model",), "no/such/model"),
    ],
)
def test_usage_errors_are_messages(
    arguments: tuple[str, ...], message: str, wording: Wording
) -> None:
    done = CliRunner().invoke(cli, ["bench", *arguments])
    assert done.exit_code == 2
    wording.line(done.stderr, message)
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "rich", "pytest_benchmark", "harness.timing.run")
    code = (
        "import sys; from harness.cli import cli\n"
        "try: cli(['bench', '--help'])\n"
        f"finally: assert not {heavy!r} in sys.modules; "
        f"assert not set({heavy!r}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
