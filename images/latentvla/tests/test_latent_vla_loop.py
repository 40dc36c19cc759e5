"""Policies in the real loop: killed, without latents, and overfitting sixteen samples (`full`)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_latentvla.latent_vla import LatentVlaTrainee
from lary_latentvla.vla_facts import Strategy
from lary_schema.cards import Latents
from lary_schema.jobs import WeightFile
from lary_schema.training import TrainResult
from lary_trainer.rows import Standardise
from lary_trainer.trainee import Batch, Facts

from .conftest import LATENTS, Killed, Rows, killed_after
from .test_latent_vla import BACKBONES, CPU, STRATEGIES, N, recipe, write_tokenizer

# --- the loop --------------------------------------------------------------------------------------


def latents_as_in_the_rows(**config: Any) -> dict[str, Any]:
    return {"latent_tokens": LATENTS.tokens} | config


@pytest.mark.parametrize("strategy", ["la-cond", "la-tok"])
def test_killed_it_ends_in_the_same_bytes(strategy: Strategy, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    init = ()
    if strategy == "la-tok":
        from .test_action_tokenizer import recipe as tokenizer_recipe

        assert rows.train(rows.job(tokenizer_recipe()), "tokenizer")[0] == 0
        (rows.root / "weights/start").symlink_to(rows.root / "tokenizer")
        trained = TrainResult.read(rows.root / "tokenizer/training.json").fingerprint
        init = (WeightFile(name="start", path="start", sha256=trained, trained=True),)
    job = rows.job(recipe(strategy, **latents_as_in_the_rows()), init=init)
    assert rows.train(job, "whole")[0] == 0
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        rows.train(job, "killed")
    code, events = rows.train(job, "killed")
    assert (code, events[0].skipped) == (0, 2)
    for name in ("model.safetensors", "held_out_rows.npz"):
        assert (rows.root / "whole" / name).read_bytes() == (rows.root / "killed" / name).read_bytes()
    measured = TrainResult.read(rows.root / "whole/training.json").measured[-1].values
    assert measured["label_accuracy"] is not None


@pytest.mark.parametrize("strategy", ["la-align", "la-direct", "la-cond"])
def test_a_set_without_latents_is_refused_by_the_strategies_that_need_them(strategy: Strategy, rows: Rows) -> None:
    job = rows.job(recipe(strategy), changed={"latents": None})
    code, events = rows.train(job, "out")
    assert (code, "lary-orch data annotate" in events[-1].message) == (2, True)


def test_a_set_without_latents_will_do_for_the_baseline(rows: Rows) -> None:
    """And its errors of single rows are left for studies, with the episode of each."""
    assert rows.train(rows.job(recipe(steps=1), changed={"latents": None}), "out")[0] == 0
    found = np.load(rows.root / "out/held_out_rows.npz")
    measured = TrainResult.read(rows.root / "out/training.json").measured[-1].values
    names = ["l1", *(f"l1_step_{n + 1}" for n in range(N))]
    assert [float(found[name].mean()) for name in names] == pytest.approx([measured[name] for name in names])
    assert (found["row"].tolist(), found["group_names"].tolist()) == (list(range(8)), ["val-0", "val-1"])
    assert found["group"].tolist() == [row % 2 for row in range(8)]


# --- overfitting -----------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_overfits_sixteen_samples(strategy: Strategy, backbone: str, tmp_path: Path) -> None:
    """Figures of a run: images/latentvla/README.md."""
    rng = np.random.default_rng(0)
    times, count = np.arange(8) / 8, 16
    actions = np.sin(2 * np.pi * (rng.random((count, 1, 3)) + times[:, None] * (0.5 + rng.random((count, 1, 3)))))
    frames = torch.from_numpy(
        np.kron(rng.integers(0, 256, (count, 1, 8, 8, 3)), np.ones((2, 8, 8, 1))).astype(np.uint8)
    )
    texts = tuple(f"move the {colour}" for colour in ("red", "blue", "green", "grey") * 4)
    words = tuple(sorted({word for text in texts for word in text.split()}))
    card = Latents(folder="x", steps=8, tokens=4, width=8, codes=16, dt=4, model="f" * 64)
    chosen = recipe(strategy, steps=600, backbone=backbone, chunk=8, latent_tokens=4)
    standardise = Standardise(actions)
    reads = LatentVlaTrainee.reads_latents(chosen)
    made = LatentVlaTrainee(chosen, Facts(count, (8, 3), words, standardise.facts, card if reads else None), 0)
    torch.manual_seed(0)
    network = made.build({"start": write_tokenizer(tmp_path, (8, 3))} if strategy == "la-tok" else {}, CPU)
    latents = {
        "latent_idx": torch.from_numpy(rng.integers(0, 16, (count, 8, 4))),
        "latent_z": torch.from_numpy(rng.normal(size=(count, 8, 4, 8)).astype(np.float32)),
        "latent_valid": torch.ones(count, 8, dtype=torch.bool),
    }
    batch = Batch(seed=0, step=0, rows=np.arange(count), frames=frames.expand(-1, 2, -1, -1, -1),
                  actions=torch.from_numpy(standardise(actions)), text=texts, latents=latents)  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    ratios: dict[int, float] = {}
    first, early = 0.0, {}
    for step in range(600):
        if step == 150:
            with torch.no_grad():
                early = made.evaluate(network.eval(), lambda: [batch])
            network.train()
        optimiser.zero_grad()
        terms = made.losses(made.forward(network, batch), batch)
        first = first or float(terms["actions"].detach())
        ratios[step] = float(terms["actions"].detach()) / first
        sum(terms.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        # The rate falls over the last third: at a constant one the error of a memorised set jumps about.
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (600 - step) / 200)
        optimiser.step()
    with torch.no_grad():
        found = made.evaluate(network.eval(), lambda: [batch])
    least = {step: round(min(v for k, v in ratios.items() if k <= step), 4) for step in (149, 599)}
    accuracy = {step: one.get("label_accuracy") for step, one in ((150, early), (600, found))}
    print(strategy, backbone, least, "label accuracy", accuracy, found)  # noqa: T201
    assert min(ratio for step, ratio in ratios.items() if step < 150) < 0.12
    assert ratios[599] < 0.05
    assert found["spread"] >= 0.5
    assert found.get("label_accuracy", 1.0) >= 0.95
