"""Drawing on uint8 RGB frames with integers alone. Lengths are in subpixels: 1 / SUB of a pixel."""

from dataclasses import dataclass
from typing import TypeAlias

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
Mask: TypeAlias = NDArray[np.uint8]
"""(H, W) covered sample points per pixel, 0..SAMPLES**2."""
Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[int, int]
"""(x, y) in subpixels, y downwards."""

_AXIS = np.arange(SIZE * SAMPLES, dtype=np.int64) * (SUB // SAMPLES) + SUB // SAMPLES // 2
_X, _Y = _AXIS[None, :], _AXIS[:, None]


def _coverage(inside: NDArray[np.bool_]) -> Mask:
    points = inside.view(np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for row in range(SAMPLES):
        for column in range(SAMPLES):
            mask += points[row::SAMPLES, column::SAMPLES]
    return mask


def disc(centre: Point, radius: int) -> Mask:
    return _coverage((_X - centre[0]) ** 2 + (_Y - centre[1]) ** 2 <= radius**2)


def square(centre: Point, radius: int) -> Mask:
    return _coverage(np.maximum(abs(_X - centre[0]), abs(_Y - centre[1])) <= radius)


def diamond(centre: Point, radius: int) -> Mask:
    return _coverage(abs(_X - centre[0]) + abs(_Y - centre[1]) <= radius)


def capsule(start: Point, end: Point, radius: int) -> Mask:
    """All points within `radius` of a segment."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    px, py = _X - start[0], _Y - start[1]
    length2 = ax * ax + ay * ay
    along, across = px * ax + py * ay, px * ay - py * ax
    along_side = (along >= 0) & (along <= length2) & (across * across <= radius * radius * length2)
    at_ends = np.minimum(px * px + py * py, (px - ax) ** 2 + (py - ay) ** 2) <= radius * radius
    return _coverage(along_side | at_ends)


def paint(frame: Frame, mask: Mask, colour: Colour, percent: int = 100) -> None:
    """Lay a colour over a frame where the mask covers it, `percent` opaque."""
    full = SAMPLES**2 * 100
    covered = mask > 0
    weight = mask[covered, None].astype(np.int64) * percent
    under = frame[covered]
    frame[covered] = (under * (full - weight) + np.array(colour) * weight + full // 2) // full


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
