"""Both regression heads and their training against another formulation: plain functions and an AdamW by hand."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lary_probe.data import open_data
from lary_probe.noise import key_of, normals, uniforms
from lary_probe.regress_heads import Shape, make_head_of, make_network, make_plan
from lary_probe.sampling import shuffled_order
from lary_probe.session import Session, open_session
from lary_probe.streams import Streams
from lary_probe.training import Head, Part, predict, train, warm_up
from lary_schema.cards import DiffusionHead, ProtocolCard, RegressRecipe
from numpy.typing import NDArray
from torch import Tensor

WithProtocol = Callable[..., ProtocolCard]
Weights = dict[str, Tensor]
Loss = Callable[[Weights, Tensor, Tensor, NDArray[np.int64], int], Tensor]
"""(weights, tokens, targets, rows, epoch) -> scalar."""

SHAPE = Shape(2, 3)
SEED, ROWS, BATCH, STEPS, LR, DECAY = 5, 36, 18, 4, 1e-2, 0.3
MLP = RegressRecipe(
    width=16, blocks=2, lr=LR, weight_decay=DECAY, warmup=0.5, huber_delta=0.7, epochs=2, batch_size=BATCH
)
DIT = MLP.model_copy(
    update={
        "head": "dit",
        "dit": DiffusionHead(width=16, depth=2, heads=2, train_steps=60, sample_steps=12, condition_dropout=0.4),
    }
)


def layer_norm(x: Tensor, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + eps)


def affine(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def scaled_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    return layer_norm(x, 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def huber(error: Tensor, delta: float) -> Tensor:
    size = error.abs()
    return torch.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta)).mean()


def mlp(w: Weights, tokens: Tensor) -> Tensor:
    x = affine(scaled_norm(tokens.reshape(len(tokens), -1), w, "enter.0"), w, "enter.1").clamp(min=0)
    for block in range(2):
        x = x + affine(scaled_norm(x, w, f"blocks.{block}.0"), w, f"blocks.{block}.1").clamp(min=0)
    return affine(scaled_norm(x, w, "leave.0"), w, "leave.1")


def mlp_loss(w: Weights, tokens: Tensor, targets: Tensor, rows: NDArray[np.int64], epoch: int) -> Tensor:
    return huber(mlp(w, tokens) - targets, 0.7)


def attention(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    width = x.shape[-1] // heads
    q, k, v = affine(x, w, f"{name}.qkv").split(x.shape[-1], dim=-1)
    parts = []
    for head in range(heads):
        at = slice(head * width, (head + 1) * width)
        weights = torch.softmax(q[..., at] @ k[..., at].transpose(1, 2) / math.sqrt(width), dim=-1)
        parts.append(weights @ v[..., at])
    return affine(torch.cat(parts, dim=-1), w, f"{name}.out")


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def dit(w: Weights, noisy: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    angles = t[:, None] * 10_000 ** (-torch.arange(128, dtype=t.dtype) / 128)
    z = affine(torch.cat([torch.cos(angles), torch.sin(angles)], dim=1), w, "time.0")
    first = affine(z / (1 + torch.exp(-z)), w, "time.2") + affine(condition, w, "tokens")
    x = torch.cat([first[:, None], affine(noisy, w, "action")], dim=1) + w["position"]
    for block in range(2):
        x = x + attention(layer_norm(x, 1e-6), w, f"blocks.{block}.attention", 2)
        hidden = tanh_gelu(affine(layer_norm(x, 1e-6), w, f"blocks.{block}.mlp.0"))
        x = x + affine(hidden, w, f"blocks.{block}.mlp.2")
    return affine(layer_norm(x, 1e-6), w, "leave")[:, 1:]


def alpha_bar(steps: int) -> NDArray[np.float64]:
    curve = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - curve[1:] / curve[:-1], 0.999))


def dit_loss(w: Weights, tokens: Tensor, targets: Tensor, rows: NDArray[np.int64], epoch: int) -> Tensor:
    row_ids = torch.from_numpy(rows)
    noise = normals(key_of(SEED, "noise", epoch), row_ids, 6).double().reshape(-1, 2, 3)
    t = (uniforms(key_of(SEED, "time", epoch), row_ids) * 60).long()
    dropped = uniforms(key_of(SEED, "dropout", epoch), row_ids) < 0.4
    left = torch.from_numpy(alpha_bar(60))[t][:, None, None]
    noisy = left.sqrt() * targets.reshape(-1, 2, 3) + (1 - left).sqrt() * noise
    condition = torch.where(dropped[:, None], w["nothing"], tokens.reshape(len(tokens), -1))
    return huber(dit(w, noisy, t.double(), condition) - noise, 0.7)


def dit_sample(w: Weights, tokens: Tensor, rows: NDArray[np.int64]) -> Tensor:
    row_ids, bar = torch.from_numpy(rows), alpha_bar(60)
    x = normals(key_of(SEED, "start", 0), row_ids, 6).double().reshape(-1, 2, 3)
    for t in range(55, -1, -5):
        left, before = bar[t], bar[t - 5] if t else 1.0
        seen = dit(w, x, torch.full((len(x),), float(t), dtype=torch.float64), tokens.reshape(len(tokens), -1))
        clean = ((x - math.sqrt(1 - left) * seen) / math.sqrt(left)).clamp(-1, 1)
        beta = 1 - left / before
        x = (math.sqrt(before) * beta * clean + math.sqrt(left / before) * (1 - before) * x) / (1 - left)
        if t:
            noise = normals(key_of(SEED, "step", t), row_ids, 6).double().reshape(-1, 2, 3)
            x = x + math.sqrt((1 - before) / (1 - left) * beta) * noise
    return x.flatten(1)


def adamw(weights: Weights, batches: Iterator[tuple[Any, ...]], loss: Loss) -> None:
    """Decoupled weight decay 0.3, lr rising from 0 over half of the four steps."""
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in weights.items()}
    for step, batch in enumerate(batches):
        for p in weights.values():
            p.requires_grad_()
        gradients = torch.autograd.grad(loss(weights, *batch), list(weights.values()))
        lr = LR * [0.0, 0.5, 1.0, 1.0][step]
        for name, g in zip(list(weights), gradients, strict=True):
            m, v = moments[name]
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            unbiased = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            p = weights[name].detach()
            weights[name] = p * (1 - lr * DECAY) - lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8)


class Trained:
    """A head after four steps of the probe's own loop, and its weights before them in float64."""

    def __init__(self, bench: Any, recipe: RegressRecipe, protocol: ProtocolCard) -> None:
        job = bench.job("regress", protocol=protocol.model_copy(update={"regress": recipe}))
        self.targets = np.random.default_rng(3).normal(size=(64, 6)).astype("float32")
        with open_session(job, bench.mounts, lambda event: None) as session:
            self.run(session, open_data(job, bench.mounts, lambda: None).train, recipe)

    def run(self, session: Session, latents: Any, recipe: RegressRecipe) -> None:
        torch.manual_seed(0)
        self.head: Head = make_head_of(session, 8, SHAPE)
        # The DiT's last layer starts at zero, and nothing below it would move in so few steps.
        torch.nn.init.normal_(dict(self.head.network.named_parameters())[self.last(recipe)], std=0.3)
        self.before = {name: p.detach().double() for name, p in self.head.network.named_parameters()}
        positions = np.arange(4, 4 + ROWS)
        fit = Part(latents, positions, self.targets[positions])
        plan = make_plan(recipe, SHAPE, ROWS, Streams(SEED, "upstream"), lambda: None)
        part = Part(latents, np.arange(64), self.targets)
        self.first = predict(session, [self.head], plan, part)[0][0]
        self.tokens = latents.batch(np.arange(64)).double()
        (*_, self.output) = train(session, [self.head], plan, fit, {"all": part})

    def last(self, recipe: RegressRecipe) -> str:
        return "leave.1.weight" if recipe.head == "mlp" else "leave.weight"

    def batches(self) -> Iterator[tuple[Any, ...]]:
        for epoch in range(2):
            order = 4 + shuffled_order(ROWS, ROWS, SEED + epoch)
            for rows in (order[:BATCH], order[BATCH:]):
                yield self.tokens[rows], torch.from_numpy(self.targets[rows]).double(), rows, epoch


def same_weights(head: Head, weights: Weights) -> None:
    for name, p in head.network.named_parameters():
        got, wanted = p.detach().double(), weights[name].detach()
        if name.endswith("qkv.bias"):
            # A bias of all keys alike changes no attention; its gradient is rounding, which Adam blows up.
            got, wanted = (torch.cat([x[:16], x[32:]]) for x in (got, wanted))
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_mlp_forward_and_four_steps(toy_actions: Any, with_protocol: WithProtocol) -> None:
    trained = Trained(toy_actions, MLP, with_protocol())
    np.testing.assert_allclose(trained.first, mlp(trained.before, trained.tokens), rtol=1e-4, atol=1e-5)
    weights = dict(trained.before)
    adamw(weights, trained.batches(), mlp_loss)
    same_weights(trained.head, weights)
    predicted = trained.output.predicted["all"][0]
    np.testing.assert_allclose(predicted, mlp(weights, trained.tokens).detach(), rtol=1e-3, atol=1e-4)
    assert np.abs(predicted - trained.first).max() > 0.1


def test_dit_forward_and_four_steps(toy_actions: Any, with_protocol: WithProtocol) -> None:
    trained = Trained(toy_actions, DIT, with_protocol())
    rows = np.arange(64)
    np.testing.assert_allclose(trained.first, dit_sample(trained.before, trained.tokens, rows), atol=2e-3)
    weights = dict(trained.before)
    adamw(weights, trained.batches(), dit_loss)
    same_weights(trained.head, weights)
    predicted = trained.output.predicted["all"][0]
    np.testing.assert_allclose(predicted, dit_sample(weights, trained.tokens, rows).detach(), atol=2e-3)
    assert np.abs(predicted - trained.first).max() > 0.1


@pytest.mark.parametrize("total", [1, 9, 10, 37, 200])
def test_warm_up_is_diffusers(total: int) -> None:
    from diffusers.optimization import get_constant_schedule_with_warmup

    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_constant_schedule_with_warmup(optimiser, num_warmup_steps=int(total * 0.1))
    for step in range(total):
        assert warm_up(0.1)(step, total) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize(("steps", "dim"), [(5, 7), (45, 16), (10, 12), (1, 7)])
@pytest.mark.parametrize("inputs", [4 * 32, 196 * 768, 257 * 1024])
def test_mlp_of_the_recipe(with_protocol: WithProtocol, inputs: int, steps: int, dim: int) -> None:
    """Counted from the description alone, at LARYBench's size."""
    w, outputs = 4096, steps * dim
    expected = 2 * inputs + (inputs * w + w) + 2 * (2 * w + w * w + w) + 2 * w + (w * outputs + outputs)
    with torch.device("meta"):
        network = make_network(with_protocol(regress=RegressRecipe()), inputs, Shape(steps, dim))
        assert network(torch.zeros(3, 1, inputs)).shape == (3, outputs)
    assert sum(p.numel() for p in network.parameters()) == expected
