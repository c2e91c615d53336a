"""A report of a data set as one HTML page that needs nothing else: problems, histograms, pictures with their boxes."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from html import escape
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from rdn_engine.evaluation.coco_vid import Annotation, Dataset, Frame
from training.data.anchors import MET, AnchorFit
from training.data.problem import Problem

PICTURES = 16
"""On the page: those of which something is said come first, then some of every video in turn."""
PICTURE_WIDTH = 460
"""Pixels of a picture on the page"""
EXAMPLES = 8
"""Of each kind of problem"""
CLASSES = 40
"""In the chart of classes: the most frequent ones"""
_HUES = 12  # colours of the classes, in turn
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:76em;padding:0 1em;color:#1c2733;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin:2em 0 .6em;border-bottom:1px solid #d5dbe1;padding-bottom:.2em}
.facts{display:flex;gap:2.2em;flex-wrap:wrap}.facts b{display:block;font-size:1.6em}
.bad{color:#a3202a}.look{color:#8a5a00}.good{color:#1b6b3a}
ul{margin:.2em 0 1em;padding-left:1.2em}li{overflow-wrap:anywhere}
.charts{display:flex;flex-wrap:wrap;gap:1.6em}figure{margin:0}figcaption{font-size:.85em;color:#55626f;max-width:460px;
overflow-wrap:anywhere}.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:1em}
.pictures svg{width:100%;height:auto;display:block;background:#222}svg text{font-family:system-ui,sans-serif}
"""


def page(
    dataset: Dataset,
    source: str,
    images: Path,
    problems: Sequence[Problem],
    doubts: Sequence[Problem],
    anchors: AnchorFit | None,
) -> str:
    """The page.

    Args:
        dataset: that was checked.
        source: name of the annotation file.
        images: the folder that file names start from.
        problems, doubts: what was found.
        anchors: of the model, for the histogram of sizes; None draws none.

    Returns:
        HTML that loads nothing.
    """
    facts = {
        "videos": len(dataset.videos),
        "frames": len(dataset.frames),
        "boxes": sum(not a.ignore for a in dataset.annotations),
        "ignore regions": sum(a.ignore for a in dataset.annotations),
        "tracks": len({a.instance_id for a in dataset.annotations} - {None}),
        "classes": len(dataset.categories),
    }
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(Path(source).name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(source)}</h1>",
        f'<div class="facts">{"".join(f"<div><b>{value:,}</b>{name}</div>" for name, value in facts.items())}</div>',
        _found("What is wrong", "bad", problems, "Nothing is wrong."),
        _found("What wants a look", "look", doubts, "There is nothing in doubt."),
        f'<h2>In numbers</h2><div class="charts">{"".join(_charts(dataset, anchors))}</div>',
        f'<h2>Pictures</h2><div class="pictures">{"".join(_pictures(dataset, images, (*problems, *doubts)))}</div>',
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _found(title: str, style: str, found: Sequence[Problem], nothing: str) -> str:
    if not found:
        return f'<h2>{title}</h2><p class="good">{nothing}</p>'
    kinds = Counter(p.kind for p in found)
    rows = [f"<h2>{title}</h2>"]
    for kind, count in kinds.items():
        some = islice((p for p in found if p.kind == kind), EXAMPLES)
        rows.append(f'<b class="{style}">{count} x {escape(kind)}</b><ul>')
        rows += [f"<li>{escape(p.where)}: {escape(p.what)}</li>" for p in some]
        rows.append(f"<li>and {count - EXAMPLES} more</li></ul>" if count > EXAMPLES else "</ul>")
    return "".join(rows)


def _charts(dataset: Dataset, anchors: AnchorFit | None) -> list[str]:
    objects = [a for a in dataset.annotations if not a.ignore]
    names = {category.id: category.name for category in dataset.categories}
    classes = Counter({category.name: 0 for category in dataset.categories})
    classes.update(names.get(a.category_id, str(a.category_id)) for a in objects)
    index = {category.name: i for i, category in enumerate(dataset.categories)}
    rows = [(name, count, _colour(index.get(name, 0))) for name, count in classes.most_common(CLASSES)]
    charts = [_bars("boxes of each class", rows)]
    if anchors is not None:
        met = f"{anchors.met:.0%} are met at IoU {MET} by anchor_sizes {list(anchors.sizes)} (lines), "
        met += f"{anchors.proposal_met:.0%} would be by {list(anchors.proposal)}"
        title = f"side of a box at the network's input, pixels: {met}"
        charts.append(_histogram(title, [float(v) for v in anchors.sides], lines=anchors.sizes))
    of_frame = Counter(a.image_id for a in objects)
    charts.append(_histogram("boxes in a frame", [of_frame[f.id] for f in dataset.frames]))
    tracks = Counter(a.instance_id for a in objects if a.instance_id is not None)
    if tracks:
        charts.append(_histogram("boxes of a track", list(tracks.values())))
    lengths = Counter(f.video_id for f in dataset.frames)
    charts.append(_histogram("frames of a video", [lengths[v.id] for v in dataset.videos]))
    return charts


def _bars(title: str, rows: Sequence[tuple[str, int, str]]) -> str:
    """A bar for each name, count and colour"""
    most = max((count for _, count, _ in rows), default=0) or 1
    marks = []
    for i, (name, count, colour) in enumerate(rows):
        y, width = 18 * i, 220 * count / most
        marks.append(
            f'<text x="140" y="{y + 13}" font-size="12" text-anchor="end">{escape(name[:22])}</text>'
            f'<rect x="146" y="{y + 2}" width="{width:.1f}" height="13" fill="{colour}"/>'
            f'<text x="{150 + width:.1f}" y="{y + 13}" font-size="12">{count:,}</text>'
        )
    return _figure(title, 440, 18 * len(rows) + 4, "".join(marks))


def _histogram(title: str, values: Sequence[float], lines: Sequence[float] = (), bins: int = 24) -> str:
    """Bars over growing values, in steps of equal ratio where the largest is many times the smallest"""
    if not values:
        return _figure(f"{title}: none", 440, 20, "")
    low, high = min(values), max(max(values), min(values) + 1)
    if low > 0 and high / low > 8:
        edges = np.geomspace(low, high, bins + 1)
    else:
        edges = np.linspace(low, high, min(bins, max(int(high - low), 1)) + 1)
    counts, _ = np.histogram(values, edges)
    most, width = max(int(counts.max()), 1), 420 / len(counts)
    marks = [
        f'<rect x="{10 + i * width:.1f}" y="{130 - 118 * c / most:.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{118 * c / most:.1f}" fill="#3f7cac"><title>{edges[i]:.4g} to {edges[i + 1]:.4g}: {c}</title></rect>'
        for i, c in enumerate(counts)
    ]
    for line in lines:
        if low <= line <= high:
            x = 10 + 420 * float(np.interp(line, edges, np.linspace(0, 1, len(edges))))
            marks.append(f'<path d="M{x:.1f} 6V132" stroke="#c4462d" stroke-width="1.5"/>')
            marks.append(f'<text x="{x + 3:.1f}" y="14" font-size="11" fill="#c4462d">{line:g}</text>')
    for i in sorted({0, len(counts) // 2, len(counts)}):
        anchor = "start" if i == 0 else "end" if i == len(counts) else "middle"
        marks.append(
            f'<text x="{10 + i * width:.1f}" y="146" font-size="11" text-anchor="{anchor}">{edges[i]:.4g}</text>'
        )
    return _figure(f"{title} (highest bar: {most:,})", 440, 150, "".join(marks))


def _figure(title: str, width: int, height: int, marks: str) -> str:
    return (
        f'<figure><svg width="{width}" height="{height}" viewBox="0 0 {width} {height}">{marks}</svg>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def _pictures(dataset: Dataset, images: Path, said: Sequence[Problem]) -> list[str]:
    boxes: dict[int, list[Annotation]] = defaultdict(list)
    for annotation in dataset.annotations:
        boxes[annotation.image_id].append(annotation)
    names = {category.id: (i, category.name) for i, category in enumerate(dataset.categories)}
    reasons: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    for problem in said:  # a few of each kind, so that one kind does not take all places
        kinds[problem.kind] += 1
        if kinds[problem.kind] <= 3:
            reasons.setdefault(problem.where, f"{problem.kind}: {problem.what}")
    drawn: list[str] = []
    for frame in _chosen(dataset, boxes, reasons):
        if len(drawn) == PICTURES:
            break
        picture = _picture(frame, images, boxes[frame.id], names)
        if picture is not None:
            reason = f"<br>{escape(reasons[frame.file_name])}" if frame.file_name in reasons else ""
            drawn.append(f"<figure>{picture}<figcaption>{escape(frame.file_name)}{reason}</figcaption></figure>")
    return drawn


def _chosen(dataset: Dataset, boxes: dict[int, list[Annotation]], reasons: dict[str, str]) -> list[Frame]:
    first = [f for f in dataset.frames if f.file_name in reasons][: PICTURES // 2]
    of_video: dict[int, list[Frame]] = defaultdict(list)
    for frame in dataset.frames:
        if boxes[frame.id]:
            of_video[frame.video_id].append(frame)
    videos = list(of_video.values())
    videos = [videos[len(videos) * i // min(PICTURES, len(videos))] for i in range(min(PICTURES, len(videos)))]
    # The middle of each video, then its quarters and so on: more than fit, as some may be unreadable.
    parts = [part / whole for whole in (2, 4, 8, 16, 32) for part in range(1, whole, 2)]
    others = [frames[int(len(frames) * part)] for part in parts for frames in videos]
    return list({frame.id: frame for frame in (*first, *others)}.values())


def _picture(frame: Frame, images: Path, boxes: Sequence[Annotation], names: dict[int, tuple[int, str]]) -> str | None:
    """The frame, small, under its boxes as lines of SVG; None where it cannot be read: the check names it."""
    try:
        with Image.open(images / frame.file_name) as image:
            image.draft("RGB", (2 * PICTURE_WIDTH, 2 * PICTURE_WIDTH))
            small = image.convert("RGB")
            small.thumbnail((PICTURE_WIDTH, PICTURE_WIDTH))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    link = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    line = max(frame.width, frame.height) / 230
    marks = [f'<image href="{link}" width="{frame.width}" height="{frame.height}"/>']
    for a in boxes:
        x1, y1, x2, y2 = a.xyxy
        index, name = names.get(a.category_id, (0, str(a.category_id)))
        label = name if a.instance_id is None else f"{name} {a.instance_id}"
        dash = f' stroke-dasharray="{3 * line:.1f}"' if a.ignore else ""
        marks.append(
            f'<rect x="{x1:.2f}" y="{y1:.2f}" width="{x2 - x1 + 1:.2f}" height="{y2 - y1 + 1:.2f}" fill="none" '
            f'stroke="{_colour(index)}" stroke-width="{line:.2f}"{dash}><title>{escape(label)}</title></rect>'
            f'<text x="{x1:.2f}" y="{max(y1 - line, 6 * line):.2f}" font-size="{8 * line:.1f}" fill="#fff" '
            f'stroke="#000" stroke-width="{1.5 * line:.2f}" paint-order="stroke">{escape(label)}</text>'
        )
    return f'<svg viewBox="0 0 {frame.width} {frame.height}">{"".join(marks)}</svg>'


def _colour(index: int) -> str:
    return f"hsl({360 * (index * 5 % _HUES) // _HUES},75%,55%)"
