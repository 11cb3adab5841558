"""Noise that is kept between runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.caching import noise_store
from harness.caching.noise_store import Noise, NoiseStore, path, size
from harness.commands import cli
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.yardstick import Reference

KEY, NOISE = b"key", {"loss": 0.1 + 0.2, "gradient.w": float("inf"), "output.y": 0.0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the dtypes of all measurements so far."""
    dtypes: list[str] = []
    measure: Callable[..., Noise] = Reference._noise

    def counted(self: Reference, *arguments: object) -> Noise:
        dtypes.append(str(arguments[-1]))
        return measure(self, *arguments)

    monkeypatch.setattr(Reference, "_noise", counted)
    return dtypes


def read() -> Noise | None:
    store = NoiseStore()
    found = store.get(KEY)
    store.close()
    return found


def keep() -> None:
    store = NoiseStore()
    store.put(KEY, NOISE)
    store.close()


def noise(dtype: str = "float32", **choices: int) -> Noise:
    sizes = {"batch": 3, "time": 4, "seed": 0, **choices}
    case = Case(load_spec("lesson6/simple_rnn"), {"hidden": 5, "factors": 3, "vocab": 7}, **sizes)
    return case.gradients(case.material, "main").noise(dtype)


def test_a_later_run_reads_the_same_numbers() -> None:
    keep()
    found = read()
    assert found == NOISE
    assert found is not None
    assert list(found) == list(NOISE)
    assert size()[0] == 1


def test_the_oracle_measures_each_noise_once(measured: list[str]) -> None:
    first = noise()
    assert measured == ["float32"]
    assert noise() == first
    assert measured == ["float32"]


@pytest.mark.parametrize("choices", [{"seed": 1}, {"batch": 2}, {"time": 5}, {"dtype": "float64"}])
def test_other_arrays_or_dtypes_are_measured_again(
    measured: list[str], choices: dict[str, int]
) -> None:
    first = noise()
    assert noise(**choices) != first
    assert len(measured) == 2


def test_other_code_of_the_harness_measures_again(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise()
    monkeypatch.setattr(noise_store, "origin", lambda: b"another version")
    noise()
    assert len(measured) == 2


def test_a_fresh_run_measures_again(measured: list[str]) -> None:
    noise()
    with noise_store.unused():
        noise()
    assert len(measured) == 2


def test_an_entry_with_a_wrong_checksum_is_ignored() -> None:
    keep()
    with sqlite3.connect(path()) as database:
        database.execute("UPDATE noise SET content = zeroblob(40)")
    database.close()
    assert read() is None
    keep()
    assert read() == NOISE


def test_an_entry_of_another_key_is_ignored() -> None:
    store = NoiseStore()
    store.put(b"other", NOISE)
    store.close()
    with sqlite3.connect(path()) as database:
        database.execute("UPDATE noise SET key = ?", (KEY,))
    database.close()
    assert read() is None


@pytest.mark.parametrize(
    "content", [b"", b"no database" * 100, b"SQLite format 3\0" + b"\1" * 5000]
)
def test_a_damaged_database_is_replaced(content: bytes) -> None:
    keep()
    path().write_bytes(content)
    assert read() is None
    keep()
    assert read() == NOISE


def test_a_database_that_others_can_write_is_not_used() -> None:
    keep()
    path().chmod(0o666)
    assert read() is None
    path().chmod(0o600)
    path().parent.chmod(0o777)
    assert read() is None
    path().parent.chmod(0o700)
    assert read() == NOISE


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    keep()
    path().rename(tmp_path / "elsewhere.db")
    path().symlink_to(tmp_path / "elsewhere.db")
    assert read() is None


def test_the_older_half_of_a_large_database_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    store = NoiseStore()
    for number in range(10):
        store.put(bytes([number]), NOISE)
    store.close()
    monkeypatch.setattr(noise_store, "MOST", 1)
    store = NoiseStore()
    found = [number for number in range(10) if store.get(bytes([number])) is not None]
    store.close()
    assert found == [5, 6, 7, 8, 9]


def test_the_command_cache_shows_and_deletes_the_noise() -> None:
    keep()
    shown = json.loads(CliRunner().invoke(cli, ["cache", "--json"]).output)
    assert shown["noise"]["entries"] == 1
    assert shown["noise"]["bytes"] > 0
    assert CliRunner().invoke(cli, ["cache", "--clear"]).exit_code == 0
    assert not path().exists()
    assert read() is None
