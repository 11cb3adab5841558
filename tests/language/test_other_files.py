"""A file of another kind in the place of a spec is named for what it is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from wording import Wording

from harness.errors import SpecError
from harness.language.model import load_spec


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("config.json", "{}")
    return content.getvalue()


FILES = {
    "a record file of 'harness check'": b'{"kind":"head","schema":1}\n',
    "results of 'harness bench'": b'{"benchmarks": [], "harness": {}}',
    "a safetensors file of something else": save({"w": np.zeros(2, "f4")}),
    "an archive of something else, such as a model": archive(),
}


@pytest.mark.parametrize("kind", FILES)
def test_it_is_named(kind: str, tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "given.yaml"
    path.write_bytes(FILES[kind])
    with pytest.raises(SpecError) as found:
        load_spec(str(path))
    wording(found.value, f"{path} ... {kind}")


def test_a_spec_in_another_encoding_is_told_where_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_bytes("model: café".encode("latin-1"))
    with pytest.raises(SpecError, match=r"given\.yaml:1:11: this is not UTF-8"):
        load_spec(str(path))
