"""V-JEPA 2: its preprocessing, the hub's folder, the released sizes."""

from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch
from lary_schema.base import WeightsError
from lary_schema.cards import ImageCard
from lary_vjepa2 import network
from lary_vjepa2.config import VITG, VITH, VITL, Config
from lary_vjepa2.models import VJepa2
from lary_vjepa2.preprocessing import resize_and_crop
from transformers import VJEPA2Config, VJEPA2Model

CPU = torch.device("cpu")
CARD = ImageCard.load(files("lary_vjepa2") / "image.yaml").card("vjepa2")


class Small(VJepa2):
    config = Config(embed_dim=48, depth=2, num_heads=2)


def _model(mode, variant="corrected", weights=None, dtype=torch.float32):
    model = Small(CARD, mode, variant)
    model.load({} if weights is None else {"model": weights}, CPU, dtype, seed=0)
    return model


def _batch(frames, rows=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, frames, 224, 224, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def _tokens(model, batch):
    return model.encode(batch, np.arange(len(batch))).tokens


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A whole small model as transformers saves it, for crops of 256 as the released ones."""
    torch.manual_seed(3)
    config = VJEPA2Config(
        crop_size=256,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        pred_hidden_size=24,
        pred_num_hidden_layers=1,
        pred_num_attention_heads=2,
    )
    folder = tmp_path_factory.mktemp("hub") / "vjepa2"
    model = VJEPA2Model(config)
    with torch.no_grad():
        for layer in model.encoder.layer:  # sharp attention, so that positions matter
            layer.attention.query.weight.mul_(30)
            layer.attention.key.weight.mul_(30)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("variant", ["corrected", "lary-v1"])
@pytest.mark.parametrize("mode", ["video", "image"])
def test_shapes_are_the_cards(mode, variant):
    model = _model(mode, variant)
    tokens = _tokens(model, _batch(model.spec.input.shape[0]))
    assert tuple(tokens.shape[1:]) == (*model.spec.tokens[:2], 48)


def test_the_variants_are_the_same_numbers():
    batch = _batch(9)
    corrected, flat = (_tokens(_model("video", variant), batch) for variant in ("corrected", "lary-v1"))
    assert torch.equal(corrected.reshape(flat.shape), flat)


def test_the_ninth_frame_is_not_seen():
    batch, model = _batch(9), _model("video")
    other = batch.clone()
    other[:, 8] = 0
    assert torch.equal(_tokens(model, batch), _tokens(model, other))
    other[:, 7] = 0
    assert not torch.equal(_tokens(model, batch), _tokens(model, other))


def test_the_hub_folder_is_read_with_positions_of_our_crop(hub):
    batch = _batch(9, rows=1)
    own_grid, grid_of_256 = (VJEPA2Model.from_pretrained(hub, **o) for o in ({"crop_size": 224}, {}))
    pixels = (batch.float() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    pixels = pixels.permute(0, 1, 4, 2, 3)
    with torch.inference_mode():
        right, wrong = (
            m(pixel_values_videos=pixels, skip_predictor=True).last_hidden_state for m in (own_grid, grid_of_256)
        )
    got = _tokens(_model("video", "lary-v1", hub), batch)[:, 0]
    assert torch.allclose(got, right, atol=1e-5)
    assert not torch.allclose(got, wrong, atol=1e-3)


def test_another_models_folder_is_refused(hub, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    (tmp_path / "model.safetensors").write_bytes((hub / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"config\.json: is a dinov2 model"):
        _model("video", weights=tmp_path)


def test_bf16_is_close_to_float32(hub):
    batch = _batch(2)
    exact, rough = (_tokens(_model("image", weights=hub, dtype=d), batch) for d in (torch.float32, torch.bfloat16))
    assert rough.dtype == torch.bfloat16
    assert 0 < (exact - rough.float()).norm() / exact.norm() < 0.05


@pytest.mark.parametrize(("config", "millions"), [(VITL, 303.9), (VITH, 631), (VITG, 1012)])
def test_released_sizes_can_be_built(config, millions):
    """Parameter counts of the encoders: 300 M, 600 M and 1 B in the paper."""
    with torch.device("meta"):
        encoder = network._encoder(config)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)
    assert encoder.layer[0].mlp.fc1.out_features == int(config.embed_dim * config.mlp_ratio)


@pytest.mark.parametrize(("height", "width"), [(180, 240), (240, 180), (224, 224), (256, 341), (97, 400)])
def test_the_crop_is_the_centre_of_the_resized_frame(height, width):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    got = resize_and_crop(frame[None])
    assert got.shape == (1, 224, 224, 3)
    scale = 256 / min(height, width)
    resized = cv2.resize(frame, (int(width * scale + 1e-9), int(height * scale + 1e-9)), interpolation=cv2.INTER_LINEAR)
    y, x = round((resized.shape[0] - 224) / 2), round((resized.shape[1] - 224) / 2)
    assert np.array_equal(got[0], resized[y : y + 224, x : x + 224])
