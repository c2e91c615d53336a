"""A decoded picture as upright RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc, VideoReformatter

from rdn_engine.frame import Image

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData

# Without `explode` many decoders paint over what they could not read and hand the picture out as if it were whole.
STRICT = {"err_detect": "crccheck+explode"}

_HD_WIDTH, _SD_HEIGHT = 1280, 576
_BT709, _UNSPECIFIED = 1, 2
"""ISO/IEC 23091-2, matrix coefficients."""
HDR: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
"""Transfer functions of high dynamic range, ITU-R BT.2100."""


class Orientation(NamedTuple):
    """How stored rows and columns become those that are shown: transposed first, then mirrored."""

    transposed: bool = False
    """Rows become columns."""
    left_right: bool = False
    """The first column comes last."""
    top_bottom: bool = False
    """The first row comes last."""

    def apply(self, image: Image) -> Image:
        """Turn and mirror a picture.

        Args:
            image: uint8 [H, W, 3].

        Returns:
            uint8 [H, W, 3], or [W, H, 3] where transposed; contiguous.
        """
        if self == UPRIGHT:
            return np.ascontiguousarray(image)
        if self.transposed:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[:: -1 if self.top_bottom else 1, :: -1 if self.left_right else 1])


UPRIGHT = Orientation()

EXIF = {
    1: UPRIGHT,
    2: Orientation(False, True, False),
    3: Orientation(False, True, True),
    4: Orientation(False, False, True),
    5: Orientation(True, False, False),
    6: Orientation(True, True, False),
    7: Orientation(True, True, True),
    8: Orientation(True, False, True),
}
"""Tag 0x0112 of Exif 3.0, section 4.6.5: which corner of the scene the first row and column lie at."""


def orientation(frame: VideoFrame) -> Orientation:
    """What the display matrix of a picture says.

    Args:
        frame: as decoded.

    Returns:
        The one of the eight orientations that is nearest to the matrix.
    """
    try:
        # `frame.side_data` would keep the frame, and the decoder's buffers, until Python looks for circles
        # (findings/pyav_side_data_keeps_frames.sh).
        matrix = cast("SideData | None", SideDataContainer(frame).get("DISPLAYMATRIX"))  # type: ignore[call-arg]
    except ValueError:
        # PyAV 18.1 knows no name for some side data (Exif); the angle alone cannot tell a mirror.
        return _turned(frame.rotation)
    if matrix is None:
        return UPRIGHT
    # x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, section 6.2.2), in FFmpeg's order and byte order.
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32, 5))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def _turned(degrees: int) -> Orientation:
    """Counterclockwise, as FFmpeg counts."""
    return {0: UPRIGHT, 1: EXIF[8], 2: EXIF[3], 3: EXIF[6]}[round(degrees / 90) % 4]


def is_hd(height: int, width: int) -> bool:
    """Whether a video that does not name its colours is taken to be made with BT.709: the rule of mpv.

    Args:
        height, width: as it is stored, pixels.
    """
    return width >= _HD_WIDTH or height > _SD_HEIGHT


def video_rgb(frame: VideoFrame, scaler: VideoReformatter) -> Image:
    """The colours of a picture of a video, as they are stored.

    Args:
        frame: as decoded. One in HD that does not name its matrix is taken to be made with BT.709's.
        scaler: of the video: setting one up takes a quarter of the time that converting a small picture does.

    Returns:
        uint8 [H, W, 3].
    """
    if frame.colorspace == _UNSPECIFIED and is_hd(frame.height, frame.width):
        frame.colorspace = _BT709
    return scaler.reformat(frame, format="rgb24").to_ndarray().astype(np.uint8, copy=False)


def rgb(frame: VideoFrame) -> Image:
    """The colours of a picture, as they are stored.

    Args:
        frame: as decoded.

    Returns:
        uint8 [H, W, 3].
    """
    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
