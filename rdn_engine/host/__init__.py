"""The runtime behind `device="cpu"`, a file a stage."""
