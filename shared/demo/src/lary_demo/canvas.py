"""Drawing on uint8 RGB frames with integers alone. Lengths are in subpixels: 1 / SUB of a pixel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lary_demo.exact import Draws

SIZE = 64
"""Height and width of a frame, pixels."""
SUB = 16
"""Subpixels in a pixel."""
SAMPLES = 2
"""Points per pixel and axis at which a shape is looked at: edges have SAMPLES**2 + 1 grades."""

Frame: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[int, int]
"""(x, y) in subpixels, y downwards."""

_AXIS = np.arange(SIZE * SAMPLES, dtype=np.int64) * (SUB // SAMPLES) + SUB // SAMPLES // 2


class Mask(NamedTuple):
    """How much of each pixel a shape covers, within its bounding box; it covers none outside of it."""

    rows: slice
    columns: slice
    points: NDArray[np.uint8]
    """(h, w) covered sample points per pixel, 0..SAMPLES**2."""


Shape: TypeAlias = Callable[[Point, int], Mask]
"""(centre, radius) -> what it covers."""


class _Box(NamedTuple):
    """The pixels of the frame that a shape may touch, and the coordinates of their sample points."""

    rows: slice
    columns: slice
    x: NDArray[np.int64]
    """(1, w * SAMPLES)"""
    y: NDArray[np.int64]
    """(h * SAMPLES, 1)"""

    @classmethod
    def around(cls, points: tuple[Point, ...], reach: int) -> "_Box":
        """All pixels that are within `reach` of one of the points' rows and columns, or between two of them."""
        columns, rows = (_pixels(min(c) - reach, max(c) + reach) for c in zip(*points, strict=True))
        return cls(rows, columns, _samples(columns)[None, :], _samples(rows)[:, None])

    def mask(self, inside: NDArray[np.bool_]) -> Mask:
        """Of (h * SAMPLES, w * SAMPLES) sample points, those inside of the shape."""
        covered = inside.view(np.uint8)
        points = np.zeros((self.rows.stop - self.rows.start, self.columns.stop - self.columns.start), np.uint8)
        for row in range(SAMPLES):
            for column in range(SAMPLES):
                points += covered[row::SAMPLES, column::SAMPLES]
        return Mask(self.rows, self.columns, points)


def _pixels(low: int, high: int) -> slice:
    """The pixels of an axis that [low, high] touches; none where it lies outside of the frame."""
    start = min(max(low // SUB, 0), SIZE)
    return slice(start, min(max(high // SUB + 1, start), SIZE))


def _samples(pixels: slice) -> NDArray[np.int64]:
    return _AXIS[pixels.start * SAMPLES : pixels.stop * SAMPLES]


def disc(centre: Point, radius: int) -> Mask:
    box = _Box.around((centre,), radius)
    return box.mask((box.x - centre[0]) ** 2 + (box.y - centre[1]) ** 2 <= radius**2)


def square(centre: Point, radius: int) -> Mask:
    box = _Box.around((centre,), radius)
    return box.mask(np.maximum(abs(box.x - centre[0]), abs(box.y - centre[1])) <= radius)


def diamond(centre: Point, radius: int) -> Mask:
    box = _Box.around((centre,), radius)
    return box.mask(abs(box.x - centre[0]) + abs(box.y - centre[1]) <= radius)


def capsule(start: Point, end: Point, radius: int) -> Mask:
    """All points within `radius` of a segment; of one without length, a disc."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    box = _Box.around((start, end), radius)
    px, py = box.x - start[0], box.y - start[1]
    length2 = ax * ax + ay * ay
    along, across = px * ax + py * ay, px * ay - py * ax
    # Strictly inside: a segment without length has no sides, its ends are all there is.
    along_side = (along > 0) & (along < length2) & (across * across <= radius * radius * length2)
    at_ends = np.minimum(px * px + py * py, (px - ax) ** 2 + (py - ay) ** 2) <= radius * radius
    return box.mask(along_side | at_ends)


def paint(frame: Frame, mask: Mask, colour: Colour, percent: int = 100) -> None:
    """Lay a colour over a frame where the mask covers it, `percent` opaque."""
    full = SAMPLES**2 * 100
    weight = mask.points[..., None].astype(np.int64) * percent
    under = frame[mask.rows, mask.columns]
    under[:] = (under * (full - weight) + np.array(colour) * weight + full // 2) // full


def texture(draws: Draws, cells: int, brightest: int) -> Frame:
    """A dark, cloudy background: random colours on a coarse grid, interpolated in between."""
    coarse = draws.grid((cells + 1, cells + 1, 3), brightest + 1)
    step = SIZE // cells
    part = np.arange(SIZE) % step
    low = np.arange(SIZE) // step
    rows = coarse[low] * (step - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    mixed = rows[:, low] * (step - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    return (mixed // (step * step)).astype(np.uint8)


@dataclass(frozen=True)
class Distractor:
    """A second thing that moves by its own: it bounces off the walls, and no label knows of it."""

    start: Point
    velocity: Point
    """Subpixels per frame."""
    radius: int
    colour: Colour

    @classmethod
    def draw(cls, draws: Draws) -> "Distractor":
        radius = draws.between(3 * SUB, 5 * SUB)
        inner = SIZE * SUB - 2 * radius
        start = (radius + draws.below(inner), radius + draws.below(inner))
        velocity = (draws.between(-SUB, SUB), draws.between(-SUB, SUB))
        colour = (draws.between(70, 200), draws.between(70, 200), draws.between(70, 200))
        return cls(start, velocity, radius, colour)

    @classmethod
    def white(cls, draws: Draws) -> "Distractor":
        """One whose motion can be read from the pixels: white, 5 pixels of radius, up to 2 pixels a frame per axis."""
        radius = 5 * SUB
        inner = SIZE * SUB - 2 * radius
        start = (radius + draws.below(inner), radius + draws.below(inner))
        velocity = (draws.between(-2 * SUB, 2 * SUB), draws.between(-2 * SUB, 2 * SUB))
        return cls(start, velocity, radius, (255, 255, 255))

    def at(self, time: int) -> Point:
        x, y = (
            _bounce(s + v * time, self.radius, SIZE * SUB - self.radius)
            for s, v in zip(self.start, self.velocity, strict=True)
        )
        return x, y

    def paint(self, frame: Frame, time: int, percent: int) -> None:
        """`percent` is its strength: 0 leaves the frame as it is."""
        paint(frame, disc(self.at(time), self.radius), self.colour, percent)


def _bounce(position: int, low: int, high: int) -> int:
    """Fold a straight path into [low, high]."""
    span = high - low
    folded = (position - low) % (2 * span)
    return low + min(folded, 2 * span - folded)
