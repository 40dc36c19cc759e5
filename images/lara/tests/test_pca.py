"""Principal components as a trainee: the closed form, its refusals, and the read-out of a checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_lara.pca import Pca, PcaTrainee
from lary_lara.pca_network import Components, differences
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import ModelCard
from lary_schema.training import Recipe, TrainedCard
from lary_trainer.trainee import Batch, Facts
from numpy.typing import NDArray
from safetensors.torch import save_file

CPU = torch.device("cpu")
ROWS, SIZE, COUNT = 60, 4, 5
KEY = "pca-tiny-0123456789ab"


def recipe(**changes: Any) -> Recipe:
    fields = {
        "key": "pca-tiny",
        "title": "tiny",
        "trainee": "pca",
        "config": {"size": SIZE, "components": COUNT},
        "optimiser": {"lr": 1e-3, "schedule": "constant"},
        "batch_size": ROWS,
        "steps": 1,
        "losses": {"pixels": 1.0},
    }
    return Recipe.model_validate(fields | changes)


def batch_of(frames: NDArray[np.uint8]) -> Batch:
    return Batch(seed=0, step=0, rows=np.arange(len(frames)), frames=torch.from_numpy(frames))


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (ROWS, 2, SIZE, SIZE, 3), np.uint8)


def trained(frames: NDArray[np.uint8]) -> tuple[PcaTrainee, Components]:
    """One step as the loop does it."""
    made = PcaTrainee(recipe(), Facts(rows=len(frames)), 0)
    network = made.build({}, CPU)
    assert isinstance(network, Components)
    groups = made.parameter_groups(network)
    optimiser = torch.optim.AdamW([p for group in groups.values() for p in group], lr=1e-3)
    batch = batch_of(frames)
    outputs = made.forward(network, batch)
    made.losses(outputs, batch)["pixels"].backward()
    optimiser.step()
    made.after_step(network, {name: output.detach() for name, output in outputs.items()}, batch)
    return made, network


def test_the_components_are_those_of_a_singular_value_decomposition(frames: NDArray[np.uint8]) -> None:
    _, network = trained(frames)
    flat = (frames[:, 1].astype(float) - frames[:, 0]).reshape(ROWS, -1) / 255
    _, values, directions = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    found = network.components.detach().numpy()
    np.testing.assert_allclose(abs((found * directions[:COUNT]).sum(1)), 1, atol=1e-5)
    np.testing.assert_allclose(network.scale, values[:COUNT] / np.sqrt(ROWS - 1), rtol=1e-5)
    assert (np.take_along_axis(found, abs(found).argmax(1)[:, None], 1) > 0).all()


def test_latents_have_mean_0_and_deviation_1_and_no_correlation(frames: NDArray[np.uint8]) -> None:
    _, network = trained(frames)
    latents = network.latent(differences(torch.from_numpy(frames), 1)[:, 0]).detach().double().numpy()
    np.testing.assert_allclose(latents.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(latents.T), np.eye(COUNT), atol=1e-4)


def test_measures_fall_from_copying(frames: NDArray[np.uint8]) -> None:
    made, network = trained(frames)
    halves = [batch_of(frames[:40]), batch_of(frames[40:])]
    with torch.no_grad():
        measured = made.evaluate(network, lambda: halves)
    flat = (frames[:, 1].astype(float) - frames[:, 0]).reshape(ROWS, -1) / 255
    assert measured["copy"] == pytest.approx((flat**2).mean(), rel=1e-5)
    values = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    assert measured["rec"] == pytest.approx((values[COUNT:] ** 2).sum() / flat.size, rel=1e-4)


def test_the_order_of_rows_changes_nothing_but_rounding(frames: NDArray[np.uint8]) -> None:
    (_, one), (_, other) = trained(frames), trained(frames[::-1].copy())
    np.testing.assert_allclose(one.components.detach(), other.components.detach(), atol=1e-5)
    again = trained(frames)[1]
    assert torch.equal(one.components, again.components), "the same rows in the same order: the same bytes"


@pytest.mark.parametrize("rows", [1, 2, COUNT])
def test_too_few_rows_are_refused(frames: NDArray[np.uint8], rows: int) -> None:
    with pytest.raises(ContractError, match=f"{COUNT} are wanted, {rows} rows differ in {rows - 1} directions"):
        trained(frames[:rows])


def test_rows_that_do_not_move_are_refused(frames: NDArray[np.uint8]) -> None:
    still = np.repeat(frames[:, :1], 2, 1)
    with pytest.raises(ContractError, match="differ in 0 directions"):
        trained(still)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 2}, "steps: 1"),
        ({"losses": {"pixels": 1.0, "lpips": 1.0}}, "pixels: 1.0"),
        ({"config": {"size": SIZE}}, "components"),
        ({"config": {"size": SIZE, "components": COUNT, "width": 3}}, "width"),
        ({"config": {"size": 2, "components": 13}}, "components 13: a difference of size 2 has 12 numbers"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        PcaTrainee.card(recipe(**changes))


def test_weights_to_go_on_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="start"):
        PcaTrainee(recipe(), Facts(rows=ROWS), 0).build({"start": tmp_path}, CPU)


@pytest.fixture
def checkpoint(frames: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights root with a trained folder, as a job mounts it."""
    made, network = trained(frames)
    tensors, config = made.export(network)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    card = TrainedCard(image="lara", card=PcaTrainee.card(recipe()).model_copy(update={"key": KEY}))
    (folder / "card.json").write_text(card.to_json())
    for name in ("DATA", "WEIGHTS", "LATENTS", "JOB", "OUT"):
        monkeypatch.setenv(f"LARY_MOUNT_{name}", str(tmp_path))
    return folder


def family() -> ModelCard:
    return PcaTrainee.card(recipe()).model_copy(update={"key": "pca", "pattern": "pca-.*", "example": "pca-x"})


def test_extraction_gives_the_latents_of_training(checkpoint: Path, frames: NDArray[np.uint8]) -> None:
    card = Pca.resolve(family(), KEY)
    assert (card.key, card.pattern) == (KEY, None)
    model = Pca(card, "image", card.variants[0])
    model.load({"checkpoint": checkpoint}, CPU, torch.float32, 0)
    resized = np.stack([model.preprocess(np.kron(pair, np.ones((1, 4, 4, 1), np.uint8))) for pair in frames])
    np.testing.assert_array_equal(resized, frames)
    tokens = model.encode(torch.from_numpy(resized), np.arange(ROWS)).tokens
    assert tokens.shape == (ROWS, 1, 1, COUNT)
    expected = trained(frames)[1].latent(differences(torch.from_numpy(frames), 1)[:, 0])
    np.testing.assert_allclose(tokens[:, 0, 0].detach(), expected.detach(), atol=1e-6)


def test_clips_give_a_latent_for_each_pair(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"dt": 3}))
    card = PcaTrainee.card(recipe(dt=3))
    model = Pca(card, "video", card.variants[0])
    model.load({"checkpoint": checkpoint}, CPU, torch.float32, 0)
    clip = torch.randint(0, 256, (2, 9, SIZE, SIZE, 3), dtype=torch.uint8)
    tokens = model.encode(clip, np.arange(2)).tokens
    assert tokens.shape == (2, *card.spec("video", card.variants[0]).tokens) == (2, 6, 1, COUNT)
    np.testing.assert_allclose(tokens[:, 2, 0].detach(), model.network.latent(
        (clip[:, 5].float() - clip[:, 2].float()).flatten(1) / 255
    ).detach(), atol=1e-5)  # fmt: skip


def test_another_training_s_card_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ContractError, match="plan the job again"):
        Pca.resolve(family(), "pca-32-0123456789ab")
    with pytest.raises(WeightsError, match="'checkpoint'"):
        Pca(family(), "image", "embed").load({}, CPU, torch.float32, 0)
