"""A pick and place from the poses that the simulator knows, by the same actions that a policy has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lary_libero.grasp import Grasp, choose, turned
from lary_libero.scene import Scene

PHASES = ("reach", "grasp", "lift", "move", "place", "idle")
"""What an arm does. `idle` is before the first and after the last of them."""
OPEN, CLOSED = -1.0, 1.0


@dataclass(frozen=True)
class Settings:
    """Metres and steps. Chosen on initial states that no reported figure is of."""

    settle: int = 10
    hover: float = 0.10
    tolerance: float = 0.005
    angle_tolerance: float = 0.06
    close: int = 14
    release: int = 8
    clearance: float = 0.04
    """Between what is carried and what lies below."""
    palm: float = 0.01
    """Between the palm and the rim of a container."""
    attempts: int = 3
    idle: int = 5
    patience: int = 60
    """Steps for one movement."""


class Move(NamedTuple):
    """One step."""

    action: NDArray[np.float32]
    """(7,) See `lary_libero.simulator.ACTION_DIM`."""
    phase: str


Look = Callable[[], Scene]


class Scripted:
    """Of one episode."""

    def __init__(self, look: Look, settings: Settings = Settings()) -> None:
        self._look, self._set = look, settings
        self._up = np.array([0.0, 0.0, settings.hover])

    def moves(self) -> Iterator[Move]:
        """One `Move` at a time; the scene is looked at anew after each. Ends with `idle` steps, done or not."""
        yield from self._hold("idle", OPEN, self._set.settle)
        for attempt in range(self._set.attempts):
            yield from self._attempt(choose(self._look(), attempt))
            yield from self._hold("idle", OPEN, self._set.idle)
            if self._look().done:
                return

    def _attempt(self, grasp: Grasp) -> Iterator[Move]:
        yield from self._reach(grasp)
        yield from self._hold("grasp", CLOSED, self._set.close)
        before = self._look()
        yield from self._lift(before, grasp)
        scene = self._look()
        if scene.thing[:, 2].min() - before.thing[:, 2].min() < self._set.clearance / 2:
            yield from self._hold("place", OPEN, self._set.release)
            return
        yield from self._place(scene, grasp)

    def _reach(self, grasp: Grasp) -> Iterator[Move]:
        scene = self._look()
        above = grasp.position + self._up
        way = float(scene.grip[2])
        high = max(way, float(above[2]))
        # Up first, so that nothing is swept away by a second attempt.
        yield from self._go("reach", np.append(scene.grip[:2], high), grasp.angle, OPEN, 0.03, turn=False)
        yield from self._go("reach", np.append(above[:2], high), grasp.angle, OPEN, 0.02)
        yield from self._go("reach", above, grasp.angle, OPEN, 0.01)
        yield from self._go("reach", grasp.position, grasp.angle, OPEN, self._set.tolerance)

    def _lift(self, scene: Scene, grasp: Grasp) -> Iterator[Move]:
        below = float(scene.grip[2] - min(scene.thing[:, 2].min(), scene.grip[2] - 0.01))
        height = max(obstacles(scene) + self._set.clearance + below, float(scene.grip[2]) + self._set.hover)
        yield from self._go("lift", np.append(scene.grip[:2], height), grasp.angle, CLOSED, 0.015)

    def _place(self, scene: Scene, grasp: Grasp) -> Iterator[Move]:
        where, height = release_point(scene, self._set.palm)
        yield from self._go("move", np.append(where, scene.grip[2]), grasp.angle, CLOSED, 0.008)
        # What hangs between the fingers may have turned on the way.
        where, height = release_point(self._look(), self._set.palm)
        yield from self._go("move", np.append(where, scene.grip[2]), grasp.angle, CLOSED, self._set.tolerance)
        down = np.append(where, height)
        yield from self._go("place", down, grasp.angle, CLOSED, self._set.tolerance, patience=30)
        yield from self._hold("place", OPEN, self._set.release)
        up = self._look().grip + self._up
        yield from self._go("place", up, grasp.angle, OPEN, 0.02)

    def _hold(self, phase: str, gripper: float, steps: int) -> Iterator[Move]:
        for _ in range(steps):
            yield Move(np.array([0, 0, 0, 0, 0, 0, gripper], np.float32), phase)

    def _go(
        self,
        phase: str,
        position: NDArray[np.float64],
        angle: float,
        gripper: float,
        tolerance: float,
        *,
        turn: bool = True,
        patience: int | None = None,
    ) -> Iterator[Move]:
        """Towards a position until it is there, or patience is over: something may be in the way."""
        for _ in range(patience or self._set.patience):
            scene = self._look()
            distance = position - scene.grip
            rotation = rotation_to(scene.turn, angle) if turn else np.zeros(3)
            if np.linalg.norm(distance) < tolerance and np.linalg.norm(rotation) < self._set.angle_tolerance:
                return
            yield Move(steer(distance, rotation, gripper), phase)


def steer(distance: NDArray[np.float64], rotation: NDArray[np.float64], gripper: float) -> NDArray[np.float32]:
    """The action that goes as far as one step can: 0.05 m, 0.5 rad. A longer way keeps its direction."""
    parts = []
    for way, most in ((distance, 0.05), (rotation, 0.5)):
        scaled = way / most
        parts.append(scaled / max(1.0, float(np.abs(scaled).max())))
    return np.concatenate([*parts, [gripper]]).astype(np.float32)


def rotation_to(turn: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """(3,) axis-angle in the world's frame from a gripper's frame to one that points down and closes along `angle`.

    Of the two such frames that are the same grasp, the nearer one.
    """
    found = [_rotation(turned(a) @ turn.T) for a in (angle, angle + np.pi)]
    return min(found, key=lambda rotation: float(np.linalg.norm(rotation)))


def _rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axis-angle of a rotation matrix that is not half a turn."""
    skew = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    sine, cosine = float(np.linalg.norm(skew)) / 2, (float(np.trace(matrix)) - 1) / 2
    if sine < 1e-9:
        # No turn, or half a turn, which no axis is told of: then about z.
        return np.array([0.0, 0.0, np.pi]) if cosine < 0 else np.zeros(3)
    scale = np.arctan2(sine, cosine) / (2 * sine)
    return np.asarray(skew * scale)


def obstacles(scene: Scene) -> float:
    """The height of the highest point, of others, on the way to the target."""
    start, end = scene.thing[:, :2].mean(0), scene.target.position[:2]
    way = end - start
    others = scene.others
    share = np.clip((others[:, :2] - start) @ way / max(float(way @ way), 1e-9), 0, 1)
    near = np.linalg.norm(others[:, :2] - start - share[:, None] * way, axis=1) < 0.12
    return float(others[near, 2].max()) if near.any() else float(scene.thing[:, 2].min())


def release_point(scene: Scene, palm: float) -> tuple[NDArray[np.float64], float]:
    """((2,) x and y, height) of the gripper where what it holds is let go."""
    thing = scene.thing
    offset = (thing.max(0) + thing.min(0))[:2] / 2 - scene.grip[:2]
    height = float(scene.target.position[2] + 0.008 + scene.grip[2] - thing[:, 2].min())
    if scene.target.rim is not None:
        # The palm begins 0.03 m above the grip and is wider than a basket.
        height = max(height, scene.target.rim - 0.03 + palm)
    return scene.target.position[:2] - offset, height
