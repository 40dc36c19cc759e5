"""Class labels of metadata CSVs: which are empty, which a person would take for one, which train does not have."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lary_schema.base import ContractError
from lary_schema.metadata import read_cells

SHOWN = 5
"""Labels that an error lists."""
DIFFER = "differ by white space or by the way a letter is written alone (or a dash, a quote, a hidden character)"
"""What errors say of labels that are `alike`."""


class SplitLabels(NamedTuple):
    """The labels of one split's CSV."""

    csv: Path
    labels: Sequence[str]
    """Each once, sorted."""
    unlabelled: Sequence[int]
    """Rows whose label is empty."""


def alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Sets of different labels that look the same, sorted.

    Such differ by white space, by Unicode's way to write a letter, by characters that are not shown (zero width,
    direction, soft hyphen, control), or by the form of a dash or a quotation mark, which word processors change.
    """
    by_look: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        by_look[_look(label)].add(label)
    return sorted(tuple(sorted(same)) for same in by_look.values() if len(same) > 1)


def _look(label: str) -> str:
    shown = "".join(map(_shown, unicodedata.normalize("NFC", label)))
    return " ".join(shown.split())


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    kind = unicodedata.category(character)
    if kind in ("Cf", "Cc") or "\ufe00" <= character <= "\ufe0f":
        return ""
    return "-" if kind == "Pd" or character == "\u2212" else _QUOTES.get(character, character)


_QUOTES = dict.fromkeys("\u2018\u2019\u201b\u02bc\u00b4", "'") | dict.fromkeys("\u201c\u201d\u201f", '"')


def read_labels(csv: Path, column: str) -> dict[str, Any]:
    """`labels` and `unlabelled` of `SplitLabels`, as JSON values. A row of the wrong length fails alone, elsewhere.

    Raises ContractError where the CSV cannot be read or has no such column.
    """
    table = read_cells(csv, [column])
    header = next(table)
    at, whole = header.index(column), (pair for pair in enumerate(table) if len(pair[1]) == len(header))
    labels: set[str] = set()
    unlabelled = []
    for row, cells in whole:
        if cells[at].strip():
            labels.add(cells[at])
        else:
            unlabelled.append(row)
    return {"labels": sorted(labels), "unlabelled": unlabelled}


def check_labels(
    column: str, train: SplitLabels, evaluated: Sequence[SplitLabels], classes: int | None, *, ids_from_train: bool
) -> None:
    """Raises ContractError for labels that no probe can be trained or scored on, before anything is extracted.

    Such are an empty one, two that a person would take for one, and another number of train's classes than `classes`.
    With `ids_from_train` (all but LARYBench's recipe) so is a label that an evaluated split alone has.
    """
    for split in (train, *evaluated):
        _require_all(split, column)
    for same in alike(label for split in (train, *evaluated) for label in split.labels):
        raise ContractError(
            f"{train.csv.parent}: labels {' and '.join(map(repr, same))} in column {column!r} {DIFFER}, and would "
            "be classes of their own; write them alike in the CSVs"
        )
    _require_classes(train, classes, column)
    for split in evaluated if ids_from_train else ():
        if unknown := sorted(set(split.labels) - set(train.labels)):
            raise ContractError(
                f"{split.csv}: {_listed(unknown)} in column {column!r}: {train.csv} has no such label, and a probe "
                "cannot predict a class it never saw; remove the rows or add the class to train"
            )


def _require_all(split: SplitLabels, column: str) -> None:
    if split.unlabelled:
        more = f" and {len(split.unlabelled) - 1} more rows" if len(split.unlabelled) > 1 else ""
        raise ContractError(
            f"{split.csv}: row {split.unlabelled[0]}{more}: column {column!r} is empty; give each row its label or "
            "take it out"
        )


def _require_classes(train: SplitLabels, classes: int | None, column: str) -> None:
    found = len(train.labels)
    if found < 2:
        raise ContractError(f"{train.csv}: {found} classes in column {column!r}; nothing to distinguish")
    if classes is not None and found != classes:
        raise ContractError(
            f"{train.csv}: {found} classes in column {column!r}, the dataset card says {classes}; correct classes: in "
            "the card or use the whole CSV"
        )


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return f"{'label' if len(labels) == 1 else 'labels'} {', '.join(map(repr, labels[:SHOWN]))}{more}"
