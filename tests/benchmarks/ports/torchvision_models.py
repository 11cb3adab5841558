"""Models of torchvision in small sizes, with random weights, for ``ports.py``."""

from __future__ import annotations

import torchvision
from torch import nn

# The inputs of each model.
INPUTS = {
    "resnet18": ["x=batch,3,32,32"],
    "resnet50": ["x=batch,3,32,32"],
    "vgg11_bn": ["x=batch,3,32,32"],
    "mobilenet_v3_small": ["x=batch,3,32,32"],
    "densenet121": ["x=batch,3,32,32"],
    "efficientnet_b0": ["x=batch,3,32,32"],
}


def resnet18():
    return torchvision.models.resnet18(num_classes=10)


def resnet50():
    return torchvision.models.resnet50(num_classes=10)


def vgg11_bn():
    model = torchvision.models.vgg11_bn(num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d(1)  # 7 for an image of 224 pixels
    for place, (inputs, units) in {0: (512, 64), 3: (64, 64), 6: (64, 10)}.items():
        model.classifier[place] = nn.Linear(inputs, units)  # 102 million weights otherwise
    return model


def mobilenet_v3_small():
    return torchvision.models.mobilenet_v3_small(num_classes=10)


def densenet121():
    return torchvision.models.densenet121(num_classes=10)


def efficientnet_b0():
    return torchvision.models.efficientnet_b0(num_classes=10)
