"""Checkpoints of the tokenizer: what extraction reads, what a training goes on from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_lara import checkpoint
from lary_lara.extract import Moto
from lary_lara.moto import MotoTrainee
from lary_lara.network import Tokenizer
from lary_parts.encoders import MaeEncoder
from lary_parts.settings import PIXELS
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import ModelCard
from lary_schema.training import TrainedCard

from .test_moto import CPU, EMA, batch, built, make_trained, pairs, recipe, saved, trainee, vectors

# --- checkpoints and read-out -----------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> tuple[MotoTrainee, Tokenizer, list[dict[str, float]]]:
    return make_trained()


@pytest.fixture(scope="module")
def folder(
    trained: tuple[MotoTrainee, Tokenizer, list[dict[str, float]]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return saved(trained[0], trained[1], tmp_path_factory.mktemp("trained") / "checkpoint")


def model(folder: Path, variant: str = "embed", card: ModelCard | None = None) -> Moto:
    card = card or TrainedCard.read(folder / "card.json").card
    made = Moto(card, "image", variant)
    made.load({"checkpoint": folder}, CPU, torch.float32, 0)
    return made


def read(made: Moto, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        found = made.encode(pairs(rows), rows)
    assert found.indices is not None
    assert found.tokens.shape[1:] == made.spec.tokens
    assert found.indices.shape[1:] == made.spec.indices
    return found.tokens, found.indices


def test_what_extraction_reads_is_what_was_trained(
    trained: tuple[MotoTrainee, Tokenizer, list[dict[str, float]]], folder: Path
) -> None:
    outputs = trained[0].forward(trained[1], batch(rows=np.arange(9)))
    tokens, indices = read(model(folder), np.arange(9))
    torch.testing.assert_close(tokens[:, 0], outputs["embeddings"])
    assert torch.equal(indices[:, 0], outputs["indices"])
    codes, _ = read(model(folder, "codebook"), np.arange(9))
    torch.testing.assert_close(codes[:, 0], outputs["codes"])
    hot, _ = read(model(folder, "onehot"), np.arange(9))
    assert torch.equal(hot.argmax(-1), indices)
    assert torch.equal(hot.sum(-1), torch.ones(9, 1, 3))


def test_a_training_goes_on_from_a_checkpoint(
    trained: tuple[MotoTrainee, Tokenizer, list[dict[str, float]]], folder: Path
) -> None:
    made, network, _ = trained
    goes_on = built(MotoTrainee(made.recipe, made.facts, 7), {"start": folder})
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in goes_on.state_dict().items())
    assert goes_on.vector_quantizer.quantises
    assert [n for n, p in goes_on.named_parameters() if not p.requires_grad] == ["vector_quantizer.embedding.weight"]


@pytest.mark.parametrize("quantiser", [EMA | {"continuous_steps": 9}, EMA | {"restart": False}], ids=["more", "none"])
def test_how_the_codebook_is_trained_may_differ(folder: Path, quantiser: dict[str, Any]) -> None:
    made = trainee(quantiser=quantiser, target_input="difference", residual=True)
    assert built(made, {"start": folder}).vector_quantizer.quantises


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"width": 32}, "width 16, here 32"),
        ({"codes": 13}, "codes 12, here 13"),
        ({"pixel_convention": "unit"}, "pixel_convention imagenet, here unit"),
        ({"target_input": "frame"}, "target_input difference, here frame"),
        ({"quantiser": {}}, "quantiser.kind ema, here gradient"),
        ({"size": 24}, "size 16, here 24"),
    ],
)
def test_a_start_of_another_kind_is_refused_by_name(folder: Path, config: dict[str, Any], named: str) -> None:
    made = trainee(**{"quantiser": EMA, "target_input": "difference", "residual": True} | config)
    with pytest.raises(WeightsError, match=named):
        made.build({"start": folder}, CPU)


def test_the_pixel_convention_of_config_and_card_must_agree(folder: Path) -> None:
    card = TrainedCard.read(folder / "card.json").card
    with pytest.raises(WeightsError, match="pixel_convention imagenet"):
        model(folder, card=card.model_copy(update={"preprocessing": "area-16-unit"}))


def test_pixels_that_contradict_the_convention_are_refused(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    document["pixels"]["mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(WeightsError, match="not those of pixel_convention imagenet"):
        checkpoint.read_checkpoint_config(tmp_path)


def test_another_convention_is_another_card_and_another_latent(folder: Path) -> None:
    cards = [MotoTrainee.card(recipe(pixel_convention=c)) for c in ("imagenet", "unit")]
    assert cards[0].preprocessing != cards[1].preprocessing
    networks = [built(trainee(pixel_convention=c)) for c in ("imagenet", "unit")]
    frames = [n.pixels(pairs(np.arange(4))) for n in networks]
    assert frames[1].min() >= 0
    assert frames[1].max() <= 1
    mean, std = (frames[0].new_tensor(v)[:, None, None] for v in PIXELS["imagenet"].values())
    torch.testing.assert_close(frames[0] * std + mean, frames[1])


def test_the_card_lies_beside_the_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARY_MOUNT_WEIGHTS", str(folder.parent))
    family = ModelCard.model_validate(
        {**MotoTrainee.card(recipe()).model_dump(), "pattern": "moto-.*", "example": "moto-x", "key": "moto"}
    )
    found = Moto.resolve(family, "moto-tiny-0123456789ab")
    assert found.key == "moto-tiny-0123456789ab"
    assert found.spec("image", "onehot").tokens == (1, 3, 12)
    assert found.pattern is None
    with pytest.raises(ContractError, match="is the card of moto-tiny, asked for is moto-other-0123456789ab"):
        Moto.resolve(family, "moto-other-0123456789ab")


def test_mae_gives_the_image_in_order_and_the_same_twice() -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, mask_ratio=0.0
    )
    backbone = transformers.ViTMAEModel(config).eval()
    encoder = MaeEncoder(backbone)
    image = vectors(1, 3, 224, 224)
    with torch.inference_mode():
        found = encoder(image)
        assert torch.equal(found, encoder(image))
        assert not torch.equal(*(backbone(pixel_values=image).last_hidden_state for _ in range(2)))
        embedded = backbone.embeddings.patch_embeddings(image)
    assert found.shape == (1, 197, 16)
    # Of one layer, a patch's token is still nearest to its own embedding.
    ordered = backbone.embeddings.position_embeddings[:, 1:] + embedded
    with torch.inference_mode():
        noise = torch.arange(196.0)[None]
        kept = backbone.embeddings(image, noise=noise)[0][:, 1:]
    assert torch.equal(kept, ordered)
