"""The backend ``onnxruntime``, which runs graphs of ONNX operators."""
