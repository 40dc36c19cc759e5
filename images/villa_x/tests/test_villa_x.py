"""villa-X: its config file, its windows, its resize, and what is refused."""

import json
from dataclasses import asdict, replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from lary_schema.base import WeightsError
from lary_schema.cards import ImageCard
from lary_villa_x.config import Config
from lary_villa_x.models import VillaX
from lary_villa_x.network import VillaXLam
from lary_villa_x.preprocessing import resize_bilinear
from safetensors.torch import save_file

CPU = torch.device("cpu")
CARD = ImageCard.load(files("lary_villa_x") / "image.yaml").card("villa-x")
SMALL = Config(
    encoder_depth=2,
    encoder_embed_dim=48,
    encoder_n_heads=2,
    map_heads=4,
    num_learned_tokens=2,
    action_latent_dim=32,
    n_codes=512,
)


def _folder(path, size=SMALL, **document):
    torch.manual_seed(0)
    network = VillaXLam(size)
    for table in (network.encoder.pe_spatial, network.encoder.pe_temporal):
        torch.nn.init.normal_(table)
    decoder = {"decoder.pred_head.bias": torch.zeros(3)}
    save_file({**network.state_dict(), **decoder}, path / "model.safetensors")
    content = {"architecture": "IgorModel", "version": 0, "config": asdict(size), **document}
    (path / "model_config.json").write_text(json.dumps(content))
    return path


def _model(mode="video", weights=None, dtype=torch.float32, variant="corrected"):
    model = VillaX(CARD, mode, variant)
    model.load({"model": weights}, CPU, dtype, seed=0)
    return model


def _batch(frames, rows=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, frames, 224, 224, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def _encode(model, batch):
    return model.encode(batch, np.arange(len(batch)))


@torch.inference_mode()
def _continuous(model, frames):
    """Latents before the codebook of (B, T, 3, H, W)."""
    return model.network.encoder(frames)


@pytest.mark.parametrize("mode", ["video", "image"])
def test_shapes_are_the_cards_and_tokens_are_codebook_rows(tmp_path, mode):
    model = _model(mode, _folder(tmp_path))
    latents = _encode(model, _batch(model.spec.input.shape[0]))
    assert tuple(latents.tokens.shape[1:]) == model.spec.tokens
    assert tuple(latents.indices.shape[1:]) == model.spec.indices
    assert torch.equal(latents.tokens, model.network.vq.embedding.weight.detach()[latents.indices])


def test_a_clip_is_seen_through_a_moving_window(tmp_path):
    """Of the first window every transition counts, of the next ones the last."""
    model = _model(weights=_folder(tmp_path))
    clip = torch.randn(2, 10, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    whole = _continuous(model, clip)
    assert whole.shape[1] == 9
    assert torch.allclose(whole[:, :7], _continuous(model, clip[:, :8]), atol=1e-5)
    assert torch.allclose(whole[:, 7], _continuous(model, clip[:, 1:9])[:, -1], atol=1e-5)
    assert torch.allclose(whole[:, 8], _continuous(model, clip[:, 2:])[:, -1], atol=1e-5)


def test_time_is_causal(tmp_path):
    model = _model(weights=_folder(tmp_path))
    clip = torch.randn(1, 6, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    changed = clip.clone()
    changed[:, 4:] = 0
    before, after = _continuous(model, clip), _continuous(model, changed)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-5)
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)


def test_sizes_come_from_the_file(tmp_path):
    other = replace(SMALL, encoder_depth=1, d_t=4, n_codes=7, map_heads=2, st_use_qk_norm=False)
    network = _model(weights=_folder(tmp_path, other)).network
    assert len(network.encoder.layers) == 1
    assert network.encoder.pe_temporal.shape == (1, 4, 48)
    assert network.vq.embedding.weight.shape == (7, 32)


def test_a_checkpoint_of_other_shapes_than_the_card_is_refused(tmp_path):
    _folder(tmp_path, replace(SMALL, num_learned_tokens=4))
    with pytest.raises(WeightsError, match=r"model_config\.json has num_learned_tokens 4, .* stands for 2"):
        _model(weights=tmp_path)


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"architecture": "Other"}, "architecture is not IgorModel"),
        ({"config": None}, "architecture is not IgorModel"),
        ({"config": {**asdict(SMALL), "d_t": "eight"}}, "d_t not a number"),
        ({"config": {**asdict(SMALL), "encoder_depth": 3}}, "missing: encoder.layers.2"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, document, match):
    with pytest.raises(WeightsError, match=match):
        _model(weights=_folder(tmp_path, **document))


def test_a_missing_config_is_named(tmp_path):
    _folder(tmp_path)
    (tmp_path / "model_config.json").unlink()
    with pytest.raises(WeightsError, match=r"model_config\.json: the file is missing"):
        _model(weights=tmp_path)


def test_bf16_is_close_to_float32(tmp_path):
    folder = _folder(tmp_path)
    frames = torch.randn(1, 3, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    exact = _continuous(_model(weights=folder), frames)
    rough = _continuous(_model(weights=folder, dtype=torch.bfloat16), frames.bfloat16())
    assert 0 < (exact - rough.float()).norm() / exact.norm() < 0.05


def test_the_resize_averages_what_it_leaves_out():
    """Antialiasing: a checkerboard of single pixels becomes grey; without it, it would alias."""
    board = np.indices((448, 448)).sum(0) % 2 * 255
    frames = np.repeat(board[None, ..., None], 3, axis=-1).astype(np.uint8)
    resized = resize_bilinear(frames, 224)
    assert resized.dtype == np.uint8
    assert np.abs(resized[:, 2:-2, 2:-2].astype(int) - 128).max() <= 1
