"""LIBERO's suites as benchmarks of `lary-orch evaluate`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from lary_policy import Policy, Simulator, SimulatorError, Step
from lary_policy.policy import Observation
from lary_schema.base import ContractError
from lary_schema.cards import BenchmarkCard
from numpy.typing import NDArray

from lary_libero import simulator
from lary_libero.policies import POLICIES
from lary_libero.scripted import Move
from lary_libero.simulator import AGENT, WRIST
from lary_libero.surroundings import prepare

CAMERAS = {"agentview": AGENT, "wrist": WRIST}
"""Name of an observation -> LIBERO's camera."""
BROKEN = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What the scripted policy raises where a task is not of its kind, or the world not as it expects."""


class Suite(Simulator):
    """One task; its key is LIBERO's number. Cameras that no policy looks at are not drawn."""

    def __init__(self, card: BenchmarkCard, task: str) -> None:
        super().__init__(card, task)
        self._cameras = tuple(CAMERAS)
        self._made: simulator.Simulator | None = None

    def show(self, names: tuple[str, ...]) -> None:
        self._cameras = tuple(name for name in CAMERAS if name in names)

    @property
    def world(self) -> simulator.Simulator:
        """Made when it is needed: 3 to 5 s."""
        if self._made is None:
            size = self.card.observations["agentview"].shape[0]
            cameras = [CAMERAS[name] for name in self._cameras]
            self._made = simulator.Simulator.make(self.card.key, int(self.task.key), cameras, size)
        return self._made

    def reset(self, state: int, seed: int) -> Observation:
        world = self.world
        with _going_on():
            return self._named(world.reset(state, seed))

    def step(self, action: NDArray[np.float32]) -> Step:
        with _going_on():
            seen, done = self.world.step(action)
        return Step(self._named(seen), done)

    def state(self) -> NDArray[Any]:
        """Time, positions and velocities of MuJoCo, float64."""
        return np.asarray(self.world.env.sim.get_state().flatten(), np.float64)

    def renderer(self) -> str:
        """By MUJOCO_GL, which is chosen where nobody has set it."""
        prepare()
        return os.environ["MUJOCO_GL"]

    def scripted(self) -> Policy:
        return Scripted(self)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def _named(self, seen: simulator.Observation) -> Observation:
        images: dict[str, NDArray[Any]] = {name: seen.images[CAMERAS[name]] for name in self._cameras}
        return {**images, "state": seen.state}


class Scripted(Policy):
    """The pick and place of `lary_libero.scripted`, then nothing. It sees where everything is."""

    def __init__(self, suite: Suite) -> None:
        super().__init__("scripted")
        self._suite = suite
        self._moves: Iterator[Move] = iter(())

    def fit(self, space: Any) -> tuple[str, ...]:
        return ()

    def reset(self, instruction: str, seed: int) -> None:
        with _can():
            self._moves = POLICIES["scripted"](self._suite.world, (seed,))

    def act(self, observation: Observation) -> NDArray[np.float32]:
        with _can():
            move = next(self._moves, None)
        idle = np.array(self._suite.card.idle, np.float32)
        return (idle if move is None else np.asarray(move.action, np.float32))[None]


@contextmanager
def _going_on() -> Iterator[None]:
    """MuJoCo, robosuite and what draws raise what they like when a simulation cannot go on."""
    try:
        yield
    except (ContractError, MemoryError):
        raise
    except Exception as error:
        raise SimulatorError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _can() -> Iterator[None]:
    """There are tasks that it was not made for: drawers, knobs."""
    try:
        yield
    except BROKEN as error:
        raise ContractError(f"the scripted policy cannot do this: {type(error).__name__}: {error}") from error
