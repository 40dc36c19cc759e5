"""Held-out measures of a tokenizer, with the controls without which they say nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from lary_parts.measures import effective_rank, other_rows, perplexity, squares
from lary_trainer.trainee import Batch
from torch import Tensor

from lary_lara.network import Tokenizer

Batches = Callable[[], Iterable[Batch]]


@dataclass
class Read:
    """What a pass over the held-out rows leaves."""

    rows: int = 0
    values: int = 0
    squares: dict[str, float] = field(default_factory=lambda: {"rec": 0.0, "copy": 0.0})
    carried: list[Tensor] = field(default_factory=list)
    embeddings: list[Tensor] = field(default_factory=list)
    indices: list[Tensor] = field(default_factory=list)


def measure_tokenizer(network: Tokenizer, batches: Batches) -> dict[str, float]:
    """`measures_of` what is read in a first pass."""
    return measures_of(network, batches, read_held_out(network, batches))


@torch.no_grad()
def read_held_out(network: Tokenizer, batches: Batches) -> Read:
    """One pass over the rows."""
    read = Read()
    for batch in batches():
        _read(network, batch, read)
    return read


@torch.no_grad()
def measures_of(network: Tokenizer, batches: Batches, read: Read) -> dict[str, float]:
    """Squared errors per pixel value, in the network's pixel convention, and how the codes are used.

    `rec`: of the prediction with the row's own code. `copy`: of the first frame in the second's stead. `shuffled`:
    with another row's code. `perplexity`, `codes_used`: of the codebook; `effective_rank`: of the embeddings, flat.
    """
    if not read.rows:
        return {}
    measured = {name: total / read.values for name, total in read.squares.items()}
    if network.config.latent == "none":
        return measured
    indices = torch.cat(read.indices)
    return measured | {
        "shuffled": _shuffled(network, batches, torch.cat(read.carried)) / read.values,
        "perplexity": perplexity(indices, network.config.codes),
        "codes_used": float((torch.bincount(indices.flatten()) > 0).sum()),
        "effective_rank": effective_rank(torch.cat(read.embeddings)),
    }


def _read(network: Tokenizer, batch: Batch, read: Read) -> None:
    first, target = network.pixels(batch.frames).unbind(1)
    latent = network.latent(network.features(first), network.features(target))
    carried = network.carried(latent)
    read.squares["rec"] += squares(network.decode(first, carried), target)
    read.squares["copy"] += squares(first, target)
    read.rows += len(first)
    read.values += target.numel()
    for kept, part in (
        (read.carried, carried),
        (read.embeddings, latent.embeddings.flatten(1)),
        (read.indices, latent.indices),
    ):
        kept.append(part.cpu())


def _shuffled(network: Tokenizer, batches: Batches, carried: Tensor) -> float:
    other, done, total = other_rows(len(carried), "shuffled codes"), 0, 0.0
    for batch in batches():
        first, target = network.pixels(batch.frames).unbind(1)
        codes = carried[other[done : done + len(first)]].to(first.device)
        total += squares(network.decode(first, codes), target)
        done += len(first)
    return total
