"""Backends are listed without an import, loaded one at a time, and broken ones hurt nobody."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wording import Wording

from harness.environments.columns import choose, choose_from_options
from harness.runtime import plugins
from harness.runtime.plugins import BrokenBackend, UnknownBackend

Install = Callable[..., None]

GOOD = """
from harness.runtime.hookspecs import hookimpl

class Backend:
    def __init__(self, name):
        self.name = name

@hookimpl
def harness_environment(name):
    return {"FRAMEWORK_MODE": name}

@hookimpl
def harness_backend(name):
    return Backend(name)
"""
ONLY_BACKEND = """
from harness.runtime.hookspecs import hookimpl

@hookimpl
def harness_backend(name):
    return [name]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution with one module and its backends."""

    def install(
        module: str,
        source: str,
        *names: str,
        distribution: str = "",
        group: str = "harness.backends",
    ) -> None:
        distribution = distribution or f"dist-{module}"
        folder = tmp_path / distribution
        metadata = folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        entries = "".join(f"{name} = {module}\n" for name in names)
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{entries}")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def test_listing_imports_nothing(install: Install) -> None:
    install("plugin_bomb", "raise SystemExit('imported')", "bomb", "bomb-2")
    origin = plugins.available()["bomb"]
    assert origin == plugins.Origin("bomb", "dist-plugin_bomb", "1.5", "plugin_bomb")
    assert plugins.available()["bomb-2"].module == "plugin_bomb"
    assert "plugin_bomb" not in sys.modules


def test_own_backends_are_listed_as_a_third_party_s_are() -> None:
    assert plugins.available()["numpy"].distribution == "backend-comparison-harness"
    assert list(plugins.available()) == sorted(plugins.available())


def test_loading_one_imports_no_other(install: Install) -> None:
    install("plugin_good", GOOD, "good", "good-variant")
    install("plugin_bomb", "raise SystemExit('imported')", "bomb")
    assert plugins.environment("good-variant") == {"FRAMEWORK_MODE": "good-variant"}
    assert plugins.load("good").name == "good"
    assert plugins.load("good-variant").name == "good-variant"
    assert "plugin_bomb" not in sys.modules


def test_environment_is_optional(install: Install) -> None:
    install("plugin_plain", ONLY_BACKEND, "plain")
    assert plugins.environment("plain") == {}
    assert plugins.load("plain") == ["plain"]


def test_unknown_name_gets_a_suggestion_and_the_list(install: Install, wording: Wording) -> None:
    install("plugin_good", GOOD, "good-one")
    with wording.raises(UnknownBackend, "'good-on' ... 'good-one'"):
        plugins.load("good-on")
    with pytest.raises(UnknownBackend):
        plugins.environment("zzzzz")


@pytest.mark.parametrize(
    ("source", "words", "trace"),
    [
        ("import no_such_framework", "ModuleNotFoundError: No module named", "line 1, in <module>"),
        ("raise SystemExit('no licence')", "SystemExit: no licence", "SystemExit"),
        ("x = ", "SyntaxError", "SyntaxError"),
        ("", "implements no harness_backend hook", ""),
        (ONLY_BACKEND.replace("[name]", "None"), "returned None", ""),
        (ONLY_BACKEND.replace("[name]", "1 / 0"), "ZeroDivisionError", "harness_backend"),
        (ONLY_BACKEND.replace("(name)", "(title)"), "title", "PluginValidationError"),
        (GOOD.replace("harness_environment", "harness_enviroment"), "unknown hook", "enviroment"),
    ],
    ids=["import", "exit", "syntax", "no hook", "none", "in hook", "argument", "misspelt"],
)
def test_broken_plugin_is_named_with_its_own_traceback(
    install: Install, source: str, words: str, trace: str
) -> None:
    install("plugin_broken", source, "broken")
    install("plugin_good", GOOD, "good")
    with pytest.raises(BrokenBackend, match="'broken'") as caught:
        plugins.load("broken")
    assert words in str(caught.value)
    assert trace in caught.value.traceback
    assert plugins.load("good").name == "good"


def test_environment_of_other_types_is_refused(install: Install) -> None:
    install("plugin_odd", GOOD.replace('"FRAMEWORK_MODE": name', '"THREADS": 1'), "odd")
    with pytest.raises(BrokenBackend, match=r"returned \{'THREADS': 1\}"):
        plugins.environment("odd")


def test_name_claimed_twice_is_an_error_of_that_name_only(install: Install) -> None:
    install("plugin_first", GOOD, "shared", "first")
    install("plugin_second", GOOD, "shared", "second")
    listed = plugins.available()["shared"]
    assert {listed.distribution, *listed.rivals} == {"dist-plugin_first", "dist-plugin_second"}
    with pytest.raises(BrokenBackend, match=r"claimed by several .*dist-plugin_first"):
        plugins.load("shared")
    assert plugins.load("first").name == "first"
    assert plugins.load("second").name == "second"


def test_a_backend_on_request_runs_only_if_it_is_named(install: Install) -> None:
    install("plugin_usual", GOOD, "usual")
    install("plugin_rare", GOOD, "rare", group="harness.backends.on_request")
    assert plugins.available()["rare"].on_request
    assert plugins.load("rare").name == "rare"
    chosen = choose(()).names
    assert "usual" in chosen
    assert "rare" not in chosen
    assert choose(("rare",)).names == ("rare",)
    everywhere = choose_from_options((), [sys.executable]).pythons
    assert "usual" in everywhere
    assert "rare" not in everywhere


def test_a_name_in_both_groups_is_claimed_twice(install: Install) -> None:
    install("plugin_usual", GOOD, "shared")
    install("plugin_rare", GOOD, "shared", group="harness.backends.on_request")
    with pytest.raises(BrokenBackend, match=r"claimed by several .*dist-plugin_usual"):
        plugins.load("shared")


def test_what_is_installed_while_a_process_lives_is_found(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is removed is not: a list that is kept is of what is there."""
    monkeypatch.syspath_prepend(tmp_path)
    assert "late" not in plugins.available()
    install("plugin_late", GOOD, "late")
    made = next((tmp_path / "dist-plugin_late").glob("*.dist-info"))
    monkeypatch.syspath_prepend(tmp_path)  # the folder of before, and not that of the plugin
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "dist-plugin_late" not in p])
    assert "late" not in plugins.available()
    moved = made.rename(tmp_path / made.name)
    assert "late" in plugins.available()
    shutil.rmtree(moved)
    assert "late" not in plugins.available()


INSTRUCTION_SETS = """
@hookimpl
def harness_instruction_sets(name):
    return {}
"""


def test_instruction_sets_are_variables_by_name(install: Install) -> None:
    install("plugin_sets", GOOD + INSTRUCTION_SETS.format("{'avx2': {'ISA': name}}"), "sets")
    install("plugin_none", GOOD, "none")
    assert plugins.instruction_sets("sets") == {"avx2": {"ISA": "sets"}}
    assert plugins.instruction_sets("none") == {}


@pytest.mark.parametrize("value", ["['avx2']", "{'avx2': 'ISA'}", "{'avx2': {'ISA': 2}}"])
def test_instruction_sets_of_another_kind_are_an_error(install: Install, value: str) -> None:
    install("plugin_sets", GOOD + INSTRUCTION_SETS.format(value), "sets")
    with pytest.raises(BrokenBackend, match=r"'sets' .*harness_instruction_sets"):
        plugins.instruction_sets("sets")
