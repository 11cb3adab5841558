"""The ONNX format, run by onnxruntime."""
