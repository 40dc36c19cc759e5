"""The loop: what a training leaves, that it does not depend on memory or micro-batches, and what it says."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lary_schema.mounts import Mounts
from lary_schema.training import PICTURE_FILE, Labelled, TrainedCard
from lary_trainer.inputs import open_inputs
from lary_trainer.world import World
from safetensors.torch import load_file


def test_a_training_from_beginning_to_end(bench: Any) -> None:
    job = bench.job(held=True, values={"recipe": bench.recipe(config={"dropout": True})})
    done = bench.train(job)
    assert done.code == 0, done.events[-1]
    assert [event.step for event in done.of("saved")] == [5, 10, 15]
    assert [(e.step, e.split) for e in done.of("measured")] == [(10, "train"), (10, "val"), (20, "train"), (20, "val")]
    first, last = (done.of("measured")[at].values for at in (0, 2))
    assert last["pixels"] < first["pixels"]
    assert {"total", "gradient", "rate.encoder", "rate.rest"} < set(first)
    assert done.of("measured")[1].values["odd"] is None
    started, finished = done.of("started")[0], done.of("finished")[0]
    assert (started.total, started.skipped, started.unit, finished.done) == (20, 0, "steps", 20)
    assert sorted(p.name for p in bench.out.iterdir() if p.name[0] != ".") == [
        "card.json", "config.json", "model.safetensors", "training.json",
    ]  # fmt: skip
    result = bench.result()
    assert (result.key, result.rows, result.labelled_rows, result.attempts) == (job.values.key, 24, 0, 1)
    assert set(result.files) == {"card.json", "config.json", "model.safetensors"}
    card = TrainedCard.read(bench.out / "card.json")
    assert (card.image, card.card.key, card.supervision) == ("toy", job.values.key, "none")
    assert [spec.name for spec in card.card.weights] == ["checkpoint"]


def test_a_network_that_is_not_trained_is_measured_and_not_blamed(bench: Any) -> None:
    recipe = bench.recipe(steps=0, config={"health": True})
    done = bench.train(bench.job(held=True, values={"recipe": recipe}, strict_health=True))
    assert done.code == 0, done.events[-1]
    (measured,) = done.of("measured")
    assert (measured.step, measured.split, done.of("warning")) == (0, "val", [])
    assert bench.result().measured[0].values["rec"] == measured.values["rec"] > 0


@pytest.mark.parametrize(("picture", "warnings"), [("drawn", 0), ("broken", 1)])
def test_a_picture_is_left_where_it_can_be_drawn(bench: Any, picture: str, warnings: int) -> None:
    recipe = bench.recipe(steps=1, config={"picture": picture})
    done = bench.train(bench.job(held=True, values={"recipe": recipe}))
    assert done.code == 0, done.events[-1]
    assert len(done.of("warning")) == len(bench.result().warnings) == warnings
    file = bench.out / PICTURE_FILE
    if warnings:
        assert "ValueError: no such colour" in bench.result().warnings[0]
        assert not file.exists()
    else:
        assert cv2.imread(str(file)).shape == (8, 8, 3)
    assert PICTURE_FILE not in bench.result().files


def test_again_it_does_nothing(bench: Any) -> None:
    job = bench.job()
    assert bench.train(job).code == 0
    before = {p.name: p.stat().st_mtime_ns for p in bench.out.iterdir()}
    done = bench.run(job)
    assert (done.code, [e.event for e in done.events], done.events[0].skipped) == (0, ["started", "finished"], 20)
    assert {p.name: p.stat().st_mtime_ns for p in bench.out.iterdir()} == before


@pytest.mark.parametrize("clips", [False, True])
def test_rows_kept_or_decoded_each_time_give_the_same_bytes(bench: Any, clips: bool) -> None:
    """Memory for all rows, for some, for none; held-out rows alike."""
    row = 2 * 8 * 8 * 3 * (3 if clips else 1)
    made, measured = set(), set()
    for at, ram in enumerate((1 << 30, 2 * 7 * row, 0)):
        done = bench.train(bench.job(held=True, clips=clips, ram_bytes=ram), out=f"out{at}")
        assert done.code == 0, done.events[-1]
        made.add(bench.model(f"out{at}"))
        measured.add(str(bench.result(f"out{at}").measured))
    assert (len(made), len(measured)) == (1, 1)


def test_seed_and_recipe_decide(bench: Any) -> None:
    made = []
    for at, values in enumerate([{}, {"seed": 4}, {"recipe": bench.recipe(batch_size=5)}, {}]):
        assert bench.train(bench.job(values=values), out=f"out{at}").code == 0
        made.append(bench.model(f"out{at}"))
    assert made[0] == made[3]
    assert len(set(made)) == 3


def test_a_step_with_micro_batches_is_a_step(bench: Any) -> None:
    """A loss that couples all rows; parts of one size and of several."""
    chosen = bench.recipe(config={"couple": True}, losses={"pixels": 1.0, "couple": 0.5})
    found = {}
    for size in (None, 3, 4, 1):
        done = bench.train(bench.job(values={"recipe": chosen}, micro_batch=size), out=f"out{size}")
        assert done.code == 0, done.events[-1]
        found[size] = load_file(bench.root / f"out{size}" / "model.safetensors")
        assert bench.result(f"out{size}").micro_batch == (size or 6)
    for size in (3, 4, 1):
        for name, tensor in found[None].items():
            assert tensor.allclose(found[size][name], rtol=1e-4, atol=1e-5), (size, name)


def test_labels_are_those_of_whole_groups(bench: Any) -> None:
    chosen = bench.recipe(config={"supervised": True, "text": True}, losses={"pixels": 1.0, "action": 0.1})
    results = {}
    for share in (0.5, 1.0):
        labelled = Labelled(share=share, seed=1)
        done = bench.train(bench.job(values={"recipe": chosen, "labelled": labelled}), out=f"out{share}")
        assert done.code == 0, done.events[-1]
        results[share] = bench.result(f"out{share}")
    assert [(r.rows, r.labelled_rows, r.labelled_groups) for r in results.values()] == [(12, 12, 3), (24, 24, 6)]
    assert results[0.5].supervision == "joint"
    assert results[0.5].labelled_sha256 != results[1.0].labelled_sha256


def test_arms_with_and_without_labels_see_the_same_rows_in_the_same_order(bench: Any) -> None:
    labelled, device, seen = Labelled(share=0.5, seed=1), torch.device("cpu"), []
    for config, losses in (({}, {"pixels": 1.0}), ({"supervised": True, "text": True}, {"pixels": 1.0, "action": 0.1})):
        job = bench.job(values={"recipe": bench.recipe(config=config, losses=losses), "labelled": labelled})
        inputs = open_inputs(job, Mounts.from_env(), device, World(device), lambda: None)
        seen.append([inputs.train_batch(pairs) for pairs in inputs.train.batches(0, 20, 0, 1)])
    assert len({row for batch in seen[0] for row in batch.rows.tolist()}) == 12
    for one, other in zip(*seen, strict=True):
        assert np.array_equal(one.rows, other.rows)
        assert torch.equal(one.frames, other.frames)
        assert (one.actions is None, other.actions is None) == (True, False)


def test_a_share_of_labels_among_all_rows(bench: Any) -> None:
    config = {"supervised": True, "label_share": 0.34}
    chosen = bench.recipe(config=config, losses={"pixels": 1.0, "action": 0.1})
    done = bench.train(bench.job(values={"recipe": chosen, "labelled": Labelled(share=1)}))
    assert done.code == 0, done.events[-1]
    result = bench.result()
    assert (result.rows, result.labelled_rows, result.labelled_groups) == (24, 8, 2)
    last = [m for m in result.measured if m.split == "train"][-1]
    assert last.values["action"] is not None
    assert last.values["action"] > 0

    done = bench.train(bench.job(values={"recipe": chosen, "labelled": Labelled(share=0.2)}), out="less")
    assert done.code == 2
    assert "labels of 0.34 of all groups, and the job allows 0.2" in done.events[-1].message
