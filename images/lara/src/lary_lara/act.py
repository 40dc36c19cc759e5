"""A checkpoint of `lara` as a policy: what it was trained to do from the first frame and the instruction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lary_parts.acting import CameraPolicy

if TYPE_CHECKING:
    from lary_policy.policy import Observation
    from numpy.typing import NDArray

    from lary_lara.joint import JointNetwork

NOISE = "act noise"


class LaraPolicy(CameraPolicy):
    """The noise that its flow starts from depends on the seed and the chunk's number."""

    network: JointNetwork

    def load(self, weights: Mapping[str, Path], device: str) -> None:
        """Raises WeightsError for a checkpoint without a policy, or of a time that did not keep how actions move."""
        import torch

        from lary_lara.joint import load_policy

        self.device = torch.device(device)
        self.network, self._mean, self._std = load_policy(self.checkpoint(weights), weights.get("encoder"))
        self.network.to(self.device).eval()

    @property
    def numbers(self) -> int:
        return len(self._mean)

    def reset(self, instruction: str, seed: int) -> None:
        self._instruction, self._seed, self._chunk = instruction, seed, 0

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """(T, A) in the units of the training set's actions."""
        import torch
        from lary_trainer.chance import row_noise

        network = self.network
        assert network.policy is not None
        frames = torch.from_numpy(self.frame(observation, network.tokenizer.config.size)).to(self.device)
        noise = row_noise(self._seed, NOISE, self._chunk, np.zeros(1, np.int64), network.action_shape)
        self._chunk += 1
        with torch.inference_mode():
            context, seen = network.condition(frames, (self._instruction,))
            standard = network.policy.sample(noise.to(self.device), context, seen)[0].double().cpu().numpy()
        actions: NDArray[Any] = (standard * self._std + self._mean).astype(np.float32)
        return actions
