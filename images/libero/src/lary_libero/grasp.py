"""Where to take a thing, from points alone: across its narrowest width, or at the rim of what is too wide."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lary_libero.scene import Points, Scene

ANGLES = 24
WIDEST = 0.072
"""What goes between the fingers, which open to 0.08 m."""
BELOW_RIM = 0.017
FROM_TOP, FROM_BOTTOM = 0.028, 0.009
"""The palm would touch what is taken lower than the first below its top; the fingers the table, above the second."""
_FINGERS = (np.array([0.034, -0.012, -0.055]), np.array([0.064, 0.012, 0.010]))
"""One open finger in the gripper's frame (m): corners of its box. The other is its mirror image."""
_PALM = (np.array([-0.105, -0.035, -0.140]), np.array([0.105, 0.035, -0.035]))
_BLOCKED = 10.0
"""More than any other cost."""


@dataclass(frozen=True)
class Grasp:
    """Where the gripper closes."""

    position: NDArray[np.float64]
    """(3,) of the point between the finger tips."""
    angle: float
    """Of the closing direction about z, radians; half a turn more is the same grasp."""
    cost: float


def choose(scene: Scene, attempt: int = 0) -> Grasp:
    """The best grasp of what is to be moved; `attempt` 1 is the second best, and so on."""
    now = float(np.arctan2(scene.turn[1, 0], scene.turn[0, 0]))
    found = sorted(candidates(scene.thing, scene.others, now), key=lambda grasp: grasp.cost)
    return found[min(attempt * 2, len(found) - 1)]


def candidates(thing: Points, others: Points, now: float) -> Iterator[Grasp]:
    """Every grasp with its cost. `now`: the closing direction that the gripper has."""
    across = [grasp for grasp in _across(thing, others, now) if grasp.cost < _BLOCKED]
    yield from across or list(_at_rim(thing, others, now))


def _across(thing: Points, others: Points, now: float) -> Iterator[Grasp]:
    low, high = thing[:, 2].min(), thing[:, 2].max()
    height = max(low + min((high - low) / 2, FROM_BOTTOM), high - FROM_TOP)
    band = thing[np.abs(thing[:, 2] - height) < 0.012]
    if not len(band):
        return
    middle = (band.max(0) + band.min(0))[:2] / 2
    for angle in np.arange(ANGLES) * np.pi / ANGLES:
        closing = np.array([np.cos(angle), np.sin(angle)])
        along = (band[:, :2] - middle) @ closing
        width = float(along.max() - along.min())
        centre = middle + closing * (along.max() + along.min()) / 2
        position = np.append(centre, height)
        cost = width * 20 + 0.3 * turn_needed(angle, now) + _BLOCKED * (width > WIDEST)
        yield Grasp(position, float(angle), cost + hits(position, angle, others, thing))


def _at_rim(thing: Points, others: Points, now: float) -> Iterator[Grasp]:
    middle = (thing.max(0) + thing.min(0))[:2] / 2
    out = thing[:, :2] - middle
    where = np.arctan2(out[:, 1], out[:, 0])
    for angle in np.arange(ANGLES) * 2 * np.pi / ANGLES:
        sector = np.abs(np.angle(np.exp(1j * (where - angle)))) < np.pi / ANGLES
        sector &= np.linalg.norm(out, axis=1) > 0.02
        if not sector.any():
            continue
        top = thing[sector, 2].max()
        wall = sector & (thing[:, 2] > top - 0.022)
        reach = float(np.linalg.norm(out[wall], axis=1).mean())
        position = np.append(middle + reach * np.array([np.cos(angle), np.sin(angle)]), top - BELOW_RIM)
        cost = 0.3 * turn_needed(angle, now) + hits(position, angle, others, np.zeros((0, 3)))
        yield Grasp(position, float(angle), cost)


def turn_needed(angle: float, now: float) -> float:
    """Radians from one closing direction to the nearer of both that are the same grasp, in [0, pi / 2]."""
    return float(abs((angle - now + np.pi / 2) % np.pi - np.pi / 2))


def hits(position: NDArray[np.float64], angle: float, others: Points, thing: Points) -> float:
    """A cost for points that the open hand would touch: palm and fingers of others, fingers of the thing itself."""
    touched = len(_inside(position, angle, others, [_PALM, *_both_fingers()]))
    touched += len(_inside(position, angle, thing, _both_fingers()))
    return 0.5 * min(touched, 10)


def _both_fingers() -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    low, high = _FINGERS
    mirror = np.array([-1, 1, 1])
    return [_FINGERS, (np.minimum(low * mirror, high * mirror), np.maximum(low * mirror, high * mirror))]


def _inside(
    position: NDArray[np.float64],
    angle: float,
    points: Points,
    boxes: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Points:
    local = (points - position) @ turned(angle)
    touched = np.zeros(len(points), bool)
    for low, high in boxes:
        touched |= ((local >= low) & (local <= high)).all(axis=1)
    return points[touched]


def turned(angle: float) -> NDArray[np.float64]:
    """(3, 3) the gripper's frame when it points down and closes along `angle`."""
    closing = np.array([np.cos(angle), np.sin(angle), 0.0])
    ahead = np.array([0.0, 0.0, -1.0])
    return np.stack([closing, np.cross(ahead, closing), ahead], axis=1)
