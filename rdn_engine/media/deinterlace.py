"""Whole pictures from interlaced ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import av
from av.filter import Graph
from av.video.frame import VideoFrame

_SMALLEST = 16
"""Pixels: the filter refuses pictures of a few, which no detector takes either."""

Picture = tuple[VideoFrame, int, float | None]
"""As decoded, with its number and its time in seconds."""


def deinterlaced(pictures: Iterator[Picture]) -> Iterator[Picture]:
    """Make a whole picture of each interlaced one; those that are not marked as interlaced stay as they are.

    FFmpeg's bwdif looks at the pictures around each, so one is handed out when the next has come.

    Args:
        pictures: in display order. They may change their size.

    Returns:
        As many, with the same numbers and times.
    """
    waiting: deque[tuple[int, float | None]] = deque()
    graph: Graph | None = None
    shape: tuple[int, int, str] | None = None
    for picture, index, seconds in pictures:
        if min(picture.width, picture.height) < _SMALLEST:
            if graph is not None:
                yield from _drain(graph, waiting)
                graph = None
            yield picture, index, seconds
            continue
        if graph is None or shape != (picture.width, picture.height, picture.format.name):
            if graph is not None:
                yield from _drain(graph, waiting)
            graph, shape = _graph(picture), (picture.width, picture.height, picture.format.name)
        waiting.append((index, seconds))
        graph.vpush(picture)
        yield from _ready(graph, waiting)
    if graph is not None:
        yield from _drain(graph, waiting)


def _graph(picture: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", mode="send_frame", deint="interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _ready(graph: Graph, waiting: deque[tuple[int, float | None]]) -> Iterator[Picture]:
    while True:
        try:
            picture = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield picture, *waiting.popleft()


def _drain(graph: Graph, waiting: deque[tuple[int, float | None]]) -> Iterator[Picture]:
    graph.vpush(None)
    yield from _ready(graph, waiting)
