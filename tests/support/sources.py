"""The checked source that each format writes for a model, made without a separate process."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.convert.formats import Exported
from harness.convert.source.vetting import vetted

torch_module = pytest.importorskip("harness.backends.torch.module")
jax_module = pytest.importorskip("harness.backends.jax.module")

from harness.backends.jax import primitives_export as jax_source  # noqa: E402
from harness.backends.keras import custom as keras_custom  # noqa: E402
from harness.backends.keras import format as keras_format  # noqa: E402
from harness.backends.torch import primitives_export as torch_source  # noqa: E402


def torch_text(exported: Exported, file: str = "model.py") -> str:
    return vetted(torch_module.Writer(exported, file).source(), torch_source.WORDS, file)


def jax_text(exported: Exported, file: str = "model.py") -> str:
    return vetted(jax_module.Writer(exported, file).source(), jax_source.WORDS, file)


def keras_text(exported: Exported, file: str = "model.py") -> str:
    """Return the source for Keras, with every layer written as a class, as if Keras had none."""
    program, texts = exported.inference, {}
    for number, call in enumerate(program.calls):
        constants = [n for n in program.nodes if n.op in ("constant", "broadcast_to")]
        made = keras_custom.custom(program, call, constants, {"name", "build"})
        texts[f"Layer{number}"] = keras_custom.class_text(f"Layer{number}", [made])
    return keras_format._module_text(Path(file).with_suffix(".keras"), texts)


WRITERS = {"torch": torch_text, "jax": jax_text, "keras": keras_text}
