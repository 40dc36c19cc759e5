"""A checkpoint of `latent-vla` as a policy: the chunk of actions that it gives for a picture and an instruction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lary_parts.acting import CameraPolicy

if TYPE_CHECKING:
    from lary_policy.policy import Observation
    from numpy.typing import NDArray

    from lary_latentvla.vla_network import VlaNetwork


class LatentVlaPolicy(CameraPolicy):
    """Draws nothing and remembers nothing: its chunk is a function of picture and instruction."""

    network: VlaNetwork

    def load(self, weights: Mapping[str, Path], device: str) -> None:
        """Raises WeightsError for a folder that does not hold a whole one, and for a downloaded backbone not given."""
        import torch
        from lary_parts.checkpoints import read_document

        from lary_latentvla.action_range import ActionRange
        from lary_latentvla.vla_build import VlaDocument, load_network

        folder = self.checkpoint(weights)
        self.device = torch.device(device)
        self.network = load_network(folder, weights.get("backbone")).to(self.device).eval()
        self._range = ActionRange.parse(read_document(folder, VlaDocument).range)

    @property
    def numbers(self) -> int:
        return self.network.dimensions

    def reset(self, instruction: str, seed: int) -> None:
        del seed
        self._instruction = instruction

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """(N, A) in the units of the training set's actions, not clipped to what was in it.

        Raises ContractError for an instruction that holds a token of the model's own.
        """
        import torch

        frames = torch.from_numpy(self.frame(observation, self.network.config.size)).to(self.device)
        with torch.inference_mode():
            scaled = self.network(frames, (self._instruction,)).actions[0].double().cpu().numpy()
        return self._range.unscale(scaled).astype(np.float32)
