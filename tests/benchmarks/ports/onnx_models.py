"""Write an ONNX file of skl2onnx, or of the package ``onnx``, for ``ports.py``.

python tests/benchmarks/ports/onnx_models.py sklearn_mlp FILE.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

# The inputs of each model: by default those that the file declares.
INPUTS = {
    "sklearn_mlp": [],
    "bvlc_alexnet": [],
    "densenet121": [],
    "inception_v1": [],
    "inception_v2": [],
    "resnet50": [],
    "shufflenet": [],
    "squeezenet": [],
    "vgg19": [],
    "zfnet512": [],
}
# The pixels of each axis of an image. Three models have shapes that need the original 224 pixels.
PIXELS, LARGE = 64, ("bvlc_alexnet", "shufflenet", "zfnet512")
# Lengths of weights in the package's models, and the smaller lengths that replace them.
SMALLER = {
    "bvlc_alexnet": {4096: 64},
    "vgg19": {25088: 2048, 4096: 64},
    "zfnet512": {4096: 64},
}


def sklearn_mlp():
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 6)).astype("float32")
    y = rng.integers(0, 3, 60)
    return to_onnx(MLPClassifier((16, 8), max_iter=20).fit(x, y), x[:1])


def light_model(name):
    """Return a model of the package with random weights. In the package, most weights of a model
    are equal, so that all of its channels compute the same."""
    light = Path(onnx.__file__).parent / "backend/test/data/light"
    model = onnx.load(light / f"light_{name}.onnx")
    smaller, graph = SMALLER.get(name, {}), model.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for key, array in arrays.items():
        if array.dtype == np.int64:  # shapes
            arrays[key] = np.array([smaller.get(n, n) for n in array.tolist()], np.int64)
    for node in graph.node if name not in LARGE else ():
        if node.op_type == "AveragePool" and [7, 7] in [list(a.ints) for a in node.attribute]:
            node.op_type = "GlobalAveragePool"  # the last image has 7 x 7 pixels only for 224
            del node.attribute[:]
    constants = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    removed = {node.input[0] for node in constants}
    shapes = {node.output[0]: tuple(arrays.pop(node.input[0])) for node in constants}
    shapes |= {key: array.shape for key, array in arrays.items() if array.dtype == np.float32}
    factors, rng = names_of_factors(graph), np.random.default_rng(0)
    for key, shape in shapes.items():
        arrays[key] = draw(rng, shape, key in factors).astype(np.float32)
    for node in constants:
        graph.node.remove(node)
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(a, key) for key, a in arrays.items())
    ports = [port for port in graph.input if port.name not in {*arrays, *removed}]
    del graph.input[:]
    graph.input.extend(ports)
    for length in graph.input[0].type.tensor_type.shape.dim[2:] if name not in LARGE else ():
        length.dim_value = PIXELS
    model.ir_version = 4  # since this version, an initializer need not be an input
    return model


def names_of_factors(graph):
    """Return the names of the scales and variances of norms."""
    multiplied = {key for node in graph.node if node.op_type == "Mul" for key in node.input}
    norms = [node.input for node in graph.node if node.op_type == "BatchNormalization"]
    scales = [
        node.input[0]
        for node in graph.node
        if node.op_type == "Unsqueeze" and node.output[0] in multiplied
    ]
    return {*scales, *(key for names in norms for key in (names[1], names[4]))}


def draw(rng, shape, is_factor):
    """Return random weights with which the numbers keep their size from layer to layer."""
    if is_factor:
        return rng.uniform(0.4, 0.8, shape)
    variances = {1: 0.01, 2: 0.2 / shape[-1], 4: 2 / np.prod(shape[1:])}
    return rng.standard_normal(shape) * variances[len(shape)] ** 0.5


if __name__ == "__main__":
    name, path = sys.argv[1:]
    onnx.save(sklearn_mlp() if name == "sklearn_mlp" else light_model(name), path)
