"""The ONNX format; onnxruntime runs its files."""
