"""A planar arm of two links with a gripper; image pairs, and the actions in between.

`demo_arm` has few pairs, those of steady motion. `demo_arm_long` and `demo_arm_still` have enough to train on: every
frame of an episode begins a pair, and the distractor is one that can be measured, or is absent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lary_demo import canvas
from lary_demo.canvas import SIZE, SUB, Distractor, Frame, Point
from lary_demo.exact import TURN, UNIT, Draws, direction

STRIDE = 4
"""Steps from the source image to the target image: the length of an action chunk."""
CHUNKS = 4
"""Pairs in an episode."""
EPISODES = {"train": 96, "val": 32}
LONG_EPISODES = {"train": 500, "val": 120}
RADIANS = 6.283185307179586 / TURN
"""One unit of angle."""

WORDS = {
    "shoulder": ("left", "stay", "right"),
    "elbow": ("anticlockwise", "rest", "clockwise"),
    "gripper": ("close", "hold", "open"),
}
"""By dimension, what an instruction calls a change below, of and above 0."""

_BASE: Point = (SIZE * SUB // 2, SIZE * SUB * 3 // 4)
_UPPER, _FORE = 15 * SUB, 15 * SUB
_SHOULDER = (TURN * 3 // 4 - TURN // 12, TURN * 3 // 4 + TURN // 12)
_ELBOW = (-TURN // 9, TURN // 9)
_FASTEST = TURN // 60
"""Of a joint, per step."""
_OPEN = 2 * STRIDE
"""Openings of the gripper: 0 is closed."""


@dataclass(frozen=True)
class State:
    """Integers: angles of TURN to the circle, the elbow's relative to the upper arm, the gripper of _OPEN."""

    shoulder: int
    elbow: int
    gripper: int

    def vector(self) -> NDArray[np.float32]:
        """(3,): radians, radians, opening from 0 to 1."""
        return np.array([self.shoulder * RADIANS, self.elbow * RADIANS, self.gripper / _OPEN], np.float32)

    def moved(self, action: "State") -> "State":
        return State(self.shoulder + action.shoulder, self.elbow + action.elbow, self.gripper + action.gripper)


@dataclass(frozen=True)
class Episode:
    """STRIDE * CHUNKS actions from a first state, before one background."""

    first: State
    actions: tuple[State, ...]
    background: Frame
    distractor: Distractor

    @classmethod
    def draw(cls, draws: Draws, distractor: Callable[[Draws], Distractor] = Distractor.draw) -> "Episode":
        state = first = State(draws.between(*_SHOULDER), draws.between(*_ELBOW), draws.between(0, _OPEN))
        actions: list[State] = []
        for _ in range(CHUNKS):
            chunk = _chunk(draws, state)
            actions += chunk
            for action in chunk:
                state = state.moved(action)
        return cls(first, tuple(actions), canvas.texture(draws, cells=8, brightest=70), distractor(draws))

    def state(self, time: int) -> State:
        state = self.first
        for action in self.actions[:time]:
            state = state.moved(action)
        return state

    def chunk(self, time: int) -> NDArray[np.float32]:
        """(STRIDE, 3): the change of the state at each step from `time` on, in the units of `State.vector`."""
        return np.stack([action.vector() for action in self.actions[time : time + STRIDE]])

    def words(self, time: int) -> tuple[str, ...]:
        """Of the chunk that begins at `time`: a word for the direction in which each of WORDS moves."""
        chunk = self.actions[time : time + STRIDE]
        total = (sum(getattr(action, name) for action in chunk) for name in WORDS)
        return tuple(words[(n > 0) - (n < 0) + 1] for n, words in zip(total, WORDS.values(), strict=True))

    def nuisance(self, time: int) -> NDArray[np.float32]:
        """(1, 2): how far the distractor moves in x and y while the chunk that begins at `time` is done, pixels."""
        (x0, y0), (x1, y1) = self.distractor.at(time), self.distractor.at(time + STRIDE)
        return np.array([[(x1 - x0) / SUB, (y1 - y0) / SUB]], np.float32)

    def frame(self, time: int, distractor: int) -> Frame:
        """The distractor, `distractor` percent opaque, lies behind the arm."""
        frame = self.background.copy()
        self.distractor.paint(frame, time, distractor)
        _paint_arm(frame, self.state(time))
        return frame


def _chunk(draws: Draws, state: State) -> list[State]:
    """Actions of a steady motion, uneven by a little, towards positions within the joints' limits."""
    shoulder = _steps(draws, state.shoulder, _SHOULDER, _FASTEST)
    elbow = _steps(draws, state.elbow, _ELBOW, _FASTEST)
    grip = _speed(draws, state.gripper, (0, _OPEN), _OPEN // STRIDE)
    return [State(s, e, grip) for s, e in zip(shoulder, elbow, strict=True)]


def _steps(draws: Draws, position: int, limits: tuple[int, int], fastest: int) -> list[int]:
    speed = _speed(draws, position, limits, fastest)
    return [speed + draws.between(-1, 1) for _ in range(STRIDE)]


def _speed(draws: Draws, position: int, limits: tuple[int, int], fastest: int) -> int:
    """A speed that keeps STRIDE steps within the limits (jitter may pass one by a hair)."""
    low = max(-fastest, -(max(0, position - limits[0]) // STRIDE))
    high = min(fastest, max(0, limits[1] - position) // STRIDE)
    return draws.between(low, high)


def _towards(start: Point, angle: int, length: int) -> Point:
    cos, sin = direction(angle)
    return start[0] + length * cos // UNIT, start[1] + length * sin // UNIT


def _paint_arm(frame: Frame, state: State) -> None:
    forward = state.shoulder + state.elbow
    elbow = _towards(_BASE, state.shoulder, _UPPER)
    wrist = _towards(elbow, forward, _FORE)
    canvas.paint(frame, canvas.capsule(_BASE, elbow, 3 * SUB), (235, 90, 60))
    canvas.paint(frame, canvas.capsule(elbow, wrist, 5 * SUB // 2), (70, 220, 90))
    for side in (-1, 1):
        root = _towards(wrist, forward + side * TURN // 4, (3 + state.gripper) * SUB // 2)
        canvas.paint(frame, canvas.capsule(wrist, root, 3 * SUB // 2), (90, 120, 255))
        canvas.paint(frame, canvas.capsule(root, _towards(root, forward, 4 * SUB), 3 * SUB // 2), (90, 120, 255))


def episodes(split: str, seed: int) -> list[Episode]:
    """The episodes of a split."""
    part = list(EPISODES).index(split)
    return [Episode.draw(Draws(seed, 1, part, number)) for number in range(EPISODES[split])]


def long_episodes(split: str, seed: int) -> list[Episode]:
    """The episodes of a split of the long sets: others than those of `demo_arm`, with a white distractor."""
    part = list(LONG_EPISODES).index(split)
    return [Episode.draw(Draws(seed, 2, part, number), Distractor.white) for number in range(LONG_EPISODES[split])]
