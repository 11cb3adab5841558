"""Options mean the same for every command, take lists in two forms, and stand in sections."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from places import ROOT
from wording import Wording

from harness.checking.explain_definition import Definitions, load_distributions
from harness.checking.options import LISTED, CheckOptions
from harness.checking.request import QUICK
from harness.command.declared import values
from harness.command.help import help_of
from harness.command.options import NEXT_NAME, interpreters, one_interpreter, only, variables
from harness.command.verbs import CHAPTERS
from harness.commands import check_request_of, cli
from harness.errors import UsageError
from harness.language import initializers
from harness.language.library import FOLDERS, Library

# What an option is beside its default and whether several values are taken, or why it differs.
DIFFERING = {
    "against": "another backend, or a model of a user's own",
    "between": "two columns of a file, or two frameworks",
    "batch": "rows of a training step, or sizes to time",
    "weights": "read, or written by train and import",
    "output": "a file, or the folder of a reproducer",
    "path": "one, or several for check",
    "size": "one number, or several for bench",
    "threads": "one number, or several for fuzz",
    "python": "of several backends, or the one to make an environment on",
}


def options() -> dict[str, dict[str, click.Option]]:
    """By option, the declaration of each command."""
    found: dict[str, dict[str, click.Option]] = defaultdict(dict)
    for name, command in cli.commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                found[max(option.opts, key=len).lstrip("-")][name] = option
    return found


def test_an_option_is_of_one_kind_everywhere() -> None:
    assert len(options()) > 40
    for word, by_command in options().items():
        kinds = {(o.is_flag, o.metavar, str(o.type.name)) for o in by_command.values()}
        assert len(kinds) == 1 or word in DIFFERING, (word, by_command)


def test_a_file_of_output_has_one_letter_everywhere() -> None:
    found = {
        name: tuple(option.opts)
        for name, command in cli.commands.items()
        for option in command.params
        if "--output" in option.opts
    }
    assert len(found) > 3
    assert set(found.values()) == {("-o", "--output")}, found


def test_a_timeout_says_what_it_is_for() -> None:
    pieces = {
        name: re.findall("for one ([a-z]+) of a backend", option.help or "")
        for name, option in options()["timeout"].items()
    }
    assert {name for name, found in pieces.items() if found == ["cell"]} == {"check", "localise"}
    assert {name for name, found in pieces.items() if found == ["pass"]} == {"run", "reduce"}
    assert all(found for found in pieces.values())


def test_every_option_and_command_has_its_section() -> None:
    for name in cli.commands:
        text = CliRunner().invoke(cli, [name, "--help"]).output
        further = text.partition("Further options:\n")[2].strip().splitlines()
        # Click keeps the help option of a first context, which without a group has no -h.
        assert all("--help" in row for row in further), name
    assert set(cli.commands) <= set(" ".join(CHAPTERS.values()).split())


def test_help_names_what_an_option_takes() -> None:
    text = CliRunner().invoke(cli, ["train", "--help-all"], terminal_width=100).output
    for shown in ("--backend BACKEND ", "--dtype DTYPE ", "--device DEVICE ", "--path PATH "):
        assert shown in text
    text = CliRunner().invoke(cli, ["list", "--help-all"], terminal_width=100).output
    assert "What to list:\n  --backends" in text


def test_weights_that_are_written_stand_with_what_is_kept() -> None:
    for name, title in (("train", "What to keep"), ("import", "What to keep"), ("run", "to run")):
        text = CliRunner().invoke(cli, [name, "--help-all"], terminal_width=100).output
        before, _, _ = text.partition("  --weights")
        assert title in re.findall(r"^\S.*(?=:$)", before, re.M)[-1], name


def test_every_help_is_a_sentence() -> None:
    for word, by_command in options().items():
        for name, option in by_command.items():
            text = option.help or ""
            assert re.match(r"[A-Za-z0-9'].*[.]$", text), (name, word, text)
            assert not text.startswith("Of "), (name, word)


@pytest.mark.parametrize("width", [40, 80, 100])
def test_help_is_whole(width: int) -> None:
    words = ("--help", "--help-all")
    for arguments in (["--help"], *([name, word] for name in cli.commands for word in words)):
        text = CliRunner().invoke(cli, arguments, terminal_width=width).output
        shown = re.sub(r"(\]|FILE)[.]{3}", "", text)
        assert "..." not in shown, arguments
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width


def test_help_has_three_examples_that_are_right() -> None:
    for name, command in cli.commands.items():
        examples = help_of(name)["examples"]
        assert len(examples) == 3, name
        for example in examples:
            assert len(example) <= 78, example
            program, verb, *words = shlex.split(example)
            assert (program, verb) == ("harness", name)
            with command.make_context(name, words):
                pass
            assert f"  {example}\n" in CliRunner().invoke(cli, [name, "--help"]).output


def test_help_shows_the_usual_options_and_all_on_demand() -> None:
    for name, by_word in words_of_help().items():
        usual = help_of(name).get("usual", "").split()
        assert {*usual} <= by_word["--help-all"], name
        assert by_word["--help"] == ({*usual} or by_word["--help-all"]), name
        assert len(by_word["--help"]) <= 16, name
        known = {max(o.opts, key=len)[2:] for o in cli.commands[name].params if "--" in str(o.opts)}
        assert by_word["--help-all"] == known, name
    every = CliRunner().invoke(cli, ["check", "--help-all"], terminal_width=100).output
    assert "[choices: float64, float32, bfloat16, float16]" in " ".join(every.split())
    assert "[default: cpu]" in every


def words_of_help() -> dict[str, dict[str, set[str]]]:
    """The options, without dashes, in each help of each command."""
    found: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for name in cli.commands:
        for option in ("--help", "--help-all"):
            text = CliRunner().invoke(cli, [name, option], terminal_width=100).output
            rows = text.partition("Examples:\n")[2]
            words = re.findall(r"^  (?:-\w, )?--([a-z-]+)", rows, re.MULTILINE)
            found[name][option] = {*words} - {"help", "help-all"}
    return found


def request(*arguments: str) -> object:
    command = cli.commands["check"]
    with command.make_context("check", list(arguments)) as context:
        return check_request_of(values(CheckOptions, context.params))


def test_lists_by_comma_or_repetition_are_the_same() -> None:
    one = request("--backend", "numpy,torch", "--dtype", "float32,float64", "--check", "loss,nan")
    two = request(
        *("--backend", "numpy", "--backend", "torch", "--dtype", "float32"),
        *("--dtype", "float64", "--check", "loss", "--check", "nan"),
    )
    assert one == two
    assert request("--size", "hidden=8,vocab=9") == request(
        "--size", "hidden=8", "--size", "vocab=9"
    )
    assert request("--path", "native,derived").paths == ("native", "derived")  # type: ignore[attr-defined]
    assert request("--path", "all").paths == ("native", "equations", "derived")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "--backend", "numpy,,torch"), "'numpy,,torch'"),
        (("bench", "--path", "native,derived"), "'native,derived'"),
        (("run", "mlp", "--backend", "numpy,torch"), "'numpy,torch'"),
        (("generate", "mlp", "--size", "batch=3"), ""),
        (("check", "--path", "both"), "'both' ... 'native,equations'"),
        (("check", "--path", "natve"), "'natve' ... 'native'"),
        (("check", "nothing/*"), "matches 'nothing/*'"),
        (("check", "--backend", "numpy", "torch"), "torch ... --backend numpy,torch"),
        (("report", "a.jsonl", "--html", "x"), "--html ... -o NAME.html"),
        (("check", "--backends", "numpy"), "--backends ... --backend"),
        (("bench", "--compare", "a.json"), "--compare ... --baseline FILE"),
        (("bench", "--json", "a.json"), "--records a.json"),
        (("train", "x", "--backend", "numpy", "--python", "torch=p"), "'torch'"),
    ],
)
def test_wrong_usage_says_what_is_right(
    arguments: tuple[str, ...], words: str, wording: Wording
) -> None:
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 2, found.output
    wording.line(" ".join(found.output.split()), words)


def test_patterns_of_models() -> None:
    found = request("lesson6/*gru*", "lesson6/keras_gru").specs  # type: ignore[attr-defined]
    assert found == ("lesson6/keras_gru", "lesson6/theano_gru", "lesson6/theano_gru_combined")


def test_quick_is_what_is_documented_unless_other_things_are_asked_for() -> None:
    found = request("--quick")
    assert {name: getattr(found, name) for name in QUICK} == QUICK
    other = request("--quick", "lesson6/first_rnn", "--dtype", "float64", "--check", "loss")
    assert (other.specs, other.dtypes) == (("lesson6/first_rnn",), ("float64",))  # type: ignore[attr-defined]
    assert other.checks == ("loss",)  # type: ignore[attr-defined]
    page = (ROOT / "docs/command-line.md").read_text()
    for name in (name for names in QUICK.values() for name in names):
        assert name in page


def both() -> tuple[str, ...]:
    return ("numpy", "torch")


def test_interpreters_and_variables_of_one_backend_or_of_all(wording: Wording) -> None:
    assert interpreters(["/a/python"], both) == {"numpy": "/a/python", "torch": "/a/python"}
    assert interpreters(["/a=b/python"], both)["numpy"] == "/a=b/python"
    assert interpreters(["/a", "torch=/b"], both) == {"numpy": "/a", "torch": "/b"}
    assert variables(["A=1", "torch:B=x:y=z"], both) == {
        "numpy": {"A": "1"},
        "torch": {"A": "1", "B": "x:y=z"},
    }
    for items in (["/a", "torch=/b"], ["torch=/b", "/a"], ["jax==0.4=/c", "/a"]):
        joined = one_interpreter(items)
        assert interpreters(NEXT_NAME.split(joined), both) == interpreters(items, both)
    for wrong in ("A", ":A=1", "=1", "numpy:=1"):
        with pytest.raises(UsageError, match="takes"):
            variables([wrong], both)
    with wording.raises(UsageError):
        interpreters(["/a", "/b"], both)
    with wording.raises(UsageError, "'torhc' ... 'torch'"):
        only("--env", {"torhc": {}}, "torch", {})


# --- Completion --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "begun", "wanted"),
    [
        (["check", "--backend"], "to", {"torch"}),
        (["check", "--backend"], "numpy,to", {"numpy,torch"}),
        (["check"], "lesson6/k", {"lesson6/keras_gru"}),
        (["check", "--check"], "train", {"training", "training-sgd", "trained"}),
        (["bench", "--mode"], "forward,", {"forward,train"}),
        (["check", "--dtype"], "float", {"float16", "float32", "float64"}),
        (["explain"], "gru", {"gru", "gru_concatenated", "gru_reset_after"}),
        (["export", "lesson6/keras_gru", "--to"], "on", {"onnx"}),
        (["check", "lesson6/simple_rnn", "--size"], "hid", {"hidden="}),
        (["train", "--text"], "b", {"builtin"}),
        ([], "ex", {"explain", "export"}),
    ],
)
def test_completion_knows_the_values(
    arguments: list[str],
    begun: str,
    wanted: set[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # with no environment of another version
    shell = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE")
    found = {item.value for item in shell.get_completions(arguments, begun)}
    assert found == wanted


def test_completion_offers_the_dtypes_that_a_command_takes() -> None:
    for name, option in options()["dtype"].items():
        with cli.commands[name].make_context(name, [], resilient_parsing=True) as context:
            offered = {item.value for item in option.shell_complete(context, "")}
        said = f"{option.help} {option.default}"
        assert offered == set(re.findall(r"\b(?:b?float|tf)[0-9]+", said)), name


def test_files_and_folders_are_left_to_the_shell() -> None:
    shell = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE")
    kinds = {
        word: {item.type for item in shell.get_completions(["check", word], "x")}
        for word in ("--records", "--specs")
    }
    assert kinds == {"--records": {"file"}, "--specs": {"dir"}}


# --- Definitions -------------------------------------------------------------------------------


def test_a_list_for_programs_reads_no_definition(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "bad.yaml").write_text("broken: [", encoding="utf-8")
    found = CliRunner().invoke(cli, ["list", "--layers", "--specs", str(tmp_path), "--json"])
    assert "bad" in json.loads(found.output)["layer"]


def test_a_wrong_variable_is_refused_without_a_backend() -> None:
    found = CliRunner().invoke(cli, ["explain", "lesson6/simple_rnn", "--env", "nonsense"])
    assert found.exit_code == 2
    assert "'nonsense'" in found.stderr


def test_explain_and_list_know_every_definition(wording: Wording) -> None:
    assert set(load_distributions()) == set(initializers.names())
    library = Library()
    for kind in FOLDERS:
        for name in library.names(kind) if kind != "model" else ():
            text = Definitions.of(name, library).text()
            assert text.startswith(f"{kind} {name}: ")
    assert Definitions.of("lesson6/simple_rnn", library).text() == ""
    gru = Definitions.of("gru", library).text()
    assert "z = gate(x_t @ W_z + b_z + h @ U_z)" in gru
    wording.line(gru, "lesson6/keras_gru, lesson6/theano_gru")
    assert "lesson6/simple_rnn" in Definitions.of("adam_epsilon_hat", library).text()


@pytest.mark.parametrize("kind", LISTED)
def test_list_shows_one_kind_with_summaries(kind: str) -> None:
    text = CliRunner().invoke(cli, ["list", f"--{kind}"]).output
    first, *rows = text.splitlines()
    assert first == kind
    assert rows
    assert all(len(row.split()) > 2 or kind == "initializers" for row in rows), rows
    found = json.loads(CliRunner().invoke(cli, ["list", f"--{kind}", "--json"]).output)
    assert len(found) == 1
    assert len(*found.values()) == len(rows)


def test_an_unknown_name_is_told_with_what_is_near(wording: Wording) -> None:
    found = CliRunner().invoke(cli, ["explain", "grru"])
    assert found.exit_code == 2
    wording.line(found.output, "'gru'")
