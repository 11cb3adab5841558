"""Compiled code that is kept between runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from click.testing import CliRunner

from harness.caching import compiled_code
from harness.caching.compiled_code import CompiledCode, archives, root
from harness.commands import cli


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def keep(model: str, backend: str = "jax", **files: bytes) -> None:
    code = CompiledCode(backend, "python")
    with code.kept(model):
        for name, content in files.items():
            (code.folder / name).write_bytes(content)
    code.close()


def read(model: str, backend: str = "jax") -> dict[str, bytes]:
    code = CompiledCode(backend, "python")
    code.load(model)
    found = {path.name: path.read_bytes() for path in code.folder.iterdir()}
    code.close()
    assert not code.folder.exists()
    return found


def test_a_later_worker_gets_the_code_of_its_model_and_backend() -> None:
    keep("gru", one=b"1")
    keep("gru", two=b"2")
    keep("lstm", three=b"3")
    assert read("gru") == {"one": b"1", "two": b"2"}
    assert read("lstm") == {"three": b"3"}
    assert read("gru", "keras-jax") == {}


def test_threads_may_share_a_worker() -> None:
    code = CompiledCode("jax", "python")
    barrier = Barrier(8)

    def run(number: int) -> None:
        barrier.wait()
        code.load(f"model {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    code.close()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def let_others_write(path: Path) -> None:
    path.chmod(0o666)


def let_others_write_the_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def replace_by_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


@pytest.mark.parametrize(
    "harm",
    [
        flip_a_bit,
        cut,
        empty,
        let_others_write,
        let_others_write_the_folder,
        replace_by_a_link,
    ],
)
def test_damaged_and_foreign_code_is_not_used(harm: Callable[[Path], None]) -> None:
    keep("gru", one=b"1")
    (path,) = archives()
    harm(path)
    assert read("gru") == {}


def test_the_least_recently_used_code_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_code, "MOST_TOGETHER", 2500)
    for number, model in enumerate(("a", "b", "c")):
        keep(model, one=bytes(1000))
        for path in archives()[-1:]:
            os.utime(path, (number, number))
    assert [bool(read(model)) for model in ("a", "b", "c")] == [False, True, True]


def test_code_above_the_limit_of_an_archive_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_code, "MOST", 1500)
    keep("gru", one=bytes(1000))
    keep("gru", two=bytes(1000))
    assert [*read("gru")] == ["two"]
    keep("gru", three=bytes(2000))
    assert [*read("gru")] == ["two"]


def test_a_cache_folder_that_cannot_be_written_keeps_nothing() -> None:
    root().parent.parent.mkdir()
    root().parent.write_text("a file")
    keep("gru", one=b"1")
    assert read("gru") == {}


def test_the_command_shows_and_deletes_the_code() -> None:
    keep("gru", one=b"1")
    shown = json.loads(CliRunner().invoke(cli, ["cache", "--json"]).stdout)
    assert (shown["folder"], shown["archives"], shown["deleted"]) == (str(root().parent), 1, False)
    assert json.loads(CliRunner().invoke(cli, ["cache", "--clear", "--json"]).stdout)["deleted"]
    assert archives() == []


@pytest.mark.parametrize(
    ("backend", "check"),
    [("jax", "values"), ("keras-jax", "values"), ("keras", "trained")],
)
def test_a_second_check_compiles_nothing_new(backend: str, check: str) -> None:
    pytest.importorskip("jax" if "jax" in backend else "tensorflow")
    if backend.startswith("keras"):
        pytest.importorskip("keras")
    command = ["check", "mlp", "--backend", backend, "--dtype", "float32", "--check", check]
    first = CliRunner().invoke(cli, [*command, "--json"])
    (path,) = archives()
    kept = path.stat()
    second = CliRunner().invoke(cli, [*command, "--json"])
    assert first.exit_code == second.exit_code == 0
    assert path.stat().st_ino == kept.st_ino
    assert path.stat().st_mtime_ns > kept.st_mtime_ns
    CliRunner().invoke(cli, ["cache", "--clear"])
    assert CliRunner().invoke(cli, [*command, "--fresh"]).exit_code == 0
    assert archives() == []
