"""Held-out measures of the two-stage model, with the controls without which they say nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from lary_parts.measures import effective_rank, other_rows, perplexity, squares
from lary_trainer.trainee import Batch
from torch import Tensor

from lary_latentvla.univla_network import Found, UnivlaLam

Batches = Callable[[], Iterable[Batch]]


@dataclass
class Read:
    """What a pass over the held-out rows leaves."""

    values: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    carried: list[Tensor] = field(default_factory=list)
    embeddings: list[Tensor] = field(default_factory=list)
    indices: list[Tensor] = field(default_factory=list)
    uncontrolled: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def measure_univla(network: UnivlaLam, batches: Batches) -> dict[str, float]:
    """Squared errors per value of the second frame's features, and how the codes are used.

    `rec`: of the prediction with the row's own codes and text. `copy`: of the first frame's features. `shuffled`: with
    the codes of another row; in stage 2 also `shuffled_controllable` and `shuffled_uncontrolled`, where one kind alone
    is another row's. `perplexity`, `codes_used`: of the codebook that trains, `..._uncontrolled` of that of stage 1.
    `actions`, `mean_action`: of the action head and of the mean, standardised, where a head is trained.
    """
    read = Read()
    for batch, first, target, found in _pairs(network, batches):
        _add(network, batch, (first, target), found, read)
    if not read.values:
        return {}
    measured = {name: read.sums[name] / read.values for name in ("rec", "copy")}
    if network.config.latent == "none":
        return measured
    measured |= _shuffled(network, batches, torch.cat(read.carried), read.values) | _usage(network, read)
    if read.sums["labelled"]:
        measured |= {name: read.sums[name] / read.sums["labelled"] for name in ("actions", "mean_action")}
    return measured


def _pairs(network: UnivlaLam, batches: Batches) -> Iterator[tuple[Batch, Tensor, Tensor, Found]]:
    for batch in batches():
        first, target = (network.features(frames) for frames in network.pixels(batch.frames).unbind(1))
        yield batch, first, target, network.find(first, target, batch.text)


def _add(network: UnivlaLam, batch: Batch, pair: tuple[Tensor, Tensor], found: Found, read: Read) -> None:
    first, target = pair
    read.sums["rec"] += squares(network.decode(first, found.carried, found.text), target)
    read.sums["copy"] += squares(first, target)
    read.values += target.numel()
    read.carried.append(found.carried.cpu())
    read.embeddings.append(found.controllable.embeddings.flatten(1).cpu())
    read.indices.append(found.controllable.indices.cpu())
    if found.uncontrolled is not None:
        read.uncontrolled.append(found.uncontrolled.indices.cpu())
    if network.action_decoder is not None and batch.actions is not None and batch.labelled is not None:
        known = batch.actions[batch.labelled].flatten(1)
        predicted = network.action_decoder(found.controllable.carried.mean(1))[batch.labelled]
        read.sums["actions"] += (predicted - known).square().mean(1).sum().item()
        read.sums["mean_action"] += known.square().mean(1).sum().item()
        read.sums["labelled"] += len(known)


def _usage(network: UnivlaLam, read: Read) -> dict[str, float]:
    def of(indices: Tensor, suffix: str) -> dict[str, float]:
        used = float((torch.bincount(indices.flatten()) > 0).sum())
        return {f"perplexity{suffix}": perplexity(indices, network.config.codes), f"codes_used{suffix}": used}

    found = of(torch.cat(read.indices), "") | {"effective_rank": effective_rank(torch.cat(read.embeddings))}
    return found | of(torch.cat(read.uncontrolled), "_uncontrolled") if read.uncontrolled else found


def _shuffled(network: UnivlaLam, batches: Batches, carried: Tensor, values: int) -> dict[str, float]:
    """Codes of another row: all, or one kind of two."""
    count, other = network.config.tokens, other_rows(len(carried), "shuffled codes")
    sums: dict[str, float] = defaultdict(float)
    done = 0
    for _, first, target, found in _pairs(network, batches):
        theirs = carried[other[done : done + len(first)]].to(first)
        done += len(first)
        mixed = {"shuffled": theirs}
        if found.uncontrolled is not None:
            own = found.carried
            mixed["shuffled_controllable"] = torch.cat((theirs[:, :count], own[:, count:]), dim=1)
            mixed["shuffled_uncontrolled"] = torch.cat((own[:, :count], theirs[:, count:]), dim=1)
        for name, codes in mixed.items():
            sums[name] += squares(network.decode(first, codes, found.text), target)
    return {name: total / values for name, total in sums.items()}
