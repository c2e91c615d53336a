"""Typed faces of the CUDA kernels around the network: resize, proposals, RoI pooling, detections.

They compute what `rdn_engine.kernels.cpu.boxes` computes, for a batch of frames, and leave the device memory that they
fill to the caller: nothing is allocated, copied to the host or waited for, so every call can be captured in a CUDA
graph. `stream` is the address of a `cudaStream_t` (0: the default stream). Arrays are device arrays
(`rdn_engine.kernels.cuda.view`); boxes are xyxy float32 in pixels of the network input. Features are float32, float16
or bfloat16; boxes and scores float32. `ValueError` quotes what was got where an argument does not fit, `RuntimeError`
what CUDA said.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rdn_engine.config import DetectionConfig, RoIConfig, RPNConfig
from rdn_engine.frame import YUV_MATRICES, YuvMatrix
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels.cuda.load import load_kernels
from rdn_engine.kernels.cuda.view import FLOATS, Arrays, Viewer, view_of

Size = tuple[int, int]


class Kernels:
    """The kernels of one build. `module` and `viewer` are for tests, which run the same code without a device."""

    def __init__(self, module: Any = None, viewer: Viewer = view_of) -> None:
        self.module: Any = load_kernels() if module is None else module
        self.arrays = Arrays(viewer)

    def roi_pool(
        self, feature_map: Any, boxes: Any, *, counts: Any, config: RoIConfig, scale: float, out: Any, stream: int = 0
    ) -> None:
        """RoIAlign (aligned=False, adaptive sampling) or RoI max pooling; DESIGN section 2, RoI feature.

        Args:
            feature_map: [B, H, W, C].
            boxes: float32 [R, 4], the first R / B of image 0, and so on; those up to an image's count are finite.
            counts: int32 [B] boxes that an image has; the others give zeros.
            config: which pooling, and cells on a side.
            scale: cells of the map for one pixel: 1 / stride.
            out: [R, W] of the map's type, W at least size * size * C: is filled with cells [size, size, C]; what
                follows them is left alone.
            stream: of CUDA.

        Raises:
            ValueError: an argument does not fit.
            RuntimeError: CUDA refused.
        """
        a, size = self.arrays, config.size
        image = a.floats(feature_map, (None,) * 4, "feature_map [B, H, W, C]")
        batch, height, width, channels = image.shape
        box = a.float32(boxes, (None, 4), "boxes [R, 4]")
        rois = box.shape[0]
        if rois % max(batch, 1):
            raise ValueError(f"wanted as many boxes for each of {batch} images, got {rois}")
        least = size * size * channels
        pooled = a.any(out, (image.dtype,), (rois, None), f"out [R = {rois}, {least} or more] of the map's type")
        if pooled.shape[1] < least:
            raise ValueError(f"wanted out [R = {rois}, {least} or more], got {pooled}")
        self.module.RoiPool(
            feature_map=image.pointer,
            boxes=box.pointer,
            counts=a.int32(counts, (batch,), f"counts [B = {batch}]").pointer,
            type=FLOATS[image.dtype],
            height=height,
            width=width,
            channels=channels,
            rois=rois,
            rois_per_image=rois // batch if batch else 0,
            scale=scale,
            size=size,
            max=config.pooling == "max",
            row=pooled.shape[1],
            out=pooled.pointer,
        ).run(stream)

    def propose(
        self,
        objectness: Any,
        deltas: Any,
        *,
        grid: Size,
        network_size: Size,
        cell_anchors: Any,
        config: RPNConfig,
        boxes: Any,
        scores: Any,
        counts: Any,
        workspace: Any,
        stream: int = 0,
    ) -> None:
        """Region proposals as `cpu.propose`; DESIGN section 2, RPN.

        Args:
            objectness: [B, H*W*A].
            deltas: [B, H*W*A, 4] of the same type.
            grid: (H, W) cells of the map.
            network_size: (height, width) that boxes are clipped to, pixels.
            cell_anchors: float32 [A, 4] around the first cell.
            config: stride, how many enter suppression (at most 8192), and the IoU above which the worse of two leaves.
            boxes: float32 [B, n, 4], n at most 2048: is filled, zeros past the count.
            scores: float32 [B, n]: is filled likewise.
            counts: int32 [B]: is filled.
            workspace: `propose_bytes` bytes.
            stream: of CUDA.

        Raises:
            ValueError: an argument does not fit.
            RuntimeError: CUDA refused.
        """
        a = self.arrays
        anchors = a.float32(cell_anchors, (None, 4), "cell_anchors [A, 4]")
        per_image = grid[0] * grid[1] * anchors.shape[0]
        score = a.floats(objectness, (None, per_image), f"objectness [B, H*W*A = {per_image}]")
        batch = score.shape[0]
        box = a.float32(boxes, (batch, None, 4), f"boxes [B = {batch}, n, 4]")
        most = box.shape[1]
        self.module.Propose(
            objectness=score.pointer,
            deltas=a.any(deltas, (score.dtype,), (batch, per_image, 4), f"deltas [{batch}, {per_image}, 4]").pointer,
            cell_anchors=anchors.pointer,
            type=FLOATS[score.dtype],
            batch=batch,
            grid_height=grid[0],
            grid_width=grid[1],
            anchors=anchors.shape[0],
            stride=config.stride,
            image_height=network_size[0],
            image_width=network_size[1],
            pre_nms_top_n=config.pre_nms_top_n,
            max_proposals=most,
            nms_threshold=config.nms_threshold,
            boxes=box.pointer,
            scores=a.float32(scores, (batch, most), f"scores [{batch}, {most}]").pointer,
            counts=a.int32(counts, (batch,), f"counts [B = {batch}]").pointer,
            workspace=a.workspace(workspace, self.propose_bytes(batch, config)),
        ).run(stream)

    def propose_bytes(self, batch: int, config: RPNConfig) -> int:
        """Size of the workspace of `propose`."""
        return int(self.module.propose_bytes(batch, config.pre_nms_top_n))

    def detect(
        self,
        logits: Any,
        deltas: Any,
        boxes: Any,
        *,
        row_counts: Any,
        network_size: Size,
        config: DetectionConfig,
        score_threshold: float,
        scale: tuple[float, float],
        xyxy: Any,
        confidence: Any,
        class_id: Any,
        proposal: Any,
        counts: Any,
        workspace: Any,
        stream: int = 0,
    ) -> None:
        """Detections of each image as `cpu.detect`; DESIGN section 2, Output.

        Args:
            logits: [B, n, C + 1] background first, n at most 8192.
            deltas: [B, n, 4 (C + 1)] of the same type.
            boxes: float32 [B, n, 4] proposals.
            row_counts: int32 [B]; rows past an image's count take no part.
            network_size: (height, width) that boxes are clipped to, pixels.
            config: box weights, the IoU above which the worse of two leaves, and m = max_detections, at most 2048.
            score_threshold: in 0..1; a detection's confidence is above it.
            scale: (x, y) turns pixels of the network input into those of `xyxy`.
            xyxy: float32 [B, m, 4]: is filled, zeros past the count, as the next three.
            confidence: float32 [B, m].
            class_id: int32 [B, m] 0 is the first foreground class.
            proposal: int32 [B, m] row that each comes from.
            counts: int32 [B]: is filled.
            workspace: `detect_bytes` bytes.
            stream: of CUDA.

        Raises:
            ValueError: an argument does not fit.
            RuntimeError: CUDA refused.
        """
        a, most = self.arrays, config.max_detections
        logit = a.floats(logits, (None, None, None), "logits [B, n, C + 1]")
        batch, rows, classes = logit.shape[0], logit.shape[1], logit.shape[2] - 1
        self.module.Detect(
            logits=logit.pointer,
            deltas=a.any(deltas, (logit.dtype,), (batch, rows, 4 * (classes + 1)), "deltas [B, n, 4 (C + 1)]").pointer,
            boxes=a.float32(boxes, (batch, rows, 4), f"boxes [{batch}, {rows}, 4]").pointer,
            row_counts=a.int32(row_counts, (batch,), f"row_counts [B = {batch}]").pointer,
            type=FLOATS[logit.dtype],
            batch=batch,
            rows=rows,
            classes=classes,
            image_height=network_size[0],
            image_width=network_size[1],
            box_weights=config.box_weights,
            score_threshold=score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=most,
            scale_x=scale[0],
            scale_y=scale[1],
            xyxy=a.float32(xyxy, (batch, most, 4), f"xyxy [{batch}, {most}, 4]").pointer,
            confidence=a.float32(confidence, (batch, most), f"confidence [{batch}, {most}]").pointer,
            class_id=a.int32(class_id, (batch, most), f"class_id [{batch}, {most}]").pointer,
            proposal=a.int32(proposal, (batch, most), f"proposal [{batch}, {most}]").pointer,
            counts=a.int32(counts, (batch,), f"counts [B = {batch}]").pointer,
            workspace=a.workspace(workspace, self.detect_bytes(batch=batch, rows=rows, classes=classes, config=config)),
        ).run(stream)

    def detect_bytes(self, *, batch: int, rows: int, classes: int, config: DetectionConfig) -> int:
        """Size of the workspace of `detect`: B images of n rows, C foreground classes."""
        return int(self.module.detect_bytes(batch, rows, classes, config.max_detections))


class Resizer:
    """`cpu.resize_normalize` for a batch of frames of one size; PIL's bilinear to the bit (DESIGN section 2, Input).

    images uint8 [B, H, W, 3] RGB. NV12: luma [B, H, W] with W even, chroma [B, (H + 1) / 2, W].
    """

    def __init__(
        self,
        kernels: Kernels,
        config: InputConfig,
        *,
        image_size: Size,
        size: Size,
    ) -> None:
        """Nothing is computed yet.

        Args:
            kernels: of this build.
            config: mean, std and the order of the channels.
            image_size: (H, W) of the frames, pixels.
            size: (height, width) of the result, pixels.
        """
        self._kernels = kernels
        self._fixed = {
            "height": image_size[0],
            "width": image_size[1],
            "out_height": size[0],
            "out_width": size[1],
            "mean": config.mean,
            "std": config.std,
            "bgr": config.channel_order == "bgr",
        }
        self._image_size, self._size = image_size, size

    def nbytes(self, batch: int) -> int:
        """Size of the workspace for `batch` frames, which must stay as `prepare` left it."""
        return int(self._record(batch).workspace_bytes())

    def prepare(self, batch: int, workspace: Any, *, stream: int = 0) -> None:
        """Fills the workspace (`nbytes` bytes) with the filter; once for batches of this size.

        Raises:
            ValueError: the workspace is too small.
            RuntimeError: CUDA refused.
        """
        address = self._kernels.arrays.workspace(workspace, self.nbytes(batch))
        self._record(batch, workspace=address).prepare(stream)

    def __call__(
        self,
        images: Any,
        out: Any,
        workspace: Any,
        *,
        chroma: Any = None,
        matrix: YuvMatrix = "bt709",
        full_range: bool = False,
        row_bytes: int | None = None,
        stream: int = 0,
    ) -> None:
        """(pixel - mean) / std of the resized frames.

        Args:
            images: uint8 [B, H, W, 3], or the luma of NV12.
            out: [B, 3, height, width]: is filled.
            workspace: as `prepare` left it.
            chroma, matrix, full_range: of NV12, as `rdn_engine.frame.NV12` has them.
            row_bytes: from one row to the next, in both planes, where rows of `images` and `chroma` (Views) have gaps.
            stream: of CUDA.

        Raises:
            ValueError: an argument does not fit.
            RuntimeError: CUDA refused.
        """
        a = self._kernels.arrays
        height, width = self._image_size
        shape = (None, height, width, 3) if chroma is None else (None, height, width)
        image = a.any(images, (np.uint8,), shape, f"images {list(shape)}")
        batch = image.shape[0]
        if chroma is not None and width % 2:
            raise ValueError(f"NV12 frames have an even width, got {width}")
        rows = (height + 1) // 2
        uv = a.pointer(chroma, np.uint8, (batch, rows, width), f"chroma [{batch}, {rows}, {width}]")
        result = a.floats(out, (batch, 3, *self._size), f"out [{batch}, 3, {self._size[0]}, {self._size[1]}]")
        self._record(
            batch,
            workspace=a.workspace(workspace, self.nbytes(batch)),
            image=image.pointer,
            row_bytes=row_bytes or (3 * width if chroma is None else width),
            chroma=uv,
            yuv_matrix=YUV_MATRICES.index(matrix),
            yuv_full=full_range,
            kind=FLOATS[result.dtype],
            out=result.pointer,
        ).run(stream)

    def _record(
        self,
        batch: int,
        *,
        workspace: int | None = None,
        image: int | None = None,
        row_bytes: int = 0,
        chroma: int | None = None,
        yuv_matrix: int = 0,
        yuv_full: bool = False,
        kind: int = 0,
        out: int | None = None,
    ) -> Any:
        height = self._image_size[0]
        return self._kernels.module.Resize(
            image=image,
            chroma=chroma,
            image_bytes=height * row_bytes,
            chroma_bytes=(height + 1) // 2 * row_bytes,
            row_bytes=row_bytes,
            yuv_matrix=yuv_matrix,
            yuv_full=yuv_full,
            batch=batch,
            type=kind,
            out=out,
            workspace=workspace,
            **self._fixed,
        )
