"""Policies that fit every benchmark: the lowest lines of a table, and the replay of what was done before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.base import ContractError, WeightsError
from lary_schema.evaluation import REPLAY, recorded_weight
from numpy.typing import NDArray

from lary_policy.policy import EpisodeStart, Observation, Policy, Space

CHUNK = 8
"""Actions that the baselines send at once."""


class _Blind(Policy):
    """Looks at nothing."""

    width = 0

    def fit(self, space: Space) -> tuple[str, ...]:
        self.width = len(space.actions)
        return ()

    def reset(self, instruction: str, seed: int) -> None:
        del instruction, seed


class Zero(_Blind):
    """Does nothing: every number of every action is 0."""

    def act(self, observation: Observation) -> NDArray[np.float32]:
        return np.zeros((CHUNK, self.width), np.float32)


class Random(_Blind):
    """Every number uniform in [-1, 1), from the episode's seed."""

    def reset(self, instruction: str, seed: int) -> None:
        self._draws = np.random.default_rng(seed)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        return self._draws.uniform(-1, 1, (CHUNK, self.width)).astype(np.float32)


class Replay(_Blind):
    """Sends what a recording has, action by action; after its end, the last one again.

    Of a task it takes the episode of the same initial state; where that was not recorded, the first one: a
    demonstration that is repeated without a look.
    """

    def load(self, weights: Mapping[str, Path], device: str) -> None:
        if not weights:
            raise WeightsError(f"{REPLAY} needs folders of recorded actions as weights; see --recording")
        self._folders = weights

    def begin(self, episode: EpisodeStart) -> None:
        folder = self._folders.get(recorded_weight(episode.task))
        files = sorted(folder.glob("*.npy"), key=lambda path: int(path.stem)) if folder else []
        if not files:
            raise ContractError(f"no recorded episode of task {episode.task}")
        chosen = next((path for path in files if int(path.stem) == episode.state), files[0])
        actions: NDArray[Any] = np.load(chosen, allow_pickle=False)
        if actions.dtype != np.float32 or actions.ndim != 2 or not len(actions):
            raise ContractError(f"{chosen.name} of task {episode.task}: {actions.dtype} {actions.shape} are no actions")
        self._actions, self._next = actions, 0

    def act(self, observation: Observation) -> NDArray[np.float32]:
        chunk = self._actions[self._next : self._next + CHUNK]
        self._next += len(chunk)
        return chunk if len(chunk) else self._actions[-1:]


def make_baseline(key: str) -> Policy:
    """One of `lary_schema.evaluation.BASELINES`."""
    found: dict[str, type[Policy]] = {"random": Random, REPLAY: Replay, "zero": Zero}
    return found[key](key)
