"""The graphs of a bundle in torch, on the CPU or a GPU: the way to run on a GPU where TensorRT is not.

They are read from ONNX each time (program.py), so any torch from 2.11 on runs any bundle, and none is tied to the torch
that wrote it, as archives of `torch.export` are. torch is imported when this backend is opened, and not before.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends.device_graph import OnHost, Shapes, check_shapes, check_views, load_cupy
from rdn_engine.backends.graph import Graph, TensorSpec
from rdn_engine.backends.threads import check_threads
from rdn_engine.errors import BackendUnavailable, RDNError
from rdn_engine.kernels.cuda.view import View

if TYPE_CHECKING:
    from torch import Tensor

    from rdn_engine.backends.torch.program import Program


class Torch:
    """The backend on the CPU or on the current device."""

    name = "torch"

    def __init__(self, device: str, threads: int) -> None:
        torch = _import_torch()
        if device == "cuda":
            self._cupy = load_cupy("torch")
            if not torch.cuda.is_available():
                raise BackendUnavailable(f"torch {torch.__version__} finds no CUDA device; wanted a build with CUDA")
        else:
            check_threads(threads)
            # torch has one number for the whole process.
            torch.set_num_threads(threads)
        self._torch, self._device = torch, device

    def load(self, path: Path) -> Graph:
        """As `Backend.load`; on a device one call at a time, for checks."""
        if self._device == "cuda":
            return OnHost(self.load_device(path), self._cupy)
        return TorchGraph(self._torch, self._program(path), path.name)

    def load_device(self, path: Path) -> TorchDeviceGraph:
        if self._device != "cuda":
            raise BackendUnavailable(f"backend 'torch' is open on {self._device!r}; device arrays want device 'cuda'")
        return TorchDeviceGraph(self._torch, self._program(path), path.name)

    def _program(self, path: Path) -> Program:
        from rdn_engine.backends.torch.program import Program

        return Program(path).eval().to(self._device)


class TorchGraph:
    """On the CPU. Calls from several threads at once share torch's threads."""

    def __init__(self, torch: ModuleType, program: Program, name: str) -> None:
        self._torch, self._program, self._name = torch, program, name
        self.inputs = tuple(program.inputs)
        self.outputs = tuple(program.outputs)

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        check_shapes(self._name, self.inputs, {name: array.shape for name, array in feeds.items()})
        arrays = [np.ascontiguousarray(feeds[name], dtype) for name, dtype in self._program.inputs.items()]
        with self._torch.inference_mode():
            found = _run(self._program, [self._torch.from_numpy(array) for array in arrays], self._name)
        return {n: np.ascontiguousarray(tensor.numpy()) for n, tensor in zip(self.outputs, found, strict=True)}


class TorchDeviceGraph:
    """A graph whose weights are on the current device."""

    def __init__(self, torch: ModuleType, program: Program, name: str) -> None:
        self._torch, self._program, self._name = torch, program, name
        self.inputs = tuple(program.inputs)
        self.outputs = tuple(program.outputs)

    def bind(self, shapes: Shapes) -> TorchBound:
        check_shapes(self._name, self.inputs, shapes)
        return TorchBound(self._torch, self._program, self._name, shapes)


class TorchBound:
    """Works in a memory pool of its own, which a captured graph can go on using; what it computes is copied to the
    caller's arrays.
    """

    capturable = True

    def __init__(self, torch: ModuleType, program: Program, name: str, shapes: Shapes) -> None:
        self._torch, self._program, self._name = torch, program, name
        self._lock = threading.Lock()
        self.inputs = {n: TensorSpec(tuple(shapes[n]), np.dtype(dtype)) for n, dtype in program.inputs.items()}
        # The shapes of the outputs are found by running once; cuDNN then has chosen its algorithms, too.
        zeros = [torch.zeros(s.shape, dtype=_torch_dtype(torch, s.dtype), device="cuda") for s in self.inputs.values()]
        with self._working(torch.cuda.current_stream(), torch.cuda.MemPool()):
            found = _run(program, zeros, name)
        self._pool = torch.cuda.MemPool()
        self.outputs = {
            n: TensorSpec(tuple(tensor.shape), np.dtype(dtype))
            for (n, dtype), tensor in zip(program.outputs.items(), found, strict=True)
        }

    def run(self, feeds: Mapping[str, View], outputs: Mapping[str, View], stream: int) -> None:
        check_views(self._name, self.inputs, feeds)
        check_views(self._name, self.outputs, outputs, some=True)
        with self._lock, self._working(self._torch.cuda.ExternalStream(stream), self._pool):
            found = _run(self._program, [self._tensor(feeds[name]) for name in self.inputs], self._name)
            for name, tensor in zip(self.outputs, found, strict=True):
                if name in outputs:
                    self._tensor(outputs[name]).copy_(tensor)

    @contextlib.contextmanager
    def _working(self, stream: Any, pool: Any) -> Iterator[None]:
        torch = self._torch
        # TensorFloat-32 has the mantissa of float16: a bundle in float32 would not be what it says.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
        with torch.inference_mode(), torch.cuda.stream(stream), torch.cuda.use_mem_pool(pool), exact:
            yield

    def _tensor(self, view: View) -> Tensor:
        tensor: Tensor = self._torch.as_tensor(_Array(view), device="cuda")
        return tensor


class _Array:
    """A view as torch takes it, without a copy."""

    def __init__(self, view: View) -> None:
        data = (view.pointer, False)
        self.__cuda_array_interface__ = {"data": data, "shape": view.shape, "typestr": view.dtype.str, "version": 2}


def open_backend(name: str, device: str, threads: int) -> Torch:
    """Open torch.

    Args:
        name: `torch`.
        device: `cpu` or `cuda`.
        threads: CPU threads of each call on the CPU; torch has one number for the whole process.

    Raises:
        BackendUnavailable: without torch or onnx; for `cuda` without cupy, without a device, or with a torch that has
            no CUDA.
    """
    return Torch(device, threads)


def _run(program: Program, tensors: Sequence[Tensor], name: str) -> tuple[Tensor, ...]:
    try:
        found: tuple[Tensor, ...] = program(*tensors)
    except (RuntimeError, ValueError, IndexError) as error:
        shapes = {n: f"{t.dtype} {list(t.shape)}" for n, t in zip(program.inputs, tensors, strict=True)}
        raise RDNError(f"{name} failed in torch on {shapes}: {error}") from error
    return found


def _torch_dtype(torch: ModuleType, dtype: np.dtype[Any]) -> Any:
    return getattr(torch, dtype.name)


def _import_torch() -> ModuleType:
    try:
        import onnx  # noqa: F401
        import torch
    except ImportError as error:
        raise BackendUnavailable(
            f"backend 'torch' wants torch and onnx ({error}); pip install torch onnx, or use backend='onnxruntime'"
        ) from error
    return torch
