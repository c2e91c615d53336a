"""Who runs a graph: named arrays in, named arrays out."""

from __future__ import annotations

from typing import get_args

from rdn_engine.backends.graph import MOST_THREADS, Backend, BackendName, Device
from rdn_engine.errors import BackendUnavailable, ConfigError


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
    if name not in get_args(BackendName):
        raise BackendUnavailable(f"backend is {name!r}; wanted one of {sorted(get_args(BackendName))}")
    if device not in get_args(Device):
        raise BackendUnavailable(f"device is {device!r}; wanted 'cpu' or 'cuda'")
    # Here, so that only the backend that is asked for loads its library; by statements, which a freezer of
    # applications follows.
    if name == "onnxruntime":
        from rdn_engine.backends.onnxruntime.host import open_backend as open_onnxruntime

        return open_onnxruntime(name, device, threads)
    if name == "torch":
        from rdn_engine.backends.torch.backend import open_backend as open_torch

        return open_torch(name, device, threads)
    if name == "openvino":
        try:
            from rdn_engine.backends.openvino.backend import open_backend as open_openvino
        except ImportError as error:
            raise BackendUnavailable(f"backend 'openvino' wants OpenVINO ({error}); pip install openvino") from error
        return open_openvino(name, device, threads)
    # The two differ in the library they load, not in what they are for.
    from rdn_engine.backends.tensorrt.backend import open_backend as open_tensorrt

    return open_tensorrt(name, device, threads)
