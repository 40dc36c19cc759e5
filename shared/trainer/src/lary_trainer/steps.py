"""One step: the gradient of the whole batch's objective, in one pass or in parts, then the update.

Losses may couple all rows of a batch (a contrastive one does), and memory may be too short for all of them, or they may
be spread over processes. Then the outputs of all rows are made without gradient first, the losses are taken on them,
and each part is run again with the gradient of its outputs (gradient caching: Gao et al., 2021).
"""

import gc
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lary_schema.base import ContractError, DivergedError, OutOfMemoryError
from lary_schema.training import Recipe
from torch import nn

from lary_trainer.schedule import Rates
from lary_trainer.trainee import Batch, Outputs, Trainee
from lary_trainer.world import RanOutError, World, ran_out

GRADIENT = "gradient"
TOTAL = "total"
"""Names beside the terms: the norm of the gradient before clipping, and the weighted sum."""


@dataclass(frozen=True)
class Stepped:
    """What a step found."""

    figures: dict[str, float]
    """Every term, `total` and `gradient`."""
    batch: Batch
    """The whole batch."""


@dataclass
class Stepper:
    """Updates a network."""

    trainee: Trainee
    network: nn.Module
    optimiser: torch.optim.Optimizer
    rates: Rates
    world: World
    device: torch.device
    bf16: bool
    micro_batch: int
    """Rows of one forward pass."""
    halved: Callable[[int], None]
    """Called with the new number."""
    whole: Callable[[Batch, Sequence[int]], Batch]
    """The batch of all processes, of this one's part and the number of rows in each."""

    def __post_init__(self) -> None:
        self._recipe: Recipe = self.trainee.recipe
        self._named = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        self._parameters = [p for _, p in self._named]

    def step(self, batch: Batch, counts: list[int]) -> Stepped:
        """Do a step with this process's part of a batch; `counts` are the rows of each process, none of them 0.

        Raises DivergedError naming step and term, OutOfMemoryError where one row is too much, and ContractError for
        terms that are not those of the recipe.
        """
        while True:
            self.optimiser.zero_grad(set_to_none=True)
            try:
                terms, outputs, whole = self._gradients(batch, counts)
                break
            except RanOutError:
                pass
            self._halve(max(counts))
        figures = self._checked(terms, batch.step)
        self._update(outputs, whole)
        return Stepped(figures, whole)

    # --- gradients --------------------------------------------------------------------------------

    def _gradients(self, batch: Batch, counts: list[int]) -> tuple[dict[str, torch.Tensor], Outputs, Batch]:
        if self.world.size == 1 and self.micro_batch >= len(batch.rows):
            return self.world.attempt(lambda: self._in_one_pass(batch))
        offset = sum(counts[: self.world.rank])
        parts = [(at, part(batch, at, at + self.micro_batch)) for at in range(0, len(batch.rows), self.micro_batch)]
        outputs = self.world.attempt(lambda: self._without_gradient(parts, offset))
        leaves = {name: self.world.gather(outputs[name], counts) for name in sorted(outputs)}
        whole = self.whole(batch, counts)
        terms, gradients = self.world.attempt(lambda: self._of_outputs(leaves, whole))
        mine = {name: gradient[offset : offset + len(batch.rows)] for name, gradient in gradients.items()}
        self.world.attempt(lambda: self._with_gradient(parts, offset, mine))
        self.world.sum_gradients(self._parameters)
        return terms, {name: leaf.detach() for name, leaf in leaves.items()}, whole

    def _in_one_pass(self, batch: Batch) -> tuple[dict[str, torch.Tensor], Outputs, Batch]:
        outputs = self._forward(batch, 0)
        terms = self._backward(outputs, batch)
        return terms, {name: output.detach() for name, output in outputs.items()}, batch

    def _without_gradient(self, parts: list[tuple[int, Batch]], offset: int) -> Outputs:
        with torch.no_grad():
            made = [self._forward(some, offset + at) for at, some in parts]
        return {name: torch.cat([outputs[name] for outputs in made]) for name in made[0]}

    def _of_outputs(self, leaves: Outputs, whole: Batch) -> tuple[dict[str, torch.Tensor], Outputs]:
        """Terms, and the gradient of each output that has one."""
        for leaf in leaves.values():
            leaf.requires_grad_(leaf.is_floating_point())
        terms = self._backward(leaves, whole)
        direct = [name for name, parameter in self._named if parameter.grad is not None]
        if direct:
            raise ContractError(
                f"trainee {self._recipe.trainee}: `losses` uses the parameter {direct[0]} itself; parameters belong "
                "in `forward`, whose outputs the losses read (else micro-batches and several processes are wrong)"
            )
        return terms, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    def _with_gradient(self, parts: list[tuple[int, Batch]], offset: int, gradients: Outputs) -> bool:
        for at, some in parts:
            outputs = self._forward(some, offset + at)
            used = [name for name in gradients if outputs[name].requires_grad]
            # Of an output that does not depend on a parameter nothing flows back.
            if used:
                torch.autograd.backward(
                    [outputs[name] for name in used], [gradients[name][at : at + len(some.rows)] for name in used]
                )
        return True

    def _forward(self, batch: Batch, first: int) -> Outputs:
        """Outputs of some rows, `first` the position of the first of them in the whole batch."""
        seed_torch(batch.seed, "forward", batch.step, first)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = self.trainee.forward(self.network, batch)
        for name, output in outputs.items():
            if len(output) != len(batch.rows):
                raise ContractError(
                    f"trainee {self._recipe.trainee}: output {name!r} has {len(output)} entries for "
                    f"{len(batch.rows)} rows"
                )
        return {name: output.float() if output.dtype == torch.bfloat16 else output for name, output in outputs.items()}

    def _backward(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        seed_torch(batch.seed, "losses", batch.step, 0)
        terms = self.trainee.losses(outputs, batch)
        self._require_terms(set(terms))
        total = sum((w * terms[name] for name, w in self._recipe.losses.items() if w), torch.zeros(()))
        if not total.requires_grad:
            raise ContractError(
                f"recipe {self._recipe.key}: its losses move no parameter; give a term a weight above 0"
            )
        total.backward()  # type: ignore[no-untyped-call]
        return {**{name: term.detach() for name, term in terms.items()}, TOTAL: total.detach()}

    def _require_terms(self, found: set[str]) -> None:
        planned = set(self._recipe.losses)
        problems = []
        if unweighted := sorted(found - planned):
            problems.append(f"trainee {self._recipe.trainee} computes {', '.join(unweighted)} without a weight")
        if missing := sorted(planned - found):
            problems.append(f"{', '.join(missing)} has a weight, and the trainee computes no such term")
        if problems:
            raise ContractError(f"recipe {self._recipe.key}: losses: {'; '.join(problems)}; correct losses:")

    # --- the update -------------------------------------------------------------------------------

    def _checked(self, terms: dict[str, torch.Tensor], step: int) -> dict[str, float]:
        """Clip, and look at all numbers at once. Raises DivergedError."""
        limit = self._recipe.optimiser.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self._parameters, limit)
        names = [*terms, GRADIENT]
        values = torch.stack([value.double().to(norm.device) for value in (*terms.values(), norm)]).tolist()
        figures: dict[str, float] = dict(zip(names, values, strict=True))
        weighted = [name for name, weight in self._recipe.losses.items() if weight]
        for name in [*weighted, TOTAL]:
            if not math.isfinite(figures[name]):
                raise DivergedError(self._diverged(step, f"loss term {name!r} is {figures[name]}"))
        if not math.isfinite(figures[GRADIENT]):
            bad = [n for n, p in self._named if p.grad is not None and not bool(torch.isfinite(p.grad).all())]
            where = f"of {bad[0]} " if bad else ""
            raise DivergedError(self._diverged(step, f"the gradient {where}is not finite"))
        return figures

    def _diverged(self, step: int, what: str) -> str:
        return (
            f"step {step}: {what}; the states before it are kept. A lower rate, a longer warm-up or a clip: in the "
            "recipe's optimiser makes another training"
        )

    def _update(self, outputs: Outputs, whole: Batch) -> None:
        self.rates.set(self.optimiser, whole.step)
        try:
            self.optimiser.step()
            with torch.no_grad():
                seed_torch(whole.seed, "after", whole.step, 0)
                self.trainee.after_step(self.network, outputs, whole)
        except (RuntimeError, MemoryError) as error:
            # Half an update cannot be tried again with smaller parts.
            if not ran_out(error):
                raise
            raise OutOfMemoryError(
                f"step {whole.step}: the optimiser's state does not fit on {self.device}; use a larger device"
            ) from None

    def _halve(self, most: int) -> None:
        tried = min(self.micro_batch, most)
        if tried == 1:
            raise OutOfMemoryError(
                f"recipe {self._recipe.key}: one row alone runs out of memory on {self.device}; use a larger device"
            )
        self.micro_batch = tried // 2
        self.optimiser.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.halved(self.micro_batch)


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Some rows of a batch."""
    return Batch(
        seed=batch.seed,
        step=batch.step,
        rows=batch.rows[start:stop],
        frames=batch.frames[start:stop],
        actions=None if batch.actions is None else batch.actions[start:stop],
        labelled=None if batch.labelled is None else batch.labelled[start:stop],
        text=batch.text[start:stop],
        latents={name: values[start:stop] for name, values in batch.latents.items()},
    )


def seed_torch(seed: int, purpose: str, step: int, first: int) -> None:
    """What torch's own generator gives (dropout) depends on the step, not on what was drawn before."""
    digest = hashlib.sha256(f"{seed} {purpose} {step} {first}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
