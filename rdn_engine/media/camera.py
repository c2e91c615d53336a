"""Cameras of this machine: Linux's video devices (V4L2)."""

from __future__ import annotations

import errno
import os
import re
import stat

import av
from av.container import InputContainer

from rdn_engine.errors import VideoError
from rdn_engine.media.base import SourceOptions, reason

MOST_DEVICES = 64
"""Linux numbers its video devices 0..63 unless it was built for more"""
_VIDEO4LINUX = 81
"""Linux's number of the kind of device (Documentation/admin-guide/devices.txt)"""
_DEVICE = re.compile(r"/dev/(video[0-9]+|v4l/.+)")
_WHY = {
    errno.ENOENT: "there is no such device; is the camera plugged in? `ls /dev/video*` lists those that are",
    errno.ENXIO: "its camera is gone; plug it in again",
    errno.EACCES: "this user may not open it; on Debian and Ubuntu those in the group `video` may",
    errno.EBUSY: "another program is using it",
    errno.ENODEV: "it captures no video: many cameras have a second device for their metadata; try the one before",
    errno.ENOTTY: "it is no video device",
    errno.EINVAL: "it does not take these settings (camera_size, camera_fps, camera_format); "
    "`v4l2-ctl --list-formats-ext` lists what it takes",
}


def device_path(number: object) -> str | None:
    """The device that a plain number means, for those who read a camera: elsewhere it is the name of a file.

    Args:
        number: 0..63, as a number or as text.

    Returns:
        Its path; None for anything else.
    """
    if isinstance(number, str) and re.fullmatch("[0-9]{1,2}", number, re.ASCII):
        number = int(number)
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < MOST_DEVICES:
        return f"/dev/video{number}"
    return None


def is_device(path: str) -> bool:
    """Whether a path is that of a video device, present or not, or of any name that leads to a present one.

    Args:
        path: as the system names them: `/dev/video0`, `/dev/v4l/by-id/...`.
    """
    if _DEVICE.fullmatch(path):
        return True
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _VIDEO4LINUX


def open_camera(path: str, options: SourceOptions) -> InputContainer:
    """Open a video device.

    Args:
        path: of the device.
        options: with camera_size, camera_fps and camera_format; what is None is as the camera has it.

    Raises:
        VideoError: for a device that is missing, in use, not allowed or none, and for settings that it does not take.
    """
    size = options.camera_size
    wanted = {
        "video_size": size and f"{size[0]}x{size[1]}",
        "framerate": options.camera_fps and f"{options.camera_fps:g}",
        "input_format": options.camera_format,
    }
    settings = {name: value for name, value in wanted.items() if value}
    try:
        return av.open(path, mode="r", format="v4l2", options=settings, timeout=options.timeout)
    except (av.FFmpegError, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        why = _WHY.get(number, reason(error)) if isinstance(number, int) else "this build of FFmpeg has no V4L2"
    raise VideoError(f"{path} cannot be opened as a camera: {why}")
