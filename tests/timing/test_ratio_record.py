"""The record of the ratios: pairs of several machines, each kept as it was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ratio_record import add, keep, of_machine, read


def environment(cpu: str, **versions: str) -> dict[str, Any]:
    """Where a pair was measured, as bench has it."""
    return {
        "machine": {"cpu": cpu, "host": "secret"},
        "threads": 2,
        "rounds": 3,
        "load": [0.5, 0.4, 0.3],
        "workers": {"one": {"versions": versions}},
    }


def test_a_pair_says_on_which_machine_it_was_measured() -> None:
    found = read(Path("no such file"))
    for name, cpu, versions in (
        ("a", "one", {"torch": "2.0"}),
        ("b", "two", {"torch": "2.0"}),
        ("c", "one", {"jax": "0.4"}),
        ("d", "one", {"torch": "2.1"}),
    ):
        add(found, name, {"environment": environment(cpu, **versions)})
    assert [p["machine"] for p in found["pairs"].values()] == [0, 1, 0, 2]
    assert found["machines"][0]["versions"] == {"torch": "2.0", "jax": "0.4"}
    assert "secret" not in str(found)
    assert of_machine(found["pairs"], 0).keys() == {"a", "c"}


def test_a_record_is_added_to_pair_by_pair(tmp_path: Path) -> None:
    place = tmp_path / "kept.json"
    for ratio in (1.0, 2.0):
        keep(place, {"pairs": {"one": ratio}})
    assert read(place)["pairs"]["one"] == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]
