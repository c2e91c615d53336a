"""Streams behind Triton Inference Server: the model repository, and what its Python backend calls."""
