"""`demo_turn`: turn shoulder and elbow and move the gripper in the directions that the instruction names.

The pictures and the actions are those of `demo_arm_long`, so that a policy which was trained on it can be tried here.
An action is the change of the state in one step: radians, radians, and the gripper's opening, of which 1 is wide open.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from lary_demo.arm import RADIANS, WORDS, Episode, State
from lary_demo.canvas import Distractor
from lary_demo.exact import TURN, Draws
from lary_policy import Policy, Simulator, SimulatorError, Step
from lary_policy.policy import Observation
from numpy.typing import NDArray

FASTEST = (TURN // 60, TURN // 60, 2)
"""Of shoulder, elbow and gripper in one step, in the integers of `State`; what is faster is slowed down."""
UNITS = np.array([RADIANS, RADIANS, 1 / 8])
"""What one of these integers is in an action."""
FAR = (64, 64, 3)
"""How far each has to be from where it began."""
_CENTRE = State(TURN * 3 // 4, 0, 4)
_SPREAD = TURN // 100
_STREAM = 3
"""Of chance, beside those of the demo sets."""


class Turn(Simulator):
    """What the seed decides is the distractor alone: arm and background are the initial state's."""

    def reset(self, state: int, seed: int) -> Observation:
        if not 0 <= state < self.task.states:
            raise SimulatorError(f"task {self.task.key} has no initial state {state}; it has {self.task.states}")
        draws = Draws(0, _STREAM, state)
        first = State(
            _CENTRE.shoulder + draws.between(-_SPREAD, _SPREAD), draws.between(-_SPREAD, _SPREAD), _CENTRE.gripper
        )
        drawn = Episode.draw(draws, Distractor.white)
        self._first, self._time = first, 0
        self._now = replace(drawn, first=first, actions=(), distractor=Distractor.white(Draws(seed, _STREAM)))
        return self._seen()

    def step(self, action: NDArray[np.float32]) -> Step:
        whole = np.rint(action.astype(np.float64) / UNITS)
        shoulder, elbow, grip = (int(n) for n in np.clip(whole, [-n for n in FASTEST], FASTEST))
        moved = self._now.first.moved(State(shoulder, elbow, grip))
        self._now = replace(self._now, first=replace(moved, gripper=min(max(moved.gripper, 0), 8)))
        self._time += 1
        return Step(self._seen(), self._is_done())

    def state(self) -> NDArray[Any]:
        now = self._now.first
        return np.array([now.shoulder, now.elbow, now.gripper, self._time], np.int64)

    def scripted(self) -> Policy:
        return Straight(self)

    def left(self) -> tuple[int, int, int]:
        """How far shoulder, elbow and gripper still have to go, with their signs; 0 for what is far enough."""
        now, first = self._now.first, self._first
        gone = (now.shoulder - first.shoulder, now.elbow - first.elbow, now.gripper - first.gripper)
        signs = self._signs()
        shoulder, elbow, grip = (s * max(0, far - s * g) for s, far, g in zip(signs, FAR, gone, strict=True))
        return shoulder, elbow, grip

    def _signs(self) -> list[int]:
        said = self.task.instruction.split()
        return [names.index(word) - 1 for names, word in zip(WORDS.values(), said, strict=True)]

    def _is_done(self) -> bool:
        return not any(self.left())

    def _seen(self) -> Observation:
        # The episode has no actions of its own: at any time its arm is where `first` is, while the distractor moves on.
        return {"image": self._now.frame(self._time, 100), "state": self._now.first.vector()}


class Straight(Policy):
    """The scripted policy: what is left, as fast as it goes."""

    def __init__(self, simulator: Turn) -> None:
        super().__init__("scripted")
        self._simulator = simulator

    def reset(self, instruction: str, seed: int) -> None:
        del instruction, seed

    def act(self, observation: Observation) -> NDArray[np.float32]:
        steps = np.clip(self._simulator.left(), [-n for n in FASTEST], FASTEST)
        return np.asarray(steps * UNITS, np.float32)[None]
