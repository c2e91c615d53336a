"""The four losses of a batch: backbone, proposals, sampled RoIs and relations in the way that a phase asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdn_engine.errors import ConfigError
from rdn_engine.kernels.arithmetic import ceil_div
from training import losses
from training.checkpoints.files import load_checkpoint
from training.data.features import FeatureBatch, FeatureFrame
from training.data.sampling import Batch, normalise
from training.model.attached import AttachedRDN
from training.model.fcos import SmallFCOS
from training.model.inference import advanced_rows
from training.model.rdn import RDN
from training.settings import Phase, References, Relation, Settings

Proposals = tuple[Tensor, Tensor]
"""boxes [n, 4], objectness [n], best first"""


class Objective(nn.Module):
    """A batch -> its losses, averaged over its reference images; a module, so that processes can share its gradient."""

    def __init__(self, model: RDN, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def forward(self, batch: Batch, relation: Relation, references: References) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: on the model's device.
            relation: which relation modules the phase trains.
            references: whether all images of a clip are references, or the first alone.

        Returns:
            rpn_class, rpn_box, roi_class and roi_box, each a scalar.
        """
        model, dials = self.model, self.model.config.dials
        images = normalise(batch.images, batch.sizes, model.config.input).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.settings.bf16):
            objectness, deltas, feature_map = model.encode_map(images)
        feature_map = feature_map.float()
        grid = tuple(feature_map.shape[-2:])
        generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]
        proposals, samples, rpn = [], [], []
        for i, size in enumerate(batch.sizes):
            own, logits, shifts = self._own_cells(objectness[i].float(), deltas[i].float(), grid, size)
            reference = references == "all" or i % batch.frames_per_clip == 0
            count = dials.num_reference if reference else dials.num_support
            [(boxes, scores)] = model.propose(logits[None], shifts[None], own, size, count)
            proposals.append((boxes[: dials.num_support], scores[: dials.num_support]))
            if reference:
                truth, ignored = batch.boxes[i], batch.ignored[i]
                anchors = model.anchors(own, boxes.device)
                rpn.append(losses.rpn_loss(logits, shifts, anchors, truth, ignored, generators[i]))
                rois = self.settings.rois_per_frame
                samples.append(losses.sample_rois(boxes, truth, batch.labels[i], ignored, generators[i], rois))
        heads = _heads(model, feature_map, samples, proposals, relation, references, batch.frames_per_clip)
        weights = model.config.detection.box_weights
        roi = [losses.roi_loss(c, d, s, weights) for (c, d), s in zip(heads, samples, strict=True)]
        names = ("rpn_class", "rpn_box", "roi_class", "roi_box")
        parts = [*zip(*rpn, strict=True), *zip(*roi, strict=True)]
        return {name: torch.stack(part).mean() for name, part in zip(names, parts, strict=True)}

    def _own_cells(
        self, objectness: Tensor, deltas: Tensor, grid: tuple[int, ...], size: tuple[int, int]
    ) -> tuple[tuple[int, int], Tensor, Tensor]:
        """Without the cells of the padding: the image's own grid, logits [L], deltas [L, 4]."""
        stride = self.model.config.rpn.stride
        height, width = (ceil_div(side, stride) for side in size)
        logits = objectness.unflatten(0, (*grid, -1))[:height, :width].flatten()
        return (height, width), logits, deltas.unflatten(0, (*grid, -1))[:height, :width].flatten(0, 2)


def _heads(
    model: RDN,
    feature_map: Tensor,
    samples: list[losses.RoISample],
    proposals: list[Proposals],
    relation: Relation,
    references: References,
    frames_per_clip: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits, deltas) of each reference's sample; its support are all images of its clip, or all but the first."""
    if relation == "none":
        features = model.roi_features(feature_map, [s.boxes for s in samples])
        for x in features.split([len(s.labels) for s in samples]):
            yield model.relation.classify(x), model.relation.regress(x)
        return
    step = 1 if references == "all" else frames_per_clip
    chosen = {i * step: sample for i, sample in enumerate(samples)}
    empty = proposals[0][0].new_zeros(0, 4)
    rois = [torch.cat([chosen[i].boxes if i in chosen else empty, p]) for i, (p, _) in enumerate(proposals)]
    rows = model.roi_features(feature_map, rois).split([len(r) for r in rois])
    dials = model.config.dials
    for i, sample in chosen.items():
        first = i - i % frames_per_clip
        clip = range(first + (references == "first"), first + frames_per_clip)
        features = torch.cat([rows[j][len(rois[j]) - len(proposals[j][0]) :] for j in clip])
        boxes = torch.cat([proposals[j][0] for j in clip])
        advanced = advanced_rows([proposals[j][1] for j in clip], dials) if relation == "full" else None
        result = model.relation(rows[i][: len(sample.labels)], sample.boxes, features, boxes, advanced)
        yield result.logits, result.deltas


class AttachedObjective(nn.Module):
    """The same on the proposals of a detector: sampled ones and relations alone have losses."""

    def __init__(self, model: AttachedRDN, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def forward(self, batch: FeatureBatch, relation: Relation, references: References) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: on the model's device.
            relation: which relation modules the phase trains.
            references: whether all images of a clip are references, or the first alone.

        Returns:
            roi_class and roi_box, each a scalar.
        """
        model, dials, per_clip = self.model, self.model.config.dials, batch.frames_per_clip
        counts = [len(frame.boxes) for frame in batch.frames]
        rows = model.describe(torch.cat([frame.features for frame in batch.frames])).split(counts)
        parts = []
        for i, frame in enumerate(batch.frames):
            if references == "first" and i % per_clip:
                continue
            generator = torch.Generator().manual_seed(batch.seeds[i])
            # The detector's features are there for its own boxes, not for the annotated ones.
            sample = losses.sample_rois(
                frame.boxes,
                frame.truth,
                frame.labels,
                frame.ignored,
                generator,
                self.settings.rois_per_frame,
                join=False,
            )
            first = i - i % per_clip
            clip = range(first + (references == "first" and relation != "none"), first + per_clip)
            if relation == "none":
                x = rows[i][sample.rows]
                logits, deltas = model.relation.classify(x), model.relation.regress(x)
            else:
                k = dials.num_support
                support = torch.cat([rows[j][:k] for j in clip])
                boxes = torch.cat([batch.frames[j].boxes[:k] for j in clip])
                scores = [batch.frames[j].objectness[:k] for j in clip]
                advanced = advanced_rows(scores, dials) if relation == "full" else None
                out = model.relation(rows[i][sample.rows], sample.boxes, support, boxes, advanced)
                logits, deltas = out.logits, out.deltas
            parts.append(losses.roi_loss(logits, deltas, sample, model.config.detection.box_weights))
        return {
            name: torch.stack(part).mean()
            for name, part in zip(("roi_class", "roi_box"), zip(*parts, strict=True), strict=True)
        }


class Look(NamedTuple):
    """What the small FCOS says of the images of a batch."""

    images: Tensor
    """[B, 3, H, W] normalised network inputs"""
    found: dict[str, Tensor]
    """of `SmallFCOS.predict`, float32"""
    feature_map: Tensor | None
    """[B, map_channels, H / 16, W / 16]"""


class FCOSObjective(nn.Module):
    """The losses of a small FCOS, torchvision's own, and how far its map is from its teacher's."""

    def __init__(self, model: SmallFCOS, settings: Settings) -> None:
        """Read the teacher, where there is one.

        Args:
            model: of `settings.fcos`.
            settings: of the run.

        Raises:
            CheckpointError: the teacher cannot be read.
            ConfigError: it gives another map than `model` does.
        """
        super().__init__()
        self.model, self.settings = model, settings
        device = next(model.parameters()).device
        self.teacher = _teacher(settings, model.fcos.map_channels).to(device) if settings.teacher else None

    def forward(self, batch: Batch, relation: Relation, references: References) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: on the model's device.
            relation: `none`; there are no relations.
            references: not looked at: every image bears losses.

        Returns:
            classification, bbox_regression and bbox_ctrness, each a scalar, over the positive cells of the batch; with
            a teacher also feature_map, `map_loss`.
        """
        return self.both(batch)[0]

    def both(self, batch: Batch) -> tuple[dict[str, Tensor], Look]:
        """The losses of `forward`, and what they are of.

        Args:
            batch: on the model's device.

        Returns:
            The losses, and what the detector says of the images.
        """
        model = self.model
        images = normalise(batch.images, batch.sizes, model.config.input)
        for image, ignored in zip(images, batch.ignored, strict=True):
            # What is an example of nothing is not seen: its cells would be examples of the background.
            for x1, y1, x2, y2 in ignored.round().long().tolist():
                image[:, max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1] = 0
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.settings.bf16):
            found, feature_map = model.predict(images)
            with torch.no_grad():
                wanted = None if self.teacher is None else self.teacher.encode_map(images)[2].float()
        anchors, counts = model.cells(images)
        edges = images.new_tensor([0, 0, 1, 1])  # boxes here end with their last pixel
        targets = [{"boxes": b + edges, "labels": n} for b, n in zip(batch.boxes, batch.labels, strict=True)]
        values = {name: value.float() for name, value in found.items()}
        losses: dict[str, Tensor] = model.compute_loss(targets, values, anchors, counts)
        if wanted is not None and feature_map is not None:
            losses["feature_map"] = map_loss(feature_map.float(), wanted)
        return losses, Look(images, values, feature_map)


class JointObjective(nn.Module):
    """Relations and the detector under them at once: its own losses, and through its map those of the relations."""

    def __init__(self, model: AttachedRDN, settings: Settings) -> None:
        super().__init__()
        assert model.detector is not None
        self.model = model
        self.detector, self.relations = FCOSObjective(model.detector, settings), AttachedObjective(model, settings)

    def forward(self, batch: Batch, relation: Relation, references: References) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: on the model's device.
            relation: which relation modules the phase trains.
            references: whether all images of a clip bear losses of the relations, or the first alone; all bear those of
                the detector.

        Returns:
            Those of FCOSObjective and AttachedObjective, each a scalar.
        """
        losses, look = self.detector.both(batch)
        dials = self.model.config.dials
        assert look.feature_map is not None
        most = max(dials.num_reference, dials.num_support)
        proposed = self.model.pooled(look.images, batch.sizes, look.found, look.feature_map, most)
        told = zip(proposed, batch.boxes, batch.labels, batch.ignored, strict=True)
        frames = [FeatureFrame(*found, truth, labels, ignored) for found, truth, labels, ignored in told]
        features = FeatureBatch(frames, batch.seeds, batch.names, batch.damaged, batch.frames_per_clip)
        related: dict[str, Tensor] = self.relations(features, relation, references)
        return losses | related


_MAP_WEIGHT = 2.0
"""The map's loss begins near 1 and is the one that relations depend on; the other three are near 1 each."""


def map_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """How far a feature map is from the teacher's.

    Args:
        found: [B, C, h, w].
        wanted: [B, C, h, w] of the teacher.

    Returns:
        The mean square of the difference in the teacher's mean square, times a weight; a scalar.
    """
    return _MAP_WEIGHT * F.mse_loss(found, wanted) / wanted.square().mean().clamp(min=1e-6)


def _teacher(settings: Settings, channels: int) -> RDN:
    """The RDN whose feature map is learnt."""
    model = load_checkpoint(Path(settings.teacher)).model()
    theirs, mine = model.config.input, settings.model.input
    got = None if isinstance(model, AttachedRDN) else model.roi.channels
    if got != channels or theirs != mine:
        raise ConfigError(
            f"teacher {settings.teacher} has a map of {got} channels and input {theirs}; wanted an RDN with its own "
            f"backbone, {channels} channels (fcos.map_channels) and input {mine}"
        )
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def trained(model: RDN | SmallFCOS, phase: Phase) -> set[str]:
    """What a phase trains.

    Args:
        model: whose parameters are named.
        phase: of the settings.

    Returns:
        Names of the parameters on which the losses of the phase depend.
    """
    names = {name for name, _ in model.named_parameters()}
    left_out: tuple[str, ...] = ()
    if isinstance(model, SmallFCOS):
        return names
    if phase.relation == "none":
        left_out = ("relation.rel.", "relation.basic_fc.", "relation.advanced_fc.")
    elif phase.relation == "basic":
        config = model.config.relation
        left_out = tuple(f"relation.rel.{i}." for i in range(config.num_basic, config.num_modules))
        left_out += ("relation.advanced_fc.",)
    return {name for name in names if not name.startswith(left_out)}
