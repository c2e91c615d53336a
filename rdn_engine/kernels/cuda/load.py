"""The compiled CUDA kernels and cupy, where there are any."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from rdn_engine.errors import BackendUnavailable


def load_kernels() -> ModuleType:
    """The compiled kernels; `BackendUnavailable` where this build has none. Needs no device yet."""
    try:
        import rdn_engine.kernels._cuda as kernels  # type: ignore[import-not-found]
    except ImportError as error:
        raise BackendUnavailable(
            f"this build of rdn_engine has no CUDA kernels ({error}); build it where nvcc is, with RDN_CUDA=on"
        ) from None
    found: ModuleType = kernels
    return found


def load_cupy(asker: str) -> Any:
    """cupy, where there is a device. Raises BackendUnavailable that says what `asker` lacks."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        raise BackendUnavailable(
            f"{asker} wants cupy for its arrays on the device ({error}); pip install cupy-cuda13x"
        ) from error
    except Exception as error:
        # CUDARuntimeError, whose module may be what failed.
        raise BackendUnavailable(f"{asker} finds no CUDA device: {error}") from error
    if not count:
        raise BackendUnavailable(f"{asker} finds no CUDA device; wanted one or more")
    return cupy
