"""Where the randomness of one seed comes from, purpose by purpose."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
import torch

Seed = int | np.random.SeedSequence
"""What `numpy.random.default_rng` takes."""


class Purpose(IntEnum):
    """Position among the children that a seed's sequence spawns. Never renumber: scores would change."""

    HOLDOUT = 0
    CONTROL = 1
    ORDER = 2
    INIT = 3
    BOOTSTRAP = 4


@dataclass(frozen=True)
class Streams:
    """The random streams of one seed.

    `independent`: each purpose, and each epoch's order, has a stream of its own (numpy's `SeedSequence.spawn`), so
    neither two seeds nor two purposes share a draw. `upstream`: LARYBench's, where the order of an epoch is drawn by
    seed + epoch and everything else by the seed.
    """

    seed: int
    kind: Literal["independent", "upstream"] = "independent"

    def holdout(self) -> Seed:
        return self._of(Purpose.HOLDOUT)

    def control(self) -> Seed:
        return self._of(Purpose.CONTROL)

    def order(self, epoch: int) -> Seed:
        """`epoch` counts from 0."""
        return self.seed + epoch if self.kind == "upstream" else self._of(Purpose.ORDER, epoch)

    def start_torch(self) -> None:
        """Seed torch's generators, which draw the networks' initial weights."""
        seed = self._of(Purpose.INIT)
        torch.manual_seed(seed if isinstance(seed, int) else int(seed.generate_state(1, np.uint64)[0]))

    def bootstrap(self) -> int:
        """Seed of the intervals' resampling."""
        seed = self._of(Purpose.BOOTSTRAP)
        return seed if isinstance(seed, int) else int(seed.generate_state(1, np.uint64)[0])

    def _of(self, *key: int) -> Seed:
        # What `spawn` gives its children, by number: child 2 of child 1 has the key (1, 2).
        return self.seed if self.kind == "upstream" else np.random.SeedSequence(self.seed, spawn_key=key)
