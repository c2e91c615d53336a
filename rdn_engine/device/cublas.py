"""cuBLAS by itself: cupy, which brings the library, refuses to call it while a CUDA graph is captured."""

from __future__ import annotations

import contextlib
import ctypes

import numpy as np
from numpy.typing import DTypeLike

from rdn_engine.errors import BackendUnavailable

_TRANSPOSED, _AS_IT_IS = 1, 0  # cublasOperation_t
_KINDS = {np.dtype(np.float32): 0, np.dtype(np.float16): 2}  # cudaDataType
_SUM_IN_FLOAT32 = 68  # CUBLAS_COMPUTE_32F: no TF32
_ANY_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT


def load() -> ctypes.CDLL:
    """Load the library that cupy uses.

    Raises:
        BackendUnavailable: where it is not found.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception as error:
        # ImportError, or what each kind of search ends with.
        raise BackendUnavailable(f"device 'cuda' wants cuBLAS ({error}); pip install nvidia-cublas") from error


class Cublas:
    """One handle, for the work of one CUDA stream, with a workspace of its own: nothing is allocated in a capture."""

    def __init__(self, stream: int, workspace: int, workspace_bytes: int) -> None:
        """Make the handle.

        Args:
            stream: address of the cudaStream_t that products are put on.
            workspace: address of device memory that outlives the handle and the graphs captured with it.
            workspace_bytes: its size.

        Raises:
            BackendUnavailable: without the library.
            RuntimeError: for a call that cuBLAS refuses.
        """
        self._library = load()
        self._library.cublasGetStatusString.restype = ctypes.c_char_p
        handle = ctypes.c_void_p()
        self._check(self._library.cublasCreate_v2(ctypes.byref(handle)))
        self._handle = handle
        # In this order: setting the stream takes the workspace away.
        self._check(self._library.cublasSetStream_v2(handle, ctypes.c_void_p(stream)))
        self._check(
            self._library.cublasSetWorkspace_v2(handle, ctypes.c_void_p(workspace), ctypes.c_size_t(workspace_bytes))
        )
        self._one, self._zero = ctypes.c_float(1), ctypes.c_float(0)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            with contextlib.suppress(Exception):  # the driver may have gone already
                self._library.cublasDestroy_v2(self._handle)

    def product(
        self, x: int, weight: int, out: int, shape: tuple[int, int, int], kind: DTypeLike, out_kind: DTypeLike
    ) -> None:
        """Put out = x weight^T on the stream, summed in float32.

        Args:
            x, weight, out: addresses of dense device arrays [n, d], [m, d] and [n, m].
            shape: (n, m, d).
            kind: of x and weight, float32 or float16.
            out_kind: of out, float32 or float16.

        Raises:
            RuntimeError: for a call that cuBLAS refuses.
        """
        n, m, d = shape
        code = _KINDS[np.dtype(kind)]
        # Column by column, as cuBLAS counts, out is [m, n], x is [d, n] and the weight [d, m].
        self._check(
            self._library.cublasGemmEx(
                self._handle, _TRANSPOSED, _AS_IT_IS, m, n, d,
                ctypes.byref(self._one), ctypes.c_void_p(weight), code, d, ctypes.c_void_p(x), code, d,
                ctypes.byref(self._zero), ctypes.c_void_p(out), _KINDS[np.dtype(out_kind)], m,
                _SUM_IN_FLOAT32, _ANY_ALGORITHM,
            )
        )  # fmt: skip

    def _check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(f"cuBLAS: {self._library.cublasGetStatusString(status).decode()}")
