"""What a stranger's text can do to a terminal: nothing. And what is lost where output is lost."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import ROOT

from harness.cli import _command
from harness.output.printing import visible

HARNESS = Path(sys.executable).with_name("harness")
MODEL = (ROOT / "specs/models/lesson6/simple_rnn.yaml").read_text()
QUICK = ("--backend", "numpy", "--check", "values")
ESCAPES = "\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J\r\x08"


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command as ``main`` does, in this process and a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        code = _command()
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert visible(text) == text, arguments
        return code, text

    return run


def named(folder: Path, name: str, file: str = "spec.yaml") -> Path:
    """A model whose name is any text."""
    path = folder / file
    path.write_text(MODEL.replace("model: lesson6/simple_rnn", f"model: {json.dumps(name)}"))
    return path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode 漢字 🙂\n\ttab", "plain, ünïcode 漢字 🙂\n\ttab"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x00\x07\x7f\x9b\r", "\\x00\\x07\\x7f\\x9b\\x0d"),
        ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"),
        ("\ud800", "\\ud800"),
        ("[/bold] :smile: [link=x]", "[/bold] :smile: [link=x]"),
    ],
)
def test_controls_become_visible_and_nothing_else_changes(text: str, shown: str) -> None:
    assert visible(text) == shown


# Names that the grammar of specs allows, or does not: either way they are shown, not obeyed.
@pytest.mark.parametrize("name", ["[/bold]", "[red]x", ":smile:", "a[b]", ESCAPES, "x\u202ey"])
@pytest.mark.parametrize("command", ["check", "explain", "train"])
def test_names_of_specs(name: str, command: str, run: Run, tmp_path: Path) -> None:
    path = named(tmp_path, name)
    more = {"check": QUICK, "explain": (), "train": QUICK[:2]}[command]
    if command == "train":
        more = (*more, "--epochs", "1", "--text", "no such text")
    code, text = run(command, path, *more)
    assert code in ((0, 2) if command != "train" else (2,)), text
    if command == "check" and code == 0:
        assert visible(name) in text


@pytest.mark.parametrize("name", [ESCAPES, "[/bold]", "[red]x", "\udcff"])
def test_names_of_files_backends_options_and_texts(name: str, run: Run) -> None:
    spec = "lesson6/simple_rnn"
    for arguments in (
        ("check", f"{name}.yaml"),
        ("check", spec, "--backend", name),
        ("check", spec, "--dtype", name),
        ("check", spec, "--check", name),
        ("check", spec, "--path", name),
        ("check", spec, "--specs", name),
        ("check", spec, "--size", f"{name}=3"),
        ("check", spec, "--size", f"hidden={name}"),
        ("check", spec, "--python", f"numpy={name}", "--backend", "numpy"),
        ("check", spec, "--env", name),
        ("check", spec, "--records", f"{name}/r"),
        ("check", spec, f"--{name}"),
        ("check", spec, "--seed", name),
        (name,),
        ("schema", name),
        ("explain", name),
        ("replay", name),
        ("compare", name, name),
        ("bench", spec, "--mode", name),
        ("bench", spec, "--threshold", name),
        ("train", spec, "--backend", "numpy", "--text", name),
        ("generate", spec, "--backend", "numpy", "--prompt", name, "--weights", name),
        ("export", spec, "--weights", name, "--to", name),
        ("import", spec, name, "--from", name, "--weights", "x"),
    ):
        code, text = run(*arguments)
        assert code in (2, 3), (arguments, text)


def test_names_of_specs_in_the_tables_of_bench(run: Run, tmp_path: Path) -> None:
    size = ("--rounds", "1", "--mode", "forward", "--size", "hidden=4", "--batch", "2")
    for more in ((), ("--print-markdown",)):
        code, text = run("bench", named(tmp_path, "[/bold]"), *QUICK[:2], *size, *more)
        assert code in (0, 2), text
        assert "[/bold]" in text


BACKEND = """
from harness.backends.numpy.backend import Numpy
from harness.runtime.hookspecs import hookimpl

@hookimpl
def harness_backend(name):
    backend = Numpy()
    backend.name = name
    def fail(*a, **k):
        raise ValueError("[/bold] \\x1b[31mred\\x1b[0m [link=http://x]here \\x07")
    backend.primitives = {**backend.primitives, "tanh": fail, "exp": fail, "matmul": fail}
    return backend
"""


def test_messages_and_names_of_backends(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(BACKEND)
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.backends]\nloud[/bold] = loud\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for more in ((), ("--verbose",), ("--json",)):
        done = subprocess.run(
            [HARNESS, "check", "lesson6/simple_rnn", "--backend", "loud[/bold]", *more],
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (1, 3), done.stderr
        assert "Traceback" not in done.stderr
        assert "[/bold]" in done.stdout
        assert visible(done.stdout + done.stderr) == done.stdout + done.stderr


def on_a_terminal(*arguments: str | Path) -> bytes:
    """What a command writes to a terminal."""
    terminal, theirs = os.openpty()
    # No pty.fork(): this process may have threads, of a framework that another test has loaded.
    process = subprocess.Popen(
        [HARNESS, *arguments],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    found = b""
    try:
        while part := os.read(terminal, 65536):
            found += part
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(terminal)
    process.wait()
    return found


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_on_a_terminal_too(tmp_path: Path) -> None:
    found = on_a_terminal("check", tmp_path / "x\x1b]0;title\x07[/bold].yaml", *QUICK)
    assert b"\x1b]0;" not in found
    assert b"Traceback" not in found
    assert b"\\x1b]0;title" in found
    good = on_a_terminal("check", "lesson6/simple_rnn", *QUICK)
    assert b"\x1b[" in good, "what rich draws itself is drawn"


# --- Where output is lost ----------------------------------------------------------------------


def lost(command: str, **more: str) -> tuple[int, str]:
    """Exit code of the first command of a pipeline, and what is on standard error."""
    done = subprocess.run(
        ["bash", "-c", f'"$HARNESS" {command}; exit "${{PIPESTATUS[0]}}"'],
        env={**os.environ, "HARNESS": str(HARNESS), **more},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


CHECK = "check lesson6/simple_rnn --backend numpy --check values"
FULL = "cannot write the output: no space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", ["list", "--help", "--version", "schema model", "explain lesson6/simple_rnn"]
)
def test_a_full_device_and_a_closed_pipe(command: str, unbuffered: str) -> None:
    assert lost(f"{command} > /dev/full", PYTHONUNBUFFERED=unbuffered) == (2, FULL)
    assert lost(f"{command} | true", PYTHONUNBUFFERED=unbuffered) == (141, "")


@pytest.mark.parametrize("more", ["", "--json", "--verbose"])
def test_a_run_whose_output_is_lost(more: str) -> None:
    code, errors = lost(f"{CHECK} {more} > /dev/full")
    assert code == 2
    assert errors.endswith(FULL)
    assert "Traceback" not in errors
    code, errors = lost(f"{CHECK} {more} | true")
    assert code == 141
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("list 2>/dev/full", 0),
        ("--nope 2>/dev/full", 2),
        ("list >/dev/full 2>/dev/full", 2),
        ("list >&-", 0),
        ("--nope 2>&-", 2),
        (f"{CHECK} >&- 2>&- <&-", 0),
    ],
)
def test_standard_files_that_are_full_or_closed(command: str, code: int) -> None:
    assert lost(command)[0] == code


def test_a_record_file_is_not_taken_for_the_output(tmp_path: Path) -> None:
    """With standard output closed, its number would be given to the next file that is opened."""
    assert lost(f"{CHECK} --records {tmp_path}/r >&- 2>&-")[0] == 0
    for line in (tmp_path / "r").read_text().splitlines():
        json.loads(line)


def test_an_encoding_that_lacks_characters() -> None:
    code, errors = lost(f"{CHECK} --size hidden=ü", PYTHONIOENCODING="ascii")
    assert code == 2
    assert "Traceback" not in errors
    assert lost(CHECK, PYTHONIOENCODING="ascii")[0] == 0


# --- One door ----------------------------------------------------------------------------------


def printing(path: Path) -> Iterator[str]:
    """What of a file prints without the door of harness/output/printing.py."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        bare = called in ("print", "click.echo", "click.secho", "sys.stdout.write", "Console")
        marked = called == "TextColumn" and "task.fields" in ast.unparse(node.args[0])
        markup = marked and ":" not in ast.unparse(node.args[0]) and given.get("markup") != "False"
        rows = called.endswith((".add_row", ".add_column")) and any(
            isinstance(argument, ast.Name | ast.JoinedStr | ast.Attribute) for argument in node.args
        )
        if bare or markup or rows:
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {called}"


# Programs of their own (``python -m``), whose output another process of the harness reads.
PROGRAMS = (
    *("harness/runtime/needs.py", "harness/environments/proof.py"),
    "harness/worker/programs.py",
)


def test_nothing_is_printed_past_the_door() -> None:
    doors = {ROOT / "harness" / "output" / "printing.py", *(ROOT / name for name in PROGRAMS)}
    files = [p for p in (ROOT / "harness").rglob("*.py") if p not in doors]
    assert len(files) > 100
    assert [told for path in files for told in printing(path)] == []
