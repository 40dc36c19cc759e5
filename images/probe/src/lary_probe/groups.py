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
    cells = [group_of(metadata.row(row), grouping, str(metadata.path)) for row in latents.rows.tolist()]
    names, codes = np.unique(np.array(cells), return_inverse=True)
    return Groups(codes.astype(np.int64), tuple(names.tolist()))
