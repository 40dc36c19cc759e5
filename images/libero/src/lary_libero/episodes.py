"""One episode, recorded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lary_libero.policies import POLICIES
from lary_libero.scripted import PHASES
from lary_libero.simulator import Simulator

IDLE = 5
"""Steps without a movement after the last one: what is still done then, stands."""


@dataclass(frozen=True)
class Recording:
    """Step t holds what was seen before action t."""

    images: dict[str, NDArray[np.uint8]]
    """(T, H, W, 3) by camera."""
    states: NDArray[np.float32]
    """(T, 8)"""
    actions: NDArray[np.float32]
    """(T, 7)"""
    phases: NDArray[np.int64]
    """(T,) places in `PHASES`."""
    nuisance: NDArray[np.float32]
    """(T, K)"""
    first_success: int | None
    """The step after which the task was done first, by LIBERO's rule."""
    success_after_release: bool
    """Whether it is done still when the policy has let go and gone back, and stood for `IDLE` steps."""


def record(simulator: Simulator, policy: str, state: int, seed: int, horizon: int) -> Recording:
    """One episode of at most `horizon` steps: a function of the simulator's task, the state and the seed."""
    observation = simulator.reset(state, seed)
    images: dict[str, list[NDArray[np.uint8]]] = {camera: [] for camera in simulator.cameras}
    states: list[NDArray[np.float32]] = []
    actions: list[NDArray[np.float32]] = []
    nuisance: list[NDArray[np.float32]] = []
    phases: list[int] = []
    first_success = None
    for action, phase in POLICIES[policy](simulator, (seed, state, simulator.task.number)):
        if len(actions) == horizon:
            break
        for camera, seen in images.items():
            seen.append(observation.images[camera])
        states.append(observation.state)
        nuisance.append(simulator.nuisance())
        actions.append(action)
        phases.append(PHASES.index(phase))
        observation, done = simulator.step(action)
        if done and first_success is None:
            first_success = len(actions)
    return Recording(
        images={camera: np.stack(seen) for camera, seen in images.items()},
        states=np.stack(states),
        actions=np.stack(actions),
        phases=np.array(phases, np.int64),
        nuisance=np.stack(nuisance),
        first_success=first_success,
        # What falls into place after the last step that was allowed is no success.
        success_after_release=first_success is not None and stands(simulator),
    )


def stands(simulator: Simulator) -> bool:
    """Whether the task is done after the hand has opened and `IDLE` steps have passed."""
    done = simulator.is_done()
    for _ in range(IDLE):
        _, done = simulator.step([0, 0, 0, 0, 0, 0, -1])
    return done
