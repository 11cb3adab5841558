"""ONNX: a format, run by onnxruntime."""
