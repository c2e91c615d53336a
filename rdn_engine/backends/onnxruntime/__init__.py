"""ONNX Runtime, on the host and on the device."""
