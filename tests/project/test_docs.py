"""The documentation's examples run, its links lead somewhere, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pages import PAGES, addresses, anchors, code_spans
from places import ROOT

from harness.checking.checks import FINDINGS
from harness.language.hints import read_hints
from harness.language.library import FOLDERS
from harness.language.model import Spec, load_spec
from harness.oracle.case import Case
from harness.results.findings import VERDICTS, Who
from harness.results.lines import Result
from harness.runtime.paths import PATHS


def yaml_blocks() -> dict[tuple[str, str], str]:
    """Return the whole YAML files that the pages of the spec language show, by kind and name."""
    found: dict[tuple[str, str], str] = {}
    for page in sorted((ROOT / "docs").glob("spec-*.md")):
        if page.name == "spec-tutorial.md":  # played by test_tutorial.py
            continue
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            if "\nsummary: " not in block:
                continue
            kind, name = re.match(r"(\w+): (\S+)", block).groups()
            assert (kind, name) not in found, f"{page.name} shows {name} again"
            found[kind, name] = block
    return found


@pytest.fixture
def documented(tmp_path: Path) -> Spec:
    """The model of the language's first page, with all documented definitions beside it."""
    for (kind, name), block in yaml_blocks().items():
        path = tmp_path / FOLDERS[kind] / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
    return load_spec("next_number", [tmp_path])


def test_the_page_of_workers_quotes_messages_of_the_source() -> None:
    page = " ".join((ROOT / "docs" / "workers.md").read_text(encoding="utf-8").split())
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "harness").rglob("*.py"))
    quoted = re.findall(r'"([^"]+)"', page)
    assert quoted
    assert [message for message in quoted if message not in source] == []


def test_the_readme_names_the_two_commands_that_do_all_set_up() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`make check`" in text
    assert "`make test`" in text


def test_the_hints_of_the_page_are_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "spec-language.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(functions:.*?)```", text, re.DOTALL)
    (tmp_path / "hints.yaml").write_text(block, encoding="utf-8")
    assert {"shift", "lag"} <= read_hints([tmp_path]).functions.keys()


def test_the_pages_show_every_kind_of_file() -> None:
    assert {kind for kind, _ in yaml_blocks()} == set(FOLDERS)


# The definitions that no documented model uses: equations of a model, and how it calls them.
USES = {
    "both_ways": ("y = use(x)", "{layer: both_ways}", "mean(y ** 2)", "sgd"),
    "noisy_dense": ("y = use(x)", "{layer: noisy_dense, units: 3}", "mean(y ** 2)", "sgd"),
    "squash": ("y = squash(use(x))", "{layer: dense, units: 3}", "mean(y ** 2)", "sgd"),
    "bend": (
        "y = bend(use(x), axis=1, whole=false) + bend(x[:, :, :3])",
        "{layer: dense, units: 3}",
        "mean(y ** 2)",
        "sgd",
    ),
    "absolute_error": (
        "y = use(x)",
        "{layer: dense, units: 3}",
        "mean(absolute_error(y[:, 0, 0], y[:, 1, 0]))",
        "sgd",
    ),
    "last_error": (
        "y = use(x)",
        "{layer: dense, units: 3}",
        "mean(last_error(y[:, :, 0], y[:, :, 1], lengths))",
        "sgd",
    ),
    "row_scaled": ("y = use(x)", "{layer: dense, units: 3}", "mean(y ** 2)", "row_scaled"),
}
USE = """model: use
summary: A use of a documented definition.
source: A test.
inputs:
  x: {{shape: [batch, time, 4]}}
  lengths: {{shape: [batch], at_most: time}}
layers: {{use: {1}}}
equations: |
  {0}
  n = astype(lengths)
loss: {2}
optimizer: {{optimizer: {3}, learning_rate: 0.01}}
"""


@pytest.mark.parametrize("name", USES)
def test_the_other_documented_definitions_train(
    documented: Spec, tmp_path: Path, name: str
) -> None:
    (tmp_path / "models/use.yaml").write_text(USE.format(*USES[name]), encoding="utf-8")
    spec = load_spec("use", [tmp_path])
    case = Case(spec, {}, batch=4, time=5)
    batch = {"inputs": case.material.inputs, "targets": {}, "learning_rate": 0.01}
    assert spec.update is not None
    expected = case.train(spec.update, [batch] * 2, case.material, "docs")
    assert np.isfinite(expected.values["step 2: loss"])


def test_every_documented_definition_is_used() -> None:
    models = "".join(text for (kind, _), text in yaml_blocks().items() if kind == "model")
    others = {name for kind, name in yaml_blocks() if kind != "model"}
    assert {name for name in others if not re.search(rf"\b{name}\b", models)} == set(USES)


@pytest.mark.parametrize("name", [n for k, n in yaml_blocks() if k == "model"])
def test_the_documented_models_train(documented: Spec, tmp_path: Path, name: str) -> None:
    documented = load_spec(name, [tmp_path])
    case = Case(documented, {}, batch=4, time=5)
    batch = {
        "inputs": case.material.inputs,
        "targets": case.material.targets,
        "learning_rate": 0.05,
    }
    assert documented.update is not None
    expected = case.train(documented.update, [batch] * 20, case.material, "docs")
    losses = [expected.values[f"step {n}: loss"] for n in range(1, 21)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("kind", "name", "old", "new"),
    [
        ("function", "squash", "activation: tanh", "activation: softsign"),
        ("loss", "absolute_error", "squared_error(y", "absolute_error(y"),
    ],
)
def test_the_documented_function_and_loss_can_be_used(
    documented: Spec, tmp_path: Path, kind: str, name: str, old: str, new: str
) -> None:
    changed = 0
    for path in [tmp_path / "layers/leaky.yaml", tmp_path / "models/next_number.yaml"]:
        text = path.read_text(encoding="utf-8")
        changed += text.count(old)
        path.write_text(text.replace(old, new), encoding="utf-8")
    assert changed == 1
    before, after = (
        Case(spec, {}, 4, 5).gradients(Case(spec, {}, 4, 5).material, "docs").values["loss"]
        for spec in (documented, load_spec("next_number", [tmp_path]))
    )
    assert np.isfinite(after)
    assert before != after


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in addresses(page):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.is_file(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(place), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_repository_that_a_page_names_are_there(page: Path) -> None:
    for span in code_spans(page):
        # docs/gpu/ is what `make bench-gpu` writes.
        if re.fullmatch(r"(docs(?!/gpu/)|tests|harness|backends|specs)/[\w./*-]+", span):
            assert any(ROOT.glob(span.rstrip("/"))), f"{page.name} names {span}"


def test_pages_that_the_code_names_are_there() -> None:
    named = {
        (path, *found)
        for folder in ("harness", "backends")
        for path in (ROOT / folder).rglob("*.py")
        for found in re.findall(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?", path.read_text("utf-8"))
    }
    assert len(named) > 5
    for path, page, anchor in named:
        assert (ROOT / page).is_file(), f"{path} names {page}"
        assert not anchor or anchor in anchors(ROOT / page), f"{path} names {page}#{anchor}"


def test_anchors_are_those_of_the_words(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b_c`: d, e\n\n## Again\n\n```\n# not one\n```\n\n## Again\n\n"
        "See [it](#again-1), ![a picture](a.png), [code](b.py) and `[none](c.md)`.\n"
    )
    assert anchors(page) == {"a-b_c-d-e", "again", "again-1"}
    assert list(addresses(page)) == ["#again-1", "a.png", "b.py"]
    assert list(code_spans(page)) == ["b_c", "[none](c.md)"]


def test_the_method_page_tells_of_every_check() -> None:
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    named = {
        name.strip()
        for row in re.findall(r"^- ([a-z][a-z, -]+?): ", text, re.MULTILINE)
        for name in row.split(",")
    }
    assert named == set(FINDINGS)


def test_the_records_page_tells_of_every_field_and_verdict() -> None:
    text = (ROOT / "docs/records.md").read_text(encoding="utf-8")
    for name in (*Result.model_fields, *VERDICTS):
        assert f"`{name}`" in text, name


def test_no_page_names_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(^|[\s`(])/(work|root|opt|home|farm)/", page.read_text("utf-8")), (
            page
        )


def glossary() -> dict[str, str]:
    """The words that the glossary explains, each with its line."""
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^- \*\*([^*]+)\*\*(?: \(.*?\))?: .+ \(\[.+\)\.$", text, re.MULTILINE)
    whole = dict(zip(rows, re.findall(r"^- .*$", text, re.MULTILINE), strict=True))
    return {word: whole[row] for row in rows for word in row.split(", ")}


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    rows = list(dict.fromkeys(glossary().values()))
    assert len(rows) > 40
    assert rows == sorted(rows, key=str.lower)


def test_the_words_of_the_glossary_are_used() -> None:
    other = [page for page in PAGES if page.name != "glossary.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in other).lower()
    assert [word for word in glossary() if word.lower() not in text] == []


def test_the_glossary_has_the_words_of_results() -> None:
    known = glossary()
    for word in (*VERDICTS, *PATHS):
        assert word.replace("known-difference", "known difference") in known, word
    for who in get_args(Who):
        assert f"`{who}`" in known["blame"]
