"""Times and noise of flow matching, as functions of (seed, purpose, step, row)."""

from __future__ import annotations

import numpy as np
import torch
from lary_trainer.chance import row_noise, stream
from lary_trainer.trainee import Batch
from torch import Tensor

LARGEST = 0.999
"""Of the Beta variable: t = (LARGEST - b) / LARGEST."""
BETA = (1.5, 1.0)
TIME_STEPS = 1000


def flow_times(seed: int, purpose: str, step: int, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    """(B,) float32: t in [0, 1], 0 is noise; each row's depends on (seed, purpose, step, row) alone."""
    drawn = [min(stream(seed, purpose, step, int(row)).beta(*BETA), LARGEST) for row in rows]
    return torch.tensor([(LARGEST - b) / LARGEST for b in drawn], dtype=torch.float32)


def draw_flow(batch: Batch, purpose: str, step: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Times (B,) and noise (B, S, A) of a batch's rows, on its device."""
    noise = row_noise(batch.seed, f"{purpose} noise", step, batch.rows, shape)
    times = flow_times(batch.seed, f"{purpose} time", step, batch.rows)
    return times.to(batch.frames.device), noise.to(batch.frames.device)


def time_code(times: Tensor, width: int) -> Tensor:
    """(B,) in [0, 1] -> (B, width): sines and cosines of floor(1000 t)."""
    half = width // 2
    rates = torch.exp(-torch.arange(half, device=times.device) / half * np.log(10_000.0))
    angles = (times * TIME_STEPS).floor()[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
