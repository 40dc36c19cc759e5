"""The regression heads: the network of a recipe, and how it is trained and evaluated."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.cards import ProtocolCard, RegressRecipe
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lary_probe.ddpm import Ddpm
from lary_probe.dit import Dit
from lary_probe.mlp import ResidualMlp
from lary_probe.noise import key_of, normals, uniforms
from lary_probe.sampling import shuffled_order
from lary_probe.session import Session
from lary_probe.streams import Streams
from lary_probe.training import Draw, Head, Network, Plan, make_head, warm_up


class Shape(NamedTuple):
    """What is predicted of a row: `steps` actions of `dim` values; a relative target is one step."""

    steps: int
    dim: int


def make_network(protocol: ProtocolCard, inputs: int, shape: Shape) -> nn.Module:
    """The recipe's network for rows of `inputs` values. Raises ContractError for a recipe that fits none."""
    recipe = protocol.regress
    assert recipe.head != "linear"  # No network: see `regress_linear`.
    if recipe.head == "mlp":
        return ResidualMlp(inputs, shape.steps * shape.dim, width=recipe.width, blocks=recipe.blocks)
    dit = recipe.dit
    if dit.width % dit.heads:
        raise ContractError(f"protocol {protocol.key}: dit width {dit.width} is no multiple of {dit.heads} heads")
    if dit.sample_steps > dit.train_steps:
        raise ContractError(
            f"protocol {protocol.key}: dit sample_steps {dit.sample_steps} are more than {dit.train_steps} train_steps"
        )
    return Dit(inputs, shape.steps, shape.dim, width=dit.width, depth=dit.depth, heads=dit.heads)


def make_head_of(session: Session, inputs: int, shape: Shape) -> Head:
    """The recipe's head on its device, with its optimiser."""
    protocol = session.job.protocol
    return make_head(session, make_network(protocol, inputs, shape), protocol.regress.lr, protocol.regress.weight_decay)


def make_plan(recipe: RegressRecipe, shape: Shape, rows: int, streams: Streams, tick: Callable[[], None]) -> Plan:
    """How the head is trained on `rows` rows: in a new random order each epoch, without mixed precision.

    `tick` is called now and then while a batch is predicted.
    """
    plan = partial(
        Plan,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        schedule=warm_up(recipe.warmup),
        loss=partial(functional.huber_loss, delta=recipe.huber_delta),
        read_out=_identity,
        order=lambda epoch, size: shuffled_order(rows, size, streams.order(epoch)),
    )
    if recipe.head == "mlp":
        return plan()
    diffusion = Diffusion(recipe, shape, streams.seed, tick)
    return plan(compare=diffusion.compare, predict=diffusion.predict)


class Diffusion:
    """How a DiT is trained and sampled. Whatever is random follows from the seed, the row and the epoch or step."""

    def __init__(self, recipe: RegressRecipe, shape: Shape, seed: int, tick: Callable[[], None]) -> None:
        self.shape, self.seed, self.tick = shape, seed, tick
        self.dropout = recipe.dit.condition_dropout
        self.ddpm = Ddpm(recipe.dit.train_steps)
        self.steps = self.ddpm.steps(recipe.dit.sample_steps)

    def compare(self, network: Network, tokens: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """The noise that the network sees in noisy targets, and the noise that is there; (B, steps, dim) each."""
        rows = torch.from_numpy(draw.rows).to(tokens.device)
        noise = self._normals(rows, "noise", draw.epoch)
        t = (uniforms(key_of(self.seed, "time", draw.epoch), rows) * self.ddpm.train_steps).long()
        dropped = uniforms(key_of(self.seed, "dropout", draw.epoch), rows) < self.dropout
        return network(self.ddpm.noisy(targets.view_as(noise), noise, t), t, tokens, dropped), noise

    def predict(self, network: nn.Module, tokens: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """(B, steps * dim) actions, sampled from noise."""
        assert isinstance(network, Dit)
        row_numbers, condition = torch.from_numpy(rows).to(tokens.device), network.condition(tokens)
        sample = self._normals(row_numbers, "start", 0)
        for step in self.steps:
            predicted = network.denoise(sample, torch.tensor([step.t], device=tokens.device), condition)
            sample = step.back(sample, predicted, self._normals(row_numbers, "step", step.t))
            self.tick()
        return sample.flatten(1)

    def _normals(self, rows: Tensor, purpose: str, at: int) -> Tensor:
        """(B, steps, dim)."""
        key, (steps, dim) = key_of(self.seed, purpose, at), (self.shape.steps, self.shape.dim)
        return normals(key, rows, steps * dim).view(-1, steps, dim)


def _identity(output: Tensor) -> Tensor:
    return output
