"""The catalogue of defaults: its form, what is asked of it, and that frameworks do what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from places import DOCS, ROOT
from sampling import sampled
from wording import Wording

from harness.cli import cli
from harness.defaults import catalogue as catalogues
from harness.defaults.catalogue import (
    Framework,
    catalogue,
    frameworks,
    groups,
    layers,
    select_entries,
)
from harness.defaults.console import page
from harness.defaults.run import verify
from harness.defaults.service import DefaultsService
from harness.language.library import FOLDERS, Library
from harness.runtime.default_probes import Probes
from harness.runtime.plugins import available

ENTRIES = catalogue()
# What entries are about beside the definitions that ship.
FURTHER = {
    *(
        "abs",
        "adagrad",
        "adamw",
        "argmax",
        "clip",
        "cosine_similarity",
        "gelu",
        "hard_sigmoid",
        "kl_divergence",
    ),
    *("layer_norm", "leaky_relu", "max"),
    *("data", "dtype", "initial_values", "statistics"),
}


def differences(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["differences", *arguments])


def test_there_are_many_and_each_is_told_whole() -> None:
    assert len(ENTRIES) >= 40
    assert sum(len(group) for group in groups().values()) == len(ENTRIES)  # no name twice
    for name, entry in ENTRIES.items():
        texts = [entry.parts, entry.apart, entry.agree_on, entry.source]
        texts += [text for its in entry.frameworks.values() for text in (its.does, its.set)]
        assert all(text.strip() for text in texts), name
        assert entry.parts[0].isupper(), name
        assert entry.parts.endswith("."), name
        local = entry.source.startswith("docs/") and (ROOT / entry.source).is_file()
        assert local or entry.source.startswith("https://"), name
        # One who does the same as all others says so elsewhere; alone it would be no difference.
        assert len(entry.frameworks) > 1 or entry.elsewhere or "float" in entry.parts, name


def test_layers_are_those_that_ship_or_are_listed_here() -> None:
    library = Library()
    shipped = {name for kind in FOLDERS for name in library.names(kind)}
    assert set(layers(ENTRIES)) - shipped == FURTHER - shipped
    for layer in ("gru", "lstm", "dense", "embedding", "batch_norm", "adam", "softmax"):
        assert select_entries(layer, ())


def test_frameworks_are_installed_backends() -> None:
    assert len(frameworks(ENTRIES)) == 6
    assert set(frameworks(ENTRIES)) <= set(available())


def test_the_page_is_made_of_the_data() -> None:
    made = differences("--print-markdown")
    assert made.exit_code == 0
    assert made.stdout == page()
    same = (DOCS / "differences.md").read_text(encoding="utf-8") == page()
    assert same, "run: harness differences --print-markdown > docs/differences.md"


@pytest.mark.parametrize(
    ("written", "found", "holds"),
    [
        (0.5, 0.5000001, True),
        (0.5, 0.51, False),
        (1.0, 1, True),
        (1, 1, True),
        (1, 2, False),
        (1, True, False),
        (0.0, 0.0, True),
        (0.0, 1e-3, False),
        (1e-8, 1e-7, False),
        (0.5, float("nan"), False),
        ("after", "after", True),
        ("after", "before", False),
        (0.5, "0.5", False),
    ],
)
def test_a_measurement_holds_to_the_digits_that_are_written(
    written: Any, found: Any, holds: bool
) -> None:
    assert Framework(does="x", set="x", measured=written).holds(found, {}) is holds


def test_an_earlier_version_may_have_another_default() -> None:
    clamp = ENTRIES["clip-at-bound"].frameworks["torch"]
    for version, found in {"2.13.0+cpu": 1.0, "2.14.0": 0.0, "2.15.0+cu132": 0.0}.items():
        assert clamp.holds(found, {"torch": version})
        assert not clamp.holds(1.0 - found, {"torch": version})


def test_between_two_frameworks_stands_what_they_differ_in() -> None:
    both = select_entries(None, ("torch", "keras"))
    assert "batch-norm-epsilon" in both
    assert "gru-reset" not in both  # both reset after the product
    assert "clip-at-bound" not in both  # nothing is measured of Keras
    assert both == select_entries(None, ("keras", "torch"))
    assert len(both) >= 40
    told = differences("batch_norm", "--between", "torch", "keras")
    assert "momentum=0.01" in told.stdout
    assert "flax" not in told.stdout
    assert "keras-torch" not in told.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gruu",), "'gruu' ... 'gru'"),
        (("--between", "torch", "kears"), "'kears' ... 'keras'"),
        (("--between", "torch", "torch"), "torch"),
        (("gru", "--print-markdown"), "--print-markdown"),
    ],
)
def test_what_is_not_there_is_said(
    arguments: tuple[str, ...], words: str, wording: Wording
) -> None:
    ran = differences(*arguments)
    assert ran.exit_code == 2
    wording.line(ran.stderr, words)
    assert ran.stdout == ""


def test_two_that_do_the_same_are_no_difference(wording: Wording) -> None:
    ran = differences("gelu", "--between", "torch", "keras")
    assert ran.exit_code == 0
    wording(ran.stdout, "torch ... keras differ")


def test_nothing_is_cut_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = differences()
    # An address is whole, however long it is.
    assert all(len(line) <= 80 or " " not in line.strip() for line in ran.stdout.splitlines())
    assert "…" not in ran.stdout
    words = "".join(ran.stdout.split())
    for entry in ENTRIES.values():
        assert "".join(entry.parts.split()) in words
        for its in entry.frameworks.values():
            # Two columns may share a line, so that each word is looked for by itself.
            assert all(word in words for word in its.set.split() if len(word) < 20)


def test_json_holds_all() -> None:
    ran = differences("adam", "--json", "--between", "torch", "jax")
    found = json.loads(ran.stdout)["differences"]
    assert {one["name"] for one in found} == set(select_entries("adam", ("torch", "jax")))
    assert all(set(one["frameworks"]) == {"torch", "jax"} for one in found)
    assert all(
        {"does", "set", "measured", "before"} == set(f)
        for o in found
        for f in o["frameworks"].values()
    )


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_installed_versions_do_what_is_written(framework: str) -> None:
    found = verify(ENTRIES, [framework])
    assert found.exit_code == 0, [one for one in found.measurements if one.verdict != "as written"]
    assert len(found.measurements) == sum(
        framework in entry.frameworks for entry in ENTRIES.values()
    )
    assert framework in found.versions[framework]


@pytest.mark.slow
@pytest.mark.parametrize(
    "framework", sampled(["jax", "keras", "keras-torch", "keras-jax"], ["jax", "keras"])
)
def test_installed_versions_do_what_is_written_slowly(framework: str) -> None:
    found = verify(ENTRIES, [framework])
    assert found.exit_code == 0, [one for one in found.measurements if one.verdict != "as written"]


def test_every_measurement_has_its_entry() -> None:
    """Nothing is measured for nobody: the name of a function is that of an entry."""
    from harness.runtime import plugins

    for name in ("numpy", "torch"):
        probes = plugins.BACKENDS.call(name, "harness_defaults")
        assert isinstance(probes, Probes)
        told = {entry for entry, its in ENTRIES.items() if name in its.frameworks}
        assert set(probes) == told


def test_a_default_that_has_changed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: another number is written than the framework has."""
    entry = ENTRIES["standard-deviation"]
    its = entry.frameworks["numpy"].model_copy(update={"measured": 1.25})
    wrong = entry.model_copy(update={"frameworks": {**entry.frameworks, "numpy": its}})
    monkeypatch.setattr(catalogues, "catalogue", lambda: {**ENTRIES, "standard-deviation": wrong})
    ran = differences("standard-deviation", "--run", "--between", "numpy", "torch")
    assert ran.exit_code == 1
    assert "changed: 1.0, but" in " ".join(ran.stdout.split())
    as_json = differences("standard-deviation", "--run", "--json", "--between", "numpy", "torch")
    found = json.loads(as_json.stdout)
    assert found["exit_code"] == as_json.exit_code == 1
    assert {one["framework"]: one["verdict"] for one in found["measured"]} == {
        "numpy": "changed",
        "torch": "as written",
    }


def test_a_framework_that_is_not_there_is_told() -> None:
    entry = ENTRIES["standard-deviation"]
    others = {"nowhere": entry.frameworks["numpy"]}
    found = verify({"x": entry.model_copy(update={"frameworks": others})}, ["nowhere"])
    assert found.exit_code == 3
    assert [one.verdict for one in found.measurements] == ["not run"]
    assert found.troubles == {"nowhere": "no backend 'nowhere' is installed"}


@pytest.mark.parametrize(
    ("convert", "measured"),
    [(np.array, "copies"), (np.asarray, "shares")],
    ids=["array", "asarray"],
)
def test_a_conversion_that_copies_is_told_from_one_that_shares(
    convert: Callable[[Any], Any], measured: str
) -> None:
    probes = Probes()
    probes.observe({"array-sharing": lambda array: convert(array).copy})
    assert probes["array-sharing"]() == measured


def test_a_measurement_that_fails_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.runtime import plugins

    def broken() -> float:
        raise ValueError("no such default")

    probes = Probes(good=lambda: 1.0, bad=broken)
    monkeypatch.setattr(type(plugins.BACKENDS), "call", lambda *_: probes)
    backend: Any = type("Named", (), {"name": "numpy"})()
    found = DefaultsService(backend).measure(["good", "bad", "missing"])
    assert found == {"good": {"value": 1.0}, "bad": {"error": "ValueError: no such default"}}


def test_the_files_travel_with_the_package() -> None:
    folder = files("harness.specs").joinpath("defaults")
    shipped = {"activations", "layers", "numbers", "recurrent", "training"}
    found = {p.name for p in folder.iterdir() if p.name.endswith(".yaml")}
    assert found == {f"{group}.yaml" for group in shipped}
