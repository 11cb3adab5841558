"""Models of torchvision in small sizes, with random weights, for ``ports.py``."""

from __future__ import annotations

import torchvision

# The inputs of each model.
INPUTS = {
    "resnet18": ["x=batch,3,32,32"],
    "resnet50": ["x=batch,3,32,32"],
    "vgg11_bn": ["x=batch,3,224,224"],
    "mobilenet_v3_small": ["x=batch,3,32,32"],
    "densenet121": ["x=batch,3,32,32"],
    "efficientnet_b0": ["x=batch,3,32,32"],
}


def resnet18():
    return torchvision.models.resnet18(num_classes=10)


def resnet50():
    return torchvision.models.resnet50(num_classes=10)


def vgg11_bn():
    return torchvision.models.vgg11_bn(num_classes=10)


def mobilenet_v3_small():
    return torchvision.models.mobilenet_v3_small(num_classes=10)


def densenet121():
    return torchvision.models.densenet121(num_classes=10)


def efficientnet_b0():
    return torchvision.models.efficientnet_b0(num_classes=10)
