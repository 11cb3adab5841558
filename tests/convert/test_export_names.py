"""Names in specs: what they may be, and that whatever loads can be written as source."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hostile import DEFINITIONS, NAMED, PAYLOADS, TEXTS, weighted
from hypothesis import event, given, settings
from hypothesis import strategies as st
from sources import WRITERS, jax_text, keras_text, torch_text

from harness.convert.formats import Exported
from harness.errors import HarnessError
from harness.language.model import load_spec
from harness.oracle.draw import draw


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("none", "NoneModel"),
        ('"true"', "TrueModel"),
        ("INPUTS", "INPUTSModel"),
        ("tensor", "TensorModel"),
        ("exception", "ExceptionModel"),
        ("3-d/2_-x", "Model2X"),
        ("lambda", "Lambda"),
    ],
)
def test_a_class_has_no_name_of_python_s(model: str, name: str, tmp_path: Path) -> None:
    spec = weighted(tmp_path, "spec.yaml", NAMED.format(model=model))
    drawn = draw(spec.program(), 1, 1, 3)
    both = spec.program("training"), spec.program("inference")
    exported = Exported(spec.name, *both, drawn.parameters, drawn.statistics)
    assert f"\nclass {name}(nn.Module):" in torch_text(exported)
    jax_text(exported)
    keras_text(exported)


@pytest.mark.parametrize(
    "model", [*PAYLOADS, "a" * 61, "-x", "a//b", "/a", "a/", "a/b/c/d/e", "../x"]
)
def test_a_model_s_name_is_told_when_it_is_wrong(model: str, tmp_path: Path) -> None:
    spec = {**yaml.safe_load(NAMED.format(model="none")), "model": model}
    text = yaml.safe_dump(spec, allow_unicode=False)
    if "\udcff" in model:
        text = text.replace("\udcff", "\\uDCFF")
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(HarnessError) as raised:
        load_spec(str(tmp_path / "spec.yaml"))
    assert "spec.yaml:" in str(raised.value)


@pytest.mark.parametrize("model", ["true", "null", "3", "[a]", "2020-01-01x:"])
def test_a_model_s_name_is_text(model: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(NAMED.format(model=model))
    with pytest.raises(HarnessError, match=r"spec.yaml:1:\d+: "):
        load_spec(str(tmp_path / "spec.yaml"))


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], bool]]:
    """Every text of a document: its path, and whether it is a key."""
    found: list[tuple[tuple[Any, ...], bool]] = []
    if isinstance(data, dict):
        for key, value in data.items():
            found += [((*path, key), True), *places(value, (*path, key))]
    elif isinstance(data, list):
        for number, value in enumerate(data):
            found += places(value, (*path, number))
    else:
        found.append((path, False))
    return found


DOCUMENT = yaml.safe_load(NAMED.format(model="none"))


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(places(DOCUMENT)), hostile=TEXTS)
def test_hostile_text_in_any_field_is_refused_or_stays_text(
    place: tuple[tuple[Any, ...], bool], hostile: str
) -> None:
    path, is_key = place
    document = deepcopy(DOCUMENT)
    holder = document
    for step in path[:-1]:
        holder = holder[step]
    if is_key:
        holder[hostile] = holder.pop(path[-1])
    else:
        holder[path[-1]] = hostile
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, definition in DEFINITIONS.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / f"{file}.yaml").write_text(definition)
        (folder / "spec.yaml").write_bytes(yaml.safe_dump(document).encode("utf-8", "replace"))
        try:
            spec = load_spec(str(folder / "spec.yaml"), [folder])
        except HarnessError:
            return
    drawn = draw(spec.program(), 1, 1, 3)
    both = spec.program("training"), spec.program("inference")
    exported = Exported(spec.name, *both, drawn.parameters, drawn.statistics)
    event(f"loads with {path[0]}")
    for write in WRITERS.values():
        write(exported)
