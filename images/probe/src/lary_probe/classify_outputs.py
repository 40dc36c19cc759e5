"""The files of a classification, named as LARYBench names them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.jobs import ProbeJob
from numpy.typing import NDArray

from lary_probe.data import Evaluated, split_folder
from lary_probe.outputs import Outputs
from lary_probe.pictures import draw
from lary_probe.scoring import class_scores, confusion, macro_recall
from lary_probe.selection import Track
from lary_probe.session import Session


def write_outputs(
    session: Session,
    outputs: Outputs,
    evaluated: Sequence[Evaluated],
    tracks: Mapping[str, Track],
    classes: Sequence[str],
) -> None:
    """Matrix, statistics, cases, log and predictions of the first seed's best epoch.

    With one evaluated split they lie in the out mount itself, with several in a folder each.
    """
    job = session.job
    for split in evaluated:
        track, folder = tracks[split.name], split_folder(evaluated, split.name)
        matrix = confusion(split.targets, track.predicted, len(classes))
        outputs.json(f"{folder}confusion_matrix.json", matrix_document(matrix, classes))
        stats = {"chosen": chosen_document(job, track)} | stats_document(matrix, classes)
        outputs.json(f"{folder}classification_stats.json", stats)
        best = track.chosen
        title = f"{split.name}: top-1 {best.value:.3f} (seed {track.seed}, epoch {best.epoch}, head {best.optimiser})"
        draw(session, outputs, f"{folder}confusion_matrix.png", partial(_paint, matrix, classes, title))
        _write_rows(outputs, folder, split, track, classes)


def _paint(matrix: NDArray[np.int64], classes: Sequence[str], title: str, path: Path) -> None:
    from lary_probe.plots import plot_confusion  # matplotlib is slow to import

    plot_confusion(path, matrix, classes, title)


def matrix_document(matrix: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Rows are the truth, columns the prediction (LARYBench has them the other way round)."""
    return {"labels": list(classes), "rows": "truth", "columns": "prediction", "matrix": matrix.tolist()}


def chosen_document(job: ProbeJob, track: Track) -> dict[str, Any]:
    """Which epoch and head the other numbers are of, and what they were chosen by."""
    best = track.chosen
    lr, weight_decay = job.protocol.classify.optimisers[best.optimiser or 0]
    head = {"head": best.optimiser, "lr": lr, "weight_decay": weight_decay}
    return {"seed": track.seed, "epoch": best.epoch} | head | {"by": job.protocol.select_on, "score": best.selection}


def stats_document(matrix: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Per class precision, recall, f1 and support; a ratio without a denominator is 0."""
    scores = class_scores(matrix)
    columns = [column.tolist() for column in scores]
    per_class = {
        name: dict(zip(scores._fields, values, strict=True))
        for name, values in zip(classes, zip(*columns, strict=True), strict=True)
    }
    top1 = float(np.trace(matrix) / matrix.sum())
    return {"top1": top1, "macro_recall": macro_recall(matrix), "per_class": per_class}


def _predictions(split: Evaluated, track: Track, classes: Sequence[str]) -> Iterator[tuple[int, str, str, str]]:
    ids = zip(split.latents.rows, split.metadata.media(split.latents), split.targets, track.predicted, strict=True)
    return ((int(row), path, classes[truth], classes[guess]) for row, path, truth, guess in ids)


def _write_rows(outputs: Outputs, folder: str, split: Evaluated, track: Track, classes: Sequence[str]) -> None:
    outputs.table(
        f"{folder}predictions.csv", ("row", "path", "truth", "predicted"), _predictions(split, track, classes)
    )
    cases = (f"{path}\t{guess}\t{true}\n" for _, path, true, guess in _predictions(split, track, classes))
    outputs.lines(f"{folder}case.txt", cases)
    epochs = zip(track.scores, track.train, strict=True)
    log = [(s.epoch, train, s.value, s.selection, s.optimiser) for s, train in epochs]
    outputs.table(f"{folder}log_r0.csv", ("epoch", "train_acc", "val_acc", "selection", "head"), log)
