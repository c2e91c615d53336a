"""A run: steps through the phases of its settings, saves, logs, and goes on where it was stopped (docs/training.md)."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import ConfigError, TrainingError
from rdn_engine.host.attached import AttachedEncoder
from training.checkpoints.fcos import load_fcos
from training.checkpoints.tensors import some
from training.data.features import FeatureBatch, FeatureCache, FeatureClips
from training.data.sampling import Batch, Clips, load
from training.data.videos import TrainingVideos, open_sources
from training.distributed import World
from training.evaluation.videos import AnnotatedVideos
from training.model.attached import AttachedRDN, rdn_of
from training.model.backbone import Backbone
from training.model.fcos import SmallFCOS
from training.model.rdn import RDN
from training.objective import AttachedObjective, FCOSObjective, JointObjective, Objective, trained
from training.provenance import environment
from training.runlog import RunLog
from training.samples import sample_picture
from training.settings import Phase, Settings, differences
from training.state import load_start, read_state, save_model, save_state
from training.validation import METRIC, open_validation, validate

MAX_DAMAGED = 0.01
"""Part of the frames drawn that may be unreadable before a run stops."""
_VIDEOS_TOLD = 100  # of those whose features are computed, each so many is told of
_MAP_STRIDE = 16
"""Of the small FCOS's map"""
_FIRST_DAMAGED = 10  # frames from which on the part is looked at


class Trainer:
    """A run in `output`, which it takes up where the last state there ends. `world` are the processes that share it.

    Raises ConfigError where the state is of other settings or `world` does not divide the clips of a step,
    CheckpointError where the state or `start_from` cannot be used, DatasetError for data it cannot train on.
    """

    def __init__(
        self,
        settings: Settings,
        output: Path,
        start_from: Path | None = None,
        world: World | None = None,
        workers: int = 0,
    ) -> None:
        """Takes up the run, or starts it.

        Args:
            settings: of the run.
            output: folder of the run; it is made if need be.
            start_from: checkpoint whose weights a new run starts from; a run that goes on does not look at it.
            world: the processes that share the run; this one alone by default.
            workers: processes that read and draw frames; 0 does it in this process.
        """
        self.settings, self.output, self.workers = settings, output, workers
        self.world = world or World()
        _check_share(settings, self.world)
        videos = open_sources(settings.data.train, settings.model.class_names)
        torch.manual_seed(settings.seed)
        self.model = _model(settings).to(self.world.device).to(memory_format=torch.channels_last)
        if isinstance(self.model, AttachedRDN) and self.model.detector is None:
            self.clips: Clips = _feature_clips(self.model, videos, settings, output, self.world)
        else:
            # A detector that is trained with its relations sees frames as it did before, not as an engine fits them.
            single = self.model.detector if isinstance(self.model, AttachedRDN) else None
            self.clips = Clips(videos, settings, None if single is None else single.config.input)
            _trunk(self.model).freeze(settings.frozen_stages)
        self.optimizer = _optimizer(self.model, settings)
        self._frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        self.iteration = 0
        self.sums: dict[str, float] = {}
        self.count = 0
        """Steps in `sums`, since the last line of the log"""
        self.frames, self.damaged = 0, 0
        """Drawn by this process, and those of them that could not be read"""
        output.mkdir(parents=True, exist_ok=True)
        state = read_state(output, settings)
        if state is not None:
            self._restore(state)
        elif start_from is not None:
            for note in load_start(self.model, start_from):
                print(f"{start_from}: {note}", file=sys.stderr)
        self.validation: list[AnnotatedVideos] = []
        if settings.evaluate_every and self.world.leads:
            self.validation = open_validation(settings.data.validation, settings.model.class_names)
        self._log: RunLog | None = None
        self._batches: Iterator[Batch | FeatureBatch] | None = None
        self._phase: Phase | None = None
        self._objective: nn.Module = _objective(self.model, settings)

    def step(self) -> dict[str, float]:
        """One step of the optimiser.

        Returns:
            The losses, averaged over this process's images, `gradient_norm`, `learning_rate`, and the seconds of the
            step and those of them spent waiting for data.

        Raises:
            TrainingError: see `gradients`.
        """
        phase, done = self.settings.phase_at(self.iteration)
        began = time.monotonic()
        rate = learning_rate(self.settings, phase, done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        values, waited = self.gradients()
        self.optimizer.step()
        self.iteration += 1
        return {**values, "learning_rate": rate, "data_seconds": waited, "step_seconds": time.monotonic() - began}

    def gradients(self) -> tuple[dict[str, float], float]:
        """Fills the gradients of the next step, clipped.

        Returns:
            The losses with their sum and the norm of the gradient before it was clipped, and the seconds waited for its
            data.

        Raises:
            TrainingError: a loss or the gradient is not finite, or too many frames could not be read. Weights and saved
                states are then as they were.
        """
        s = self.settings
        phase, _ = s.phase_at(self.iteration)
        self._enter(phase)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Any] = {}
        waited, names = 0.0, []
        for part in range(s.accumulate):
            began = time.monotonic()
            batch = self._batch = self._next_batch()
            waited += time.monotonic() - began
            names += batch.names
            last = part == s.accumulate - 1
            shared = self._objective if isinstance(self._objective, DistributedDataParallel) else None
            with contextlib.nullcontext() if last or shared is None else shared.no_sync():
                losses = self._objective(batch.to(self.world.device), phase.relation, phase.references)
                (torch.stack(list(losses.values())).sum() / s.accumulate).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() / s.accumulate
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip_gradient or math.inf)
        numbers = torch.stack([*sums.values(), norm]).tolist()
        values = dict(zip([*sums, "gradient_norm"], numbers, strict=True))
        wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            raise TrainingError(
                f"iteration {self.iteration}, phase {phase.name!r}: {', '.join(wrong)}; wanted finite numbers. The "
                f"frames were {', '.join(names)}. The last saved state is intact; a smaller learning rate, a longer "
                "warm-up or a smaller clip_gradient may help"
            )
        return {"loss": sum(numbers[:-1]), **values}, waited

    def _enter(self, phase: Phase) -> None:
        """Let what the phase trains have gradients, and nothing else."""
        if phase is self._phase:
            return
        self._phase = phase
        names = trained(self.model, phase) - self._frozen
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in names)
        if self.world.size > 1:
            # Statistics of frozen norms never change, so that only trained ones need to be sent.
            batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in self.model.modules())
            objective = _objective(self.model, self.settings)
            self._objective = DistributedDataParallel(objective, broadcast_buffers=batch_norm)

    def _next_batch(self) -> Batch | FeatureBatch:
        if self._batches is None:
            world = self.world
            pin = world.device.type == "cuda"
            self._batches = load(self.clips, self.iteration, world.rank, world.size, self.workers, pin)
        batch = next(self._batches)
        for reason in batch.damaged:
            print(f"skipped: {reason}", file=sys.stderr, flush=True)
        self.frames += len(batch.names) + len(batch.damaged)
        self.damaged += len(batch.damaged)
        if self.damaged > max(MAX_DAMAGED * self.frames, _FIRST_DAMAGED):
            raise TrainingError(
                f"{self.damaged} of {self.frames} frames drawn could not be read, the last one {batch.damaged[-1]}; "
                f"wanted at most {MAX_DAMAGED:.0%}. python training/data/check.py lists all"
            )
        return batch

    def run(self) -> None:
        """Runs to the end of the last phase; writes the log, the states and the weights into the folder of the run.

        Raises:
            TrainingError: see `gradients`.
            CheckpointError: a file cannot be written.
        """
        s = self.settings
        if self.world.leads:
            s.write(self.output / "config.yaml")
            versions = json.dumps(environment(), indent=2)
            (self.output / "versions.json").write_text(versions + "\n", encoding="utf-8")
            self._log = RunLog(self.output, self.iteration, s.total)
        try:
            while self.iteration < s.total:
                phase, done = s.phase_at(self.iteration)
                self._add(self.step())
                self._report(phase)
                if done + 1 == phase.iterations and self.world.leads:
                    save_model(self.output / f"{phase.name}.safetensors", self.model)
                if self._due(s.save_every):
                    self.save()
        finally:
            if self._log is not None:
                self._log.close()
        if self.world.leads:
            save_model(self.output / "model.safetensors", self.model, half=s.half)

    def _due(self, every: int) -> bool:
        """Whether something done every so many iterations, and at the end, is to be done after this one."""
        return every > 0 and (self.iteration % every == 0 or self.iteration == self.settings.total)

    def _report(self, phase: Phase) -> None:
        s, log = self.settings, self._log
        if self._due(s.log_every):
            line = self._means(phase)
            if log is not None:
                log.write(line)
        if log is None:
            return
        if self._due(s.images_every) and log.takes_pictures and isinstance(self._batch, Batch):
            log.picture(sample_picture(self.model, self._batch), self.iteration)
        if self._due(s.evaluate_every):
            began = time.monotonic()
            found = validate(self.model, self.validation)
            if found > max((line[METRIC] for line in log.lines if METRIC in line), default=-1.0):
                save_model(self.output / "best.safetensors", self.model, half=s.half)
            seconds = round(time.monotonic() - began, 1)
            log.write({"iteration": self.iteration, "phase": phase.name, METRIC: found, "validation_seconds": seconds})

    def _add(self, values: dict[str, float]) -> None:
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
        self.count += 1

    def _means(self, phase: Phase) -> dict[str, Any]:
        """A line of the log: means since the last over all processes, and how long the rest takes at this speed."""
        summed = self.world.total([*self.sums.values(), float(self.damaged)])
        means = {k: v / (self.count * self.world.size) for k, v in zip(self.sums, summed, strict=False)}
        self.sums, self.count = {}, 0
        line: dict[str, Any] = {"iteration": self.iteration, "phase": phase.name}
        line |= {name: float(f"{mean:.6g}") for name, mean in means.items()}
        line["eta_minutes"] = round(means["step_seconds"] * (self.settings.total - self.iteration) / 60, 1)
        if summed[-1]:
            line["damaged_frames"] = int(summed[-1])
        return line

    def save(self) -> None:
        """Writes everything from which a run goes on as if it had not stopped. All processes wait for it.

        Raises:
            CheckpointError: the disk does not take it.
        """
        if self.world.leads:
            save_state(self.output, {
                "settings": self.settings.to_plain(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "iteration": self.iteration,
                "sums": self.sums,
                "count": self.count,
                "frames": self.frames,
                "damaged": self.damaged,
            })  # fmt: skip
        self.world.wait()

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]
        self.sums, self.count = state["sums"], state["count"]
        if self.world.leads:  # the counts of the first process alone were saved
            self.frames, self.damaged = state["frames"], state["damaged"]


def _model(settings: Settings) -> RDN | SmallFCOS:
    if settings.fcos is not None:
        return SmallFCOS(settings.model, settings.fcos)
    model = rdn_of(settings.model)
    if settings.detector_checkpoint:
        assert isinstance(model, AttachedRDN)
        model.detector = _detector(settings)
    return model


def _detector(settings: Settings) -> SmallFCOS:
    """The detector that is trained with the relations on it; the engine directory must be of its kind."""
    detector, told, attached = load_fcos(Path(settings.detector_checkpoint)), settings.model, settings.model.attached
    assert attached is not None
    prepared = ("channel_order", "mean", "std")
    got, wanted = ({name: getattr(one.input, name) for name in prepared} for one in (detector.config, told))
    width = detector.fcos.map_channels * told.roi.size**2
    # By these names its own heads are trained, and by those of the checkpoint they are exported.
    got |= {"class_names": detector.config.class_names, "features": width, "map_stride": _MAP_STRIDE}
    wanted |= {"class_names": told.class_names, "features": attached.features, "map_stride": attached.map_stride}
    differ = differences(got, wanted)
    if differ:
        raise ConfigError(
            f"detector_checkpoint {settings.detector_checkpoint} is not of detector {settings.detector} and of the "
            f"classes that are trained, there: {some(differ)}"
        )
    return detector


def _trunk(model: RDN | SmallFCOS) -> Backbone:
    if isinstance(model, AttachedRDN):
        assert model.detector is not None
        model = model.detector
    return model.backbone.trunk if isinstance(model, SmallFCOS) else model.backbone


def _objective(model: RDN | SmallFCOS, settings: Settings) -> nn.Module:
    if isinstance(model, SmallFCOS):
        return FCOSObjective(model, settings)
    if isinstance(model, AttachedRDN):
        return AttachedObjective(model, settings) if model.detector is None else JointObjective(model, settings)
    return Objective(model, settings)


def _feature_clips(
    model: AttachedRDN, videos: TrainingVideos, settings: Settings, output: Path, world: World
) -> FeatureClips:
    """The clips of a run on a detector; the first process computes its features, where they are not there yet."""
    bundle = Bundle.open(settings.detector)
    graph = load_backend("onnxruntime", "cpu", torch.get_num_threads()).load(bundle.path("encoder"))
    model.encoder = AttachedEncoder(settings.model, graph, None, torch.get_num_threads())
    sha256 = bundle.manifest.files[bundle.manifest.graphs["encoder"]].sha256
    folder = Path(settings.features) if settings.features else output / "features"
    cache = FeatureCache(folder, sha256, settings)
    if world.leads:

        def report(video: int) -> None:
            if video % _VIDEOS_TOLD == 0:
                print(f"features of video {video + 1} of {len(videos)}", file=sys.stderr, flush=True)

        cache.fill(videos, model.encoder, report)
    world.wait()
    return FeatureClips(videos, settings, cache)


def _check_share(settings: Settings, world: World) -> None:
    for phase in settings.phases:
        parts = world.size * settings.accumulate
        if phase.clips % parts:
            raise ConfigError(
                f"phases: {phase.name!r}: clips is {phase.clips}; wanted a multiple of {parts}, {world.size} processes "
                f"with accumulate = {settings.accumulate}"
            )


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Weights decay; biases and norms do not."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(0.9, 0.98))
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum)


def learning_rate(settings: Settings, phase: Phase, done: int) -> float:
    """The learning rate of one step: linear over the warm-up, times what the schedule leaves.

    Args:
        settings: say warm-up and schedule.
        phase: says the rate, and its drops in iterations.
        done: iterations of the phase before this step.

    Returns:
        The rate of the step.
    """
    warm = settings.warm_up_factor + (1 - settings.warm_up_factor) * (done + 1) / max(settings.warm_up, 1)
    if settings.schedule == "cosine":
        left = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done / phase.iterations))
    else:
        left = 0.1 ** sum(done >= drop for drop in phase.drops)
    return phase.learning_rate * min(1.0, warm) * left
