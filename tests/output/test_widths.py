"""Each verb's output at 80 and 40 columns and in a pipe: nothing is cut, lost, or split."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from sampling import sampled
from terminals import ESCAPE, plain, shown

from harness.commands import cli
from harness.output.folding import wrap

MODEL = "lesson6/simple_rnn"
NUMPY = (MODEL, "--backend", "numpy")
TEXT = "the quick brown fox jumps over the lazy dog. " * 40
SMALL = ("--size", "hidden=8")
TRAIN = ("train", *NUMPY, *SMALL, "--text", "text", "--epochs", "1")
BENCH = ("bench", *NUMPY, *SMALL, "--rounds", "1", "--batch", "2", "--mode", "forward")
COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("check", *NUMPY, *SMALL, "--path", "all", "--check", "outputs"),
    "check --verbose": ("check", *NUMPY, "--check", "outputs", "--verbose"),
    "bench": (*BENCH, "--path", "derived"),
    "bench --verbose": (*BENCH, "--verbose", "--path", "derived"),
    "compare": ("compare", "old.json", "new.json"),
    "generate": ("generate", *NUMPY, "--weights", "weights", "--prompt", "the quick "),
    "export": (
        "export",
        MODEL,
        "--weights",
        "weights",
        "--to",
        "jax",
        "--output",
        "OUT.npz",
        "--force",
    ),
    "list": ("list",),
    "list --layers": ("list", "--layers"),
    "differences": ("differences", "gru", "--between", "torch", "keras"),
    "explain": ("explain", MODEL),
    "a wrong spec": ("check", "lesson6/simple_rn"),
}
# Their tables' other widths are tried in tests/timing, without timing anything.
SLOW = frozenset({"bench", "bench --verbose", "export"})
# What is not the same in two runs, and times of different lengths.
VOLATILE = re.compile(r"[0-9]([0-9,.]*[0-9])?(e-[0-9]+)?")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, weights and results of bench."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "text").write_text(TEXT)
    assert shown((*TRAIN, "--weights", "weights"), folder, columns=None)[0] == 0
    command = (*BENCH, "--records", "old.json", "--size", "vocab=9")
    assert shown(command, folder, columns=None)[0] == 0
    document = json.loads((folder / "old.json").read_text())
    for benchmark in document["benchmarks"]:
        for name in ("min", "max", "mean", "median", "q1", "q3"):
            benchmark["stats"][name] *= 3
        benchmark["stats"]["data"] = [3 * seconds for seconds in benchmark["stats"]["data"]]
    (folder / "new.json").write_text(json.dumps(document))
    return folder


Show = Callable[..., str]


@pytest.fixture
def show(made: Path) -> Show:
    def run(name: str, **how: object) -> str:
        arguments = COMMANDS[name]
        errors = name == "a wrong spec"
        code, text = shown((*arguments, *how.pop("more", ())), made, errors=errors, **how)
        assert code in (0, 1) or errors, text
        return text

    return run


def words(text: str) -> list[str]:
    """The words and numbers of a text, in any order; rules, boxes and numbers that vary aside."""
    text = re.sub(r"-\s*\n\s*", "-", re.sub(r"[^\x00-\x7f]", " ", text))
    return sorted(word.strip("|;,:()[]") for word in VOLATILE.sub("0", text).split())


@pytest.mark.parametrize(
    "name",
    sampled(COMMANDS, [name for name in COMMANDS if name not in ("bench --verbose", "export")]),
)
def test_nothing_is_cut_at_any_width(name: str, show: Show) -> None:
    piped = show(name, columns=None)
    assert not ESCAPE.search(piped)
    assert "…" not in piped
    # What a pipe shows, in one piece, has every word that a terminal shows.
    known = set(words(piped))
    for columns, env in ((80, {}), (40, {"NO_COLOR": "1"}))[name in SLOW :]:
        text = show(name, columns=columns, env=env)
        assert "…" not in text
        colours = re.findall(r"\x1b\[[0-9;]*[34][0-9]m", text)
        assert not (env and colours)
        bare = plain(text)
        if name != "generate":  # a text is written as it is
            for line in bare.splitlines():
                # What is to be pasted stays in one piece.
                whole = " " not in line.strip() or line.strip().startswith("pip install '")
                assert cell_len(line) <= columns or whole, line
        split = set(words(bare)) - known
        assert not split, (columns, split)
        lost = known - set(words(bare)) - {"0", "", "system", "cell"}  # a paragraph has no headings
        assert not lost, (columns, lost)


@pytest.mark.parametrize(
    ("row", "columns", "shown"),
    [
        ("  name      what it is", 40, ["  name      what it is"]),
        (
            "  name      what it is, told in more words than fit",
            40,
            ["  name      what it is, told in more", "            words than fit"],
        ),
        (
            "  a_longer_name      what it is, in more words than fit",
            40,
            ["  a_longer_name", "    what it is, in more words than fit"],
        ),
        ("    it is (in/some/folder/of/a/file.yaml:27)", 36, ["    it is"]),
    ],
)
def test_a_row_of_columns_keeps_them_apart(row: str, columns: int, shown: list[str]) -> None:
    """What is folded stands below its own column, or by itself; a path is not pushed out."""
    found = wrap(row, columns).splitlines()
    assert found[: len(shown)] == shown
    assert all(len(line) <= columns for line in found)
    assert "".join(row.split()) == "".join("".join(found).split())


def test_a_pipe_has_no_width(show: Show) -> None:
    """Three paths of two dtypes need more than any width that could be assumed."""
    rows = [line for line in show("check", columns=None).splitlines() if "simple_rnn" in line]
    assert len(re.findall(r"[0-9]+[.][0-9]", rows[0])) == 6


@pytest.mark.parametrize(
    "env", [{"FORCE_COLOR": "1", "TERM": "dumb"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}]
)
def test_a_pipe_has_no_width_whatever_it_is_taken_for(env: dict[str, str], show: Show) -> None:
    rows = plain(show("check", columns=None, env=env)).splitlines()
    assert any(len(re.findall(r"[0-9]+[.][0-9]", row)) == 6 for row in rows), rows


def test_a_width_may_be_given_to_a_pipe(show: Show) -> None:
    text = show("explain", columns=None, env={"COLUMNS": "50"})
    assert max(map(cell_len, text.splitlines())) <= 50


@pytest.mark.parametrize("columns", [36, 40, 51, 60])
def test_help_is_as_wide_as_the_terminal(columns: int, made: Path) -> None:
    for arguments in ((), ("check",), ("upgrade",)):
        code, text = shown((*arguments, "--help"), made, columns=columns)
        assert code == 0
        # An example is copied, and stays in one piece.
        lines = [line for line in text.splitlines() if not line.startswith("  harness ")]
        lines = [line for line in lines if " " in line.strip()]
        assert len(lines) > 10
        assert max(map(cell_len, lines)) <= columns


def test_help_of_options_lists_nothing_else() -> None:
    """SPEC and FILE stand in the line of the usage, which says how many may be given."""
    for name, command in cli.commands.items():
        with command.make_context(name, ["--help"], resilient_parsing=True) as context:
            _, _, further = command.get_help(context).partition("Further options:\n")
        words = [line.split()[0] for line in further.splitlines() if line[2:3].strip()]
        assert words, name
        assert all(word.startswith("-") for word in words), (name, words)


@pytest.mark.parametrize("verb", ["list", "schema model", "check"])
def test_what_a_program_reads_is_never_folded(verb: str, made: Path) -> None:
    more = {"check": (*NUMPY, "--check", "outputs", "--json"), "list": ("--json",)}.get(verb, ())
    code, text = shown((*verb.split(), *more), made, columns=40)
    assert code == 0
    json.loads(text)
