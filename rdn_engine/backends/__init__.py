"""Who runs a graph: named arrays in, named arrays out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from rdn_engine.errors import BackendUnavailable, ConfigError

BackendName = Literal["onnxruntime", "tensorrt", "tensorrt_rtx", "torch"]
Device = Literal["cpu", "cuda"]

MOST_THREADS = 256
"""Of one call; the kernels stop there too."""

# tensorrt_rtx shares the module of tensorrt: the two differ in the library they load, not in what they are for
_MODULES = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt", "torch": "torch"}


class Graph(Protocol):
    """A loaded graph. Calls from several threads at once are allowed."""

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every input by name -> every output by name."""
        ...


class Backend(Protocol):
    @property
    def name(self) -> str: ...

    def load(self, path: Path) -> Graph:
        """Raises BundleError for a file that is no graph this backend can run."""
        ...


def load_backend(name: BackendName, device: Device, threads: int) -> Backend:
    """The backend called `name` on `device`, each of its calls bounded to `threads` CPU threads, 1..MOST_THREADS.

    Raises BackendUnavailable that says what is missing; ConfigError for another number of threads.
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
