"""The kernels that `kernels.py` times, with the inputs of a steady frame at 600 x 1000."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchmarks.frame.baseline import embed
from benchmarks.frames import make_frame
from benchmarks.kernel.arithmetic import pair_operations
from benchmarks.kernel.box_cases import detect, follow, suppress
from benchmarks.kernel.case import (
    CHANNELS,
    GRID,
    HEIGHT,
    STRIDE,
    WIDTH,
    Case,
    K,
    N,
    T,
    public_config,
    random_boxes,
    relative,
)
from export.graphs import Graph, Input, export_graph, pad_cells
from rdn_engine.backends import load_backend
from rdn_engine.config import Dials, Pooling, RelationConfig, RoIConfig, Sampling
from rdn_engine.kernels import cpu
from rdn_engine.kernels.arithmetic import round_up
from tests import reference_relation
from training.model import boxes as box_ops


def resize() -> Case:
    """A 1080p frame to the network input."""
    image, config = make_frame(0, (1080, 1920)), public_config().input
    size = config.network_size(1080, 1920)

    class Resize(nn.Module):
        def forward(self, frame: Tensor) -> Tensor:
            planes = frame.permute(2, 0, 1)[None].float()
            small = F.interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
            return small[0].round().flip(0) - torch.tensor(config.mean)[:, None, None]

    def pil() -> NDArray[np.float32]:
        small = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        normal = np.asarray(small, np.float32)[..., ::-1] - np.array(config.mean, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))

    scale = 1080 / size[0]
    taps = 2 * max(scale, 1)  # of a triangle as wide as the ratio, in each direction
    return Case(
        "resize and normalise",
        lambda: cpu.resize_normalize(image, size, config),
        Resize(),
        (torch.from_numpy(image),),
        lambda ours, theirs: float(np.abs(ours - theirs[0]).max()),
        1.01,
        "grey levels; rounding between the two passes, which PIL does, may go either way",
        moved=image.nbytes + 12 * size[0] * size[1],
        operations=2 * 3 * taps * (1080 * size[1] + size[0] * size[1]),
        others={"PIL and numpy": pil},
        truth=lambda: [pil()],
        left_out={"ONNX Runtime": "not measured; torch exports an antialiased resize since 2.14"},
    )


def proposals() -> Case:
    """The 6,000 best of all anchors, decoded, suppressed, 300 kept."""
    rpn, rng = public_config().rpn, np.random.default_rng(1)
    count = GRID[0] * GRID[1] * rpn.num_anchors
    objectness = rng.random((1, count), np.float32)
    deltas = rng.normal(0, 0.3, (1, count, 4)).astype(np.float32)
    shift = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) * STRIDE for n in GRID), indexing="ij"), -1)
    anchors = np.tile(shift[..., ::-1], 2)[:, :, None] + rpn.cell_anchors()
    every, size = torch.from_numpy(anchors.reshape(-1, 4)), (HEIGHT, WIDTH)

    class Propose(nn.Module):
        def forward(self, scores: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
            best, order = scores[0].topk(rpn.pre_nms_top_n)
            boxes = box_ops.clip(box_ops.decode(deltas[0][order], every[order]), size)
            keep = box_ops.nms(boxes, best, rpn.nms_threshold)[:N]
            return boxes[keep], best[keep]

    def ours() -> cpu.Proposals:
        return cpu.propose(
            objectness,
            deltas,
            grid=GRID,
            network_size=size,
            cell_anchors=rpn.cell_anchors(),
            config=rpn,
            max_proposals=N,
        )

    def compare(found: cpu.Proposals, theirs: Sequence[NDArray[Any]]) -> float:
        boxes = found.boxes[0, : found.counts[0]]
        return float(np.abs(boxes - theirs[0]).max()) if boxes.shape == theirs[0].shape else np.inf

    decoded = 6000 * (30 + 16)  # additions and multiplications of a decoded box, bytes of its deltas are below
    kept = Propose()(torch.from_numpy(objectness), torch.from_numpy(deltas))[0].numpy()
    return Case(
        "proposals: top 6000, decode, NMS",
        ours,
        Propose(),
        (torch.from_numpy(objectness), torch.from_numpy(deltas)),
        compare,
        0.01,
        "pixels, of all kept boxes in order",
        moved=objectness.nbytes + 6000 * 16 + kept.nbytes,
        # Each kept box was compared with those kept before it at least: 12 operations and no division.
        operations=decoded + 12 * len(kept) * (len(kept) - 1) / 2,
    )


def roi_pool(pooling: Pooling) -> Case:
    """300 proposals on the conv5 map of 2,048 channels."""
    rng = np.random.default_rng(2)
    feature_map = np.maximum(rng.standard_normal((1, *GRID, CHANNELS), dtype=np.float32), 0)
    boxes, where, config = random_boxes(rng, N), np.zeros(N, np.int64), RoIConfig(pooling=pooling)
    rois = torch.from_numpy(np.concatenate([np.zeros((N, 1), np.float32), boxes], 1))
    first = torch.from_numpy(np.ascontiguousarray(feature_map.transpose(0, 3, 1, 2)))  # as torch keeps its maps

    class Pool(nn.Module):
        def forward(self, planes: Tensor, rois: Tensor) -> Tensor:
            if pooling == "max":
                return torchvision.ops.roi_pool(planes, rois, 7, 1 / STRIDE)
            return torchvision.ops.roi_align(planes, rois, 7, 1 / STRIDE, sampling_ratio=-1, aligned=False)

    def cells(rows: cpu.Float) -> cpu.Float:
        return rows[:, : 49 * CHANNELS].reshape(N, 7, 7, CHANNELS)

    sides = (boxes[:, 2:] - boxes[:, :2]) / STRIDE / 7  # of a bin, in cells of the map
    # Cells under a bin and its neighbours, each with one weight: fewer than four taps a sample.
    touched = np.prod(np.ceil(sides) + 1, axis=1).sum() * 49
    out = N * 49 * CHANNELS
    return Case(
        f"RoI {'max pooling' if pooling == 'max' else 'align'}",
        lambda: cpu.roi_pool(feature_map, boxes, where, config=config, scale=1 / STRIDE),
        Pool(),
        (first, rois),
        lambda ours, theirs: relative(cells(ours), theirs[0].transpose(0, 2, 3, 1)),
        1e-5,
        "relative, norm over norm",
        moved=feature_map.nbytes + 4 * out,
        operations=(1 if pooling == "max" else 2) * float(touched) * CHANNELS,
        left_out={"ONNX Runtime": "torch exports no RoI max pooling"} if pooling == "max" else {},
    )


def roi_fc() -> Case:
    """The FC behind RoI pooling as the roi_head graph has it, for all proposals; peers read the cells without zeros."""
    rng = np.random.default_rng(6)
    count, dim = 49 * CHANNELS, 1024
    cells = np.maximum(rng.standard_normal((N, count), dtype=np.float32), 0)
    fc = nn.Linear(count, dim)
    plain = nn.Sequential(fc, nn.ReLU()).requires_grad_(False)
    weight, bias = fc.weight.detach(), fc.bias.detach()
    rows = pad_cells(torch.from_numpy(cells), 7, CHANNELS)
    padded_fc = nn.Linear(rows.shape[1], dim)
    padded = nn.Sequential(padded_fc, nn.ReLU()).requires_grad_(False)
    padded_fc.weight.copy_(pad_cells(weight, 7, CHANNELS))
    padded_fc.bias.copy_(bias)
    graph = Graph(padded, {"pooled": Input(rows[:7], {0: "rows"})}, {"features": {0: "rows"}})
    with tempfile.TemporaryDirectory() as folder:
        export_graph(graph, "roi_head", Path(folder) / "roi_fc.onnx")
        loaded = load_backend("onnxruntime", "cpu", 1).load(Path(folder) / "roi_fc.onnx")
    packed = cpu.pack_weight(weight.numpy())
    return Case(
        "FC behind RoI pooling",
        lambda: loaded({"pooled": rows.numpy()})["features"],
        plain,
        (torch.from_numpy(cells),),
        lambda ours, theirs: relative(ours, theirs[0]),
        1e-5,
        "relative, norm over norm",
        moved=4 * (N * count + dim * count + N * dim),
        operations=2 * N * dim * count,
        others={"cpu.linear": lambda: cpu.linear(cells, packed, bias.numpy(), relu=True)},
    )


def sampling(rule: Sampling) -> Case:
    """The advanced support proposals of a full window."""
    rng = np.random.default_rng(3)
    frames = 2 * T + 1
    objectness = np.sort(rng.random((frames, K), np.float32))[:, ::-1].reshape(-1).copy()
    ones, starts = np.ones(frames * K, np.float32), np.arange(frames + 1) * K
    dials = Dials(num_support=K, advanced_ratio=0.2, sampling=rule)

    class Sample(nn.Module):
        def forward(self, scores: Tensor) -> Tensor:
            if rule == "global":
                return scores.topk(int(0.2 * len(scores))).indices.sort().values
            each = torch.arange(int(0.2 * K))
            return (each + K * torch.arange(frames)[:, None]).flatten()

    return Case(
        f"sampling, {rule.replace('_', ' ')}",
        lambda: cpu.sample_advanced(objectness, ones, starts, dials=dials),
        Sample(),
        (torch.from_numpy(objectness),),
        lambda ours, theirs: float(np.abs(ours[0] - theirs[0]).max()),
        0,
        "positions",
        moved=objectness.nbytes * (rule == "global") + 8 * 15 * frames,
        operations=0,
    )


def pack(
    keys: NDArray[np.float32], values: NDArray[np.float32], boxes: NDArray[np.float32], heads: int
) -> cpu.SupportBank:
    """[F K, D] keys and values and [F K, 4] boxes of F frames, a frame a slot."""
    frames, room, depth = len(keys) // K, round_up(K, cpu.PANEL), keys.shape[1] // heads
    bank = cpu.SupportBank(
        np.empty((frames, heads, room // cpu.PANEL, depth, cpu.PANEL), np.float32),
        np.empty((frames, heads, room, depth), np.float32),
        np.empty((frames, heads), np.float32),
        np.zeros((frames, room, 4), np.float32),
    )
    for slot in range(frames):
        rows = slice(slot * K, (slot + 1) * K)
        cpu.pack_supports(keys[rows], values[rows], bank, slot=slot)
        bank.boxes[slot, :K] = boxes[rows]
    return bank


def attention() -> Case:
    """One basic relation module of a steady frame: 300 proposals, 2,775 supports, 16 heads of 64."""
    rng = np.random.default_rng(4)
    supports, dim, heads = K * (2 * T + 1), 1024, 16
    query, keys, values = (rng.standard_normal((n, dim), dtype=np.float32) for n in (N, supports, supports))
    boxes, support_boxes = random_boxes(rng, N), random_boxes(rng, supports)
    weight = (0.18 * rng.standard_normal((heads, 64))).astype(np.float32)
    bias = rng.normal(1.5, 0.3, heads).astype(np.float32)
    rows, ones = np.arange(supports), np.ones(supports, np.float32)
    wg, bg = torch.from_numpy(weight), torch.from_numpy(bias)
    # As a stream keeps them: packed when a frame is encoded, which is part of `window` in the stages of a frame.
    bank, geometry = pack(keys, values, support_boxes, heads), cpu.prepare_geometry(weight, bias)
    slots, counts, nothing = np.arange(2 * T + 1), np.full(2 * T + 1, K), np.zeros_like(query)

    class Eager(nn.Module):
        def scores(self, boxes: Tensor, support_boxes: Tensor) -> Tensor:
            gate = F.conv2d(embed(boxes, support_boxes), wg[..., None, None], bg)[0].relu()
            return (gate + 1e-6).log()

        def forward(self, query: Tensor, boxes: Tensor, keys: Tensor, values: Tensor, support_boxes: Tensor) -> Tensor:
            q, k, v = (x.unflatten(1, (heads, -1)).transpose(0, 1) for x in (query, keys, values))
            weights = (torch.bmm(q, k.transpose(1, 2)) / 8 + self.scores(boxes, support_boxes)).softmax(-1)
            return torch.bmm(weights, v).transpose(0, 1).flatten(1)

    tensors = tuple(torch.from_numpy(a) for a in (query, boxes, keys, values, support_boxes))

    def fused_attention() -> Tensor:
        q, k, v = (tensors[i].unflatten(1, (heads, -1)).transpose(0, 1)[None] for i in (0, 2, 3))
        mask = Eager().scores(tensors[1], tensors[4])[None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1).flatten(1)

    return Case(
        "relation attention",
        lambda: (
            cpu.relation_attention(
                cpu.QueryRows(query, boxes, nothing),
                bank,
                slots=slots,
                counts=counts,
                multiplicity=ones,
                geometry=geometry,
                value_bias=nothing[0],
            ).out
        ),
        Eager(),
        tensors,
        lambda ours, theirs: relative(ours, theirs[0]),
        1e-4,
        "relative, norm over norm",
        moved=query.nbytes * 2 + keys.nbytes + values.nbytes + boxes.nbytes + support_boxes.nbytes,
        operations=N * supports * pair_operations(RelationConfig(dim, heads)),
        others={"scaled_dot_product_attention": fused_attention},
        truth=lambda: [
            reference_relation.relation(query, boxes, keys, values, support_boxes, rows, ones, weight, bias)
        ],
    )


CASES: dict[str, Callable[[], Case]] = {
    "resize": resize,
    "proposals": proposals,
    "roi_align": lambda: roi_pool("align"),
    "roi_max": lambda: roi_pool("max"),
    "roi_fc": roi_fc,
    "sampling_per_frame": lambda: sampling("per_frame"),
    "sampling_global": lambda: sampling("global"),
    "attention": attention,
    "detect": detect,
    "suppress": suppress,
    "follow": follow,
}
