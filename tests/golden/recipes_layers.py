"""Embeddings, dense layers and batch normalisation: which kernel is the witness of which."""

from __future__ import annotations

from typing import Any

from golden.recipe import Recipe


def layers(torch: Any, keras: Any) -> list[Recipe]:
    """Batch normalisation in both phases."""
    made = [Recipe("layer", "embedding", "torch.nn.functional.embedding", torch.embedding)]
    for act in ("linear", "relu", "tanh"):
        for given in ({"activation": act}, {"activation": act, "bias": False}):
            source = "torch.nn.functional.linear"
            made.append(Recipe("layer", "dense", source, torch.linear(act), given))
    for numbers in ({"epsilon": 1e-3, "momentum": 0.99}, {"epsilon": 0.125, "momentum": 0.75}):
        source, inference = "keras.layers.BatchNormalization", torch.batch_norm_inference
        made += [
            Recipe("layer", "batch_norm", source, keras.batch_norm(True, **numbers), numbers),
            Recipe(
                "layer",
                "batch_norm",
                source,
                keras.batch_norm(False, **numbers),
                numbers,
                "inference",
            ),
            Recipe(
                "layer",
                "batch_norm",
                "torch.nn.functional.batch_norm",
                inference(numbers["epsilon"]),
                numbers,
                "inference",
            ),
        ]
    for numbers in ({"epsilon": 1e-5, "momentum": 0.9}, {"epsilon": 0.125, "momentum": 0.75}):
        for phase in ("training", "inference"):
            kernel = torch.sample_batch_norm(phase == "training", **numbers)
            source = "torch.nn.functional.batch_norm"
            made.append(Recipe("layer", "sample_batch_norm", source, kernel, numbers, phase))
    return made
