"""What a probe was trained and scored on, as one hash: ground truth that changed under the same CSV shows in it."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from lary_schema.base import canonical_json
from numpy.typing import NDArray

Codes = NDArray[np.uint64]
"""(n,) a hash of each row's target."""


def target_codes(targets: NDArray[Any] | Sequence[str | None]) -> Codes:
    """Equal where a row's target is equal, whichever other rows there are: models may fail on different ones."""
    if isinstance(targets, np.ndarray):
        codes = (_code(np.ascontiguousarray(row).tobytes()) for row in targets)
    else:
        of = {label: _code(canonical_json(label)) for label in set(targets)}
        codes = (of[label] for label in targets)
    return np.fromiter(codes, np.uint64, len(targets))


def _code(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")


def targets_sha256(splits: Iterable[NDArray[Any] | Sequence[str]]) -> str:
    """sha256 (hex) of each split's targets in row order, train first.

    Numbers are hashed with their shape and dtype, labels as text: in the order of the rows, never as class
    ids, which depend on the other labels.
    """
    digest = hashlib.sha256()
    for targets in splits:
        if isinstance(targets, np.ndarray):
            digest.update(canonical_json({"dtype": targets.dtype.str, "shape": targets.shape}))
            digest.update(np.ascontiguousarray(targets).data)
        else:
            digest.update(canonical_json(list(targets)))
    return digest.hexdigest()
