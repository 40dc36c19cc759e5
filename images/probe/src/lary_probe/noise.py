"""Random numbers that belong to a row, not to a batch: any split of the rows over batches or processes draws alike.

SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) as a hash of
(key, row, position), computed by torch where the numbers are needed.
"""

import hashlib
import math

import torch
from lary_schema.base import canonical_json
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""SplitMix64's step. Constants above 2**63 are written as the int64 of the same bits."""


def key_of(*parts: int | str) -> int:
    """The int64 key of one stream of numbers, e.g. (seed, what for, epoch)."""
    return int.from_bytes(hashlib.sha256(canonical_json(parts)).digest()[:8], "little", signed=True)


def normals(key: int, rows: Tensor, count: int) -> Tensor:
    """(n, count) float32 standard normal numbers for `rows` (n,) int64, on their device (Box-Muller)."""
    bits = _bits(key, rows, count)
    radius = (-2 * torch.log(_share(bits >> 32))).sqrt()
    return (radius * torch.cos(2 * math.pi * _share(bits))).float()


def uniforms(key: int, rows: Tensor) -> Tensor:
    """(n,) float64 numbers between 0 and 1, neither included."""
    return _share(_bits(key, rows, 1)[:, 0] >> 32)


def _share(bits: Tensor) -> Tensor:
    """The lower 32 bits as a float64 between 0 and 1."""
    return ((bits & 0xFFFFFFFF).double() + 0.5) / (1 << 32)


def _bits(key: int, rows: Tensor, count: int) -> Tensor:
    """(n, count) int64 of random bits: a SplitMix64 sequence for each row."""
    start = _mixed(rows + key)
    positions = torch.arange(1, count + 1, device=rows.device)
    return _mixed(start[:, None] + positions * GOLDEN)


def _mixed(z: Tensor) -> Tensor:
    """SplitMix64's finaliser. int64 products wrap, as they should."""
    z = (z ^ _shifted(z, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    z = (z ^ _shifted(z, 27)) * (0x94D049BB133111EB - (1 << 64))
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Right shift without the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)
