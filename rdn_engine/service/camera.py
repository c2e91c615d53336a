"""Whether a camera still shows what it should: dark, frozen or shifted, told from small grey pictures."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from rdn_engine.frame import Image
from rdn_engine.plain import check_fields

CameraFlag = Literal["dark", "frozen", "shifted"]
"""dark: next to nothing is seen, because it is near black or without any contrast. frozen: frames come, and none
shows anything new. shifted: the camera looks elsewhere than it did."""

Grey = NDArray[np.uint8]
"""[SIDE, SIDE] luma of a whole frame, whatever its shape"""
SIDE = 128

_ROWS = 360
"""Rows of a frame that are read at most, evenly spread: a third of the time at 1080p, and each block has several"""

_BLACK, _NO_LONGER_BLACK = 28, 36
"""Levels that hardly a block of the picture reaches"""
_FLAT, _NO_LONGER_FLAT = 8, 12
"""Levels between its darkest and its brightest blocks: a hand, a bag, paint or fog before the lens"""
_TAIL = 0.4
"""Percent of the blocks that may be darker or brighter: a lit animal on black is to be seen, and is small"""
_BORDER = SIDE // 32 * 3
"""Rows at the top and at the bottom where cameras write name and time, on a covered lens too"""

_SAMPLES = 4
"""Pictures that must agree before a flag is raised, however slowly they come"""
_RELEASE_SECONDS = 2.0
"""How long a picture must be good again before a flag goes"""

_KNOWN = 128
"""Pictures that are remembered: more than there are between two key pictures. A longer loop is not found out"""

_EDGE = 6.0
"""Levels over two pixels: an edge of this contrast has half of the weight of a sharp one; noise is far below"""
_STRUCTURE = 0.004
"""Mean squared weight of edges that is enough to compare views by"""
_STEADY = 0.35
"""Part of the edges of a few seconds that stayed where they were, for a view to be one"""
_STANDS, _GONE = 0.2, 0.15
"""Correlation with the reference above which a view is the same, and below which it is another"""
_BEST, _MARGIN = 0.2, 1.3
"""Correlation of a displaced view, and how much more it must be than without a displacement"""
_NEAR = 1
"""Pixels of SIDE that a view may move by: vibration, and what an anti-shake leaves"""
_RECENT = 6
"""Pictures that the present view is the mean of: who walks through is in each elsewhere"""


@dataclass(frozen=True)
class CheckOptions:
    """How long something must last before it is flagged; None switches a check off."""

    dark_seconds: float | None = 5.0
    """Near black, or without contrast"""
    frozen_seconds: float | None = 60.0
    """Nothing but pictures that were there before. A drawn scene, a test card or a screen may rightly stand still for
    longer: None for those"""
    shifted_seconds: float | None = 5.0
    """Another view. None for cameras that are moved on purpose"""
    learn_seconds: float = 10.0
    """How long a camera is watched before its view is the reference"""
    adapt_seconds: float = 900.0
    """In how long the reference becomes two thirds of what is seen now: daylight, seasons, what is parked"""

    def __post_init__(self) -> None:
        check_fields(
            self, "checks", dark_seconds=(0.1, 1e6), frozen_seconds=(1, 1e6), shifted_seconds=(0.1, 1e6),
            learn_seconds=(0.1, 1e6), adapt_seconds=(1, 1e9),
        )  # fmt: skip


def small_grey(image: Image) -> Grey:
    """What the checks look at. Means over blocks, so that a change anywhere shows, and noise hardly.

    Args:
        image: uint8 [H, W, 3] RGB.

    Returns:
        uint8 [SIDE, SIDE].
    """
    rows = image[:: max(1, image.shape[0] // _ROWS)]
    small = PIL.Image.fromarray(rows).resize((SIDE, SIDE), PIL.Image.Resampling.BOX, reducing_gap=1.0)
    return np.asarray(small.convert("L"))


class CameraChecks:
    """The three checks of one camera. One thread at a time."""

    def __init__(self, options: CheckOptions | None = None) -> None:
        """Nothing has been seen.

        Args:
            options: None for the defaults.
        """
        self._options = options or CheckOptions()
        self._dark = _Held(self._options.dark_seconds)
        self._frozen = _Frozen(self._options.frozen_seconds)
        self._view = View(self._options.learn_seconds, self._options.adapt_seconds)
        self._shifted = _Held(self._options.shifted_seconds)

    @property
    def flags(self) -> tuple[CameraFlag, ...]:
        """What is wrong now."""
        flags: list[CameraFlag] = []
        if self._dark.on:
            flags.append("dark")
        if self._frozen.on:
            flags.append("frozen")
        if self._shifted.on:
            flags.append("shifted")
        return tuple(flags)

    def see(self, grey: Grey, seconds: float) -> None:
        """Look at a picture. Two a second are enough.

        Args:
            grey: of a frame, `small_grey`.
            seconds: when it was taken, on any clock that does not go back.
        """
        dark = _dark(grey, self._dark.on)
        self._dark.see(dark, seconds)
        self._frozen.see(grey, seconds)
        if self._options.shifted_seconds is not None:
            # In the dark there is no view to compare, and edges of noise must not become the reference.
            other = None if dark else self._view.see(grey, seconds)
            self._shifted.see(other, seconds)
            if other is False and not self._shifted.on:
                self._view.adapt(seconds)

    def accept_view(self) -> None:
        """Take what is seen from now on as the view that is right."""
        self._view = View(self._options.learn_seconds, self._options.adapt_seconds)
        self._shifted = _Held(self._options.shifted_seconds)


class _Held:
    """Goes on after a condition has held for some time, and off after it has not for a shorter one."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self.on = False
        self._since: float | None = None
        self._count = 0

    def see(self, bad: bool | None, now: float) -> None:
        """bad: None where it cannot be told, which changes nothing and begins the time anew."""
        if bad is None or bad == self.on:
            self._since, self._count = None, 0
            return
        if self._since is None:
            self._since = now
        self._count += 1
        wanted = _RELEASE_SECONDS if self.on else self._seconds
        if now - self._since >= wanted and self._count >= _SAMPLES:
            self.on, self._since, self._count = not self.on, None, 0


def _dark(grey: Grey, already: bool) -> bool:
    blocks = grey[_BORDER:-_BORDER]
    black, flat = (_NO_LONGER_BLACK, _NO_LONGER_FLAT) if already else (_BLACK, _FLAT)
    if np.percentile(blocks, 100 - _TAIL) < black:
        return True
    # Of contrast noise is a part, which larger blocks have less of.
    large = blocks.reshape(len(blocks) // 4, 4, SIDE // 4, 4).mean((1, 3))
    low, high = np.percentile(large, (_TAIL, 100 - _TAIL))
    return bool(high - low < flat)


class _Frozen:
    """Waits for a picture that was not there before. Equal to the last one is too little to ask: where a camera sends
    one picture for ever, an encoder's key pictures and those between differ, and come again and again
    (findings/x264_still_and_moving_pictures.sh).
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self._known: OrderedDict[int, None] = OrderedDict()
        """Of the latest different pictures, the one seen last at the end"""
        self._since = 0.0
        """When the last new one came"""
        self._count = 0
        self.on = False

    def see(self, grey: Grey, now: float) -> None:
        picture = hash(grey.tobytes())
        if picture in self._known:
            self._count += 1
        else:
            self._since, self._count = now, 0
        self._known[picture] = None
        self._known.move_to_end(picture)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        self.on = now - self._since >= self._seconds and self._count >= _SAMPLES


class _Match(NamedTuple):
    here: float
    """Correlation of the present view with the reference, without a displacement"""
    best: float
    """The largest with one"""


class View:
    """Compares the edges that stay with those of a reference that follows slowly.

    Edges are unit vectors of twice their direction: neither their contrast counts nor its sign, so light that is
    switched or an infrared lamp changes few. Means over time leave what stays.
    """

    def __init__(self, learn_seconds: float, adapt_seconds: float) -> None:
        """Nothing is known of the view.

        Args:
            learn_seconds: until there is a reference.
            adapt_seconds: time constant of the reference.
        """
        self._learn, self._adapt = learn_seconds, adapt_seconds
        self._recent: deque[tuple[NDArray[np.complex64], float]] = deque(maxlen=_RECENT)
        """Edges of each picture, and their energy"""
        self._learned: list[NDArray[np.complex64]] = []
        self._began = 0.0
        self._reference: NDArray[np.complex64] | None = None
        self._adapted = 0.0

    def see(self, grey: Grey, now: float) -> bool | None:
        """Look at a picture.

        Args:
            grey: [SIDE, SIDE].
            now: seconds.

        Returns:
            Whether the view is another than the reference; None where that cannot be told.
        """
        edges = _edges(grey)
        self._recent.append((edges, _energy(edges)))
        present = self._present()
        if present is None:
            return None
        if self._reference is None:
            self._begin(present, now)
            return None
        match = _match(present, self._reference)
        if match.here < _GONE or (match.best > _BEST and match.best > _MARGIN * match.here):
            return True
        return False if match.here > _STANDS else None

    def adapt(self, now: float) -> None:
        """Let the reference follow what was seen some seconds ago: as a camera is pushed, that is still the old view.

        Args:
            now: seconds.
        """
        if self._reference is not None:
            # At first the mean of all that was seen, so that who stood there while it was learned leaves it soon.
            passed = max(now - self._adapted, 0.0)
            part = max(1 - math.exp(-passed / self._adapt), passed / max(now - self._began, passed, 1e-9))
            self._reference += np.float32(min(part, 0.1)) * (self._recent[0][0] - self._reference)
            self._adapted = now

    def _present(self) -> NDArray[np.complex64] | None:
        """The edges of the last pictures that stayed; None where there are too few, or most of them moved."""
        if len(self._recent) < _RECENT:
            return None
        mean: NDArray[np.complex64] = np.asarray(np.mean([edges for edges, _ in self._recent], 0, dtype=np.complex64))
        each = float(np.mean([energy for _, energy in self._recent]))
        stayed = _energy(mean)
        return mean if stayed > max(_STRUCTURE, _STEADY * each) else None

    def _begin(self, present: NDArray[np.complex64], now: float) -> None:
        if not self._learned:
            self._began = now
        self._learned.append(present)
        if now - self._began >= self._learn:
            self._reference, self._adapted = np.mean(self._learned, 0, dtype=np.complex64), now
            self._learned.clear()


def _edges(grey: Grey) -> NDArray[np.complex64]:
    """complex [SIDE - 2, SIDE - 2]: an edge's direction by its angle, twice; its sharpness, 0..1, by its length."""
    levels = grey.astype(np.float32)
    across = levels[1:-1, 2:] - levels[1:-1, :-2]
    down = levels[2:, 1:-1] - levels[:-2, 1:-1]
    return ((across + 1j * down) ** 2 / (across**2 + down**2 + np.float32(_EDGE**2))).astype(np.complex64)


_RAMP = np.minimum(1, np.minimum(np.arange(SIDE - 2) + 1, np.arange(SIDE - 2)[::-1] + 1) / (SIDE / 8))
_WINDOW = np.outer(_RAMP, _RAMP).astype(np.float32)
"""Takes the weight off the border, where a displaced view shows something new"""


def _framed(edges: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Without what most views have in common, upright and level edges, and without the border."""
    weighted = (edges - (edges * _WINDOW).sum() / _WINDOW.sum()) * _WINDOW
    # It is complex64 already, which NumPy 2.5's types do not tell.
    found: NDArray[np.complex64] = weighted.astype(np.complex64, copy=False)
    return found


def _energy(edges: NDArray[np.complex64]) -> float:
    return float(np.mean(np.abs(_framed(edges)) ** 2))


def _match(present: NDArray[np.complex64], reference: NDArray[np.complex64]) -> _Match:
    """Correlation for every displacement at once, by the Fourier transform; 1 for equal views."""
    spectra = np.fft.fft2(_framed(present)) * np.conj(np.fft.fft2(_framed(reference)))
    scale = present.size * math.sqrt(_energy(present) * _energy(reference))
    surface = np.fft.fftshift(np.fft.ifft2(spectra).real) / max(scale, 1e-9)
    centre = surface.shape[0] // 2
    near = slice(centre - _NEAR, centre + _NEAR + 1)
    here = float(surface[near, near].max())
    surface[near, near] = -1.0
    return _Match(here, float(surface.max()))
