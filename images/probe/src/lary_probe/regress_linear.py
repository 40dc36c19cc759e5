"""The linear head: ridge regression, its strength chosen on held-out rows of train, then fitted to all of train.

What a linear map can read from a latent: no training that may fail, nothing to tune. It runs in float64 on the job's
device, in each process alike.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from lary_schema.base import ContractError
from numpy.typing import NDArray
from torch import Tensor

from lary_probe.latents import Latents, Positions
from lary_probe.ridge import BLOCK_BYTES, STRENGTHS, Linear, Ridge, best_strength, needed_bytes
from lary_probe.selection import HOLDOUT
from lary_probe.session import Session
from lary_probe.training import EpochOutput, Part


def fit_linear(
    session: Session, values: NDArray[np.float32], fit: Part, parts: Mapping[str, Part]
) -> tuple[EpochOutput, Linear, float]:
    """One "epoch", the head, and its strength. `values` (n, out) are the targets of all of train.

    Of the held-out part the predictions are those of the fit without it.
    """
    check_memory(session, fit.latents, values.shape[1])
    strength, held = _choose(session, fit, parts[HOLDOUT])
    everything = Part(fit.latents, np.arange(len(fit.latents)), values)
    linear = _ridge(session, everything).fit(strength)
    predicted = {
        name: held if name == HOLDOUT else _predict(session, linear, part.latents, part.positions)[None]
        for name, part in parts.items()
    }
    found = _predict(session, linear, everything.latents, everything.positions)
    error = np.array([_error(everything, found)])
    session.step()
    return EpochOutput(epoch=1, train=error, train_loss=error, predicted=predicted, losses={}), linear, strength


def state_of(linear: Linear) -> dict[str, Tensor]:
    """For `probe.safetensors`."""
    return {name: tensor.cpu().contiguous() for name, tensor in vars(linear).items()}


def check_memory(session: Session, train: Latents, out: int) -> None:
    """Raises ContractError where the fit of all of train needs more than the job's `ram_bytes`."""
    features = int(np.prod(train.shape))
    needed = needed_bytes(len(train), features, out, train.row_bytes // features)
    if needed > session.job.ram_bytes:
        raise ContractError(
            f"a linear head on {len(train)} rows of {features} values needs {needed / (1 << 30):.2g} GiB besides the "
            f"latents, the job has {session.job.ram_bytes / (1 << 30):.2g}: take a larger --ram, or the head mlp"
        )


def _choose(session: Session, fit: Part, held: Part) -> tuple[float, NDArray[np.float32]]:
    """The strength with the least held-out error, and its predictions, (1, held-out rows, out)."""
    ridge, errors, kept = _ridge(session, fit), list[float](), list[NDArray[np.float32]]()
    for strength in STRENGTHS:
        session.alive("fitting")
        predicted = _predict(session, ridge.fit(strength), held.latents, held.positions)
        errors.append(_error(held, predicted))
        if best_strength(errors) == len(errors) - 1:
            kept = [predicted]
    session.progress(f"strength {STRENGTHS[best_strength(errors)]:.2g}, held-out mse {min(errors):.4f}")
    return STRENGTHS[best_strength(errors)], kept[0][None]


def _ridge(session: Session, part: Part) -> Ridge:
    device = session.accelerator.device
    session.alive("reading latents")
    rows = part.latents.batch(part.positions).flatten(1).to(device)
    session.alive("fitting")
    return Ridge(rows, torch.from_numpy(part.targets).double().to(device), lambda: session.alive("fitting"))


def _predict(session: Session, linear: Linear, latents: Latents, positions: Positions) -> NDArray[np.float32]:
    """(n, out)"""
    device, found = session.accelerator.device, []
    for block in _blocks(latents, positions):
        session.alive("evaluating")
        found.append(linear(latents.batch(block).flatten(1).to(device)).cpu())
    return torch.cat(found).float().numpy()


def _blocks(latents: Latents, positions: Positions) -> Iterator[Positions]:
    height = max(1, BLOCK_BYTES // (8 * int(np.prod(latents.shape))))
    for start in range(0, len(positions), height):
        yield positions[start : start + height]


def _error(part: Part, predicted: NDArray[np.float32]) -> float:
    return float(np.square(part.targets.astype(np.float64) - predicted).mean())
