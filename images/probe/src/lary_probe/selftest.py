"""All heads of the probes trained for a moment on random numbers, without a store: does this installation compute?"""

import os
import time

import torch
from lary_schema.base import ContractError
from lary_schema.events import Emit, Finished, Started
from torch import Tensor, nn
from torch.nn import functional

from lary_probe.adamw import AdamW
from lary_probe.attentive import AttentiveClassifier
from lary_probe.dit import Dit
from lary_probe.mlp import ResidualMlp

HEADS = 3
STEPS = 20
ROWS, TIME, TOKENS, DIM = 8, 2, 3, 16


def selftest(emit: Emit) -> None:
    """Raises ContractError where a probe has not the declared shape or does not learn eight rows by heart."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    emit(Started(job="selftest", total=HEADS * STEPS, unit="steps", device=device.type, pid=os.getpid()))
    torch.manual_seed(0)
    torch.set_num_threads(1)  # On such small numbers more threads only wait for each other.
    tokens = torch.randn(ROWS, TIME, TOKENS, DIM, device=device)
    classifier = AttentiveClassifier(DIM, ROWS, width=32, depth=2, heads=4, time_axis=True).to(device)
    _learn("classifier", classifier, tokens, torch.arange(ROWS, device=device))
    regressor = ResidualMlp(TIME * TOKENS * DIM, 5, width=32, blocks=2).to(device)
    _learn("regressor", regressor, tokens, torch.randn(ROWS, 5, device=device))
    _learn("diffusion head", _Denoiser().to(device), tokens, torch.randn(ROWS, 2, 5, device=device))
    emit(Finished(job="selftest", done=HEADS * STEPS, per_second=HEADS * STEPS / (time.monotonic() - began)))


class _Denoiser(nn.Module):
    """A DiT that is given the tokens alone: the same noise at the same time step, rows with and without condition."""

    def __init__(self) -> None:
        super().__init__()
        self.dit = Dit(TIME * TOKENS * DIM, 2, 5, width=32, depth=2, heads=4)

    def forward(self, tokens: Tensor) -> Tensor:
        t, dropped = torch.arange(ROWS, device=tokens.device), torch.zeros(ROWS, dtype=torch.bool, device=tokens.device)
        noise: Tensor = self.dit(tokens.new_ones(ROWS, 2, 5), t, tokens, dropped)
        return noise


def _learn(name: str, network: nn.Module, tokens: Tensor, targets: Tensor) -> None:
    loss = functional.huber_loss if targets.is_floating_point() else functional.cross_entropy
    optimiser = AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        value = loss(network(tokens), targets)
        optimiser.zero_grad()
        torch.autograd.backward(value)
        optimiser.step()
        losses.append(value.item())
    if not losses[-1] < losses[0] / 2:
        raise ContractError(f"selftest: the {name}'s loss went from {losses[0]:.4g} to {losses[-1]:.4g} on {ROWS} rows")
