"""What a frame says of itself."""

from __future__ import annotations

import numpy as np

from rdn_engine import NV12, Frame


def test_a_frame_is_printed_without_its_pixels() -> None:
    frame = Frame(np.full((48, 64, 3), 77, np.uint8), index=4, pts=0.16, source_id="door.mp4")
    assert repr(frame) == "Frame(image=uint8[48, 64, 3], index=4, pts=0.16, source_id='door.mp4')"
    wide = Frame(np.zeros((48, 64, 3), np.uint8), index=4, pts=None, source_id="", pixel_aspect=1.5)
    assert repr(wide) == "Frame(image=uint8[48, 64, 3], index=4, pts=None, source_id='', pixel_aspect=1.5)"
    planes = NV12(np.zeros((48, 64), np.uint8), np.zeros((24, 64), np.uint8))
    assert repr(planes) == "NV12(luma=uint8[48, 64], chroma=uint8[24, 64], matrix='bt709', full_range=False)"
    assert repr(Frame(planes, index=0, pts=None, source_id="")).startswith(f"Frame(image={planes!r}, index=0")  # type: ignore[arg-type]
    assert repr(Frame("no image", index=0, pts=None, source_id="")).startswith("Frame(image='no image', ")  # type: ignore[arg-type]
