"""Policies that need no training: what the simulator knows, the same with noise, chance, and nothing at all."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lary_libero.choices import POLICY_NAMES
from lary_libero.scene import Surveyor
from lary_libero.scripted import CLOSED, OPEN, Move, Scripted
from lary_libero.simulator import ACTION_DIM, Simulator

NOISE = 0.25
"""Standard deviation that `noisy` adds to each of the six numbers of a movement."""
STEPS = 150
"""Of `random` and `zero`, which never end by themselves; about those of a pick and place."""

Policy = Callable[[Simulator, Sequence[int]], Iterator[Move]]
"""(simulator after its reset, entropy) -> its moves; the simulator is stepped by each before the next is asked for."""


def scripted(simulator: Simulator, _: Sequence[int]) -> Iterator[Move]:
    """See `lary_libero.scripted`; it draws nothing."""
    return Scripted(Surveyor(simulator.env).look).moves()


def noisy(simulator: Simulator, entropy: Sequence[int]) -> Iterator[Move]:
    """The scripted policy with a trembling hand: it sees where noise has led, and corrects it."""
    chance = np.random.default_rng(list(entropy))
    for action, phase in scripted(simulator, entropy):
        noise = np.append(NOISE * chance.standard_normal(ACTION_DIM - 1), 0)
        yield Move(np.clip(action + noise, -1, 1).astype(np.float32), phase)


def random(_: Simulator, entropy: Sequence[int]) -> Iterator[Move]:
    """Every number on its own, uniform; the gripper opens or closes."""
    chance = np.random.default_rng(list(entropy))
    for _step in range(STEPS):
        action = chance.uniform(-1, 1, ACTION_DIM)
        action[-1] = CLOSED if action[-1] > 0 else OPEN
        yield Move(action.astype(np.float32), "idle")


def zero(_: Simulator, __: Sequence[int]) -> Iterator[Move]:
    """Nothing moves."""
    return iter([Move(np.zeros(ACTION_DIM, np.float32), "idle")] * STEPS)


POLICIES: dict[str, Policy] = dict(zip(POLICY_NAMES, (scripted, noisy, random, zero), strict=True))
