"""A small set of latents with labels and actions, and starting weights: the same numbers wherever it is made.

`make.py` trains LARYBench's probes on it, `test_probe_upstream.py` ours. Every number follows from numpy generators.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CLASSES, DIM, TIME, TOKENS = 4, 8, 2, 3
ROWS = {"train": 44, "val": 30}
WIDTH, HEADS, DEPTH, BATCH, EPOCHS = 16, 2, 3, 12, 6
OPTIMISERS = ((5e-3, 0.01), (3e-3, 0.1), (1e-3, 0.4), (3e-4, 0.8), (1e-4, 0.01))
STEPS, ACTIONS = 3, 7
"""Of an action chunk; LARYBench's regression knows calvin's seven dimensions."""
LATENT = TIME * TOKENS * DIM
MLP = {"width": 32, "blocks": 2, "epochs": 8, "batch": 11}
DIT = {"width": 16, "depth": 2, "heads": 8, "epochs": 3, "batch": 11}
LR, DECAY = 1e-4, 1e-4


def labels(split: str) -> NDArray[np.int64]:
    """Uneven classes, each in both splits."""
    found = np.random.default_rng([1, ROWS[split]]).choice(CLASSES, ROWS[split], p=[0.4, 0.3, 0.2, 0.1])
    found[:CLASSES] = np.arange(CLASSES)
    return found.astype(np.int64)


def tokens(split: str) -> NDArray[np.float32]:
    """(n, T, N, D) float32: a direction of the class in noise."""
    generator = np.random.default_rng([2, ROWS[split]])
    directions = np.random.default_rng(3).standard_normal((CLASSES, DIM))
    noise = generator.standard_normal((ROWS[split], TIME, TOKENS, DIM))
    return (0.8 * directions[labels(split)][:, None, None, :] + noise).astype(np.float32)


def targets(split: str) -> NDArray[np.float32]:
    """(n, steps * actions) float32, standardised already: a linear function of the tokens and noise."""
    mixing = np.random.default_rng(4).standard_normal((LATENT, STEPS * ACTIONS)) / LATENT**0.5
    noise = np.random.default_rng([5, ROWS[split]]).standard_normal((ROWS[split], STEPS * ACTIONS))
    return (tokens(split).reshape(ROWS[split], -1) @ mixing + 0.3 * noise).astype(np.float32)


NORMS = ("projector.1.weight", "norm1.weight", "norm2.weight", "enter.0.weight", "leave.0.weight")


def start(name: str, head: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """Starting values of a parameter of this shape, by its name in `lary_probe`.

    A layer norm's weights are near 1, other vectors near 0; no matrix is zero, so that all below it learns.
    """
    noise = np.random.default_rng([zlib.crc32(name.encode()), head]).standard_normal(shape)
    if len(shape) < 2:
        block_norm = name.startswith("blocks.") and name.endswith(".0.weight")
        return (float(name.endswith(NORMS) or block_norm) + 0.02 * noise).astype(np.float32)
    return (noise * 0.3 / max(1, shape[-1]) ** 0.5).astype(np.float32)
