"""The graphs of a YOLOV model, whether they compute what torch computes, and the golden results of its bundle.

    encoder    image [batch, 3, height, width] -> boxes [batch, A, 4], class_scores [batch, A, C],
               objectness [batch, A], features and features_reg [batch, A, D]
    relation   features and features_reg [rows, D], scale_cls and scale_reg [rows], similarity [],
               reference [reference_rows] -> out [reference_rows, 4 D], omega [reference_rows, rows]

Between them: choice of proposals and NMS; behind them the average with the past and the classification.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.golden import LARGEST_TOLERANCE, SMALLEST_TOLERANCE, TOLERANCE_FACTOR
from export.graphs import Graph, Input, fold_norm
from export.verify import BUNDLE_TOLERANCES, GRAPH_TOLERANCE
from rdn_engine.backends import load_backend
from rdn_engine.bundle.manifest import ENCODER, GRAPHS
from rdn_engine.config import RDNConfig
from rdn_engine.host import preprocess
from rdn_engine.host.cosine_stage import SHARPNESS
from rdn_engine.input_config import LONGEST_SIDE
from rdn_engine.verify import box_rows, detection_rows, set_difference
from training.model.yolov import YOLOV
from training.model.yolov_inference import FrameResult, detect_video, joined_rows, propose
from training.model.yolox import Anchors, Conv

LAST_PIXEL = (0.0, 0.0, 1.0, 1.0)
"""From the contract's boxes, the last pixel included, to the detector's edges."""
OUTPUTS = ("boxes", "class_scores", "objectness", "features", "features_reg")

Arrays = dict[str, NDArray[np.generic]]


class EncoderGraph(nn.Module):
    """The still detector and the features of the relations, in the terms of the contract."""

    last_pixel: Tensor

    def __init__(self, model: YOLOV) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        for name, module in self.model.named_modules():
            if isinstance(module, Conv):
                assert isinstance(module.bn, nn.BatchNorm2d)
                fold_norm(module.conv, module.bn, f"{name}.bn")
                module.bn = nn.Identity()
        self.register_buffer("last_pixel", torch.tensor(LAST_PIXEL))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.model.anchors(image)
        return found.boxes - self.last_pixel, *(getattr(found, name) for name in OUTPUTS[1:])


class RelationGraph(nn.Module):
    """The attention of the proposals of a window, for those of one frame."""

    def __init__(self, model: YOLOV) -> None:
        super().__init__()
        self.attention = model.head.trans

    def forward(self, features: Tensor, features_reg: Tensor, scale_cls: Tensor, scale_reg: Tensor,
                similarity: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
        found = self.attention(features, features_reg, scale_cls, scale_reg, similarity, reference)
        return found.out, found.omega


def describe(model: YOLOV, input_size: tuple[int, int]) -> dict[str, Graph]:
    """The graphs of a model, with example inputs.

    Args:
        model: in evaluation mode.
        input_size: (height, width) of the network input, pixels.

    Returns:
        Role -> graph.
    """
    dim = model.size.dim
    image = Input(torch.zeros(2, 3, *input_size), {0: "batch"})
    rows, chosen = {0: "rows"}, {0: "reference_rows"}
    inputs = {
        "features": Input(torch.zeros(11, dim), rows),
        "features_reg": Input(torch.zeros(11, dim), rows),
        "scale_cls": Input(torch.zeros(11), rows),
        "scale_reg": Input(torch.zeros(11), rows),
        "similarity": Input(torch.zeros(()), {}),
        "reference": Input(torch.arange(7), chosen),
    }
    return {
        "encoder": Graph(EncoderGraph(model), {"image": image}, {name: {0: "batch"} for name in OUTPUTS}),
        "relation": Graph(RelationGraph(model), inputs, {"out": chosen, "omega": chosen | {1: "rows"}}),
    }


def relation_weights(model: YOLOV) -> dict[str, NDArray[np.float32]]:
    """The content of `relation.npz`.

    Args:
        model: on the CPU.

    Returns:
        Name -> array, as `rdn_engine.bundle.contract.fused_shapes` has them.
    """
    found = {name.removeprefix("msa."): tensor for name, tensor in model.head.trans.state_dict().items()}
    # Without the background, the last of their outputs.
    found |= {f"classify.{part}": getattr(model.head.linear_pred, part)[:-1] for part in ("weight", "bias")}
    return {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in found.items()}


@dataclass(frozen=True)
class Difference:
    """One output of a graph against torch."""

    graph: str
    output: str
    relative: float
    """Largest difference from float64, over the largest value; over 1 for scores, which may be small everywhere"""
    allowed: float
    """TOLERANCE_FACTOR times what torch's own float32 differs by, GRAPH_TOLERANCE..LARGEST_TOLERANCE"""

    @property
    def passed(self) -> bool:
        """Whether it is allowed."""
        return self.relative <= self.allowed


class Yardstick:
    """A model on frames, in float32 and in float64: how far a right implementation may be from either."""

    @torch.no_grad()
    def __init__(self, model: YOLOV, config: RDNConfig, frames: NDArray[np.uint8]) -> None:
        """Run both.

        Args:
            model: float32, on the CPU, in evaluation mode.
            config: of the model.
            frames: uint8 [F, H, W, 3] RGB.
        """
        self._config, self._frames = config, frames
        self.model, self.exact = model, copy.deepcopy(model).double()
        self.images = torch.from_numpy(np.stack([preprocess.network_input(frame, config.input, 1) for frame in frames]))
        self.anchors, self.exact_anchors = model.anchors(self.images), self.exact.anchors(self.images.double())
        most = config.dials.num_support
        self.proposals = propose(model, config, self.images, most)
        self.results = detect_video(model, config, self.proposals)
        exact = propose(self.exact, config, self.images.double(), most)
        self._exact_results = detect_video(self.exact, config, exact)

    @torch.no_grad()
    def differences(self, directory: Path) -> list[Difference]:
        """Run the graphs on the frames, and on what the model makes of them.

        Args:
            directory: of the graphs.

        Returns:
            A row for each output of each graph.
        """
        backend = load_backend("onnxruntime", "cpu", 1)
        got = backend.load(directory / ENCODER)({"image": self.images.numpy()})
        got["boxes"] = got["boxes"] + np.array(LAST_PIXEL, np.float32)
        rows = [
            _difference("encoder", name, got[name], _of(self.anchors, name), _of(self.exact_anchors, name))
            for name in OUTPUTS
        ]
        joined = joined_rows(self.proposals)
        feeds = {
            "features": joined.features,
            "features_reg": joined.features_reg,
            "scale_cls": joined.confidence * SHARPNESS,
            "scale_reg": self.model.keyed(joined) * SHARPNESS,
            "similarity": torch.tensor(self._config.cosine.similarity),
            "reference": torch.arange(len(self.proposals[0].rows)),
        }
        graph = backend.load(directory / GRAPHS["relation"])
        found = graph({name: tensor.numpy() for name, tensor in feeds.items()})
        doubled = type(joined)(*(tensor.double() for tensor in vars(joined).values()))
        related = [m.relate(r) for m, r in ((self.model, joined), (self.exact, doubled))]
        for name, array in found.items():
            wanted, exact = (getattr(one, name)[: len(array)].numpy() for one in related)
            rows.append(_difference("relation", name, array, wanted, exact))
        return rows

    def golden(self) -> Arrays:
        """The arrays of `golden.npz`, as `export.golden.golden_results` has them, and `t{t}/rows`."""
        last_pixel = torch.tensor(LAST_PIXEL)
        arrays: Arrays = {"frames": self._frames}
        for t, result in enumerate(self.results):
            found = result.proposals
            xyxy, confidence, class_id = self._on_frame(result)
            arrays |= {
                f"t{t}/rows": found.rows.numpy(),
                f"t{t}/boxes": (found.boxes - last_pixel).numpy(),
                f"t{t}/objectness": found.objectness.numpy(),
                f"t{t}/features": torch.cat([found.features, found.features_reg], 1).numpy(),
                f"t{t}/logits": result.logits.numpy(),
                f"t{t}/xyxy": xyxy.astype(np.float32),
                f"t{t}/confidence": confidence,
                f"t{t}/class_id": class_id,
            }
        return arrays

    def tolerances(self) -> dict[str, float]:
        """What the manifest allows each stage: TOLERANCE_FACTOR times what float32 itself differs by, at least what any
        bundle is allowed.
        """
        longest = max(self._config.input.network_size(*self._frames.shape[1:3]))
        found = {"boxes": 0.0, "objectness": 0.0, "features": 0.0}
        for b, frame in enumerate(self.proposals):
            exact = {name: getattr(self.exact_anchors, name)[b, frame.rows] for name in OUTPUTS}
            apart = {name: float((exact[name] - getattr(frame, name)).abs().max()) for name in OUTPUTS}
            ours, theirs = (box_rows(boxes.numpy(), longest) for boxes in (frame.boxes, exact["boxes"]))
            found["boxes"] = max(found["boxes"], float(np.abs(ours - theirs).max(initial=0)))
            found["objectness"] = max(found["objectness"], apart["objectness"])
            largest = max(float(exact[name].abs().max()) for name in OUTPUTS[3:])
            found["features"] = max(found["features"], *(apart[name] / largest for name in OUTPUTS[3:]))
        least = {**BUNDLE_TOLERANCES, "detections": SMALLEST_TOLERANCE}
        side = max(self._frames.shape[1:3])
        rows = []
        for results in (self.results, self._exact_results):
            told = [self._on_frame(result) for result in results]
            rows.append([detection_rows(xyxy / side, confidence, class_id) for xyxy, confidence, class_id in told])
        found["detections"] = set_difference(*rows)
        del least["deltas"]
        return {
            stage: min(max(TOLERANCE_FACTOR * found.get(stage, 0.0), smallest), LARGEST_TOLERANCE)
            for stage, smallest in least.items()
        }

    def _on_frame(self, result: FrameResult) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Boxes in pixels of the frame, clipped, with confidence and class."""
        height, width = self._frames.shape[1:3]
        inside = self._config.input.image_size(height, width)
        boxes = result.boxes.numpy() - np.array(LAST_PIXEL, np.float32)
        clipped = boxes.clip(0, np.array([inside[1] - 1, inside[0] - 1] * 2))
        xyxy = self._config.input.on_frame(clipped, height, width)
        return xyxy, result.confidence.numpy(), result.class_id.numpy()


def _of(anchors: Anchors, name: str) -> NDArray[Any]:
    array: NDArray[Any] = getattr(anchors, name).numpy()
    return array


def _difference(graph: str, output: str, got: NDArray[Any], wanted: NDArray[Any], exact: NDArray[Any]) -> Difference:
    """wanted: of torch in float32; exact: in float64."""
    if got.shape != exact.shape or np.isnan(got).any():
        return Difference(graph, output, np.inf, GRAPH_TOLERANCE)
    if output == "boxes":
        # Where a network has never seen the like, sides are exponentials of anything; such boxes find no counterpart.
        got, wanted, exact = (array.clip(-LONGEST_SIDE, LONGEST_SIDE) for array in (got, wanted, exact))
    scale = 1.0 if output in ("objectness", "class_scores") else max(float(np.abs(exact).max(initial=0)), 1e-30)
    ours, theirs = (float(np.abs(array - exact).max(initial=0)) / scale for array in (got, wanted))
    allowed = min(max(TOLERANCE_FACTOR * theirs, GRAPH_TOLERANCE), LARGEST_TOLERANCE)
    return Difference(graph, output, ours, allowed)
