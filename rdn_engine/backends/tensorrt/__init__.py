"""TensorRT and TensorRT for RTX: plans, their cache, and the relation plugin's graph."""
