"""The encoder on the device: from frames of one size to proposals with their features, without leaving it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rdn_engine.backends.graph import BoundGraph, DeviceGraph
from rdn_engine.config import RDNConfig
from rdn_engine.device.gpu import Gpu, Queue
from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.frame import YuvMatrix
from rdn_engine.kernels.cpu.boxes import pooled_width
from rdn_engine.kernels.cuda.boxes import Resizer
from rdn_engine.kernels.cuda.view import View

MOST_CANDIDATES, MOST_PROPOSALS = 8192, 2048
"""Limits of the kernel that proposes: boxes before suppression, and after."""


class DeviceGraphs(NamedTuple):
    """The graphs of the encoder, on the device."""

    backbone: DeviceGraph
    roi_head: DeviceGraph


class EncodedOnDevice(NamedTuple):
    """One frame of a batch, in place: n rows, of which `count` are there, k of them support rows."""

    count: Any
    """int32 [1]"""
    boxes: Any
    """[1, n, 4] network-input pixels"""
    objectness: Any
    """[1, n, 1]"""
    features: Any
    """[1, n, D]"""
    query: Any
    """[1, n, D]; None where there is no relation module, as the next three"""
    keys: Any
    """[P, k, D]"""
    values: Any
    """[P, k, D]"""
    refine_query: Any
    """[1, k, D]; None without the advanced stage"""


class DeviceEncoder:
    """Buffers and graphs for batches of `batch` frames of one `size`. Each batch overwrites the last.

    Every frame has num_reference (N) rows; those past its count are computed from zeros, and nobody looks at them.
    `network` is the (height, width) of the network input in pixels.
    """

    def __init__(
        self,
        gpu: Gpu,
        queue: Queue,
        config: RDNConfig,
        graphs: DeviceGraphs,
        size: tuple[int, int],
        batch: int,
        num_reference: int,
        num_support: int,
    ) -> None:
        """Bind the graphs and allocate; nothing is encoded yet.

        Args:
            gpu: the device.
            queue: that frames are encoded on.
            config: of the model.
            graphs: of the model.
            size: (height, width) of the frames, pixels.
            batch: frames in one run.
            num_reference: N, rows of a frame, at most MOST_PROPOSALS.
            num_support: K, its first rows that get keys and values, at most N.

        Raises:
            BundleError: for graphs whose types do not fit together.
            RDNError: for sizes that a graph's plan does not take.
            MemoryError: where the device has no room.
        """
        self._gpu, self._queue, self._config = gpu, queue, config
        self.size, self.batch, self.num_reference = size, batch, num_reference
        self._num_support = num_support
        self.network = config.input.network_size(*size)
        self._backbone = graphs.backbone.bind({"image": (batch, 3, *self.network)})
        spec = self._backbone.inputs["image"]
        self._image = queue.empty(*spec)
        self._found = _outputs(queue, self._backbone)
        self._resizer = self._prepare_resizer()
        self._prepare_proposals()
        self._prepare_rows(graphs.roi_head)

    def _prepare_resizer(self) -> Resizer:
        resizer = Resizer(self._gpu.kernels, self._config.input, image_size=self.size, size=self.network)
        self._filter = self._queue.empty(resizer.nbytes(1), np.uint8)
        resizer.prepare(1, self._filter, stream=self._queue.ptr)
        return resizer

    def _prepare_proposals(self) -> None:
        rpn, queue, kernels = self._config.rpn, self._queue, self._gpu.kernels
        self._boxes = queue.empty((self.batch, self.num_reference, 4), np.float32)
        self._objectness = queue.empty((self.batch, self.num_reference), np.float32)
        self._counts = queue.empty((self.batch,), np.int32)
        self._anchors = self._gpu.put(rpn.cell_anchors())
        self._workspace = queue.empty(kernels.propose_bytes(self.batch, rpn), np.uint8)

    def _prepare_rows(self, graph: DeviceGraph) -> None:
        feature_map, side = self._found["feature_map"], self._config.roi.size
        rows = self.batch * self.num_reference
        shapes: dict[str, tuple[int, ...]] = {"pooled": (rows, pooled_width(side, feature_map.shape[3]))}
        if self._config.relation.num_modules:
            shapes["support"] = (self.batch * self._num_support,)
        self._roi_head = graph.bind(shapes)
        pooled = self._roi_head.inputs["pooled"]
        if pooled.dtype != feature_map.dtype:
            raise BundleError(f"graph roi_head reads {pooled.dtype}, graph backbone puts out {feature_map.dtype}")
        self._feeds = {"pooled": self._queue.zeros(*pooled)}  # for good past the cells of a row
        if "support" in shapes:
            kept = np.arange(self.batch)[:, None] * self.num_reference + np.arange(self._num_support)
            self._feeds["support"] = self._gpu.put(kept.ravel().astype(self._roi_head.inputs["support"].dtype))
        self._rows = _outputs(self._queue, self._roi_head)

    @property
    def capturable(self) -> bool:
        """Whether `run` may be captured in a CUDA graph, once it has run before."""
        return self._backbone.capturable and self._roi_head.capturable

    def load(
        self,
        place: int,
        image: View,
        chroma: View | None,
        *,
        matrix: YuvMatrix = "bt709",
        full_range: bool = False,
        row_bytes: int,
    ) -> None:
        """Make the network input of a frame. `run` does not do it, because frames stand where their owner put them.

        Args:
            place: of the frame in the batch, 0..batch - 1.
            image: uint8 [H, W, 3] RGB on the device, or the luma [H, W] of NV12.
            chroma: uint8 [(H + 1) / 2, W] of NV12; None for RGB.
            matrix, full_range: of NV12.
            row_bytes: from one row to the next, in both planes.
        """
        one = View(image.pointer, (1, *image.shape), image.dtype)
        two = None if chroma is None else View(chroma.pointer, (1, *chroma.shape), chroma.dtype)
        with self._gpu.range("preprocess"):
            self._resizer(
                one, self._image[place : place + 1], self._filter, chroma=two, matrix=matrix, full_range=full_range,
                row_bytes=row_bytes, stream=self._queue.ptr,
            )  # fmt: skip

    def run(self) -> None:
        """Encode what was loaded."""
        gpu, rpn, stream, view = self._gpu, self._config.rpn, self._queue.ptr, self._gpu.kernels.arrays.all
        found = self._found
        with gpu.range("backbone"):
            self._backbone.run(view({"image": self._image}), view(found), stream)
        with gpu.range("proposals"):
            height, width = found["feature_map"].shape[1:3]
            gpu.kernels.propose(
                found["objectness"],
                found["deltas"],
                grid=(height, width),
                network_size=self.network,
                cell_anchors=self._anchors,
                config=rpn,
                boxes=self._boxes,
                scores=self._objectness,
                counts=self._counts,
                workspace=self._workspace,
                stream=stream,
            )
        with gpu.range("roi_pool"):
            gpu.kernels.roi_pool(
                found["feature_map"],
                self._boxes.reshape(-1, 4),
                counts=self._counts,
                config=self._config.roi,
                scale=1 / rpn.stride,
                out=self._feeds["pooled"],
                stream=stream,
            )
        with gpu.range("roi_head"):
            self._roi_head.run(view(self._feeds), view(self._rows), stream)

    def encoded(self, place: int) -> EncodedOnDevice:
        """The place of a frame of every batch.

        Args:
            place: of the frame in the batch, 0..batch - 1.

        Returns:
            Views, which the next run fills anew.
        """
        n, k = self.num_reference, self._num_support
        rows, these, support = self._rows, slice(place, place + 1), slice(place * k, (place + 1) * k)
        every = slice(place * n, (place + 1) * n)
        related, advanced = self._config.relation.num_modules > 0, self._config.relation.advanced
        return EncodedOnDevice(
            count=self._counts[these],
            boxes=self._boxes[these],
            objectness=self._objectness.reshape(self.batch, n, 1)[these],
            features=rows["features"][None, every],
            query=rows["query"][None, every] if related else None,
            keys=rows["keys"][:, support] if related else None,
            values=rows["values"][:, support] if related else None,
            refine_query=rows["refine_query"][None, support] if advanced else None,
        )

    @property
    def nbytes(self) -> int:
        """Bytes, without what the graphs work in."""
        held = [self._image, self._filter, self._boxes, self._objectness, self._counts, self._anchors, self._workspace]
        return sum(int(a.nbytes) for a in (*held, *self._found.values(), *self._feeds.values(), *self._rows.values()))


def _outputs(queue: Queue, graph: BoundGraph) -> dict[str, Any]:
    return {name: queue.empty(*spec) for name, spec in graph.outputs.items()}


def check_limits(config: RDNConfig, num_reference: int) -> None:
    """Check what the kernels of a device take.

    Args:
        config: of the model.
        num_reference: N, the largest that the dials may be turned to.

    Raises:
        ConfigError: for more candidates, proposals or detections of a frame.
    """
    for name, got, most in (
        ("rpn.pre_nms_top_n", config.rpn.pre_nms_top_n, MOST_CANDIDATES),
        ("num_reference (N)", num_reference, MOST_PROPOSALS),
        ("detection.max_detections", config.detection.max_detections, MOST_PROPOSALS),
    ):
        if got > most:
            raise ConfigError(f"{name} is {got}; device 'cuda' takes up to {most}")
