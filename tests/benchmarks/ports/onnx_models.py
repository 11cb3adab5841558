"""Write an ONNX file of skl2onnx, or of the package ``onnx``, for ``ports.py``.

python tests/benchmarks/ports/onnx_models.py sklearn_mlp FILE.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

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


def sklearn_mlp():
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 6)).astype("float32")
    y = rng.integers(0, 3, 60)
    return to_onnx(MLPClassifier((16, 8), max_iter=20).fit(x, y), x[:1])


if __name__ == "__main__":
    name, path = sys.argv[1:]
    light = Path(onnx.__file__).parent / "backend/test/data/light"
    model = sklearn_mlp() if name == "sklearn_mlp" else onnx.load(light / f"light_{name}.onnx")
    onnx.save(model, path)
