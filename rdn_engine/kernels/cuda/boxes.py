"""Typed faces of the CUDA kernels around the network: resize, proposals, RoI pooling, detections.

They compute what `rdn_engine.kernels.cpu` computes, for a batch of frames, and leave the device memory that they fill
to the caller: nothing is allocated, copied to the host or waited for, so every call can be captured in a CUDA graph.
`stream` is the address of a `cudaStream_t` (0: the default stream). Arrays are device arrays
(`rdn_engine.kernels.cuda.view`); boxes are xyxy float32 in pixels of the network input. Features are float32, float16
or bfloat16; boxes and scores float32.
`ValueError` quotes what was got where an argument does not fit, `RuntimeError` what CUDA said.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from rdn_engine.kernels.cuda.load import load_kernels
from rdn_engine.kernels.cuda.view import FLOATS, Arrays, Viewer, view_of

Size = tuple[int, int]


class Kernels:
    """The kernels of one build. `module` and `viewer` are for tests, which run the same code without a device."""

    def __init__(self, module: Any = None, viewer: Viewer = view_of) -> None:
        self.module: Any = load_kernels() if module is None else module
        self.arrays = Arrays(viewer)

    def roi_pool(
        self,
        feature_map: Any,
        boxes: Any,
        out: Any,
        scale: float,
        size: int,
        pooling: Literal["align", "max"],
        *,
        counts: Any = None,
        image_index: Any = None,
        channels_last: bool = True,
        stream: int = 0,
    ) -> None:
        """RoIAlign (aligned=False, adaptive sampling) or RoI max pooling of finite boxes.

        feature_map [B, H, W, C], boxes [R, 4], out [R, W], W at least size * size * C: cells [size, size, C], and what
        follows them is left alone. With `channels_last=False` [B, C, H, W] and [C, size, size]. Without image_index
        int32 [R] the first R / B boxes are of image 0, and so on; then counts int32 [B] may say how many of an image
        there are, and the rest give zeros.
        """
        a = self.arrays
        layout = "[B, H, W, C]" if channels_last else "[B, C, H, W]"
        image = a.floats(feature_map, (None,) * 4, f"feature_map {layout}")
        axes = (0, 1, 2, 3) if channels_last else (0, 2, 3, 1)
        batch, height, width, channels = (image.shape[axis] for axis in axes)
        box = a.float32(boxes, (None, 4), "boxes [R, 4]")
        rois = box.shape[0]
        if image_index is None and rois % max(batch, 1):
            raise ValueError(f"{rois} boxes do not divide among {batch} images; wanted image_index")
        least = size * size * channels
        pooled = a.any(out, (image.dtype,), (rois, None), f"out [R = {rois}, {least} or more] of the map's type")
        if pooled.shape[1] < least:
            raise ValueError(f"wanted out [R = {rois}, {least} or more], got {pooled}")
        self.module.RoiPool(
            feature_map=image.pointer,
            boxes=box.pointer,
            image_index=a.pointer(image_index, np.int32, (rois,), f"image_index [R = {rois}]"),
            counts=a.pointer(counts, np.int32, (batch,), f"counts [B = {batch}]"),
            type=FLOATS[image.dtype],
            channels_last=channels_last,
            height=height,
            width=width,
            channels=channels,
            rois=rois,
            rois_per_image=rois // batch if batch else 0,
            scale=scale,
            size=size,
            max=pooling == "max",
            row=pooled.shape[1],
            out=pooled.pointer,
        ).run(stream)

    def propose(
        self,
        objectness: Any,
        deltas: Any,
        grid: Size,
        cell_anchors: Any,
        stride: int,
        image_size: Size,
        pre_nms_top_n: int,
        nms_threshold: float,
        boxes: Any,
        scores: Any,
        counts: Any,
        workspace: Any,
        *,
        stream: int = 0,
    ) -> None:
        """Region proposals as `ops.propose`: objectness [B, H*W*A], deltas [B, H*W*A, 4], cell_anchors [A, 4].

        Fills boxes [B, n, 4], scores [B, n] and counts int32 [B]; n is at most 2048, pre_nms_top_n at most 8192. The
        workspace has `propose_bytes` bytes.
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
            stride=stride,
            image_height=image_size[0],
            image_width=image_size[1],
            pre_nms_top_n=pre_nms_top_n,
            max_proposals=most,
            nms_threshold=nms_threshold,
            boxes=box.pointer,
            scores=a.float32(scores, (batch, most), f"scores [{batch}, {most}]").pointer,
            counts=a.int32(counts, (batch,), f"counts [B = {batch}]").pointer,
            workspace=a.workspace(workspace, self.propose_bytes(batch, pre_nms_top_n)),
        ).run(stream)

    def propose_bytes(self, batch: int, pre_nms_top_n: int) -> int:
        """Size of the workspace of `propose`."""
        return int(self.module.propose_bytes(batch, pre_nms_top_n))

    def detect(
        self,
        logits: Any,
        deltas: Any,
        boxes: Any,
        image_size: Size,
        box_weights: tuple[float, ...],
        score_threshold: float,
        nms_threshold: float,
        xyxy: Any,
        confidence: Any,
        class_id: Any,
        proposal: Any,
        counts: Any,
        workspace: Any,
        *,
        row_counts: Any = None,
        scale: tuple[float, float] = (1.0, 1.0),
        stream: int = 0,
    ) -> None:
        """Detections of each image as `ops.detect`: logits [B, n, C + 1], deltas [B, n, 4 (C + 1)], boxes [B, n, 4].

        Fills xyxy [B, m, 4], confidence [B, m], class_id and proposal (row each comes from) int32 [B, m] and counts
        int32 [B], zeros past the count; n is at most 8192, m at most 2048. row_counts int32 [B]: rows past an image's
        count take no part. scale (x, y) turns pixels of the input into those of xyxy. The workspace has `detect_bytes`
        bytes.
        """
        a = self.arrays
        logit = a.floats(logits, (None, None, None), "logits [B, n, C + 1]")
        batch, rows, classes = logit.shape[0], logit.shape[1], logit.shape[2] - 1
        found = a.float32(xyxy, (batch, None, 4), f"xyxy [B = {batch}, m, 4]")
        most = found.shape[1]
        self.module.Detect(
            logits=logit.pointer,
            deltas=a.any(deltas, (logit.dtype,), (batch, rows, 4 * (classes + 1)), "deltas [B, n, 4 (C + 1)]").pointer,
            boxes=a.float32(boxes, (batch, rows, 4), f"boxes [{batch}, {rows}, 4]").pointer,
            row_counts=a.pointer(row_counts, np.int32, (batch,), f"row_counts [B = {batch}]"),
            type=FLOATS[logit.dtype],
            batch=batch,
            rows=rows,
            classes=classes,
            image_height=image_size[0],
            image_width=image_size[1],
            box_weights=box_weights,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=most,
            scale_x=scale[0],
            scale_y=scale[1],
            xyxy=found.pointer,
            confidence=a.float32(confidence, (batch, most), f"confidence [{batch}, {most}]").pointer,
            class_id=a.int32(class_id, (batch, most), f"class_id [{batch}, {most}]").pointer,
            proposal=a.int32(proposal, (batch, most), f"proposal [{batch}, {most}]").pointer,
            counts=a.int32(counts, (batch,), f"counts [B = {batch}]").pointer,
            workspace=a.workspace(workspace, self.detect_bytes(batch, rows, classes, most)),
        ).run(stream)

    def detect_bytes(self, batch: int, rows: int, classes: int, max_detections: int) -> int:
        """Size of the workspace of `detect`."""
        return int(self.module.detect_bytes(batch, rows, classes, max_detections))


class Resizer:
    """`ops.resize_normalize` for a batch of frames of one size; PIL's bilinear to the bit.

    images uint8 [B, H, W, 3] RGB. NV12: luma [B, H, W] with W even, chroma [B, (H + 1) / 2, W], limited range.
    """

    def __init__(
        self,
        kernels: Kernels,
        image_size: Size,
        size: Size,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        channel_order: Literal["bgr", "rgb"],
        yuv_matrix: Literal["bt601", "bt709"] = "bt709",
    ) -> None:
        self._kernels = kernels
        self._fixed = {
            "height": image_size[0],
            "width": image_size[1],
            "out_height": size[0],
            "out_width": size[1],
            "mean": mean,
            "std": std,
            "bgr": channel_order == "bgr",
            "yuv_matrix": 1 if yuv_matrix == "bt709" else 0,
        }
        self._image_size, self._size = image_size, size

    def nbytes(self, batch: int) -> int:
        """Size of the workspace, which must stay as `prepare` left it."""
        return int(self._record(batch, None, 0, None, 0, None, None).workspace_bytes())

    def prepare(self, batch: int, workspace: Any, stream: int = 0) -> None:
        """Fill the workspace with the filter; once for batches of this size."""
        address = self._kernels.arrays.workspace(workspace, self.nbytes(batch))
        self._record(batch, None, 0, None, 0, None, address).prepare(stream)

    def __call__(
        self,
        images: Any,
        out: Any,
        workspace: Any,
        *,
        chroma: Any = None,
        row_bytes: int | None = None,
        stream: int = 0,
    ) -> None:
        """-> out [B, 3, height, width], (pixel - mean) / std.

        row_bytes: from one row to the next, in both planes, where rows of `images` and `chroma` (Views) have gaps.
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
        address = a.workspace(workspace, self.nbytes(batch))
        step = row_bytes or (3 * width if chroma is None else width)
        self._record(batch, image.pointer, step, uv, FLOATS[result.dtype], result.pointer, address).run(stream)

    def _record(
        self,
        batch: int,
        image: int | None,
        row_bytes: int,
        chroma: int | None,
        kind: int,
        out: int | None,
        workspace: Any,
    ) -> Any:
        height = self._image_size[0]
        return self._kernels.module.Resize(
            image=image,
            chroma=chroma,
            image_bytes=height * row_bytes,
            chroma_bytes=(height + 1) // 2 * row_bytes,
            row_bytes=row_bytes,
            batch=batch,
            type=kind,
            out=out,
            workspace=workspace,
            **self._fixed,
        )
