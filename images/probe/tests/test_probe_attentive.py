"""The attentive classifier against a second formulation: plain functions of its weights, in float64, by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lary_probe.attentive import AttentiveClassifier
from lary_probe.classify import make_heads, make_plan
from lary_probe.data import open_data
from lary_probe.sampling import balanced_order
from lary_probe.session import open_session
from lary_probe.streams import Streams
from lary_probe.training import Part, train
from lary_schema.cards import ClassifyRecipe, ProtocolCard
from torch import Tensor

Weights = dict[str, Tensor]
WithProtocol = Callable[..., ProtocolCard]


def shapes(dim: int, classes: int, time_axis: bool, width: int = 768, depth: int = 4) -> dict[str, tuple[int, ...]]:
    """Every tensor of the classifier, from the description of its layers alone."""
    found: dict[str, tuple[int, ...]] = {"query": (1, 1, width)} | ({"time": (1, 128, 1, width)} if time_axis else {})

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

    def mlp(name: str) -> None:
        linear(f"{name}.up", width, 4 * width)
        linear(f"{name}.down", 4 * width, width)

    linear("projector.0", dim, width)
    norm("projector.1")
    for block in [*(f"blocks.{i}" for i in range(depth - 1)), "pool"]:
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
        mlp(f"{block}.mlp")
        if block == "pool":
            linear(f"{block}.attention.q", width, width)
            linear(f"{block}.attention.kv", width, 2 * width)
        else:
            linear(f"{block}.attention.qkv", width, 3 * width)
            linear(f"{block}.attention.out", width, width)
    linear("linear", width, classes)
    return found


@pytest.mark.parametrize(("row", "classes"), [((4, 32), 123), ((256, 1024), 54), ((1, 3, 768), 27), ((8, 2, 48), 123)])
def test_shapes_for_each_input(row: tuple[int, ...], classes: int) -> None:
    """LARYBench's size for rows (N, D) and (T, N, D): neither T nor N is in a shape, D in one alone."""
    wanted = shapes(row[-1], classes, len(row) == 3)
    with torch.device("meta"):
        network = AttentiveClassifier(row[-1], classes, width=768, depth=4, heads=16, time_axis=len(row) == 3)
        assert network(torch.empty(2, *row)).shape == (2, classes)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == wanted
    counted = sum(parameter.numel() for parameter in network.parameters())
    # Three blocks of self-attention, the pooler and its query; then projector, read-out and temporal embedding.
    blocks = 3 * (12 * 768**2 + 13 * 768) + 11 * 768**2 + 12 * 768 + 768
    ends = 768 * (row[-1] + 3) + classes * 769 + (128 * 768 if len(row) == 3 else 0)
    assert counted == sum(math.prod(shape) for shape in wanted.values()) == blocks + ends


def affine(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def normed(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attended(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    size = q.shape[-1] // heads
    parts = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        scores = torch.einsum("bqc,bkc->bqk", q[..., own], k[..., own]) / math.sqrt(size)
        parts.append(torch.einsum("bqk,bkc->bqc", scores.exp() / scores.exp().sum(-1, keepdim=True), v[..., own]))
    return torch.cat(parts, -1)


def fed_forward(w: Weights, name: str, x: Tensor) -> Tensor:
    return affine(w, f"{name}.mlp.down", gelu(affine(w, f"{name}.mlp.up", normed(w, f"{name}.norm2", x))))


def logits(w: Weights, tokens: Tensor, depth: int, heads: int) -> Tensor:
    """(B, T, N, D) -> (B, classes)."""
    batch, steps, tokens_per_step, _ = tokens.shape
    width = w["query"].shape[-1]
    x = gelu(normed(w, "projector.1", affine(w, "projector.0", tokens)))
    x = (x + w["time"][0, :steps, 0].view(1, steps, 1, width)).reshape(batch, steps * tokens_per_step, width)
    for i in range(depth - 1):
        qkv = affine(w, f"blocks.{i}.attention.qkv", normed(w, f"blocks.{i}.norm1", x))
        mixed = attended(*(qkv[..., j * width : (j + 1) * width] for j in range(3)), heads)
        x = x + affine(w, f"blocks.{i}.attention.out", mixed)
        x = x + fed_forward(w, f"blocks.{i}", x)
    kv = affine(w, "pool.attention.kv", normed(w, "pool.norm1", x))
    query = w["query"].expand(batch, 1, width)
    pooled = query + attended(affine(w, "pool.attention.q", query), kv[..., :width], kv[..., width:], heads)
    return affine(w, "linear", (pooled + fed_forward(w, "pool", pooled))[:, 0])


def loss_of(found: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    classes = found.shape[-1]
    wanted = torch.full_like(found, smoothing / classes)
    wanted[torch.arange(len(targets)), targets] += 1 - smoothing
    return -(wanted * (found - found.exp().sum(-1, keepdim=True).log())).sum(-1).mean()


class HandAdamW:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), algorithm 2."""

    def __init__(self, weights: Weights, decay: float) -> None:
        self.weights, self.decay, self.step = weights, decay, 0
        self.first = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.second = {name: torch.zeros_like(w) for name, w in weights.items()}

    def update(self, gradients: Weights, lr: float) -> None:
        self.step += 1
        for name, gradient in gradients.items():
            self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
            self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
            m = self.first[name] / (1 - 0.9**self.step)
            v = self.second[name] / (1 - 0.999**self.step)
            self.weights[name] = self.weights[name] * (1 - lr * self.decay) - lr * m / (v.sqrt() + 1e-8)


def in_float64(network: torch.nn.Module) -> Weights:
    return {name: tensor.detach().double().clone() for name, tensor in network.state_dict().items()}


def test_three_steps_of_five_heads(toy_classes: Any, with_protocol: WithProtocol) -> None:
    """LARYBench's optimisers, schedule, loss and sampling on a narrow classifier: 36 rows, three batches of 12."""
    recipe = ClassifyRecipe(width=32, heads=4, epochs=1, batch_size=12, autocast="none")
    assert len(recipe.optimisers) == 5
    job = toy_classes.job("classify", protocol=with_protocol(classify=recipe))
    targets = np.arange(36) % 3
    with open_session(job, toy_classes.mounts, lambda event: None) as session:
        data = open_data(job, toy_classes.mounts, lambda: None)
        torch.manual_seed(0)
        heads = make_heads(session, data.train.shape, 3)
        by_hand = [
            HandAdamW(in_float64(head.network), decay)
            for head, (_, decay) in zip(heads, recipe.optimisers, strict=True)
        ]
        plan = make_plan(recipe, targets, Streams(7, "upstream"))
        (output,) = train(session, heads, plan, Part(data.train, np.arange(36), targets), {})
    order, hits = balanced_order(targets, 36, seed=7), np.zeros(5)
    largest = [{name: torch.zeros_like(w) for name, w in hand.weights.items()} for hand in by_hand]
    for step in range(3):
        rows = order[12 * step : 12 * step + 12]
        tokens, wanted = data.train.batch(rows).double(), torch.from_numpy(targets[rows])
        for index, (hand, (lr, _)) in enumerate(zip(by_hand, recipe.optimisers, strict=True)):
            leaves = {name: w.requires_grad_() for name, w in hand.weights.items()}
            found = logits(leaves, tokens, recipe.depth, recipe.heads)
            hits[index] += int((found.argmax(-1) == wanted).sum())
            gradients = torch.autograd.grad(loss_of(found, wanted, 0.1), list(leaves.values()))
            with torch.no_grad():
                named = dict(zip(leaves, gradients, strict=True))
                for name, gradient in named.items():
                    largest[index][name] = torch.maximum(largest[index][name], gradient.abs())
                hand.update(named, lr * 0.5 * (1 + math.cos(math.pi * (step + 1) / 3)))
    np.testing.assert_allclose(output.train, hits / 36)
    tokens = data.train.batch(np.arange(36))
    for head, hand, seen in zip(heads, by_hand, largest, strict=True):
        compared = 0
        for name, tensor in head.network.state_dict().items():
            # Where the gradient is rounding noise (attention does not see a key's bias) AdamW makes steps of it.
            real = seen[name] > 1e-6
            compared += int(real.sum())
            torch.testing.assert_close(tensor.double()[real], hand.weights[name].detach()[real], rtol=1e-4, atol=2e-5)
        assert compared > 0.7 * sum(tensor.numel() for tensor in hand.weights.values())
        with torch.inference_mode():
            expected = logits(hand.weights, tokens.double(), recipe.depth, recipe.heads)
            torch.testing.assert_close(head.network(tokens).double(), expected, rtol=1e-3, atol=1e-3)


def test_forward_of_a_row_without_time_axis() -> None:
    torch.manual_seed(1)
    network = AttentiveClassifier(6, 3, width=32, depth=3, heads=4, time_axis=False)
    tokens = torch.randn(5, 7, 6)
    weights = in_float64(network) | {"time": torch.zeros(1, 128, 1, 32, dtype=torch.float64)}
    expected = logits(weights, tokens[:, None].double(), depth=3, heads=4)
    torch.testing.assert_close(network(tokens).double(), expected, rtol=1e-5, atol=1e-6)


def test_cross_attention_and_query_start_unscaled() -> None:
    torch.manual_seed(0)
    network = AttentiveClassifier(64, 5, width=256, depth=4, heads=4, time_axis=False)
    attention = network.pool.attention
    for weight in (attention.q.weight, attention.kv.weight, network.query, network.pool.mlp.up.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.12)
        assert abs(weight.mean().item()) < 0.004
    assert torch.equal(network.projector[1].weight, torch.ones(256))


def test_shuffled_labels_are_learnt_to_chance(bench: Any, with_protocol: WithProtocol) -> None:
    """Noisy rows of four classes: the probe distinguishes them, and without their labels it does not."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 240), ("val", 600)):
        labels = np.arange(count) % 4
        tokens = 2.5 * np.eye(16)[labels][:, None, None, :] + rng.normal(size=(count, 1, 1, 16))
        bench.split(name, tokens, ["abcd"[i] for i in labels])
    seeds = with_protocol(seeds=(0, 1, 2))
    real = bench.run(bench.job("classify", protocol=seeds)).splits["val"]
    control = bench.run(bench.job("classify", control="shuffled", protocol=seeds)).splits["val"]
    assert real.value > 0.7
    assert (real.chance, real.floor) == (0.25, 0.25)
    assert 0.25 - 0.1 < control.value < 0.25 + 0.1
