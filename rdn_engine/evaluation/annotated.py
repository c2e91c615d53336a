"""What detections are scored against: annotations of videos, and named parts of their frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rdn_engine.evaluation.coco_vid import Dataset, Frame


@dataclass(frozen=True)
class Annotated:
    """Annotated videos, without their pictures."""

    name: str
    dataset: Dataset
    conditions: dict[str, list[int]] = field(default_factory=dict, kw_only=True)
    """Named parts of the frames by `Frame.id`, of which AP is reported too"""

    def videos(self) -> Iterator[tuple[str, list[Frame]]]:
        """Name and frames of each video that has any, in the order of the data set."""
        frames: dict[int, list[Frame]] = {v.id: [] for v in self.dataset.videos}
        for frame in self.dataset.frames:
            frames[frame.video_id].append(frame)
        for video in self.dataset.videos:
            if frames[video.id]:
                yield video.name, frames[video.id]

    def starts(self) -> dict[int, int]:
        """`Video.id` -> `frame_id` of its first frame."""
        return {frames[0].video_id: frames[0].frame_id for _, frames in self.videos()}
