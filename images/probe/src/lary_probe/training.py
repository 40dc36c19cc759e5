"""The loop both probes share: networks side by side on the same batches, each epoch predicted once."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lary_probe.latents import Latents, Positions
from lary_probe.sampling import Share, deal, even_size, steps_per_epoch
from lary_probe.session import Session

Schedule = Callable[[int, int], float]
"""(step, all steps) -> factor of the learning rate at that step, counted from 0."""


def cosine(step: int, total: int) -> float:
    """From 1 at the first step towards 0 after the last."""
    return 0.5 * (1 + math.cos(math.pi * step / total))


def warm_up(share: float) -> Schedule:
    """Rises linearly from 0 over `share` of all steps, rounded down, and stays at 1.

    The first step moves nothing: so does diffusers' `get_constant_schedule_with_warmup`, which LARYBench takes.
    """

    def factor(step: int, total: int) -> float:
        rising = int(share * total)
        return step / rising if step < rising else 1.0

    return factor


@dataclass
class Head:
    """One network with its optimiser."""

    network: nn.Module
    parallel: nn.Module
    """The same network as training calls it: between several processes it averages gradients."""
    optimiser: torch.optim.Optimizer
    lr: float


Network = Callable[..., Tensor]


@dataclass(frozen=True)
class Draw:
    """What chance may depend on in a training step: the epoch and the rows, never the batch or the process."""

    epoch: int
    """Counted from 0."""
    rows: NDArray[np.int64]
    """(B,) row numbers in the CSV."""


def ask_directly(network: Network, tokens: Tensor, targets: Tensor, _draw: Draw) -> tuple[Tensor, Tensor]:
    """The network's output is held against the targets themselves."""
    return network(tokens), targets


def answer_directly(network: nn.Module, tokens: Tensor, _rows: NDArray[np.int64]) -> Tensor:
    """The network's output is the answer."""
    out: Tensor = network(tokens)
    return out


@dataclass(frozen=True)
class Plan:
    """How heads are trained."""

    epochs: int
    batch_size: int
    """Of all processes together."""
    schedule: Schedule
    loss: Callable[[Tensor, Tensor], Tensor]
    """(output, target) -> scalar."""
    read_out: Callable[[Tensor], Tensor]
    """Output of a batch -> what is kept of it: class ids, or values."""
    order: Callable[[int, int], Positions]
    """(epoch, size) -> positions to train on, in order."""
    bf16: bool = False
    ask: Callable[[Network, Tensor, Tensor, Draw], tuple[Tensor, Tensor]] = ask_directly
    """In training: (network, tokens, targets, draw) -> an output, and what it should have been."""
    answer: Callable[[nn.Module, Tensor, NDArray[np.int64]], Tensor] = answer_directly
    """In evaluation: (network, tokens, row numbers) -> an output for `read_out`."""


@dataclass(frozen=True)
class Part:
    """Rows of one split: what is trained on, held out or evaluated."""

    latents: Latents
    positions: Positions
    """In `latents`, the rows of this part."""
    targets: NDArray[Any]
    """Of these rows: (n,) class ids or (n, out) values."""

    def __len__(self) -> int:
        return len(self.positions)

    def rows(self, places: Positions) -> NDArray[np.int64]:
        """Row numbers in the CSV of some places in `positions`."""
        return self.latents.rows[self.positions[places]]


@dataclass(frozen=True)
class EpochOutput:
    """After one epoch, counted from 1."""

    epoch: int
    train: NDArray[np.float64]
    """(heads,) share of hits (class ids) or MSE (values) over the epoch's training batches, of what was asked."""
    predicted: dict[str, NDArray[Any]]
    """By part: (heads, n) class ids or (heads, n, out) values."""


def make_head(session: Session, network: nn.Module, lr: float, weight_decay: float) -> Head:
    """Place a network and give it its AdamW (torch's other defaults)."""
    accelerator = session.accelerator
    # For one process `prepare` does no more than `to`, and imports the distributed package (2 s).
    network.to(accelerator.device)
    parallel = accelerator.prepare(network) if accelerator.num_processes > 1 else network
    return Head(network, parallel, torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay), lr)


def weights_of(head: Head) -> dict[str, Tensor]:
    """A copy of the network's present weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in head.network.state_dict().items()}


def train(
    session: Session, heads: list[Head], plan: Plan, fit: Part, evaluated: Mapping[str, Part]
) -> Iterator[EpochOutput]:
    """Train on `fit`; after each epoch predict every row of every part in `evaluated` once."""
    accelerator = session.accelerator
    total = plan.epochs * steps_per_epoch(len(fit), plan.batch_size)
    step = 0
    for epoch in range(plan.epochs):
        order = plan.order(epoch, len(fit))
        shares = deal(order, plan.batch_size, accelerator.process_index, accelerator.num_processes)
        reader = fit.latents.batches([fit.positions[s.positions] for s in shares], accelerator.device)
        scores = torch.zeros(len(heads), dtype=torch.float64, device=accelerator.device)
        for share, tokens in zip(shares, reader, strict=True):
            draw, factor = Draw(epoch, fit.rows(share.positions)), plan.schedule(step, total)
            scores += _train_step(session, heads, plan, tokens, fit.targets, share, draw, factor)
            step += 1
            session.step()
        predicted = {name: predict(session, heads, plan, part) for name, part in evaluated.items()}
        summed = accelerator.reduce(scores, reduction="sum").cpu().numpy()
        yield EpochOutput(epoch + 1, summed / len(order), predicted)


def predict(session: Session, heads: list[Head], plan: Plan, part: Part) -> NDArray[Any]:
    """(heads, n, ...) read-outs in float32 arithmetic, every row exactly once."""
    accelerator = session.accelerator
    # Gathering takes as many rows from each process: the first rows fill up the last batch and are cut off again.
    processes = accelerator.num_processes
    padded = np.resize(part.positions, even_size(len(part), processes))
    shares = deal(padded, even_size(plan.batch_size, processes), accelerator.process_index, processes)
    outputs: list[list[Tensor]] = [[] for _ in heads]
    for head in heads:
        head.network.eval()
    with torch.inference_mode():
        reader = part.latents.batches([s.positions for s in shares], accelerator.device)
        for share, tokens in zip(shares, reader, strict=True):
            rows = part.latents.rows[share.positions]
            for head, kept in zip(heads, outputs, strict=True):
                kept.append(_gather(session, plan.read_out(plan.answer(head.network, tokens, rows))))
            session.alive("evaluating")
    return np.stack([torch.cat(kept)[: len(part)].cpu().numpy() for kept in outputs])


def _train_step(
    session: Session,
    heads: list[Head],
    plan: Plan,
    tokens: Tensor,
    targets: NDArray[Any],
    share: Share,
    draw: Draw,
    factor: float,
) -> Tensor:
    """One step of every head; (heads,) scores summed over this process's rows of the batch."""
    device = session.accelerator.device
    wanted = torch.from_numpy(targets[share.positions]).to(device)
    scores = []
    for head in heads:
        head.parallel.train()
        for group in head.optimiser.param_groups:
            group["lr"] = head.lr * factor
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
            output, asked = plan.ask(head.parallel, tokens, wanted, draw)
            loss = plan.loss(output, asked)
        session.accelerator.backward(loss * share.weight)
        head.optimiser.step()
        head.optimiser.zero_grad()
        scores.append(_train_score(plan.read_out(output.detach()), asked))
    return torch.stack(scores) * (share.weight > 0)


def _train_score(read_out: Tensor, wanted: Tensor) -> Tensor:
    """Hits (class ids) or squared errors averaged over dimensions (values), summed over the batch."""
    if wanted.is_floating_point():
        return (read_out - wanted).square().flatten(1).mean(dim=1).sum().double()
    return (read_out == wanted).double().sum()


def _gather(session: Session, mine: Tensor) -> Tensor:
    """One global batch that `deal` dealt out, put together again in order."""
    processes = session.accelerator.num_processes
    gathered: Tensor = session.accelerator.gather(mine)
    return gathered.view(processes, -1, *mine.shape[1:]).transpose(0, 1).flatten(0, 1)
