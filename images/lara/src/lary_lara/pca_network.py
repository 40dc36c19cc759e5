"""Principal components as a network: a mean, directions, and the deviation along each."""

import torch
from lary_schema.base import ContractError
from torch import nn

RESOLVED = 1e-10
"""Variance over the largest one below which a direction is rounding."""


class Components(nn.Module):
    """K directions of differences of F numbers. As it is made, it knows none: all are 0."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, components: int, width: int) -> None:
        super().__init__()
        self.components = nn.Parameter(torch.zeros(components, width))
        """(K, F), of length 1 and at right angles."""
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(components))
        """(K,) standard deviations of the rows that were fitted."""

    def left_over(self, differences: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B,) mean squares of what the components do not give."""
        centred = differences - self.mean
        return (centred - centred @ self.components.T @ self.components).square().mean(1)

    def latent(self, differences: torch.Tensor) -> torch.Tensor:
        """(..., F) -> (..., K), of mean 0 and deviation 1 over the rows that were fitted."""
        return (differences - self.mean) @ self.components.T / self.scale

    @torch.no_grad()
    def fit(self, differences: torch.Tensor) -> None:
        """Take the components of (B, F) differences. Raises ContractError where they have fewer directions than K."""
        rows = differences.double()
        mean = rows.mean(0)
        centred = rows - mean
        variances, directions = torch.linalg.eigh(centred.T @ centred / max(1, len(rows) - 1))
        count = len(self.components)
        kept, found = variances.flip(0)[:count], directions.T.flip(0)[:count]
        resolved = int((kept > RESOLVED * variances[-1]).sum())
        if resolved < count:
            raise ContractError(
                f"components: {count} are wanted, {len(rows)} rows differ in {resolved} directions alone"
            )
        # Of a direction the sign is free: its largest entry is positive.
        sign = found.gather(1, found.abs().argmax(1, keepdim=True)).sign()
        self.components.copy_(found * sign)
        self.mean.copy_(mean)
        self.scale.copy_(kept.sqrt())


def differences(frames: torch.Tensor, dt: int) -> torch.Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B, T - dt, F): each frame less the one `dt` before, of values in [0, 1]."""
    values = frames.float().flatten(2) / 255
    return values[:, dt:] - values[:, :-dt]
