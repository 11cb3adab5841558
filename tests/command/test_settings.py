"""Defaults of options from pyproject.toml and the environment: which counts, what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from wording import Wording

from harness.command.settings import settings
from harness.commands import cli
from harness.errors import UsageError

KNOWN = {"check": ["backend", "dtype", "specs"], "bench": ["backend", "batch"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    return tmp_path


Parsed = Callable[..., dict[str, Any]]


@pytest.fixture
def parsed(folder: Path) -> Parsed:
    """The options of a command as it would get them."""

    def parse(*arguments: str) -> dict[str, Any]:
        with cli.make_context("harness", list(arguments), resilient_parsing=False) as context:
            name, command, rest = cli.resolve_command(context, list(arguments))
            assert command is not None
            with command.make_context(name, rest, parent=context) as found:
                return found.params

    return parse


def written(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "x"\n\n{text}')


def test_precedence(folder: Path, parsed: Parsed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line, then the environment, then the file; each for one command before for all."""

    def dtypes() -> tuple[Any, Any]:
        return parsed("check")["dtypes"], parsed("check", "--dtype", "given")["dtypes"]

    assert dtypes() == ((), ("given",))
    written(folder, '[tool.harness]\ndtype = "all"\n')
    assert dtypes() == (("all",), ("given",))
    written(folder, '[tool.harness]\ndtype = "all"\n[tool.harness.check]\ndtype = ["one", "two"]\n')
    assert dtypes() == (("one", "two"), ("given",))
    monkeypatch.setenv("HARNESS_DTYPE", "a,b")
    assert dtypes() == (("a", "b"), ("given",))
    monkeypatch.setenv("HARNESS_CHECK_DTYPE", "own")
    assert dtypes() == (("own",), ("given",))
    assert parsed("train", "x", "--backend", "numpy")["dtype"] == "a,b"


def test_every_form_of_a_value(folder: Path, parsed: Parsed) -> None:
    written(
        folder,
        """
[tool.harness]
backend = ["numpy", "torch"]
seed = 3
specs = "mine"
size = {hidden = 8}
python = {torch = "/venv/bin/python"}

[tool.harness.bench]
batch = [2, 4]
threads = 1
tune = true
""",
    )
    bench = parsed("bench")
    assert bench["backends"] == ("numpy", "torch")
    assert bench["batches"] == ("2", "4")
    assert bench["threads"] == 1
    assert bench["tune"] is True
    assert bench["sizes"] == ("hidden=8",)
    assert bench["pythons"] == ("torch=/venv/bin/python",)
    check = parsed("check")
    assert check["seed"] == 3
    assert check["folders"] == (folder / "mine",), "a path is meant from the file's folder"
    with pytest.raises(click.MissingParameter):
        parsed("train", "x")  # a list of backends is not for a command that takes one


def test_the_nearest_file_of_the_repository_counts(folder: Path, parsed: Parsed) -> None:
    inner = folder / "a/b"
    inner.mkdir(parents=True)
    written(folder, "[tool.harness]\nseed = 5\n")
    assert settings("check", {**KNOWN, "check": ["seed"]}, inner)["seed"].value == 5
    (folder / "a/.git").mkdir()
    assert settings("check", KNOWN, inner) == {}, "another repository's file is not ours"


def test_a_backslash_is_no_nul_character(folder: Path) -> None:
    written(folder, "[tool.harness]\nspecs = 'a\\x00b'\n")
    assert settings("check", KNOWN, folder)["specs"].value == "a\\x00b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[tool.harness]\nbackends = 'x'\n",
            "pyproject.toml:5:1 ... 'backends'",
        ),
        ("[tool.harness]\nzzzz = 1\n", "pyproject.toml:5:1 ... 'zzzz'"),
        ("[tool.harness]\nzzzz = 1\n", "'zzzz' ... batch ... dtype"),
        (
            "[tool.harness.chek]\ndtype = 'x'\n",
            "pyproject.toml:4:1 ... 'chek'",
        ),
        ("[tool.harness.check]\nbatch = 1\n", "pyproject.toml:5:1 ... 'batch'"),
        (
            "[tool.harness.bench]\n  bach = 1\n",
            "pyproject.toml:5:3 ... 'bach'",
        ),
        ("[tool.harness]\ncheck = 3\n", "'harness check' ... 3"),
        ("[tool.harness]\nx = \n", "pyproject.toml:5:5 ... TOML"),
        ("[tool.harness]\nx = '", "pyproject.toml ... TOML"),
        ("[tool.harness]\nx = " + "[" * 9000, ""),
        (
            f"[tool.other]\ny = 0\nx = {'1' * 5000}\n[tool.harness]\n",
            "pyproject.toml:6:5 ... 5,000 ... 4,300",
        ),
        (
            "[tool.harness]\n" + ".".join("a" * 5000) + " = 1\n",
            "toml:5:1 ... 5,000",
        ),
        (
            "[tool." + ".".join("a" * 5000) + "]\nharness = 1\n",
            "toml:4:1 ... 5,001",
        ),
        ('[tool.harness]\nspecs = "a\\u0000b"\n', "toml:5:1 ... 'specs' ... NUL"),
        (f"[tool.harness]\n{'b' * 5000} = 1\n", f"'{'b' * 57}...'"),
        (f"[tool.harness]\ncheck = '{'b' * 5000}'\n", f"{'b' * 56}"),
        # However the table is written, it is read.
        ("[tool]\nharness = {specz = 1}\n", "pyproject.toml ... 'specz'"),
        ('["tool".harness]\nspecz = 1\n', "pyproject.toml:5:1 ... 'specz'"),
        ("[tool]\nharness.specz = 1\n", "'specz' ... 'specs'"),
        ("[[tool.harness]]\nseed = 1\n", ""),
        ("[tool]\nharness = 3\n", "tool.harness ... 3"),
        # And one that is nearly it is told.
        ("[tool.harnes]\n", "toml:4:1 ... [tool.harness] ... [tool.h"),
        ("[tool.Harness.check]\n", "toml:4:1 ... [tool.harness]"),
        ("[harness]\nseed = 1\n", "toml:4:1 ... [tool.harness]"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(
    text: str, words: str, folder: Path, wording: Wording
) -> None:
    written(folder, text)
    with pytest.raises(UsageError) as found:
        settings("check", KNOWN, folder)
    wording.line(found.value, words)


@pytest.mark.parametrize(
    "text", ["tool = 3  # not harness\n", "[tool.harvest]\nx = 1\n", "[tool.other]\nharness = 1\n"]
)
def test_other_tables_are_let_be(text: str, folder: Path) -> None:
    (folder / "pyproject.toml").write_text(text)
    assert settings("check", KNOWN, folder) == {}


def test_the_place_of_a_key_is_found_in_linear_time(folder: Path, wording: Wording) -> None:
    """A pattern of cubic time would need hours for this row."""
    row = f"['''\n[{' ' * 100_000}\n''']"
    written(folder, f"[tool.other]\nx = {row}\n[tool.harness]\nzzzz = 1\n")
    with wording.raises(UsageError, "pyproject.toml:9:1 ... 'zzzz'"):
        settings("check", KNOWN, folder)


def test_a_file_that_is_no_text_is_named(folder: Path, wording: Wording) -> None:
    (folder / "pyproject.toml").write_bytes(b"[tool.harness]\nspecs = '\xff'\n")
    with wording.raises(UsageError, "pyproject.toml:2 ... UTF-8"):
        settings("check", KNOWN, folder)


def test_paths_are_meant_from_the_folder_of_the_file(
    folder: Path, parsed: Parsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every option that takes one; names of interpreters, models and texts stay names."""
    written(
        folder,
        """
[tool.harness.check]
html = "report.html"
junit = "j.xml"
records = "r.jsonl"
python = {torch = ".venv/bin/python", jax = "python3.12"}
against = "model.py:Net"
map = ["ours.map", "a=b"]
[tool.harness.train]
text = "mine.txt"
weights = "w.safetensors"
backend = "numpy"
[tool.harness.report]
base = "old.jsonl"
""",
    )
    inner = folder / "inner"
    inner.mkdir()
    for name in ("model.py", "ours.map", "mine.txt"):
        (folder / name).write_text("")
    monkeypatch.chdir(inner)
    check = parsed("check")
    assert {check[name] for name in ("html", "junit", "records")} == {
        folder / name for name in ("report.html", "j.xml", "r.jsonl")
    }
    assert check["pythons"] == (f"torch={folder}/.venv/bin/python", "jax=python3.12")
    assert check["against"] == f"{folder}/model.py:Net"
    assert check["maps"] == (f"{folder}/ours.map", "a=b")
    train = parsed("train", "x")
    assert (train["text"], train["weights"]) == (f"{folder}/mine.txt", folder / "w.safetensors")
    assert parsed("report", "x.jsonl", "-o", "x.html")["bases"] == (folder / "old.jsonl",)
    assert parsed("train", "x", "--text", "mine.txt")["text"] == "mine.txt"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dtype = 'flot32'", "(--dtype is from "),
        ("backend = ['numpy', 'nmpy']", "(--backend is from "),
        ("path = 'nativ'", "(--path is from "),
        ("size = {hiden = 3}", "(--size is from "),
        ("size = 'hidden'", "(--size is from "),
        ("specs = 'nosuch'", "(--specs is from "),
        ("baseline = 'nosuch.jsonl'", "(--baseline is from "),
    ],
)
def test_what_a_command_refuses_is_told_with_its_place(text: str, words: str, folder: Path) -> None:
    written(folder, f"[tool.harness.check]\n{text}\n")
    found = CliRunner().invoke(cli, ["check", "mlp"])
    assert found.exit_code == 2
    assert f"{words}{folder}/pyproject.toml:5:1)" in found.output.replace("\n", "")
    given = CliRunner().invoke(cli, ["check", "mlp", "--dtype", "flot32"])
    assert "--dtype is from" not in given.output, "it is from the command line"


def test_a_wrong_variable_that_a_command_refuses_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setenv("HARNESS_DTYPE", "flot32")
    found = CliRunner().invoke(cli, ["check", "mlp"])
    assert found.exit_code == 2
    wording.line(found.output, "--dtype ... HARNESS_CHECK_DTYPE ... HARNESS_DTYPE")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = 'x'", "'x' ... 0 ... 4,294,967,295"),
        ("quick = 1", "pyproject.toml:5:1: 'quick' ... 1"),
        ("seed = [[1]]", "pyproject.toml:5:1: 'seed' ... [[1]]"),
        ("backend = []", "'backend'"),
        ("backend = {a = 1}", "'backend' ... {'a': 1}"),
        ("size = [{a = 1}]", "'size'"),
        ("seed = [1, 2]", "pyproject.toml:5:1: 'seed' ... 2"),
        ("sede = 1", "pyproject.toml:5:1 ... 'sede' ... 'seed'"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(
    text: str, words: str, folder: Path, wording: Wording
) -> None:
    written(folder, f"[tool.harness.check]\n{text}\n")
    found = CliRunner().invoke(cli, ["check", "lesson6/simple_rnn"])
    assert found.exit_code == 2
    wording.line(found.output, words)
    assert CliRunner().invoke(cli, ["check", "--help"]).exit_code == 0, "help is always there"


def test_a_misspelt_variable_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setenv("HARNESS_BACKND", "numpy")
    found = CliRunner().invoke(cli, ["explain", "gru"])
    assert found.exit_code == 2
    wording.line(found.output, "HARNESS_BACKND ... HARNESS_BACKEND")


@pytest.mark.parametrize(
    "name", ["HARNESS_CORPUS", "HARNESS_START_TIMEOUT", "HARNESS_WORKER", "HARNESS_OF_OTHERS_XYZ"]
)
def test_other_variables_are_let_be(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "20")
    assert CliRunner().invoke(cli, ["explain", "gru"]).exit_code == 0


def test_a_wrong_variable_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setenv("HARNESS_SEED", "x")
    found = CliRunner().invoke(cli, ["check"])
    assert found.exit_code == 2
    wording.line(found.output, "HARNESS_CHECK_SEED ... HARNESS_SEED")


def test_a_word_that_is_an_option_and_a_command_is_the_option(folder: Path, parsed: Parsed) -> None:
    (folder / "pyproject.toml").write_text('[tool.harness.env]\nA = "1"\n"numpy:B" = "2"\n')
    assert parsed("check")["environment"] == ("A=1", "numpy:B=2")
    assert parsed("env", "--list")["words"] == ()
