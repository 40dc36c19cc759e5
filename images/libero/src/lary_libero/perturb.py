"""Perturbations of what is seen, and of nothing else: the same actions lead to the same episode with and without them.

Each follows a path in time that is a function of the episode's entropy, so that its value at a frame is known: what a
latent action should not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_libero.choices import DIMENSIONS

_REACH = {"lighting": (0.5,), "camera": (0.04, 0.04, 0.04), "distractor": (0.25, 0.3)}
_MIDDLE = {"lighting": (1.0,), "camera": (0.0, 0.0, 0.0), "distractor": (0.0, 0.0)}
_PERIODS = (30.0, 70.0)
"""Steps from and to which a swing is drawn."""
_BALL_RADIUS, _BALL_HEIGHT = 0.03, 0.15
_BALL_COLOUR = np.array([0.9, 0.2, 0.8, 1.0], np.float32)
_MJ_GEOM_SPHERE = 2


@dataclass(frozen=True)
class Swing:
    """middle + reach * sin(2 pi t / period + phase), for each dimension."""

    middle: NDArray[np.float64]
    reach: NDArray[np.float64]
    period: NDArray[np.float64]
    phase: NDArray[np.float64]

    @classmethod
    def draw(cls, kind: str, entropy: Sequence[int]) -> "Swing":
        """Raises ContractError for an unknown kind."""
        if kind not in DIMENSIONS:
            raise ContractError(f"no perturbation {kind!r}; there are {', '.join(DIMENSIONS)}")
        chance = np.random.default_rng([list(DIMENSIONS).index(kind), *entropy])
        size = len(DIMENSIONS[kind])
        period, phase = chance.uniform(*_PERIODS, size), chance.uniform(0, 2 * np.pi, size)
        return cls(np.array(_MIDDLE[kind]), np.array(_REACH[kind]), period, phase)

    def at(self, time: int) -> NDArray[np.float64]:
        return np.asarray(self.middle + self.reach * np.sin(2 * np.pi * time / self.period + self.phase))


class Perturbation:
    """All that are on in one episode."""

    def __init__(self, kinds: Sequence[str], entropy: Sequence[int]) -> None:
        self._swings = {kind: Swing.draw(kind, entropy) for kind in kinds}
        self._lights: dict[str, NDArray[np.float64]] = {}
        self._cameras = np.zeros((0, 3))
        self._ball = np.zeros(3)

    def values(self, time: int) -> NDArray[np.float32]:
        """(K,) of every dimension at a step, in the order of `names`."""
        found = [swing.at(time) for swing in self._swings.values()]
        return np.concatenate([np.zeros(0), *found]).astype(np.float32)

    def begin(self, env: Any) -> None:
        """`env`: LIBERO's environment after a reset, which made its model anew."""
        if not self._swings:
            return
        model = env.sim.model
        self._cameras = model.cam_pos.copy()
        names = ("light_ambient", "light_diffuse", "light_specular")
        self._lights = {name: getattr(model, name).copy() for name in names}
        light = model.vis.headlight
        self._lights |= {name: getattr(light, name).copy() for name in ("ambient", "diffuse", "specular")}
        if "distractor" in self._swings:
            _add_to_drawing(env.sim._render_context_offscreen, self._draw_ball)

    def show(self, env: Any, time: int) -> None:
        """Make the next drawing that of a step."""
        if not self._swings:
            return
        model = env.sim.model
        if "lighting" in self._swings:
            factor = float(self._swings["lighting"].at(time)[0])
            for name, value in self._lights.items():
                holder = model if name.startswith("light_") else model.vis.headlight
                getattr(holder, name)[:] = value * factor
        if "camera" in self._swings:
            model.cam_pos[:] = self._cameras + self._swings["camera"].at(time)
        if "distractor" in self._swings:
            table = float(getattr(env.env, "workspace_offset", (0, 0, 0))[2])
            self._ball = np.append(self._swings["distractor"].at(time), table + _BALL_HEIGHT)

    def _draw_ball(self, scene: Any) -> None:
        import mujoco

        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom], _MJ_GEOM_SPHERE, np.full(3, _BALL_RADIUS), self._ball, np.eye(3).flatten(),
            _BALL_COLOUR,
        )  # fmt: skip
        scene.ngeom += 1


def names(kinds: Sequence[str]) -> tuple[str, ...]:
    """Of all dimensions of these perturbations."""
    return tuple(name for kind in kinds for name in DIMENSIONS[kind])


def _add_to_drawing(context: Any, draw: Any) -> None:
    """Let `draw(scene)` add to what a rendering context of robosuite 1.4.0 shows: it updates its scene and draws it."""
    import mujoco

    def render(width: int, height: int, camera_id: int | None = None, **_: bool) -> None:
        context.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
        context.cam.fixedcamid = camera_id
        if width > context.con.offWidth or height > context.con.offHeight:
            context.update_offscreen_size(max(width, context.con.offWidth), max(height, context.con.offHeight))
        mujoco.mjv_updateScene(
            context.model._model, context.data._data, context.vopt, context.pert, context.cam,
            mujoco.mjtCatBit.mjCAT_ALL, context.scn,
        )  # fmt: skip
        draw(context.scn)
        mujoco.mjr_render(viewport=mujoco.MjrRect(0, 0, width, height), scn=context.scn, con=context.con)

    context.render = render
