"""What a policy has to be: a class under the entry-point group `lary.policies` by its card's key."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import BenchmarkCard, TensorSpec
from lary_schema.evaluation import LONGEST_CHUNK
from numpy.typing import NDArray

Observation = Mapping[str, NDArray[Any]]
"""By name, as the benchmark's card lists them."""


class BadActionsError(ContractError):
    """A chunk that cannot be done: not finite, or of another shape."""


@dataclass(frozen=True)
class Space:
    """What a simulator shows, and what it wants."""

    benchmark: str
    task: str
    observations: Mapping[str, TensorSpec]
    actions: tuple[str, ...]
    """Names of the numbers of an action."""

    @classmethod
    def of(cls, card: BenchmarkCard, task: str) -> "Space":
        return cls(card.key, task, card.observations, card.actions)


@dataclass(frozen=True)
class EpisodeStart:
    """One episode. A policy that is to be believed looks at instruction and seed alone."""

    instruction: str
    seed: int
    task: str
    state: int


class Policy(ABC):
    """Base of every policy. What it draws comes from the seed of `reset`, so that an episode can be repeated."""

    def __init__(self, key: str) -> None:
        self.key = key

    def load(self, weights: Mapping[str, Path], device: str) -> None:
        """Make it ready. Files and folders by name, as its card lists them; `device` is `cpu` or `cuda`.

        Raises WeightsError. Default: nothing to load.
        """
        del weights, device

    def fit(self, space: Space) -> tuple[str, ...]:
        """Get to know the simulator; the names of the observations that `act` reads (default: all).

        Raises ContractError where the two do not go together.
        """
        return tuple(space.observations)

    def begin(self, episode: EpisodeStart) -> None:
        """A new episode. Default: `reset`."""
        self.reset(episode.instruction, episode.seed)

    @abstractmethod
    def reset(self, instruction: str, seed: int) -> None:
        """Forget the last episode."""

    @abstractmethod
    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next actions, float32 (T, A), T >= 1, as the simulator takes them.

        Raises ContractError where it cannot go on: the episode has failed, the next one begins.
        """


def checked(chunk: NDArray[Any], width: int, first: int, use: int | None) -> NDArray[np.float32]:
    """The actions of a chunk that are done, float32 (n, width). Raises BadActionsError."""
    if chunk.dtype != np.float32 or chunk.ndim != 2 or chunk.shape[1] != width:
        raise BadActionsError(f"actions are {chunk.dtype} {chunk.shape}; float32 (T, {width}) is expected")
    if len(chunk) > LONGEST_CHUNK:
        raise BadActionsError(f"{len(chunk)} actions in a chunk; {LONGEST_CHUNK} are allowed")
    used = chunk[first : None if use is None else first + use]
    if len(used) < (use or 1):
        raise BadActionsError(f"{len(chunk)} actions in a chunk; from index {first} on {use or 1} are needed")
    if not (finite := np.isfinite(used)).all():
        action, number = np.argwhere(~finite)[0]
        found = used[action, number]
        raise BadActionsError(f"actions that are not finite: number {number} of action {first + action} is {found}")
    return used
