"""Environments of other versions: made whole or not at all, kept, found by their column."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from sampling import sampled
from wording import Wording

from harness.environments import installed, make, request
from harness.environments.request import DISTRIBUTION, environment_name, read_request
from harness.errors import UsageError
from harness.files.lock import hold_lock

HARNESS = Path(sys.executable).parent / "harness"
# Of no other environment, so that venv and pip are taken: what tests run here has no uv.
PATH = "/usr/bin:/bin"
WANTED = f"numpy=={np.__version__}"
COLUMN = f"numpy@{np.__version__}"


def closure(name: str) -> dict[str, None]:
    """A distribution, and all that it requires, as they are installed here."""
    found: dict[str, None] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found[one] = None
            required = map(Requirement, request.find_distribution(one).requires or ())
            waiting += [
                r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})
            ]
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of all that the harness needs, packed from what is installed: no network is asked."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in closure(DISTRIBUTION):
        if name != DISTRIBUTION:
            request.pack(request.find_distribution(name), folder)
    return folder


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """An empty cache folder, for this process and for commands; pip finds nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return {**os.environ, "PATH": PATH, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}


def env(
    words: tuple[str, ...], surroundings: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    command = [str(HARNESS), "env", *words]
    return subprocess.run(
        command, env=surroundings, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_an_environment_is_made_found_listed_and_removed(
    surroundings: Mapping[str, str], wheels: Path, wording: Wording
) -> None:
    offline = {**surroundings, "PIP_FIND_LINKS": str(wheels)}
    made = env((WANTED,), offline)
    assert made.returncode == 0, made.stderr
    assert f"use it with: --backend {COLUMN}" in made.stdout
    python = installed.find_interpreter(COLUMN)
    assert Path(python).is_relative_to(installed.root())
    assert f"--backend {COLUMN}={python}" in made.stdout
    words = ("check", "lesson6/three_char", "--check", "values", "--dtype", "float32")
    checked = subprocess.run(
        [HARNESS, *words, "--backend", f"numpy,{COLUMN}", "--json"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert {r["backend"] for r in json.loads(checked.stdout)["results"]} == {"numpy", COLUMN}
    (listed,) = json.loads(env(("--list", "--json"), offline).stdout)
    assert (listed["column"], listed["interpreter"]) == (COLUMN, python)
    assert listed["requirements"] == [WANTED]
    # What is there is not made again; with other requirements it is not taken for the same.
    began = time.monotonic()
    assert env((WANTED,), offline).returncode == 0
    assert time.monotonic() - began < 30
    other = env((WANTED, "scipy>=1"), offline)
    assert other.returncode == 2
    assert "--force" in other.stderr
    assert env((COLUMN, "--remove"), offline).returncode == 0
    with wording.raises(UsageError):
        installed.find_interpreter(COLUMN)
    wording(env(("--list",), offline).stdout)


def test_what_cannot_be_installed_leaves_nothing(surroundings: Mapping[str, str]) -> None:
    failed = env(("numpy==0.0.1",), surroundings)
    assert failed.returncode == 3
    assert "command failed:" in failed.stderr
    assert "numpy==0.0.1" in failed.stderr
    assert not (installed.root() / "numpy@0.0.1").exists()
    assert installed.complete_environments() == {}


@pytest.mark.alone
@pytest.mark.parametrize("how", sampled([signal.SIGKILL, signal.SIGINT], [signal.SIGKILL]))
def test_what_was_cut_short_is_never_taken_for_whole(
    surroundings: Mapping[str, str], how: signal.Signals
) -> None:
    folder = installed.root() / COLUMN
    command = [str(HARNESS), "env", WANTED]
    with subprocess.Popen(command, env=surroundings, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while not folder.exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(how)
        process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert installed.complete_environments() == {}
    with pytest.raises(UsageError, match=f"'harness env {WANTED}'"):
        installed.find_interpreter(COLUMN)
    # The next one finds nothing in its way: this fails for want of packages, and not before.
    again = env((WANTED,), surroundings)
    assert again.returncode == 3
    assert "pip install" in again.stderr


def test_two_do_not_make_one_at_a_time(surroundings: Mapping[str, str], wording: Wording) -> None:
    installed.root().mkdir(parents=True)
    with hold_lock(installed.root() / COLUMN):
        second = env((WANTED,), surroundings)
    assert second.returncode == 2
    wording.line(second.stderr, f"{os.getpid()}")


def about(**more: object) -> dict[str, object]:
    return {
        "column": COLUMN,
        "requirements": [WANTED],
        "versions": {"numpy": np.__version__},
        "python": "3.11.7",
        "made": "2026-11-26T00:00:00Z",
        "harness": "0.0.1",
        "harness_code": "",
        **more,
    }


@pytest.fixture
def folder(surroundings: Mapping[str, str]) -> Path:
    found = installed.root() / COLUMN
    found.mkdir(parents=True)
    return found


def test_an_environment_with_another_harness_is_to_be_made_again(folder: Path) -> None:
    (folder / installed.ABOUT).write_text(json.dumps(about()))
    assert installed.find_interpreter(COLUMN) == str(folder / "bin" / "python")
    (folder / installed.ABOUT).write_text(json.dumps(about(harness_code="0" * 64)))
    with pytest.raises(UsageError, match=r"\(0.0.1, made 2026-11-26T00:00:00Z\)"):
        installed.find_interpreter(COLUMN)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", json.dumps(about(requirements=[])), json.dumps(about(made="a\n::x"))]
)
def test_a_damaged_file_of_an_environment_is_an_error_that_names_it(
    folder: Path, text: str, wording: Wording
) -> None:
    (folder / installed.ABOUT).write_text(text)
    with wording.raises(UsageError, "environment.json ... 'harness env'"):
        installed.find_interpreter(COLUMN)


def test_a_link_is_neither_removed_nor_replaced(
    folder: Path, tmp_path: Path, wording: Wording
) -> None:
    kept = tmp_path / "kept"
    folder.rmdir()
    kept.mkdir()
    (kept / installed.ABOUT).write_text(json.dumps(about()))
    folder.symlink_to(kept)
    wanted = read_request((WANTED,))
    for act in (
        lambda: make.remove(COLUMN),
        lambda: make.make(wanted, sys.executable, print, True),
    ):
        with wording.raises(UsageError, "'harness env'"):
            act()
    assert (kept / installed.ABOUT).exists()
    assert folder.is_symlink()


@pytest.mark.parametrize("word", ["numpy@" + 300 * "1", "numpy@../../x", "numpy@1\n2", "numpy@"])
def test_what_is_no_column_is_not_looked_for(
    word: str, surroundings: Mapping[str, str], wording: Wording
) -> None:
    with wording.raises(UsageError, "BACKEND@VERSION") as caught:
        environment_name(word)
    assert len(str(caught.value)) < 300


def test_one_that_is_damaged_hides_no_other(folder: Path, surroundings: Mapping[str, str]) -> None:
    (folder / installed.ABOUT).write_text(json.dumps(about()))
    damaged = folder.with_name("numpy@0.0.1")
    damaged.mkdir()
    (damaged / installed.ABOUT).write_text("{")
    assert [*installed.complete_environments()] == [COLUMN]
    listed = env(("--list",), surroundings)
    assert (listed.returncode, listed.stdout.count("\n")) == (0, 1)
    assert "numpy@0.0.1" in listed.stderr
    assert env((str(damaged.name), "--remove"), surroundings).returncode == 0
    assert env(("--list",), surroundings).stderr == ""


def test_another_python_is_not_what_is_there(folder: Path, surroundings: Mapping[str, str]) -> None:
    (folder / installed.ABOUT).write_text(json.dumps(about(python="3.1.4")))
    assert env((WANTED,), surroundings).returncode == 0
    other = env((WANTED, "--python", os.path.realpath(sys.executable)), surroundings)
    assert other.returncode == 2
    assert "has Python 3.1.4, but " in other.stderr
    assert "--force" in other.stderr


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("torch", "BACKEND==VERSION"),
        ("torch 2.10", "'torch 2.10' ... torch==2.10"),
        ("torch==", "BACKEND==VERSION"),
        ("torch>=2", "BACKEND==VERSION"),
        ("torch==" + 300 * "1", "BACKEND==VERSION"),
        ("torch==../../x", "BACKEND==VERSION"),
        ("torhc==2.6", "'torhc' ... torch"),
    ],
)
def test_what_is_no_environment(word: str, told: str, wording: Wording) -> None:
    with wording.raises(UsageError, told):
        read_request((word,))


def test_what_is_installed_for_a_version(wording: Wording) -> None:
    torch = read_request(("torch==2.6.0", "numpy<2"))
    assert (torch.column, torch.requirements) == ("torch@2.6.0", ("torch==2.6.0", "numpy<2"))
    jax = read_request(("jax==0.9.*",))
    assert jax.column == "jax@0.9" == environment_name("jax==0.9.*")
    assert jax.requirements[0] == "jax==0.9.*"
    assert any(text.startswith("optax>=") for text in jax.requirements)
    keras = read_request(("keras-torch==3.12.4",))
    assert keras.column == "keras-torch@3.12.4"
    assert {"keras==3.12.4"} < {*keras.requirements}
    assert any(text.startswith("torch>=") for text in keras.requirements)
    with wording.raises(UsageError):
        read_request(("torch==2.6.0", "numpy <<< 2"))
    assert [found.name for found in torch.packed] == [DISTRIBUTION]
    assert torch.packed[0].version == version(DISTRIBUTION)


def test_a_wheel_has_what_was_installed(tmp_path: Path) -> None:
    found = request.find_distribution("click")
    with zipfile.ZipFile(request.pack(found, tmp_path)) as archive:
        names = set(archive.namelist())
    assert "click/core.py" in names
    assert not any(".." in name or name.endswith((".pyc", "INSTALLER")) for name in names)
