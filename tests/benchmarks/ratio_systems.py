"""What the ratios are of: Lesson 6 with two systems more, and the models of specs/models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness.language.library import lesson6
from harness.timing.request import BenchRequest, Group, groups_of

SPECS = Path(__file__).parent / "specs"
BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")
MODES = ("train", "forward")


class Sizes(NamedTuple):
    """A small and a large batch, and the steps of a sequence in a model that reads any number."""

    small: int
    large: int
    time: int | None = None


class RealSize(NamedTuple):
    """A spec with its sizes, the batch and the steps of a sequence; timed in some modes."""

    spec: str
    batch: int
    time: int | None
    modes: tuple[str, ...]
    sizes: Mapping[str, int]


def _gpt(vocab: int, depth: int, heads: int, context: int) -> dict[str, int]:
    sizes = {"vocab": vocab, "depth": depth, "heads": heads, "context": context}
    return {**sizes, "head": 64, "wide": 4 * 64 * heads}


LESSON6 = Sizes(64, 1024)
# Beside Lesson 6: gates that the frameworks' fused LSTM has, and a GRU that reads indices.
SYSTEMS = (*lesson6(), "sigmoid_lstm", "index_gru")
# By model, batches whose step takes well under a second on two cores.
MODELS: Mapping[str, Sizes] = {
    "mlp": Sizes(64, 1024),
    "gpt": Sizes(8, 64, 64),
    "llama": Sizes(8, 64, 64),
    "moe": Sizes(8, 64, 64),
    "bert": Sizes(8, 64, 64),
    "vit": Sizes(8, 64),
    "mamba": Sizes(8, 64, 64),
    "bilstm_tagger": Sizes(8, 64, 32),
    "seq2seq_attention": Sizes(8, 64, 8),
    "gcn": Sizes(64, 1024),
    "dlrm": Sizes(64, 1024),
    "vae": Sizes(64, 1024),
    "lenet": Sizes(8, 64),
    "resnet": Sizes(8, 64),
    "resnet_bottleneck": Sizes(8, 64),
    "unet": Sizes(8, 64),
}
# Models at the sizes at which they are used, by the name of their pairs.
REAL: Mapping[str, RealSize] = {
    "nanoGPT": RealSize("gpt", 4, 256, MODES, _gpt(65, 6, 6, 256)),
    "GPT-2 small": RealSize("gpt", 1, 256, ("forward",), _gpt(50257, 12, 12, 1024)),
    "ResNet-50": RealSize("resnet50", 8, None, ("forward",), {"last_side": 2}),
    "LSTM": RealSize("lstm_language_model", 20, 35, MODES, {}),
}
REAL_BACKENDS = ("torch", "jax")
# numpy has no layers: by hand are those whose derivative is short to write down.
NUMPY_MODELS = frozenset({"mlp", "vae", "gcn"})
# Pairs beside those of the fastest path: the derived gradient, which is held to a ratio of its own.
DERIVED = {"torch", "jax"}
DERIVED_SYSTEMS = {"lesson6/sequence_rnn", "lesson6/keras_gru", "sigmoid_lstm", "index_gru"}
# The notebook's own loop over characters, beside the backend that needs no framework either.
LOOP, LOOP_SYSTEM, LOOP_BESIDE = "python", "lesson6/pure_python_rnn", "numpy"


def sizes_of(system: str) -> Sizes:
    """The sizes at which a system is timed."""
    return MODELS.get(system, LESSON6)


def has_hand_written(system: str, backend: str) -> bool:
    """Whether there is code by hand for a system in a backend's framework."""
    return backend != "numpy" or system not in MODELS or system in NUMPY_MODELS


def wanted(
    backends: Sequence[str], systems: Sequence[str], batches: Sequence[int], modes: Sequence[str]
) -> Iterator[tuple[Group, list[tuple[str, str, str]]]]:
    """Each group with its pairs: (key, backend, path). All systems where none is named, and both
    batches of each where none is."""
    for system in systems or (*SYSTEMS, *MODELS, *REAL):
        if system in REAL:
            yield from _wanted_real(system, backends, modes)
            continue
        small, large, time = sizes_of(system)
        chosen = tuple(b for b in (small, large) if b in batches or not batches)
        if not chosen:
            continue
        request = BenchRequest(
            specs=(system,),
            batches=chosen,
            times=() if time is None else (time,),
            modes=tuple(modes),
            folders=(SPECS,),
        )
        own = [b for b in backends if has_hand_written(system, b)]
        for group in groups_of(request):
            yield group, _pairs(group, own)


def _wanted_real(
    name: str, backends: Sequence[str], modes: Sequence[str]
) -> Iterator[tuple[Group, list[tuple[str, str, str]]]]:
    real = REAL[name]
    if not set(modes).intersection(real.modes):
        return
    request = BenchRequest(
        specs=(real.spec,),
        batches=(real.batch,),
        times=() if real.time is None else (real.time,),
        sizes={size: (number,) for size, number in real.sizes.items()},
        modes=tuple(mode for mode in real.modes if mode in modes),
        folders=(SPECS,),
    )
    for group in groups_of(request):
        cell = replace(group, sizes={}).cell
        own = [b for b in backends if b in REAL_BACKENDS]
        yield group, [(str(replace(cell(b), spec=name)), b, "fastest") for b in own]


def _pairs(group: Group, backends: Sequence[str]) -> list[tuple[str, str, str]]:
    pairs = [(key(group, b), b, "fastest") for b in backends]
    if group.mode == "train" and group.spec.name in DERIVED_SYSTEMS:
        pairs += [(key(group, b, "derived"), b, "derived") for b in backends if b in DERIVED]
    if group.mode == "train" and group.spec.name == LOOP_SYSTEM and LOOP_BESIDE in backends:
        pairs.append((key(group, LOOP), LOOP, "fastest"))
    return pairs


def key(group: Group, backend: str, path: str = "") -> str:
    """The name of a pair in the record."""
    return f"{group.cell(backend)}" + (f" {path}" if path else "")
