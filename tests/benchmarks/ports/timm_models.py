"""Models of timm in small sizes, with random weights, for ``ports.py``."""

from __future__ import annotations

import timm

# The inputs of each model.
INPUTS = {
    "vit": ["x=batch,3,16,16"],
    "convnext": ["x=batch,3,32,32"],
    "mixer": ["x=batch,3,16,16"],
}


def vit():
    return timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4, num_classes=10
    )


def convnext():
    return timm.models.ConvNeXt(depths=(2, 2, 2, 2), dims=(8, 16, 24, 32), num_classes=10)


def mixer():
    model = timm.models.MlpMixer(
        img_size=16, patch_size=4, num_blocks=2, embed_dim=32, num_classes=10
    )
    model.head.reset_parameters()  # timm starts with zeros, with which all outputs are equal
    return model
