"""Who runs a graph: named arrays in, named arrays out."""

from __future__ import annotations

import importlib

from rdn_engine.backends.graph import MOST_THREADS, Backend, BackendName, Device
from rdn_engine.errors import BackendUnavailable, ConfigError

# tensorrt_rtx shares the module of tensorrt: the two differ in the library they load, not in what they are for
_MODULES = {
    "onnxruntime": "onnxruntime.host",
    "tensorrt": "tensorrt.backend",
    "tensorrt_rtx": "tensorrt.backend",
    "torch": "torch.backend",
}


def load_backend(name: BackendName, device: Device, threads: int) -> Backend:
    """Open a backend, which loads its library.

    Args:
        name: of the backend.
        device: where its graphs run.
        threads: bounds the CPU threads of each call, 1..MOST_THREADS.

    Raises:
        BackendUnavailable: says what is missing.
        ConfigError: for another number of threads.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise ConfigError(f"threads is {threads!r}; wanted 1..{MOST_THREADS}, or None for every CPU")
    if name not in _MODULES:
        raise BackendUnavailable(f"backend is {name!r}; wanted one of {sorted(_MODULES)}")
    if device not in ("cpu", "cuda"):
        raise BackendUnavailable(f"device is {device!r}; wanted 'cpu' or 'cuda'")
    module = importlib.import_module(f"rdn_engine.backends.{_MODULES[name]}")
    backend: Backend = module.open_backend(name, device, threads)
    return backend
