"""A checkpoint of `lara` as a policy: what it was trained to do from the first frame and the instruction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lary_parts.frames import resize_area
from lary_policy import Policy, Space
from lary_schema.base import ContractError, WeightsError
from lary_schema.trained import CHECKPOINT

if TYPE_CHECKING:
    from lary_policy.policy import Observation
    from numpy.typing import NDArray

    from lary_lara.joint import JointNetwork

NOISE = "act noise"


class LaraPolicy(Policy):
    """Looks at the first camera. The noise that its flow starts from depends on the seed and the chunk's number."""

    network: JointNetwork

    def load(self, weights: Mapping[str, Path], device: str) -> None:
        """Raises WeightsError for a checkpoint without a policy, or of a time that did not keep how actions move."""
        import torch

        from lary_lara.joint import load_policy

        if CHECKPOINT not in weights:
            raise WeightsError(f"policy {self.key} needs the folder of its training, as weights {CHECKPOINT!r}")
        self.device = torch.device(device)
        self.network, self._mean, self._std = load_policy(weights[CHECKPOINT])
        self.network.to(self.device).eval()

    def fit(self, space: Space) -> tuple[str, ...]:
        cameras = [name for name, spec in space.observations.items() if spec.dtype == "uint8" and len(spec.shape) == 3]
        if not cameras:
            raise ContractError(f"policy {self.key} looks at a camera, and {space.benchmark} shows none")
        if len(space.actions) != len(self._mean):
            raise ContractError(
                f"policy {self.key} has actions of {len(self._mean)} numbers, {space.benchmark} of {len(space.actions)}"
            )
        self._camera = cameras[0]
        return (self._camera,)

    def reset(self, instruction: str, seed: int) -> None:
        self._instruction, self._seed, self._chunk = instruction, seed, 0

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """(T, A) in the units of the training set's actions."""
        import torch
        from lary_trainer.chance import row_noise

        network = self.network
        assert network.policy is not None
        frames = resize_area(observation[self._camera][None], network.tokenizer.config.size)
        noise = row_noise(self._seed, NOISE, self._chunk, np.zeros(1, np.int64), network.action_shape)
        self._chunk += 1
        with torch.inference_mode():
            context, seen = network.condition(torch.from_numpy(frames).to(self.device), (self._instruction,))
            standard = network.policy.sample(noise.to(self.device), context, seen)[0].double().cpu().numpy()
        actions: NDArray[Any] = (standard * self._std + self._mean).astype(np.float32)
        return actions
