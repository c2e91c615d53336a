"""Small parts with known answers, so that streaming can be watched without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.bundle.directory import write_manifest
from rdn_engine.bundle.manifest import GOLDEN, GRAPHS, WEIGHTS
from rdn_engine.config import Dials, RDNConfig, RelationConfig, RPNConfig
from rdn_engine.detector import Detector
from rdn_engine.host.features import EncodedFrame, RelationOutput, SupportPool
from rdn_engine.host.model import HostModel
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float

SIDE = 16
DIALS = Dials(window=2, num_support=3, num_reference=4, advanced_ratio=0.4)


def tiny_config(relation: RelationConfig | None = None, dials: Dials = DIALS) -> RDNConfig:
    """Two classes, a 16-pixel input that is the image itself, two heads of 16 channels."""
    return RDNConfig(
        class_names=("cat", "dog"),
        input=InputConfig(SIDE, SIDE, mean=(0.0, 0.0, 0.0), channel_order="rgb"),
        rpn=RPNConfig(anchor_sizes=(8, 16), anchor_ratios=(1.0,)),
        relation=relation or RelationConfig(dim=32, heads=2),
        dials=dials,
    )


def image(value: int, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """A grey picture whose level says which frame it is."""
    return np.full((height, width, 3), value, np.uint8)


def encoded(value: float, n: int, k: int, config: RelationConfig) -> EncodedFrame:
    """n proposals whose features hold (frame value, proposal number) in their first two channels."""
    rows = np.zeros((n, config.dim), np.float32)
    rows[:, 0], rows[:, 1] = value, np.arange(n)
    cached = np.repeat(rows[None, :k], config.num_cached, 0)
    cached[..., 2] = np.arange(config.num_cached)[:, None]
    boxes = np.tile(np.array([2, 2, 9, 9], np.float32), (n, 1))
    boxes[:, 2] += np.arange(n)
    return EncodedFrame(
        boxes=boxes,
        objectness=np.linspace(0.9, 0.1, n, dtype=np.float32),
        features=rows,
        query=rows if config.num_modules else rows[:, :0],
        keys=cached,
        values=cached + 1,
        refine_query=rows[:k] if config.advanced else rows[:k, :0],
    )


class FakeEncoder:
    """Proposals that carry the grey level of their frame; `proposals(level)` says how many there are."""

    def __init__(self, config: RelationConfig, proposals: Callable[[int], int] = lambda level: 1000) -> None:
        self._config = config
        self._proposals = proposals
        self.asked: list[tuple[int, int]] = []

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        self.asked.append((num_reference, num_support))
        for stage in ("backbone", "proposals", "roi_pool", "roi_head"):
            lap(stage)
        levels = [round(float(i[0, 0, 0])) for i in images]
        counts = [min(self._proposals(level), num_reference) for level in levels]
        return [encoded(level, n, min(n, num_support), self._config) for level, n in zip(levels, counts, strict=True)]


class FakeRelation:
    """Remembers what each result looked at, and calls every proposal a cat."""

    precision: cpu.Precision = "float32"

    def __init__(self, num_logits: int = 3) -> None:
        self._num_logits = num_logits
        self.levels: list[int | None] = []
        """Frame of each call; None for a frame without proposals."""
        self.rows: list[int] = []
        """Reference proposals of each call."""
        self.windows: list[dict[int, list[float]]] = []
        """Of each call: frame -> multiplicity of each of its support proposals."""
        self.watch = True
        self.fail = False

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        if self.fail:
            raise MemoryError("no room")
        if self.watch:
            self._note(features, pool)
        logits = np.full((len(features), self._num_logits), -9, np.float32)
        logits[:, :2] = 0, 4  # confidence 0.982
        return RelationOutput(logits, np.zeros((len(features), 4 * self._num_logits), np.float32), None)

    def _note(self, features: Float, pool: SupportPool) -> None:
        self.levels.append(int(features[0, 0]) if len(features) else None)
        self.rows.append(len(features))
        window: dict[int, list[float]] = {}
        for row, count in zip(pool.rows, pool.multiplicity, strict=True):
            window.setdefault(int(pool.features[row, 0]), []).append(float(count))
        self.windows.append(window)


def fake_detector(
    config: RDNConfig | None = None, proposals: Callable[[int], int] = lambda level: 1000
) -> tuple[Detector, FakeEncoder, FakeRelation]:
    config = config or tiny_config()
    encoder, relation = FakeEncoder(config.relation, proposals), FakeRelation(config.num_logits)
    return Detector(HostRuntime(HostModel(config, encoder, relation, threads=1))), encoder, relation


class FakeGraph:
    """A graph made of a function of its named inputs."""

    def __init__(
        self, inputs: tuple[str, ...], outputs: tuple[str, ...], run: Callable[..., dict[str, NDArray[Any]]]
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._run = run

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        assert set(feeds) == set(self.inputs)
        found = self._run(**feeds)
        return {name: found[name] for name in self.outputs}


def relation_weights(config: RDNConfig, seed: int = 0) -> dict[str, Float]:
    """Random relation weights of the usual names, scaled so that activations stay near 1."""
    rng = np.random.default_rng(seed)
    r = config.relation
    shapes = {"classify": (config.num_logits, r.dim), "regress": (4 * config.num_logits, r.dim)}
    for i in range(r.num_modules):
        shapes |= {f"rel.{i}.{part}": (r.dim, r.dim) for part in ("query", "key", "value")}
        shapes[f"rel.{i}.geometry"] = (r.heads, 64)
    shapes |= {f"basic_fc.{i}": (r.dim, r.dim) for i in range(r.num_basic - 1)}
    if r.advanced and r.advanced_fc:
        shapes["advanced_fc"] = (r.dim, r.dim)
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.3, shape[0]).astype(np.float32)
    return weights


def random_boxes(rng: np.random.Generator, n: int, side: float = 200) -> Float:
    corner, size = rng.uniform(0, side, (n, 2)), rng.uniform(8, side / 2, (n, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def fill_bundle(directory: Path, config: RDNConfig, graph: bytes = b"a graph") -> None:
    """The files of a bundle, with something else than a model in its graphs, and their manifest."""
    for name in GRAPHS.values():
        (directory / name).write_bytes(graph + name.encode())
    np.savez(directory / WEIGHTS, **relation_weights(config))  # type: ignore[arg-type]
    np.savez(directory / GOLDEN, frames=np.zeros((1, SIDE, SIDE, 3), np.uint8))
    write_manifest(
        directory,
        name="tiny",
        config=config,
        precision="float32",
        opset=18,
        producers={"rdn_engine": "0"},
        source={"checkpoint": "tiny.pth", "sha256": "0" * 64},
        parameters={"backbone": 1, "roi_head": 2, "relation": 3},
        tolerances={"logits": 1e-4},
    )


def empty_bank(
    slots: int, room: int, heads: int, head_dim: int, precision: cpu.StoredPrecision = "float32"
) -> cpu.SupportBank:
    """Room for `room` support proposals, a multiple of cpu.PANEL, in each slot."""
    return cpu.SupportBank(
        *cpu.empty_supports(
            (slots,), room=room, config=RelationConfig(dim=heads * head_dim, heads=heads), precision=precision
        ),
        np.zeros((slots, heads), np.float32),
        np.zeros((slots, room, 4), np.float32),
    )
