"""What the scripted policy knows and a learned one does not: where everything is, as points in metres.

All shapes of LIBERO that collide are boxes; each is a grid of points on its surface, `SPACING` apart.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(N, 3) x, y, z; z upwards."""
SPACING = 0.01
_BOX = 6
"""mjGEOM_BOX"""


@dataclass(frozen=True)
class Target:
    """Where the thing has to go."""

    position: NDArray[np.float64]
    """(3,): the middle in x and y, and the height that the thing is to stand on."""
    rim: float | None
    """Upper edge of a container that the thing is let down into; None: it stands on something open."""
    name: str
    """Of the thing that carries it; no obstacle."""


@dataclass(frozen=True)
class Scene:
    """One moment of an episode."""

    grip: NDArray[np.float64]
    """(3,) between the finger tips."""
    turn: NDArray[np.float64]
    """(3, 3) of the gripper; its columns are the closing direction, the one across it, and the one ahead (down)."""
    things: dict[str, Points]
    moved: str
    """The thing that the task is about."""
    target: Target
    done: bool
    """By LIBERO's rule."""

    @property
    def thing(self) -> Points:
        return self.things[self.moved]

    @property
    def others(self) -> Points:
        """All points but those of what is moved."""
        rest = [points for name, points in self.things.items() if name != self.moved]
        return np.concatenate([np.zeros((0, 3)), *rest])


class Surveyor:
    """Measures the scene of a simulator. Raises ContractError for a task that is no pick and place of one thing."""

    def __init__(self, env: Any) -> None:
        """`env`: `Simulator.env` after a reset; another reset needs another surveyor."""
        self._inner, self._sim = env.env, env.sim
        self.moved, self._goal, self._inside = find_goal(self._inner.parsed_problem["goal_state"])
        named = {**self._inner.objects_dict, **self._inner.fixtures_dict}
        self._bodies = {name: self._sim.model.body_name2id(thing.root_body) for name, thing in named.items()}
        self._boxes = {name: self._boxes_below(body) for name, body in self._bodies.items()}
        self._site = self._inner.robots[0].eef_site_id

    def look(self) -> Scene:
        """The scene now."""
        data = self._sim.data
        things = {name: self._points(boxes) for name, boxes in self._boxes.items()}
        return Scene(
            grip=data.site_xpos[self._site].copy(),
            turn=data.site_xmat[self._site].reshape(3, 3).copy(),
            things=things,
            moved=self.moved,
            target=self._target(things),
            done=bool(self._inner._check_success()),
        )

    def _boxes_below(self, root: int) -> list[tuple[int, Points]]:
        """(geom, points in its own frame) of every box that collides and belongs to a body or to its children."""
        model = self._sim.model
        below = {root}
        # A body's parent has a smaller number.
        for body in range(root + 1, model.nbody):
            if int(model.body_parentid[body]) in below:
                below.add(body)
        return [
            (geom, surface(tuple(map(float, model.geom_size[geom]))))
            for geom in range(model.ngeom)
            if int(model.geom_bodyid[geom]) in below
            and (model.geom_contype[geom] or model.geom_conaffinity[geom])
            and model.geom_type[geom] == _BOX
        ]

    def _points(self, boxes: list[tuple[int, Points]]) -> Points:
        data = self._sim.data
        return np.concatenate(
            [
                np.zeros((0, 3)),
                *(points @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g] for g, points in boxes),
            ]
        )

    def _target(self, things: dict[str, Points]) -> Target:
        if self._goal in things:
            return on_thing(self._goal, things[self._goal])
        model, data = self._sim.model, self._sim.data
        site = model.site_name2id(self._goal)
        height = float(np.abs(data.site_xmat[site].reshape(3, 3)[2]) @ model.site_size[site])
        carrier = max((name for name in things if self._goal.startswith(name)), key=len, default="")
        position = data.site_xpos[site].copy()
        position[2] += -height if self._inside else height
        rim = float(things[carrier][:, 2].max()) if self._inside and carrier else None
        return Target(position, rim, carrier)


def find_goal(goal: list[list[str]]) -> tuple[str, str, bool]:
    """(thing, where it goes, whether into it) of a goal of LIBERO. Raises ContractError for any other goal."""
    if len(goal) != 1 or len(goal[0]) != 3 or goal[0][0] not in ("in", "on"):
        said = "; ".join(" ".join(part) for part in goal)
        raise ContractError(f"the scripted policy picks one thing and places it; the goal of this task is: {said}")
    relation, thing, where = goal[0]
    return thing, where, relation == "in"


def on_thing(name: str, points: Points) -> Target:
    """On top of a thing's middle, whatever its edge is like: a plate and a bowl are lower there."""
    middle = (points.max(0) + points.min(0)) / 2
    near = np.linalg.norm(points[:, :2] - middle[:2], axis=1) < 0.03
    height = points[near, 2].max() if near.any() else points[:, 2].min()
    return Target(np.array([middle[0], middle[1], height]), None, name)


@cache
def surface(half: tuple[float, float, float]) -> Points:
    """Points on a box of these half sizes, at most `SPACING` apart, its corners among them."""
    axes = [np.linspace(-h, h, max(2, int(np.ceil(2 * h / SPACING)) + 1)) for h in half]
    grid = np.array(list(product(*axes)))
    outside = (np.abs(grid) >= np.array(half) - 1e-9).any(axis=1)
    return np.asarray(grid[outside], np.float64)
