"""Class ids: from train's labels, for every split."""

from collections.abc import Sequence
from typing import Literal

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
    found = tuple(sorted({label for row in train.rows if (label := row.get(labels.column)) is not None}))
    if labels.classes is not None and len(found) != labels.classes:
        raise ContractError(
            f"{train.path}: {len(found)} classes in column {labels.column!r}, the dataset card says "
            f"{labels.classes}; correct classes: in the card or use the whole CSV"
        )
    if len(found) < 2:
        raise ContractError(f"{train.path}: {len(found)} classes in column {labels.column!r}; nothing to tell apart")
    return found


def class_ids(
    metadata: SplitMetadata,
    latents: Latents,
    column: str,
    classes: Sequence[str],
    numbering: Literal["train", "per-split"],
) -> NDArray[np.int64]:
    """(n,) ids of the rows with a latent.

    `per-split` numbers this CSV's own labels, as LARYBench does: a class that the split lacks shifts
    all ids behind it. Raises ContractError for a label that train never had (`per-split`: for more
    labels than train has), naming the label, the file and the row.
    """
    names = classes
    if numbering == "per-split":
        names = sorted({label for row in metadata.rows if (label := row.get(column)) is not None})
    ids = {name: index for index, name in enumerate(names) if index < len(classes)}
    found = np.empty(len(latents), np.int64)
    for place, row in enumerate(latents.rows.tolist()):
        label = metadata.cell(row, column)
        if label not in ids:
            raise ContractError(
                f"{metadata.path}: row {row}: label {label!r} (column {column!r}) is not in the train split; "
                "a probe cannot predict a class it never saw: remove the row or add the class to train"
            )
        found[place] = ids[label]
    return found
