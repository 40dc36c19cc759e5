"""Latent labels of trajectories: the files that `lary-orch data annotate` writes, read row by row."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Latents
from lary_schema.damage import DAMAGED_ARCHIVE
from numpy.typing import NDArray

INDICES, VECTORS, VALID, MODEL, DT = "latent_idx", "latent_z", "latent_valid", "latent_model", "latent_dt"
Arrays = dict[str, NDArray[Any]]


def read_latents(card: Latents, folder: Path, starts: Sequence[tuple[str, int]], wanted: Sequence[str]) -> Arrays:
    """Of rows given by episode and step: the arrays of `wanted` and `latent_valid`, (n, T, ...) with T `card.steps`.

    Steps without a label, and those beyond the episode's end, are not valid and 0. Raises ContractError naming the
    file, or the row by its number in `starts`, and what does not fit.
    """

    @lru_cache(maxsize=8)
    def episode(name: str) -> Arrays:
        return _read_episode(card, folder / f"{name}.npz", tuple(wanted))

    shapes = {INDICES: (card.tokens,), VECTORS: (card.tokens, card.width)}
    dtypes = {INDICES: np.int64, VECTORS: np.float32}
    found: Arrays = {n: np.zeros((len(starts), card.steps, *shapes[n]), dtypes[n]) for n in wanted}
    found[VALID] = np.zeros((len(starts), card.steps), bool)
    for at, (name, step) in enumerate(starts):
        arrays = episode(name)
        if step >= len(arrays[VALID]):
            raise ContractError(
                f"{folder / name}.npz: has {len(arrays[VALID])} steps, a row asks for step {step}; annotate anew"
            )
        valid = arrays[VALID][step : step + card.steps]
        found[VALID][at, : len(valid)] = valid
        for n in wanted:
            values = arrays[n][step : step + card.steps]
            found[n][at, : len(valid)][valid] = values[valid]
    return found


def _read_episode(card: Latents, path: Path, wanted: tuple[str, ...]) -> Arrays:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*wanted, VALID, MODEL, DT) if name in file}
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror or error}; annotate the set anew") from None
    except DAMAGED_ARCHIVE as error:
        raise ContractError(f"{path}: no file of arrays: {error}") from None
    if missing := [name for name in (*wanted, VALID, MODEL, DT) if name not in arrays]:
        raise ContractError(f"{path}: has no {', '.join(missing)}; annotate the set anew")
    _check(card, path, arrays)
    return arrays


def _check(card: Latents, path: Path, arrays: Arrays) -> None:
    found = {(str(model), str(dt)) for model, dt in np.broadcast(arrays[MODEL], arrays[DT])}
    if found != {(card.model, str(card.dt))}:
        made = "; ".join(f"{model[:16]}, dt {dt}" for model, dt in sorted(found))
        raise ContractError(
            f"{path}: its latents are of {made}; the card's of {card.model[:16]}, dt {card.dt}; annotate the set "
            "anew, or correct latents: in the card"
        )
    if arrays[VALID].ndim != 1 or arrays[VALID].dtype != bool:
        raise ContractError(f"{path}: latent_valid is no list of true and false")
    count = len(arrays[VALID])
    shapes = {INDICES: (count, card.tokens), VECTORS: (count, card.tokens, card.width), VALID: (count,)}
    for name in arrays.keys() & shapes.keys():
        if arrays[name].shape != shapes[name]:
            raise ContractError(f"{path}: {name} has shape {arrays[name].shape}, the card says {shapes[name]}")
    if INDICES in arrays and not _are_codes(arrays[INDICES][arrays[VALID]], card.codes):
        raise ContractError(f"{path}: latent_idx are no numbers of {card.codes} codes")
    if VECTORS in arrays and not np.isfinite(arrays[VECTORS][arrays[VALID]]).all():
        raise ContractError(f"{path}: latent_z holds values that are not finite")


def _are_codes(values: NDArray[Any], codes: int) -> bool:
    return values.dtype.kind in "iu" and bool(((values >= 0) & (values < codes)).all())
