"""`demo_motion`: clips of one shape that moves or changes its size in one of eight ways."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lary_demo import canvas
from lary_demo.canvas import SIZE, SUB, Colour, Distractor, Frame, Point
from lary_demo.exact import Draws

CLASSES: dict[str, tuple[int, int, int]] = {
    "move left": (-1, 0, 0),
    "move right": (1, 0, 0),
    "move up": (0, -1, 0),
    "move down": (0, 1, 0),
    "move up left": (-1, -1, 0),
    "move down right": (1, 1, 0),
    "grow": (0, 0, 1),
    "shrink": (0, 0, -1),
}
"""Action -> sign of the change of x, y and size."""
ROWS = {"train": 256, "val": 128}
FRAMES = 9
"""Sampled frames of a clip."""
SHAPES: tuple[canvas.Shape, ...] = (canvas.disc, canvas.square, canvas.diamond)


@dataclass(frozen=True)
class Clip:
    """What one clip shows; `frame` draws it."""

    action: str
    length: int
    shape: int
    colour: Colour
    start: Point
    radius: int
    travel: int
    """Subpixels from the first frame to the last, of position or of radius."""
    background: Frame
    distractor: Distractor

    @classmethod
    def draw(cls, draws: Draws, action: str) -> "Clip":
        """All that is random about a clip, apart from its action."""
        dx, dy, size = CLASSES[action]
        radius = draws.between(2 * SUB, 4 * SUB)
        travel = draws.between(5 * SUB, 8 * SUB) if size else draws.between(24 * SUB, 36 * SUB)
        room = max(radius, radius + travel if size else 0) + SUB
        return cls(
            action=action,
            length=draws.between(12, 20),
            shape=draws.below(len(SHAPES)),
            colour=(draws.between(190, 255), draws.between(190, 255), draws.between(190, 255)),
            start=(_start(draws, room, dx * travel), _start(draws, room, dy * travel)),
            radius=radius + travel if size < 0 else radius,
            travel=travel,
            background=canvas.texture(draws, cells=8, brightest=60),
            distractor=Distractor.draw(draws),
        )

    def agent(self, time: int) -> tuple[Point, int]:
        """Centre and radius at a frame."""
        dx, dy, size = CLASSES[self.action]
        moved = self.travel * time // (self.length - 1)
        return (self.start[0] + dx * moved, self.start[1] + dy * moved), self.radius + size * moved

    def frame(self, time: int, distractor: int) -> Frame:
        """The distractor, `distractor` percent opaque, lies behind the agent."""
        frame = self.background.copy()
        self.distractor.paint(frame, time, distractor)
        canvas.paint(frame, SHAPES[self.shape](*self.agent(time)), self.colour)
        return frame

    def frames(self, distractor: int) -> NDArray[np.uint8]:
        """(length, H, W, 3)."""
        return np.stack([self.frame(t, distractor) for t in range(self.length)])

    @property
    def sample_indices(self) -> list[int]:
        """FRAMES indices spread evenly from the first frame to the last."""
        return [(2 * i * (self.length - 1) + FRAMES - 1) // (2 * (FRAMES - 1)) for i in range(FRAMES)]


def _start(draws: Draws, room: int, shift: int) -> int:
    """A coordinate from which a path of `shift` stays `room` away from both walls."""
    return draws.between(room + max(0, -shift), SIZE * SUB - room - max(0, shift))


def clips(split: str, seed: int) -> list[Clip]:
    """The clips of a split, as many of each class, in an order that is uninformative."""
    rows, part = ROWS[split], list(ROWS).index(split)
    each = [action for action in CLASSES for _ in range(rows // len(CLASSES))]
    order = Draws(seed, 0, part).shuffled(each)
    return [Clip.draw(Draws(seed, 0, part, row), action) for row, action in enumerate(order)]
