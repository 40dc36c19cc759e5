"""Rates, order, chance, means: functions of the step alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from lary_schema.training import Optimiser
from lary_trainer.means import Means
from lary_trainer.order import Order, part
from lary_trainer.schedule import Rates, factor, make_optimiser
from torch import nn


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize(("schedule", "final"), [("cosine", 0.0), ("cosine", 0.1), ("constant", 0.0)])
def test_the_rate_of_every_step(bench: Any, warmup: int, schedule: Any, final: float) -> None:
    """As torch sees it, over all steps: never a product of rates before it."""
    settings = Optimiser(lr=0.5, schedule=schedule, final=final, warmup=warmup, scale={"slow": 0.1})
    recipe = bench.recipe(optimiser=settings, steps=30)
    network = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    groups = {"slow": list(network[0].parameters()), "fast": list(network[1].parameters())}
    optimiser, rates = make_optimiser(recipe, groups, network)
    for step in range(30):
        if step < warmup:
            expected = (step + 1) / warmup
        elif schedule == "constant":
            expected = 1.0
        else:
            done = (step - warmup) / (29 - warmup)
            expected = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
        for _ in range(2):  # set twice, it is the same
            rates.set(optimiser, step)
        found = {group["name"]: group["lr"] for group in optimiser.param_groups}
        assert found == pytest.approx({"slow": 0.05 * expected, "fast": 0.5 * expected})
    assert factor(settings, 29, 30) == pytest.approx(final if schedule == "cosine" else 1.0)


def test_rates_do_not_read_the_optimiser(bench: Any) -> None:
    rates = Rates(bench.recipe(optimiser=Optimiser(lr=1.0, schedule="constant")), ["all"])
    optimiser = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "name": "all"}], lr=123.0)
    rates.set(optimiser, 5)
    assert optimiser.param_groups[0]["lr"] == 1.0


def test_an_epoch_is_a_permutation() -> None:
    rows = np.array([3, 5, 8, 13, 21, 34, 55])
    order = Order(1, rows, 3, 1)
    for epoch in range(4):
        seen = np.concatenate([order.batch(2 * epoch + at).rows for at in range(2)])
        assert len(set(seen.tolist())) == 6
        assert set(seen.tolist()) < set(rows.tolist())
    # Asked out of turn, a step has the same rows.
    assert order.batch(1).rows.tolist() == Order(1, rows, 3, 1).batch(1).rows.tolist()
    assert Order(2, rows, 3, 1).batch(1).rows.tolist() != order.batch(1).rows.tolist()
    assert {row for step in range(40) for row in order.batch(step).rows.tolist()} == set(rows.tolist())


def test_the_pairs_of_a_clip_are_all_taken() -> None:
    order = Order(0, np.arange(4), 4, 5)
    starts = np.stack([order.batch(step).starts for step in range(60)])
    assert set(starts.flatten().tolist()) == {0, 1, 2, 3, 4}
    assert order.batch(7).starts.tolist() == Order(0, np.arange(4), 4, 5).batch(7).starts.tolist()


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_processes_share_a_batch_in_order(processes: int) -> None:
    wanted = Order(0, np.arange(20), 7, 3).batch(2)
    parts = [part(wanted, rank, processes) for rank in range(processes)]
    assert np.concatenate([p.rows for p in parts]).tolist() == wanted.rows.tolist()
    assert np.concatenate([p.starts for p in parts]).tolist() == wanted.starts.tolist()


def test_a_batch_of_all_there_is() -> None:
    order = Order(0, np.arange(5), 32, 1)
    assert sorted(order.batch(9).rows.tolist()) == [0, 1, 2, 3, 4]


def test_means_keep_what_is_not_finite() -> None:
    means = Means()
    means.add({"a": 1.0, "b": math.nan})
    means.add({"a": 2.0, "b": 1.0})
    assert means.take() == {"a": 1.5, "b": None}
    assert means.count == 0
