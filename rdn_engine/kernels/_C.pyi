from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float32]
_I = NDArray[np.int64]
_D = NDArray[np.float64]
_B = NDArray[np.uint8]
_H = NDArray[np.float16]
_W = NDArray[np.float32 | np.float16 | np.uint16]

cuda_built: bool
"""Whether the CUDA kernels are part of this build."""
isa: str
"""Instruction set that the CPU kernels run with on this machine: avx512_bf16, avx512, avx2 or baseline."""

def resize_normalize(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    bgr: bool,
    threads: int,
    /,
) -> _F: ...
def block_means(image: NDArray[np.uint8], side: tuple[int, int], most_rows: int, /) -> _F: ...
def propose(
    objectness: _F,
    deltas: _F,
    grid: tuple[int, int],
    cell_anchors: _F,
    stride: int,
    image_size: tuple[int, int],
    pre_nms_top_n: int,
    nms_threshold: float,
    max_proposals: int,
    threads: int,
    /,
) -> tuple[_F, _F, _I]: ...
def roi_pool(
    feature_map: _F, boxes: _F, image_index: _I, scale: float, size: int, max: bool, row: int, threads: int, /
) -> _F: ...
def sample_advanced(
    objectness: _F, multiplicity: _F, frame_start: _I, ratio: float, num_support: int, global_: bool, /
) -> tuple[_I, _F]: ...
def follow(before: _F, after: _F, boxes: _F, guess: _F, /) -> tuple[_F, _F]: ...
def linear(x: _F, weight: _W, bias: _F, relu: bool, threads: int, /) -> _F: ...
def narrow(x: _F, out: _H, /) -> None: ...
def widen(x: _H, /) -> _F: ...
def prepare_geometry(weight: _F, bias: _F, bfloat16: bool, /) -> _W: ...
def pack_supports(keys: _F, values: _F, packed_keys: _W, packed_values: _W, key_length: _F, /) -> None: ...
def relation_attention(
    query: _F,
    boxes: _F,
    residual: _F,
    value_bias: _F,
    bank: tuple[_W, ...],
    slots: _I,
    counts: _I,
    multiplicity: _F,
    geometry: _W,
    omega_range: tuple[int, int],
    threads: int,
    /,
) -> tuple[_F, _F]: ...
def relation_refine(
    query: _F,
    boxes: _F,
    residual: _F,
    value_bias: _F,
    places: _I,
    bank: tuple[_W, ...],
    slots: _I,
    counts: _I,
    change: _F,
    restart: _B,
    geometry: _W,
    values: _D,
    normaliser: _D,
    peak: _D,
    shift: _F,
    threads: int,
    /,
) -> tuple[_F, _B]: ...
def linear_exact(x: _F, weight: _W, bias: _D, threads: int, /) -> _D: ...
def pack_cosine(
    projected_cls: _D,
    projected_reg: _D,
    score_cls: _F,
    score_reg: _F,
    bank: tuple[_F, ...],
    slot: int,
    values_of_reg: bool,
    /,
) -> None: ...
def cosine_refine(
    slots: _I,
    counts: _I,
    bank: tuple[_F, ...],
    sums: tuple[_F | _D, ...],
    summed: _I,
    included: NDArray[np.int8],
    threads: int,
    /,
) -> None: ...
def cosine_average(
    slot: int,
    rows: int,
    bank: tuple[_F, ...],
    sums: tuple[_F | _D, ...],
    slots: _I,
    counts: _I,
    thresholds: _F,
    omega_range: tuple[int, int],
    whole: bool,
    threads: int,
    /,
) -> tuple[_F, _F, _F]: ...
def local_average(
    x: _F,
    boxes: _F,
    score: _F,
    past: _F,
    past_length: _D,
    past_boxes: _F,
    past_score: _F,
    counts: _I,
    whole: bool,
    threads: int,
    /,
) -> tuple[_F, _F]: ...
def detect(
    logits: _F,
    deltas: _F,
    boxes: _F,
    image_size: tuple[int, int],
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    threads: int,
    /,
) -> tuple[_F, _F, _I, _I]: ...
def suppress(
    boxes: _F,
    scores: _F,
    labels: _I,
    classes: int,
    top_n: int,
    nms_threshold: float,
    most: int,
    threads: int,
    /,
) -> _I: ...
def assign(gain: NDArray[np.float64], /) -> _I: ...
def overlaps(boxes: _F, classes: _I, other_boxes: _F, other_classes: _I, limit: float, /) -> tuple[_I, _I, _F]: ...
def group_means(group: _I, score: _F, groups: int, better_half: bool, /) -> NDArray[np.float64]: ...
def link_paths(
    value: NDArray[np.float64],
    link_start: _I,
    source: _I,
    score: NDArray[np.float64],
    rival_start: _I,
    rival: _I,
    /,
) -> tuple[_I, int]: ...
