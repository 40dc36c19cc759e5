"""What a simulator has to be: a class under the entry-point group `lary.simulators` by its benchmark's key."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import BenchmarkCard
from numpy.typing import NDArray

from lary_policy.policy import Observation, Policy


class SimulatorError(ContractError):
    """The simulator cannot go on with this episode. It is made anew for the next one."""


@dataclass(frozen=True)
class Step:
    """What an action led to."""

    observation: Observation
    success: bool
    """Whether the task is done now, by the benchmark's rule."""


class Simulator(ABC):
    """One task. An episode has to be a function of state, seed and actions alone, whatever ran before it."""

    def __init__(self, card: BenchmarkCard, task: str) -> None:
        self.card = card
        self.task = card.task(task)

    def show(self, names: tuple[str, ...]) -> None:
        """Before the first `reset`: the policy looks at these observations alone, others may be left out. Default: all
        are made."""
        del names

    @abstractmethod
    def reset(self, state: int, seed: int) -> Observation:
        """Begin at one of the task's fixed initial states. `seed` is for what the state does not fix."""

    @abstractmethod
    def step(self, action: NDArray[np.float32]) -> Step:
        """Do one action, float32 (A,). Raises SimulatorError where it cannot."""

    @abstractmethod
    def state(self) -> NDArray[Any]:
        """All that decides what follows, as numbers: what traces are made of."""

    def renderer(self) -> str | None:
        """By which of its card's renderers pictures are drawn in this process. Default: what the card's variable says,
        which every job is given; None where the card names none."""
        return None if self.card.renderer is None else os.environ.get(self.card.renderer.variable)

    def scripted(self) -> Policy:
        """A policy that sees this very simulator. Raises ContractError where there is none."""
        raise ContractError(f"benchmark {self.card.key} has no scripted policy")

    def close(self) -> None:
        """Let go of what it holds. Default: nothing."""
        return
