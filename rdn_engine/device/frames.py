"""Frames on their way into an encoder on the device, from the host or from wherever on the device they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rdn_engine.device.encoder import DeviceEncoder
from rdn_engine.device.gpu import Gpu, Queue
from rdn_engine.errors import FrameError
from rdn_engine.frame import NV12, YUV_MATRICES, Image, YuvMatrix, check_image, wrong_size
from rdn_engine.kernels.cuda.view import View, rows_of_interface

_ON_DEVICE = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged


class DeviceImage(NamedTuple):
    """A frame that was checked: on the host, or on the device in one plane or two."""

    host: Image | None
    """uint8 [H, W, 3] RGB; None for a frame of the device"""
    pixels: View | None
    """uint8 [H, W, 3] RGB, or the luma [H, W] of NV12; None for a frame of the host"""
    chroma: View | None
    """uint8 [(H + 1) / 2, W]; None but for NV12"""
    matrix: YuvMatrix
    full_range: bool
    """Of NV12"""
    row_bytes: int
    """From one row to the next, in both planes"""
    owners: tuple[Any, ...]
    """Keep the memory of the views."""
    streams: frozenset[int]
    """What fills it, and may overwrite it once it was read."""


class FrameLoader:
    """Checks frames and puts them into encoders, in order on one queue.

    Frames of the host go through two buffers in turn, each pinned on the host and again on the device, on a queue of
    their own, so that one is copied while the frame before is computed.
    """

    def __init__(self, gpu: Gpu, queue: Queue) -> None:
        """Make the queue of the copies.

        Args:
            gpu: the device.
            queue: that frames are encoded on.
        """
        self._gpu, self._queue, self._copies = gpu, queue, gpu.queue()
        self._copied, self._read = [gpu.event(), gpu.event()], [gpu.event(), gpu.event()]
        self._pinned: list[Image] = []
        self._placed: list[Any] = []
        self._frames = 0

    def check(self, image: Any, stream: int) -> tuple[DeviceImage, tuple[int, int]]:
        """Check a frame, as it came.

        Args:
            image: uint8 [H, W, 3] RGB on the host or on the device, or NV12.
            stream: address of the cudaStream_t that fills a device array; what it has now goes before.

        Returns:
            The frame, and its (height, width) in pixels.

        Raises:
            FrameError: for what is no image, quoting what was got.
        """
        if isinstance(image, NV12):
            return self._check_nv12(image, stream)
        if not _on_device(image):
            host = check_image(image)
            return DeviceImage(host, None, None, "bt709", False, 0, (), frozenset()), (host.shape[0], host.shape[1])
        view, step, owner, streams = self._view(image, stream)
        fits = view.dtype == np.uint8 and len(view.shape) == 3 and view.shape[2] == 3
        wrong = wrong_size(view.shape[0], view.shape[1]) if fits else ""
        if wrong is not None:
            raise FrameError(f"got a device array {view}; wanted uint8 [H, W, 3] RGB{wrong}")
        return DeviceImage(None, view, None, "bt709", False, step, (owner,), streams), (view.shape[0], view.shape[1])

    def _check_nv12(self, image: NV12, stream: int) -> tuple[DeviceImage, tuple[int, int]]:
        if image.matrix not in YUV_MATRICES or not isinstance(image.full_range, bool):
            got = f"got NV12 with matrix {image.matrix!r} and full_range {image.full_range!r}"
            raise FrameError(f"{got}; wanted one of {', '.join(YUV_MATRICES)}, and True or False")
        planes = image.luma, image.chroma
        for plane in planes:
            if not _on_device(plane):
                raise FrameError(f"NV12 of {type(plane).__name__}; wanted two device arrays")
        (luma, *of_luma), (chroma, *of_chroma) = (self._view(plane, stream) for plane in planes)
        if of_luma[0] != of_chroma[0]:
            raise FrameError(f"got NV12 with {of_luma[0]} and {of_chroma[0]} bytes from row to row; wanted the same")
        fits = luma.dtype == np.uint8 and chroma.dtype == np.uint8 and len(luma.shape) == 2 and luma.shape[1] % 2 == 0
        fits = fits and chroma.shape == ((luma.shape[0] + 1) // 2, luma.shape[1])
        wrong = wrong_size(luma.shape[0], luma.shape[1]) if fits else ""
        if wrong is not None:
            wanted = "uint8 [H, W] with an even W and uint8 [(H + 1) / 2, W]"
            raise FrameError(f"got NV12 of {luma} and {chroma}; wanted {wanted}{wrong}")
        owners, streams = (of_luma[1], of_chroma[1]), of_luma[2] | of_chroma[2]
        size = luma.shape[0], luma.shape[1]
        return DeviceImage(None, luma, chroma, image.matrix, image.full_range, of_luma[0], owners, streams), size

    def _view(self, array: Any, stream: int) -> tuple[View, int, Any, frozenset[int]]:
        owner, streams = self._queue.borrow(array, stream)
        try:
            return *rows_of_interface(owner.__cuda_array_interface__), owner, frozenset(streams)
        except ValueError as error:
            raise FrameError(f"{error}; wanted uint8 [H, W, 3] RGB") from None

    def load(self, image: DeviceImage, encoder: DeviceEncoder, place: int) -> None:
        """Put a frame before its encoder. What the streams of a device frame get from now on may overwrite or free it.

        Args:
            image: of `check`.
            encoder: for frames of its size.
            place: of the frame in the batch.
        """
        if image.host is not None:
            self._load_from_host(image.host, encoder, place)
        else:
            assert image.pixels is not None
            encoder.load(
                place, image.pixels, image.chroma, matrix=image.matrix, full_range=image.full_range,
                row_bytes=image.row_bytes,
            )  # fmt: skip
            for stream in image.streams:
                self._queue.lead(stream)

    def _load_from_host(self, image: Image, encoder: DeviceEncoder, place: int) -> None:
        if not self._pinned or self._pinned[0].shape != image.shape:
            self._make_room(image.shape)
        i = self._frames % 2
        self._frames += 1
        # Of two frames ago: long over, unless the host runs far ahead.
        self._copied[i].wait()
        np.copyto(self._pinned[i], image)
        self._read[i].lead(self._copies.ptr)
        self._copies.copy(self._placed[i], self._pinned[i])
        self._copied[i].record(self._copies.ptr)
        self._copied[i].lead(self._queue.ptr)
        (view,) = self._gpu.kernels.arrays.all({"image": self._placed[i]}).values()
        encoder.load(place, view, None, row_bytes=3 * image.shape[1])
        self._read[i].record(self._queue.ptr)

    def _make_room(self, shape: tuple[int, ...]) -> None:
        self._copies.wait()
        self._queue.wait()
        self._pinned = [self._gpu.pinned(shape, np.uint8) for _ in range(2)]
        self._placed = [self._queue.empty(shape, np.uint8) for _ in range(2)]

    @property
    def nbytes(self) -> int:
        """Bytes of the two buffers on the device; 0 before the first frame of the host."""
        return sum(int(a.nbytes) for a in self._placed)


def _on_device(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] in _ON_DEVICE
