"""What the float32 graphs of a bundle compute on the calibration frames: the yardstick of ranges and of rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from export.calibration import Activations, CalibrationFrames, observer
from rdn_engine.backends import load_backend
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.config import RDNConfig
from rdn_engine.host import preprocess
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float

OUTPUTS = ("objectness", "deltas", "feature_map")
_COMPARED = 4  # of the calibration frames, on which ways to choose ranges are compared


@dataclass(frozen=True)
class Observation:
    config: RDNConfig
    frames: CalibrationFrames
    backbone: Activations = field(default_factory=Activations)
    """Of the image and of tensors of the backbone"""
    pooled: Activations = field(default_factory=Activations)
    """Of the cells that roi_head reads, as `pooled`"""
    outputs: list[dict[str, Float]] = field(default_factory=list)
    """Of the backbone, on the first frames"""

    @classmethod
    def of(cls, exact: Path, names: Sequence[str], config: RDNConfig, frames: CalibrationFrames) -> Observation:
        """What a float32 bundle computes on every calibration frame.

        Args:
            exact: directory of the float32 bundle.
            names: of tensors of its backbone.
            config: of the bundle.
            frames: to calibrate on.

        Returns:
            The values that these tensors, the image and the pooled cells took.

        Raises:
            PrecisionError: a value is not finite.
        """
        found = cls(config, frames)
        run = observer(exact / GRAPHS["backbone"], list(dict.fromkeys([*names, *OUTPUTS])))
        for image in found.images():
            tensors = run({"image": image})
            found.backbone.add("image", image)
            for name in names:
                found.backbone.add(name, tensors[name])
            outputs = {name: tensors[name] for name in OUTPUTS}
            if len(found.outputs) < _COMPARED:
                found.outputs.append(outputs)
            found.pooled.add("pooled", _pool(outputs, config, (image.shape[2], image.shape[3])))
        return found

    def images(self) -> Iterator[Float]:
        """Network inputs [1, 3, h, w]"""
        for image in self.frames.calibrate:
            yield preprocess.network_input(image, self.config.input, 1)[None]

    def error(self, graph: Path) -> float:
        """How far another backbone lies from float32.

        Args:
            graph: ONNX file of the backbone.

        Returns:
            The deviation of its difference over float32's own, 0 or more; mean of outputs and frames.
        """
        backbone = load_backend("onnxruntime", "cpu", 1).load(graph)
        rows = []
        for image, outputs in zip(self.images(), self.outputs, strict=False):
            got = backbone({"image": image})
            rows += [float((got[n] - w).std() / max(float(w.std()), 1e-12)) for n, w in outputs.items()]
        return float(np.mean(rows))


def _pool(outputs: dict[str, Float], config: RDNConfig, size: tuple[int, int]) -> Float:
    feature_map = outputs["feature_map"]
    grid = feature_map.shape[1], feature_map.shape[2]
    found = cpu.propose(
        outputs["objectness"],
        outputs["deltas"],
        grid=grid,
        network_size=size,
        cell_anchors=config.rpn.cell_anchors(),
        config=config.rpn,
        max_proposals=config.dials.num_reference,
    )
    boxes = found.boxes[0, : int(found.counts[0])]
    where = np.zeros(len(boxes), np.int64)
    return cpu.roi_pool(feature_map, boxes, where, config=config.roi, scale=1 / config.rpn.stride)
