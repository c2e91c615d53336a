"""The compiled kernels and their typed faces: `cpu` over `_C`, `cuda` over `_cuda`."""
