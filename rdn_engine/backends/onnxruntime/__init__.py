"""ONNX Runtime, on the host and on the device."""

import os

# Its Linux wheels write a device identifier and a database into the user's cache when they are imported
# (findings/onnxruntime_telemetry_at_import.sh). Before any import of it here; a value of the user's own wins.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
