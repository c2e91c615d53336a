"""Puts a data set together for the readers of other layouts: gives ids, cuts boxes at the frame, counts the lost."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from rdn_engine.evaluation.coco_vid import Annotation, Box, Category, Dataset, Frame, Video


class Builder:
    """`video`, then `frame`, then `box` for what is seen in that frame; the result is `dataset`."""

    def __init__(self, categories: Iterable[tuple[int, str]]) -> None:
        """`categories`: id and name of each class"""
        self.dataset = Dataset(sorted((Category(i, name) for i, name in categories), key=lambda c: c.id))
        self.cut = 0
        """Boxes that reached over the edge of their frame"""
        self.dropped = 0
        """Boxes of which nothing lies inside the frame, or without area"""
        self._tracks: dict[tuple[int, Hashable], int] = {}

    def video(self, name: str) -> None:
        self.dataset.videos.append(Video(len(self.dataset.videos) + 1, name))

    def frame(self, file_name: str, width: int, height: int, frame_id: int, train: bool = True) -> None:
        """A frame of the last video"""
        frames = self.dataset.frames
        frames.append(Frame(len(frames) + 1, self.dataset.videos[-1].id, frame_id, file_name, width, height, train))

    def box(self, xyxy: Box, category_id: int, track: Hashable = None, ignore: bool = False) -> None:
        """A box on the last frame. `track` tells the objects of one video apart; None for one that nobody followed."""
        frame = self.dataset.frames[-1]
        x1, y1, x2, y2 = xyxy
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, frame.width - 1.0), min(y2, frame.height - 1.0))
        # A side is x2 - x1 + 1 pixels: at x2 = x1 one pixel is left, at x2 = x1 - 1 none.
        if min(x2 - x1, y2 - y1, inside[2] - inside[0], inside[3] - inside[1]) <= -1:
            self.dropped += 1
            return
        self.cut += inside != xyxy
        instance = None
        if track is not None:
            instance = self._tracks.setdefault((frame.video_id, track), len(self._tracks) + 1)
        rows = self.dataset.annotations
        rows.append(Annotation(len(rows) + 1, frame.id, category_id, inside, instance, ignore))

    def ignore_region(self, xyxy: Box) -> None:
        """A region for all classes: one row for each, so that every COCO evaluator understands it."""
        for category in self.dataset.categories:
            self.box(xyxy, category.id, ignore=True)
