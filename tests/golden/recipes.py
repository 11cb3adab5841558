"""Every golden case: which kernel is the witness of which definition, with which attributes."""

from __future__ import annotations

from typing import Any

from golden.recipe import Recipe
from golden.recipes_functions import functions
from golden.recipes_images import images
from golden.recipes_layers import layers
from golden.recipes_losses import losses
from golden.recipes_models import encoders, models
from golden.recipes_noise import noisy
from golden.recipes_optimizers import optimizers
from golden.recipes_recurrent import recurrent
from golden.recipes_transformers import transformers


def all_recipes(torch: Any, keras: Any, onnx: Any, optax: Any) -> dict[str, list[Recipe]]:
    """Every case, by kind, from the modules of kernels."""
    return {
        "layer": [
            *layers(torch, keras),
            *recurrent(torch, keras, onnx),
            *transformers(torch, keras),
            *images(),
            *noisy(),
            *encoders(),
            *models(torch),
        ],
        "function": functions(torch, keras, onnx),
        "loss": losses(torch, keras, optax),
        "optimizer": optimizers(torch, keras, optax),
    }
