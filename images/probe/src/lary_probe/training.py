"""The loop both probes share: networks side by side on the same batches, each epoch predicted once."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lary_probe.adamw import AdamW
from lary_probe.latents import Latents, Positions
from lary_probe.sampling import Share, even_size, shares_of, steps_per_epoch
from lary_probe.session import Session

Schedule = Callable[[int, int], float]
"""(step, all steps) -> factor of the learning rate at that step, counted from 0."""


def cosine(step: int, total: int) -> float:
    """cos(pi k / total) shifted to 1..0 with k = step + 1, so the last step moves nothing.

    LARYBench moves its schedule on before the optimiser: k = 1 at the first step.
    """
    return 0.5 * (1 + math.cos(math.pi * (step + 1) / total))


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
    optimiser: AdamW
    lr: float


Network = Callable[..., Tensor]


@dataclass(frozen=True)
class Draw:
    """What chance may depend on in a training step: the epoch and the rows, never the batch or the process."""

    epoch: int
    """Counted from 0."""
    rows: NDArray[np.int64]
    """(B,) row numbers in the CSV."""


def compare_targets(network: Network, tokens: Tensor, targets: Tensor, _draw: Draw) -> tuple[Tensor, Tensor]:
    """The network's output is compared with the targets themselves."""
    return network(tokens), targets


def predict_directly(network: nn.Module, tokens: Tensor, _rows: NDArray[np.int64]) -> Tensor:
    """The network's output is the prediction."""
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
    row_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    """(output, target) -> (B,) losses of an evaluation; None: predictions say enough."""
    bf16: bool = False
    skip_non_finite: bool = False
    """Whether a head's step whose loss or output is not finite is left out, as LARYBench's classification does."""
    compare: Callable[[Network, Tensor, Tensor, Draw], tuple[Tensor, Tensor]] = compare_targets
    """In training: (network, tokens, targets, draw) -> an output, and what it should have been."""
    predict: Callable[[nn.Module, Tensor, NDArray[np.int64]], Tensor] = predict_directly
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

    def rows(self, indices: Positions) -> NDArray[np.int64]:
        """Row numbers in the CSV of some entries of `positions`."""
        return self.latents.rows[self.positions[indices]]


@dataclass(frozen=True)
class EpochOutput:
    """After one epoch, counted from 1."""

    epoch: int
    train: NDArray[np.float64]
    """(heads,) share of hits (class ids) or MSE (values) over the epoch's training batches; for a diffusion head of
    the noise. Skipped steps do not count; NaN where all were."""
    train_loss: NDArray[np.float64]
    """(heads,) mean loss over the same batches, by row."""
    predicted: dict[str, NDArray[Any]]
    """By part: (heads, n) class ids or (heads, n, out) values."""
    losses: dict[str, NDArray[np.float64]]
    """By part: (heads,) mean of the plan's `row_loss`; no part where the plan has none."""


def make_head(session: Session, network: nn.Module, lr: float, weight_decay: float) -> Head:
    """Move a network to the device and give it its AdamW (torch's other defaults)."""
    accelerator = session.accelerator
    # For one process `prepare` does no more than `to`, and imports the distributed package (2 s).
    network.to(accelerator.device)
    parallel = accelerator.prepare(network) if accelerator.num_processes > 1 else network
    return Head(network, parallel, AdamW(network.parameters(), lr, weight_decay), lr)


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
        session.training()
        order = plan.order(epoch, len(fit))
        shares = shares_of(order, plan.batch_size, accelerator.process_index, accelerator.num_processes)
        reader = fit.latents.batches([fit.positions[s.positions] for s in shares], accelerator.device)
        sums = torch.zeros(3, len(heads), dtype=torch.float64, device=accelerator.device)
        for share, tokens in zip(shares, reader, strict=True):
            draw, factor = Draw(epoch, fit.rows(share.positions)), plan.schedule(step, total)
            sums += _train_step(session, heads, plan, tokens, fit.targets, share, draw, factor)
            step += 1
            session.step()
        found = {name: predict(session, heads, plan, part) for name, part in evaluated.items()}
        scores, losses, rows = accelerator.reduce(sums, reduction="sum").cpu().numpy()
        with np.errstate(invalid="ignore"):
            train_score, train_loss = scores / rows, losses / rows
        yield EpochOutput(
            epoch + 1,
            train_score,
            train_loss,
            {name: predicted for name, (predicted, _) in found.items()},
            {name: loss.mean(axis=1) for name, (_, loss) in found.items() if plan.row_loss is not None},
        )


def predict(session: Session, heads: list[Head], plan: Plan, part: Part) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """(heads, n, ...) read-outs in float32 arithmetic, every row exactly once; and (heads, n) losses, or (heads, 0)."""
    accelerator = session.accelerator
    # Gathering takes as many rows from each process: the first rows fill up the last batch and are cut off again.
    processes = accelerator.num_processes
    padded = np.resize(np.arange(len(part)), even_size(len(part), processes))
    shares = shares_of(padded, even_size(plan.batch_size, processes), accelerator.process_index, processes)
    outputs: list[list[Tensor]] = [[] for _ in heads]
    losses: list[list[Tensor]] = [[torch.empty(0)] for _ in heads]
    for head in heads:
        head.network.eval()
    session.alive("evaluating")
    with torch.inference_mode():
        reader = part.latents.batches([part.positions[s.positions] for s in shares], accelerator.device)
        for share, tokens in zip(shares, reader, strict=True):
            for head, kept, lost in zip(heads, outputs, losses, strict=True):
                output = plan.predict(head.network, tokens, part.rows(share.positions))
                kept.append(_gather(session, plan.read_out(output)))
                if plan.row_loss is not None:
                    wanted = torch.from_numpy(part.targets[share.positions]).to(output.device)
                    lost.append(_gather(session, plan.row_loss(output, wanted)).cpu())
            session.alive("evaluating")
    read_out = np.stack([torch.cat(kept)[: len(part)].cpu().numpy() for kept in outputs])
    return read_out, np.stack([torch.cat(lost)[: len(part)].double().numpy() for lost in losses])


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
    """One step of every head; (3, heads): scores, losses and rows, summed over this process's rows of the batch."""
    device = session.accelerator.device
    wanted = torch.from_numpy(targets[share.positions]).to(device)
    sums, finite = [], []
    for head in heads:
        head.parallel.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
            output, compared = plan.compare(head.parallel, tokens, wanted, draw)
            loss = plan.loss(output, compared)
        session.accelerator.backward(loss * share.weight)
        finite.append(torch.isfinite(loss.detach()) & torch.isfinite(output.detach()).all())
        count = torch.tensor(len(wanted), dtype=torch.float64, device=device)
        sums.append(torch.stack([_train_score(plan.read_out(output.detach()), compared), loss.detach() * count, count]))
    taken = _finite_everywhere(session, torch.stack(finite)) if plan.skip_non_finite else [True] * len(heads)
    for head, usable in zip(heads, taken, strict=True):
        head.optimiser.lr = head.lr * factor
        if usable:
            head.optimiser.step()
        head.optimiser.zero_grad()
    counted = torch.tensor(taken, device=device) & (share.weight > 0)
    return torch.where(counted, torch.stack(sums, dim=1), 0.0)


def _finite_everywhere(session: Session, finite: Tensor) -> list[bool]:
    """By head: whether it was finite in every process. One wait for the device a step, after all backward passes."""
    gathered: Tensor = session.accelerator.gather(finite)
    everywhere: list[bool] = gathered.view(-1, len(finite)).all(dim=0).tolist()
    return everywhere


def _train_score(read_out: Tensor, wanted: Tensor) -> Tensor:
    """Hits (class ids) or squared errors averaged over dimensions (values), summed over the batch."""
    if wanted.is_floating_point():
        return (read_out - wanted).square().flatten(1).mean(dim=1).sum().double()
    return (read_out == wanted).double().sum()


def _gather(session: Session, mine: Tensor) -> Tensor:
    """One global batch that `shares_of` assigned to the processes, put together again in order."""
    processes = session.accelerator.num_processes
    gathered: Tensor = session.accelerator.gather(mine)
    return gathered.view(processes, -1, *mine.shape[1:]).transpose(0, 1).flatten(0, 1)
