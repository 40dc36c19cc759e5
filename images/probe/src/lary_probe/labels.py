"""Class ids: from train's labels, for every split."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Labels
from numpy.typing import NDArray

from lary_probe.latents import Latents
from lary_probe.metadata import SplitMetadata


def class_names(train: SplitMetadata, labels: Labels) -> tuple[str, ...]:
    """Sorted labels of all of train's rows, also of those without a latent.

    Raises ContractError where their number is not the dataset card's.
    """
    found = tuple(own_names(train, labels.column))
    if labels.classes is not None and len(found) != labels.classes:
        raise ContractError(
            f"{train.path}: {len(found)} classes in column {labels.column!r}, the dataset card says "
            f"{labels.classes}; correct classes: in the card or use the whole CSV"
        )
    if len(found) < 2:
        raise ContractError(f"{train.path}: {len(found)} classes in column {labels.column!r}; nothing to distinguish")
    return found


def labels_of(metadata: SplitMetadata, latents: Latents, column: str) -> list[str]:
    """The label of each row with a latent. Raises ContractError naming file and row of an empty one."""
    once: dict[str, str] = {}
    cells = (metadata.cell(row, column) for row in latents.rows.tolist())
    return [once.setdefault(cell, cell) for cell in cells]


def own_names(metadata: SplitMetadata, column: str) -> list[str]:
    """Sorted labels of this CSV alone: LARYBench numbers each split by its own."""
    return sorted({label for row in metadata if (label := row.get(column)) is not None})


def most_frequent(train: SplitMetadata, column: str) -> str:
    """The label of most rows of train's whole CSV, the first in order of several: the baseline of every model.

    Rows without a latent count too, or models that fail on other rows would be compared with other baselines.
    """
    counts = Counter(label for row in train if (label := row.get(column)) is not None)
    return min(counts, key=lambda label: (-counts[label], label))


def class_ids(
    metadata: SplitMetadata, latents: Latents, labels: Sequence[str], names: Sequence[str], classes: int
) -> NDArray[np.int64]:
    """(n,) ids of `labels`, a row's index in `names`; `classes` is what the probe can distinguish.

    Raises ContractError for a label that gets no id below `classes`, naming the label, the file and the row.
    """
    ids = {name: index for index, name in enumerate(names) if index < classes}
    for label, row in zip(labels, latents.rows.tolist(), strict=True):
        if label not in ids:
            why = "is not in the train split" if label not in names else f"is one of {len(names)}, train has {classes}"
            raise ContractError(
                f"{metadata.path}: row {row}: label {label!r} {why}; "
                "a probe cannot predict a class it never saw: remove the row or add the class to train"
            )
    return np.array([ids[label] for label in labels], np.int64)
