"""From a trained checkpoint to an engine directory, with proof that the graphs compute what torch computes."""

import rdn_engine.backends.onnxruntime  # noqa: F401  it keeps ONNX Runtime from writing into the home folder
