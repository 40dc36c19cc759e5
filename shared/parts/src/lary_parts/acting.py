"""Trained policies that look at one camera. Imports torch where one is loaded."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lary_policy import Policy, Space
from lary_schema.base import ContractError, WeightsError
from lary_schema.trained import CHECKPOINT

from lary_parts.frames import resize_area

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from lary_policy.policy import Observation
    from numpy.typing import NDArray


class CameraPolicy(Policy):
    """Looks at the first camera of a simulator, brought to the size of its recipe as in training."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """A of its actions."""

    def checkpoint(self, weights: Mapping[str, Path]) -> Path:
        """The folder of its training. Raises WeightsError where none is given."""
        if CHECKPOINT not in weights:
            raise WeightsError(f"policy {self.key} needs the folder of its training, as weights {CHECKPOINT!r}")
        return weights[CHECKPOINT]

    def fit(self, space: Space) -> tuple[str, ...]:
        """Raises ContractError for a simulator without a camera, or with actions of another width."""
        cameras = [name for name, spec in space.observations.items() if spec.dtype == "uint8" and len(spec.shape) == 3]
        if not cameras:
            raise ContractError(f"policy {self.key} looks at a camera, and {space.benchmark} shows none")
        if len(space.actions) != self.numbers:
            raise ContractError(
                f"policy {self.key} has actions of {self.numbers} numbers, {space.benchmark} of {len(space.actions)}"
            )
        self._camera = cameras[0]
        return (self._camera,)

    def frame(self, observation: Observation, size: int) -> NDArray[np.uint8]:
        """What the camera shows now, (1, size, size, 3)."""
        return resize_area(observation[self._camera][None], size)
