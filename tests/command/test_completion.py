"""Completion as the shells themselves do it: whole words, files, sizes, lists, and odd names."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from wording import Wording

from harness.command.options import WordList
from harness.commands import cli

HARNESS = Path(sys.executable).with_name("harness")
MODEL = """\
model: mine
summary: A test.
source: A test.
sizes: {features: 5, units: 3}
inputs:
  x: {shape: [batch, features]}
layers:
  out: {layer: dense, units: units}
equations: |
  y = out(x)
"""
# What is typed, and what stands there after the key for completion.
TYPED = {
    "harness check mi": "harness check mine.yaml ",
    "harness check fold": "harness check folder/",
    "harness check lesson6/keras_g": "harness check lesson6/keras_gru ",
    "harness check --backend nu": "harness check --backend numpy ",
    "harness check --backend=nu": "harness check --backend=numpy ",
    "harness check --backend torch,nu": "harness check --backend torch,numpy ",
    "harness check --backend=torch,nu": "harness check --backend=torch,numpy ",
    "harness check --backend torch@1": "harness check --backend torch@1.2.3 ",
    "harness check --backend=numpy,torch@": "harness check --backend=numpy,torch@1.2.3 ",
    "harness check mine.yaml --size fe": "harness check mine.yaml --size features=",
    "harness check mine.yaml --size=units=8,f": "harness check mine.yaml --size=units=8,features=",
    "harness run mine.yaml --path na": "harness run mine.yaml --path native ",
    "harness check --path al": "harness check --path all ",
    "harness train mine.yaml --path fas": "harness train mine.yaml --path fastest ",
    "harness check --weights=num": "harness check --weights=numbers.npz ",
    "harness check --against num": "harness check --against numbers.npz ",
    "harness differences hard_s": "harness differences hard_sigmoid ",
    "harness upgrade torch torch --want sp": "harness upgrade torch torch --want speed ",
    "harness check --specs hostile a": "harness check --specs hostile a\\ b ",
    "harness check --specs hostile '$(to": "harness check --specs hostile '$(touch x)' ",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Specs, numbers, an environment of another version, and definitions with hostile names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "cache/backend-comparison-harness/environments/torch@1.2.3"
    made.mkdir(parents=True)
    about = {"column": "torch@1.2.3", "requirements": ["torch==1.2.3"], "versions": {}}
    about |= {"python": "3.11", "made": "2026-01-01T00:00:00Z", "harness": "0.1.0"}
    (made / "environment.json").write_text(json.dumps(about))
    here = tmp_path / "here"
    (here / "folder").mkdir(parents=True)
    (here / "mine.yaml").write_text(MODEL)
    (here / "broken.yaml").write_text("model: [\n")
    (here / "numbers.npz").write_text("")
    hostile = here / "hostile/models"
    hostile.mkdir(parents=True)
    for name in ("a b", "$(touch x)", "new\nline", "\x1b]0;title\x07"):
        (hostile / f"{name}.yaml").write_text("")
    return here


class Typist:
    """Somebody at a shell that completes at the tab, and at ^T writes the line down."""

    def __init__(self, folder: Path, shell: list[str], setting_up: str) -> None:
        self.folder, self.shown = folder, folder.parent / "line"
        env = {**os.environ, "TERM": "dumb", "PATH": f"{HARNESS.parent}:{os.environ['PATH']}"}
        self.terminal, its = os.openpty()
        # Not pty.fork(): the process that tests may have threads, of JAX among others.
        command = ["setsid", "--ctty", "--wait", *shell]
        self.child = subprocess.Popen(
            command, cwd=folder, env=env, stdin=its, stdout=its, stderr=its
        )
        os.close(its)
        os.write(self.terminal, f"{setting_up}; echo > {self.shown}\n".encode())
        self._line()

    def completed(self, line: str) -> str:
        """The line after a tab."""
        os.write(self.terminal, f"{line}\t\x14".encode())
        found = self._line()
        os.write(self.terminal, b"\x05\x15")  # the end of the line, and all of it away
        return found

    def _line(self) -> str:
        patience = time.monotonic() + 60
        while not self.shown.exists() or not self.shown.read_text():
            assert time.monotonic() < patience
            if select.select([self.terminal], [], [], 0.05)[0]:
                os.read(self.terminal, 65536)
        found = self.shown.read_text()
        self.shown.unlink()
        return found

    def close(self) -> None:
        os.close(self.terminal)
        self.child.wait()


def source(shell: str) -> str:
    return f'eval "$(_HARNESS_COMPLETE={shell}_source harness)"'


@pytest.fixture
def bash(folder: Path) -> Iterator[Typist]:
    key = f"""bind -x '"\\C-t": printf "%s\\n" "$READLINE_LINE" > {folder.parent}/line'"""
    typist = Typist(folder, ["bash", "--norc", "--noprofile", "-i"], f"{source('bash')}; {key}")
    yield typist
    typist.close()


@pytest.fixture
def zsh(folder: Path) -> Iterator[Typist]:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    key = f'show() {{ print -r -- "$BUFFER" > {folder.parent}/line }}; zle -N show'
    start = f"autoload -U compinit; compinit -u -D; {source('zsh')}; {key}; bindkey '^T' show"
    typist = Typist(folder, ["zsh", "-f", "-i"], start)
    yield typist
    typist.close()


def test_what_bash_puts_there(bash: Typist) -> None:
    found = {line: bash.completed(line).removesuffix("\n") for line in TYPED}
    assert found == TYPED


def test_what_zsh_puts_there(zsh: Typist) -> None:
    found = {line: zsh.completed(line).strip() for line in TYPED}
    assert found == {line: whole.strip() for line, whole in TYPED.items()}


def asked_of_fish(line: str, folder: Path) -> str:
    """What fish would put there, a line for each, with what it says of it behind a tab."""
    start = "_HARNESS_COMPLETE=fish_source harness | source"
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"{start}; complete -C {shlex.quote(line)}"],
        cwd=folder,
        env={**os.environ, "PATH": f"{HARNESS.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_what_fish_puts_there(folder: Path) -> None:
    for line, whole in TYPED.items():
        # It has the words without quotes, and puts those that they need itself.
        found = asked_of_fish(line, folder).split("\t")[0].removesuffix("\n")
        assert found == shlex.split(whole)[-1], line


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_puts_no_space_before_a_word_that_is_not_begun(folder: Path) -> None:
    found = asked_of_fish("harness check --path ", folder).splitlines()
    assert sorted(found) == ["all", "derived", "equations", "native"]


def answered(line: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """What the harness answers bash."""
    variables = {**os.environ, "_HARNESS_COMPLETE": "bash_complete", "COMP_LINE": line, **env}
    return subprocess.run(
        [HARNESS], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("harness check mine.yaml --size ", "part,features=\npart,units=\n"),
        ("harness check broken.yaml --size ", "\n"),
        ("harness check nosuch.yaml --size ", "\n"),
        ("harness check --backend nu", "plain,numpy\n"),
    ],
)
def test_nothing_is_said_at_a_prompt(line: str, shown: str, folder: Path) -> None:
    """Wrong files and settings are told by the command, not between two letters."""
    (folder / ".git").mkdir()
    (folder / "pyproject.toml").write_text("[tool.harness]\nbackends = 'torch'\n")
    done = answered(line, folder, HARNESS_BACKND="numpy")
    assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0)


def test_names_that_act_on_the_terminal_are_left_out(folder: Path) -> None:
    found = answered("harness check --specs hostile ", folder).stdout.splitlines()
    assert "plain,a\\ b" in found
    assert "plain,\\$\\(touch\\ x\\)" in found
    assert not [line for line in found if "title" in line or not line.startswith("plain,")]


def test_another_shell_is_told_which_there_are(folder: Path, wording: Wording) -> None:
    done = answered("", folder, _HARNESS_COMPLETE="bash")
    assert done.returncode == 2
    wording(done.stderr, "_HARNESS_COMPLETE ... bash_source, zsh_source, fish_source ... 'bash'")


def test_every_kind_of_value_has_something_to_offer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is neither a number nor free text."""
    free = {
        *(
            "threshold",
            "shard",
            "environment",
            "environments",
            "takes",
            "returns",
            "prompt",
            "encoding",
            "like",
        ),
        *(
            "batches",
            "times",
            "phase_",
            "inputs",
            "traced_inputs",
            "large_inputs",
            "name",
            "threads",
        ),
    }
    monkeypatch.chdir(folder)
    for name, command in cli.commands.items():
        with command.make_context(name, [], resilient_parsing=True) as context:
            for param in command.params:
                text = isinstance(param.type, WordList) or param.type is click.STRING
                if not text or param.name in free:
                    continue
                assert param.shell_complete(context, ""), (name, param.name)
