"""Denoising diffusion (Ho et al., arXiv 2006.11239) with the squared-cosine schedule (arXiv 2102.09672).

Its float32 arithmetic is that of diffusers' DDPMScheduler with LARYBench's settings: epsilon prediction, small fixed
variance, leading time steps, the predicted clean sample clipped to -1..1 (`clip_sample`).
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

BETA_MAX = 0.999


class Step(NamedTuple):
    """One step back from time step `t`; the numbers are exact in float32."""

    t: int
    noise: float
    """Share of the noise in the sample at t: sqrt(1 - alpha_bar)."""
    signal: float
    """Of the clean sample: sqrt(alpha_bar)."""
    to_clean: float
    """Weight of the predicted clean sample in the mean of the sample before (formula 7 of the paper)."""
    to_sample: float
    """Weight of the sample at t."""
    deviation: float
    """Of the noise that is added; 0 in the last step."""

    def back(self, sample: Tensor, predicted: Tensor, noise: Tensor) -> Tensor:
        """The sample one step before; `predicted` is the noise that the network sees in `sample`."""
        clean = ((sample - self.noise * predicted) / self.signal).clamp(-1, 1)
        return self.to_clean * clean + self.to_sample * sample + self.deviation * noise


class Ddpm:
    """A schedule of `train_steps` time steps."""

    def __init__(self, train_steps: int) -> None:
        self.train_steps = train_steps
        bars = [math.cos((i / train_steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(train_steps + 1)]
        betas = [min(1 - after / before, BETA_MAX) for before, after in pairwise(bars)]
        self.alpha_bar = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), dim=0)
        """(train_steps,) share of the clean sample's variance that is left, on the CPU."""

    def noisy(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Clean samples (B, ...) with `noise` of time steps `t` (B,) int64."""
        left = self.alpha_bar.to(clean.device)[t].view(-1, *[1] * (clean.dim() - 1))
        return left**0.5 * clean + (1 - left) ** 0.5 * noise

    def steps(self, count: int) -> list[Step]:
        """`count` steps from the noisiest to the clean sample, each train_steps // count wide."""
        times = torch.arange(count).mul(self.train_steps // count).flip(0)
        left = self.alpha_bar[times]
        before = torch.cat([left[1:], torch.ones(1)])
        alpha = left / before
        variance = (1 - before) / (1 - left) * (1 - alpha)
        columns = (
            (1 - left) ** 0.5,
            left**0.5,
            before**0.5 * (1 - alpha) / (1 - left),
            alpha**0.5 * (1 - before) / (1 - left),
            variance**0.5,
        )
        return [Step(t, *row) for t, row in zip(times.tolist(), torch.stack(columns, dim=1).tolist(), strict=True)]
