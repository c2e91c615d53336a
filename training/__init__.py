"""Training of the torch model and the synthetic videos it learns from."""
