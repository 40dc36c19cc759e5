"""Held-out measures that several trainees take."""

from __future__ import annotations

import math

import numpy as np
import torch
from lary_trainer.chance import stream
from torch import Tensor


def effective_rank(vectors: Tensor) -> float:
    """Of (N, D): exp of the entropy of the covariance's eigenvalues (Roy and Vetterli, 2007, on variances).

    NaN where the rows are all equal.
    """
    centred = vectors.double() - vectors.double().mean(0)
    variances = torch.linalg.svdvals(centred).square()
    return _exp_entropy(variances)


def perplexity(indices: Tensor, codes: int) -> float:
    """exp of the entropy of code use: `codes` where all are used alike, 1 where one is used alone."""
    return _exp_entropy(torch.bincount(indices.flatten(), minlength=codes).double())


def _exp_entropy(amounts: Tensor) -> float:
    shares = amounts / amounts.sum()
    return math.exp(-torch.special.xlogy(shares, shares).sum().item()) if amounts.sum() > 0 else math.nan


def other_rows(count: int, purpose: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each of `count` rows another one, the same at every evaluation."""
    return successors(stream(0, purpose, count).permutation(count))


def successors(
    order: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each row the one that follows it in a permutation, read as a circle: never itself, where there are two."""
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return other


def squares(predicted: Tensor, target: Tensor) -> float:
    """Sum of squared differences of two tensors of one shape."""
    return (predicted.float() - target.float()).square().sum().item()
