"""Puts a data set together for the readers of other layouts: gives ids, cuts boxes at the frame, counts the lost."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Annotation, Box, Category, Dataset, Frame, Video, is_inside


class Builder:
    """`video`, then `frame`, then `box` for what is seen in that frame; the result is `dataset`."""

    def __init__(self, categories: Iterable[tuple[int, str]]) -> None:
        """`categories`: id and name of each class"""
        self.dataset = Dataset(sorted((Category(i, name) for i, name in categories), key=lambda c: c.id))
        self.cut = 0
        """Boxes that reached over the edge of their frame"""
        self.dropped = 0
        """Boxes of which nothing lies inside the frame, or without area"""
        self.notes: list[str] = []
        """What the reader had to assume, or left out, in words for the user; each said once"""
        self._tracks: dict[tuple[int, Hashable], int] = {}

    def video(self, name: str) -> None:
        self.dataset.videos.append(Video(len(self.dataset.videos) + 1, name))

    def frame(self, file_name: str, width: int, height: int, frame_id: int, train: bool = True) -> None:
        """A frame of the last video; DatasetError for a frame before the first, or a name outside the folder."""
        if frame_id < 0:
            raise DatasetError(f"frame {file_name} has the position {frame_id} in its video; wanted 0 or more")
        if not is_inside(file_name):
            raise DatasetError(f"a frame is {file_name!r}; wanted a path inside the folder of images")
        frames = self.dataset.frames
        frames.append(Frame(len(frames) + 1, self.dataset.videos[-1].id, frame_id, file_name, width, height, train))

    def box(self, xyxy: Box, category_id: int, track: Hashable = None, ignore: bool = False) -> None:
        """A box on the last frame.

        Args:
            xyxy: in pixels from 0, the last pixel included.
            category_id: of its class.
            track: tells the objects of one video apart. None for one that nobody followed, and so is every negative
                number: -1 stands for "no track" in one layout after the other, and would join all of them.
            ignore: makes an ignore region of it.
        """
        if (isinstance(track, int) and track < 0) or track in ("", "-1"):
            track = None
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

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def ignore_region(self, xyxy: Box) -> None:
        """A region for all classes: one row for each, so that every COCO evaluator understands it."""
        for category in self.dataset.categories:
            self.box(xyxy, category.id, ignore=True)
