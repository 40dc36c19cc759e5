"""LAQ files may hold a copy of the frozen network they were trained on. It is not loaded, but compared."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from lary_schema.base import WeightsError
from lary_worker.checkpoints import Renames, State, renamed
from torch import nn

_LOG = logging.getLogger(__name__)


def compare_copy(
    state: State,
    prefix: str,
    network: nn.Module,
    *,
    renames: Renames,
    skippable: Sequence[str],
    where: Path,
    source: Path,
) -> None:
    """Raise WeightsError where tensors of `state` below `prefix` have other values than those of `network`.

    `network` was loaded from `source`. `renames` lead from the names of either side to common ones: a file
    keeps the names of the library version that wrote it. Of names that stay unknown, nothing can be said:
    they are logged, since no latent depends on the copy. `skippable` are those of parts that `network` leaves out.
    """
    copy = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    copy = {name: tensor for name, tensor in copy.items() if not any(re.match(s, name) for s in skippable)}
    loaded = {renamed(name, renames): tensor for name, tensor in network.state_dict().items()}
    partners = {name: loaded.get(renamed(name, renames)) for name in copy}
    unknown = [name for name, partner in partners.items() if partner is None]
    if unknown:
        _LOG.warning(
            "%s: %d of %d tensors below %s were not compared with %s, first %s: unknown names",
            *(where, len(unknown), len(copy), prefix, source, unknown[0]),
        )
    other = [name for name, partner in partners.items() if partner is not None and not _same(copy[name], partner)]
    if other:
        raise WeightsError(
            f"{where}: was trained on another network than {source}: {len(other)} of the {len(copy)} tensors that it "
            f"keeps below {prefix} have other values, first {other[0]}; put the network that it was trained on there"
        )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in the shorter of the two floating types: a copy may be kept in half precision, and so may `network`."""
    if a.shape != b.shape:
        return False
    dtype = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(a.to(dtype), b.to(a.device, dtype))
