"""The files of a regression: scores per seed, predictions, and pictures of a few rows."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Actions, PairColumns
from lary_schema.media import media_files
from lary_schema.mounts import Mounts
from numpy.typing import NDArray

from lary_probe.data import Evaluated
from lary_probe.outputs import Outputs
from lary_probe.pictures import draw
from lary_probe.selection import Track
from lary_probe.session import Session

SAMPLES = 4
"""Pictures of each split: rows at even ranks of the error, from the best to the worst. A linear read-out has none: it
is done for hundreds of models, and drawing took as long as all the rest of it."""


def write_outputs(
    session: Session,
    outputs: Outputs,
    evaluated: Sequence[Evaluated],
    tracks: Mapping[str, Sequence[Track]],
    actions: Actions,
) -> None:
    """Everything is in normalised units; predictions are the first seed's best epoch."""
    rows = [_best_row(split, track, actions) for split in evaluated for track in tracks[split.name]]
    header = ("split", "seed", "epoch", "mse", "r2", *(f"mse_{name}" for name in actions.names))
    outputs.table("best_result.csv", header, rows)
    log = [row for split in evaluated for track in tracks[split.name] for row in _log(split, track)]
    outputs.table("log_r0.csv", ("split", "seed", "epoch", "train_mse", "val_mse", "r2", "selection"), log)
    header = ("split", "row", "path", "mse", *(f"mse_{name}" for name in actions.names))
    outputs.table("predictions.csv", header, (r for s in evaluated for r in _rows(s, tracks[s.name][0], actions)))
    for split in evaluated:
        truth, predicted = _chunks(split, tracks[split.name][0], actions)
        outputs.array(f"predictions_{split.name}.npy", np.stack([truth, predicted], axis=1))
        if session.job.protocol.regress.head != "linear":
            _draw(session, outputs, split, truth, predicted, actions)


def _chunks(split: Evaluated, track: Track, actions: Actions) -> tuple[NDArray[Any], NDArray[Any]]:
    """Truth and prediction, (n, steps, dim) each: the chunk's steps, or the one of a relative target."""
    shape = (len(split.targets), -1, actions.dim)
    return split.targets.reshape(shape), track.predicted.reshape(shape)


def _errors(split: Evaluated, track: Track, actions: Actions) -> NDArray[np.float64]:
    """(n, dim) MSE over the steps of the chunk."""
    truth, predicted = _chunks(split, track, actions)
    errors: NDArray[np.float64] = np.square(truth.astype(np.float64) - predicted).mean(axis=1)
    return errors


def _best_row(split: Evaluated, track: Track, actions: Actions) -> tuple[Any, ...]:
    best = track.chosen
    return (split.name, track.seed, best.epoch, best.value, best.r2, *_errors(split, track, actions).mean(axis=0))


def _log(split: Evaluated, track: Track) -> list[tuple[Any, ...]]:
    epochs = zip(track.scores, track.train, strict=True)
    return [(split.name, track.seed, s.epoch, train, s.value, s.r2, s.selection) for s, train in epochs]


def _rows(split: Evaluated, track: Track, actions: Actions) -> Iterator[tuple[Any, ...]]:
    errors = _errors(split, track, actions)
    paths = split.metadata.media(split.latents)
    facts = zip(split.latents.rows.tolist(), paths, errors, strict=True)
    return ((split.name, row, path, f"{e.mean():.6g}", *(f"{x:.6g}" for x in e)) for row, path, e in facts)


def _draw(
    session: Session,
    outputs: Outputs,
    split: Evaluated,
    truth: NDArray[Any],
    predicted: NDArray[Any],
    actions: Actions,
) -> None:
    errors = np.square(truth - predicted).mean(axis=(1, 2))
    what = "" if truth.shape[1] == actions.stride else ", last step minus first"
    ranks = np.unique(np.linspace(0, len(errors) - 1, SAMPLES).astype(int))
    # Named by rank, so that a second attempt leaves none of the first one's pictures behind.
    for rank, index in enumerate(np.argsort(errors, kind="stable")[ranks].tolist()):
        row = int(split.latents.rows[index])
        title = f"{split.name} row {row}{what}: MSE {errors[index]:.4g}"
        paint = partial(_paint, split, row, session.mounts, truth[index], predicted[index], actions.names, title)
        draw(session, outputs, f"eval_vis/{split.name}/sample_{rank}.png", paint)


def _paint(
    split: Evaluated,
    row: int,
    mounts: Mounts,
    truth: NDArray[Any],
    predicted: NDArray[Any],
    names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """`truth` and `predicted` are (steps, dim)."""
    from lary_probe.plots import plot_step, plot_trajectory  # matplotlib is slow to import

    frames = _frames(split, row, mounts)
    if len(truth) > 1:
        plot_trajectory(path, truth, predicted, names, frames, title)
    else:
        plot_step(path, truth[0], predicted[0], names, frames, title)


def _frames(split: Evaluated, row: int, mounts: Mounts) -> list[NDArray[Any]]:
    """The two images of a pair, or none where they cannot be read: they only adorn the picture."""
    from lary_probe.plots import read_frame

    source = split.metadata.split.source
    if not isinstance(source.columns, PairColumns):
        return []
    files = media_files(source, mounts.data)
    frames = []
    for column in (source.columns.source, source.columns.target):
        try:
            path = files.find(split.metadata.row(row).get(column) or "")
        except ContractError:
            return []
        frame = read_frame(path)
        if frame is None:
            return []
        frames.append(frame)
    return frames
