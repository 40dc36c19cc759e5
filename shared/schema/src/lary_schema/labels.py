"""Class labels of metadata CSVs: which are empty, and which a person would take for one."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Sets of different labels that differ by white space or by Unicode's way to write a letter alone, sorted."""
    by_look: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        by_look[" ".join(unicodedata.normalize("NFC", label).split())].add(label)
    return sorted(tuple(sorted(same)) for same in by_look.values() if len(same) > 1)
