"""The latent labels of an annotated LeRobot dataset, as dataset cards name them: one .npz per episode."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from lary_schema.base import ContractError
from lary_schema.cards import Latents

from lary_data.annotating import write_arrays
from lary_data.joining import DT, IDX, MODEL, VALID, LatentLabels, Z
from lary_data.labels import Arrays
from lary_data.lerobot import Episode, LeRobot

FOLDER, STEP = "latents", "step"
"""Below the manifest's folder; the CSV's column of a row's step."""


def annotated(dataset: LeRobot, steps: int) -> Latents | None:
    """What the card says of the labels: of `steps` steps for a row. None for a dataset without labels.

    Raises ContractError for a damaged `meta/latents.json`.
    """
    path = dataset.root / "meta" / LatentLabels.sidecar
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        facts = {name: said[name] for name in ("dt", "tokens", "width", "codes", "model")}
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path}: not what annotate writes: {error!r}; annotate the dataset again") from None
    return Latents.parse({"folder": FOLDER, "column": "episode_id", "step": STEP, "steps": steps} | facts, str(path))


def write_latents(out: Path, latents: Latents, episodes: Sequence[Episode]) -> None:
    """One file per episode, from the dataset's tables. Raises ContractError where a column is missing."""
    by_table: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_table[episode.data].append(episode)
    for name, inside in by_table.items():
        columns = ["episode_index", "frame_index", IDX, Z, VALID]
        try:
            table = pyarrow.parquet.read_table(name, columns=columns)
            numbers, frames, valid = (np.asarray(table[c]) for c in ("episode_index", "frame_index", VALID))
            flat = {c: np.stack(table[c].to_numpy(zero_copy_only=False)) for c in (IDX, Z)}
        except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
            raise ContractError(f"{name}: no table with {', '.join(columns)}: {error}; annotate again") from None
        for episode in inside:
            at = np.flatnonzero(numbers == episode.number)
            at = at[np.argsort(frames[at])]
            write_arrays(out / FOLDER / f"{episode.number}.npz", _arrays(latents, flat, valid, at))


def _arrays(latents: Latents, flat: Arrays, valid: Any, at: Any) -> Arrays:
    shape = (len(at), latents.tokens, latents.width)
    return {
        IDX: flat[IDX][at].astype(np.int64).reshape(shape[:2]),
        Z: flat[Z][at].astype(np.float32).reshape(shape),
        VALID: valid[at].astype(bool),
        DT: np.array(latents.dt, np.int64),
        MODEL: np.array(latents.model),
    }
