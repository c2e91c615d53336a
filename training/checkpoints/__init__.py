"""Checkpoints in: our own, the public RDN layout, torchvision's backbones."""
