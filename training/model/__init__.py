"""The detector in torch: what is trained, and what the exported graphs are compared with."""
