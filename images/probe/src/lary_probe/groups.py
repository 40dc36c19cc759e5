"""Which rows of a split are not independent of each other."""

from dataclasses import dataclass

import numpy as np
from lary_schema.groups import Grouping, group_of
from numpy.typing import NDArray

from lary_probe.latents import Latents
from lary_probe.metadata import SplitMetadata


@dataclass(frozen=True)
class Groups:
    """The groups of a split's rows with a latent."""

    codes: NDArray[np.int64]
    """(n,) equal within a group, 0 .. groups - 1; where rows are taken as independent, 0 .. n - 1."""
    names: tuple[str, ...] | None
    """By code; None where rows are taken as independent."""

    @property
    def count(self) -> int:
        return int(self.codes.max()) + 1

    @property
    def declared(self) -> NDArray[np.int64] | None:
        """The codes where the dataset has groups."""
        return None if self.names is None else self.codes


def groups_of(metadata: SplitMetadata, latents: Latents, grouping: Grouping | None) -> Groups:
    """Raises ContractError naming file and row of a row without a group."""
    if grouping is None:
        return Groups(np.arange(len(latents)), None)
    found: dict[str, int] = {}
    cells = (group_of(metadata.row(row), grouping, str(metadata.path)) for row in latents.rows.tolist())
    codes = np.fromiter((found.setdefault(cell, len(found)) for cell in cells), np.int64, len(latents))
    names = sorted(found)
    ranks = np.empty(len(names), np.int64)
    ranks[[found[name] for name in names]] = np.arange(len(names))
    return Groups(ranks[codes], tuple(names))
