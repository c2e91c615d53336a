"""Makes scalabel.json, the layout of BDD100K's tracking labels: make.py says how it is run."""

import sys

from scalabel.label.io import save
from scalabel.label.typing import Box2D, Frame, Label


def label(track, category, x1, y1, x2, y2, crowd=False):
    box = Box2D(x1=x1, y1=y1, x2=x2, y2=y2)
    return Label(id=track, category=category, box2d=box, attributes={"crowd": crowd})


frames = []
for t in range(3):
    # Scalabel's corners are the first and the last pixel of a box: this car is 10 wide.
    seen = [
        label("7", "car", 2 + t, 3, 11 + t, 10),
        label("9", "other person", 0, 0, 31, 23),
        label("3", "bus", 1, 1, 4, 4, crowd=True),
    ]
    frames.append(
        Frame(
            name=f"b1-{t + 1:07d}.jpg",
            videoName="b1",
            frameIndex=t,
            labels=seen if t < 2 else [],
            size={"width": 32, "height": 24},
        )
    )
save(sys.argv[1], frames)
