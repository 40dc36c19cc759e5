"""LIBERO's suites as benchmarks of `lary-orch evaluate`."""

from typing import Any

import numpy as np
from lary_policy import Simulator, SimulatorError, Step
from lary_policy.policy import Observation
from lary_schema.cards import BenchmarkCard
from numpy.typing import NDArray

from lary_libero import simulator
from lary_libero.simulator import AGENT, WRIST

CAMERAS = {"agentview": AGENT, "wrist": WRIST}
"""Name of an observation -> LIBERO's camera."""
BROKEN = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What MuJoCo, robosuite and what draws raise when a simulation cannot go on."""


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
        try:
            return self._named(world.reset(state, seed))
        except BROKEN as error:
            raise SimulatorError(f"{type(error).__name__}: {error}") from error

    def step(self, action: NDArray[np.float32]) -> Step:
        try:
            seen, done = self.world.step(action)
        except BROKEN as error:
            raise SimulatorError(f"{type(error).__name__}: {error}") from error
        return Step(self._named(seen), done)

    def state(self) -> NDArray[Any]:
        """Time, positions and velocities of MuJoCo, float64."""
        return np.asarray(self.world.env.sim.get_state().flatten(), np.float64)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def _named(self, seen: simulator.Observation) -> Observation:
        images: dict[str, NDArray[Any]] = {name: seen.images[CAMERAS[name]] for name in self._cameras}
        return {**images, "state": seen.state}
