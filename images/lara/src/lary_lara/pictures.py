"""What a tokenizer makes of a few held-out pairs, side by side."""

import numpy as np
import torch
from lary_parts.measures import other_rows
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lary_lara.measures import Batches
from lary_lara.network import Tokenizer

COLUMNS = 8
"""Pairs, at most: the first one of as many batches."""
SIDE = 64
"""Pixels of a frame in the picture."""
GAP = 2


@torch.no_grad()
def draw_pairs(network: Tokenizer, batches: Batches) -> NDArray[np.uint8] | None:
    """RGB; from above: first frame, second frame, prediction, prediction with another pair's code.

    The last row is left out where there is no latent or no other pair; None where there is no pair at all.
    """
    pairs = [batch.frames[:1] for _, batch in zip(range(COLUMNS), batches(), strict=False)]
    if not pairs:
        return None
    first, target = network.pixels(torch.cat(pairs)).unbind(1)
    carried = network.carried(network.latent(network.features(first), network.features(target)))
    rows = [first, target, network.decode(first, carried)]
    if network.config.latent != "none" and len(first) > 1:
        rows.append(network.decode(first, carried[other_rows(len(first), "shuffled codes")]))
    return _sheet([_colours(network, frames) for frames in rows])


def _colours(network: Tokenizer, pixels: Tensor) -> NDArray[np.uint8]:
    """(B, 3, S, S) in the network's pixel convention -> uint8 (B, SIDE, SIDE, 3)."""
    ends = torch.tensor([0, 255], dtype=torch.uint8, device=pixels.device)[:, None, None, None].expand(2, 1, 1, 3)
    black, white = network.pixels(ends)
    shares = ((pixels - black) / (white - black)).float().clamp(0, 1)
    shares = functional.interpolate(shares, (SIDE, SIDE), mode="area" if pixels.shape[-1] > SIDE else "nearest")
    return (shares * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()


def _sheet(rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Rows of (B, S, S, 3), white between the frames."""
    framed = [np.pad(frames, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=255) for frames in rows]
    return np.concatenate([np.concatenate(list(frames), axis=1) for frames in framed])
