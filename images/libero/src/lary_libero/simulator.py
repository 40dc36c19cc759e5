"""One LIBERO task as a world that is reset and stepped: what happens is a function of (suite, task, state, seed).

LIBERO alone is not: resetting twice in one process with one seed moves cabinet and stove by a centimetre, since
fixtures stand in the model and not in the stored states, and what the solver starts from is left over from before.
Here the model's fixtures are those of one draw per task, and an episode begins from nothing but its stored state.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from lary_schema.base import ContractError
from numpy.typing import ArrayLike, NDArray

from lary_libero.choices import AGENT as AGENT
from lary_libero.choices import CAMERAS as CAMERAS
from lary_libero.choices import WRIST as WRIST
from lary_libero.drawing import starting, try_to_draw
from lary_libero.perturb import Perturbation
from lary_libero.suites import Task, find_task
from lary_libero.surroundings import prepare

ACTION_DIM = 7
"""Change of position x, y, z (1 is 0.05 m), of orientation as an axis-angle (1 is 0.5 rad), gripper (-1 opens, 1
closes). All in [-1, 1], in the frame of the robot's base (robosuite 1.4.0, controllers/config/osc_pose.json)."""
STATE_DIM = 8
"""Position of the grip site (m), its orientation as an axis-angle (rad), positions of both fingers (m)."""
FPS = 20
"""Steps in a simulated second."""
_FIXTURES_SEED = 0
"""All published evaluations seed by 0."""


@dataclass(frozen=True)
class Observation:
    """What a policy sees before it acts."""

    images: dict[str, NDArray[np.uint8]]
    """(H, W, 3) RGB by camera, upright: LIBERO's own are upside down."""
    state: NDArray[np.float32]
    """(STATE_DIM,)"""


class Simulator:
    """A task of a suite. One episode at a time; as many after each other as you like."""

    def __init__(self, task: Task, env: Any, cameras: tuple[str, ...], perturb: tuple[str, ...] = ()) -> None:
        self.task = task
        self.cameras = cameras
        self.env = env
        """LIBERO's environment. Who changes it, changes the episode."""
        self._perturb = perturb
        self._perturbation = Perturbation((), ())
        self._time = 0
        self._fixtures: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._chance = np.random.RandomState(_FIXTURES_SEED)

    @classmethod
    def make(
        cls,
        suite: str,
        task: int,
        cameras: Sequence[str] = (AGENT,),
        size: int = 128,
        perturb: Sequence[str] = (),
    ) -> Self:
        """A task with square pictures of `size` pixels of some cameras; without cameras a step takes a seventh.

        `perturb` are keys of `lary_libero.choices.DIMENSIONS`. Raises ContractError for a suite, task, camera or
        perturbation that does not exist, and where nothing can be drawn here.
        """
        Perturbation(perturb, ())
        unknown = [camera for camera in cameras if camera not in CAMERAS]
        if unknown:
            raise ContractError(f"no camera {unknown[0]!r}; there are {', '.join(CAMERAS)}")
        found = find_task(suite, task)
        with _chance_of(np.random.RandomState(_FIXTURES_SEED)):
            env = _environment(found, tuple(cameras), size)
        return cls(found, env, tuple(cameras), tuple(perturb))

    @property
    def instruction(self) -> str:
        """What is to be done, in words."""
        return self.task.instruction

    @property
    def states(self) -> int:
        """How many initial states are stored."""
        return len(self.task.states)

    def reset(self, state: int, seed: int = 0) -> Observation:
        """Begin an episode from a stored initial state.

        `seed` moves nothing that is stored; it is what draws, in the simulator and in perturbations, draw from.
        Raises ContractError for a state that is not stored.
        """
        if not 0 <= state < self.states:
            raise ContractError(
                f"suite {self.task.suite}, task {self.task.number} has no initial state {state}: "
                f"they are numbered from 0 to {self.states - 1}"
            )
        # The reset itself always draws the same: the fixtures of the first are those of all.
        with _chance_of(np.random.RandomState(_FIXTURES_SEED)):
            self.env.reset()
        self._chance = np.random.RandomState(seed)
        self._keep_fixtures()
        self._time = 0
        self._perturbation = Perturbation(self._perturb, (seed, state, self.task.number, *self.task.suite.encode()))
        self._perturbation.begin(self.env)
        return self._begin(self.task.states[state])

    def step(self, action: ArrayLike) -> tuple[Observation, bool]:
        """One step of 1 / FPS s. `action`: (ACTION_DIM,), taken as float32 and clipped to [-1, 1].

        Returns what is seen afterwards, and whether the task is done now by LIBERO's rule; it may be undone later.
        Raises ContractError for an action of another shape or with a value that is not finite.
        """
        values = check_action(action)
        self._time += 1
        self._perturbation.show(self.env, self._time)
        with _chance_of(self._chance):
            observed, *_ = self.env.step(values)
        return self._observation(observed), self.is_done()

    def is_done(self) -> bool:
        """Whether the task is done now, by LIBERO's rule."""
        return bool(self.env.check_success())

    def nuisance(self) -> NDArray[np.float32]:
        """(K,) where the perturbations of what is seen stand now; their names are `lary_libero.perturb.names`."""
        return self._perturbation.values(self._time)

    def close(self) -> None:
        """Free what draws. The simulator is not used afterwards."""
        self.env.close()

    def _keep_fixtures(self) -> None:
        model = self.env.sim.model
        if self._fixtures is None:
            self._fixtures = model.body_pos.copy(), model.body_quat.copy()
        model.body_pos[:], model.body_quat[:] = self._fixtures

    def _begin(self, state: NDArray[np.float64]) -> Observation:
        # Positions and velocities are stored; controls, forces and the solver's first guess are not.
        self.env.sim.reset()
        self._perturbation.show(self.env, 0)
        with _chance_of(self._chance):
            observed = self.env.set_init_state(state)
        return self._observation(observed)

    def _observation(self, observed: dict[str, Any]) -> Observation:
        images = {camera: np.ascontiguousarray(observed[f"{camera}_image"][::-1]) for camera in self.cameras}
        state = [observed["robot0_eef_pos"], axis_angle(observed["robot0_eef_quat"]), observed["robot0_gripper_qpos"]]
        return Observation(images, np.concatenate(state).astype(np.float32))


def check_action(action: ArrayLike) -> NDArray[np.float64]:
    """(ACTION_DIM,) float64 that a float32 holds, within [-1, 1]. Raises ContractError."""
    values = np.asarray(action, np.float32)
    if values.shape != (ACTION_DIM,):
        raise ContractError(f"an action has the shape ({ACTION_DIM},), not {values.shape}")
    if not np.isfinite(values).all():
        raise ContractError(f"an action's values must be finite, not {values.tolist()}")
    return np.clip(values, -1, 1).astype(np.float64)


def axis_angle(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) axis times angle in [0, pi] of a unit quaternion (x, y, z, w)."""
    x, y, z, w = quaternion if quaternion[3] >= 0 else -quaternion
    axis = np.array([x, y, z], np.float64)
    length = float(np.linalg.norm(axis))
    if length < 1e-12:
        return np.zeros(3)
    angle = 2 * float(np.arctan2(length, w))
    return axis * np.float64(angle / length)


@contextmanager
def _chance_of(generator: np.random.RandomState) -> Iterator[None]:
    """LIBERO draws from numpy's global generator: lend it another one, and give it back as it was."""
    before = np.random.get_state()
    np.random.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(np.random.get_state())
        np.random.set_state(before)


def _environment(task: Task, cameras: tuple[str, ...], size: int) -> Any:
    prepare()
    with starting():
        if cameras:
            try_to_draw(size)
        from libero.libero.envs.env_wrapper import ControlEnv

        return ControlEnv(
            bddl_file_name=str(task.bddl),
            use_camera_obs=bool(cameras),
            has_offscreen_renderer=bool(cameras),
            camera_names=list(cameras) or ["agentview"],
            camera_heights=size,
            camera_widths=size,
            control_freq=FPS,
            # An episode's end is the caller's decision.
            ignore_done=True,
        )
