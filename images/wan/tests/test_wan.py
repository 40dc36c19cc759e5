"""The Wan 2.2 encoder: the hub's folder, what a pair becomes, and what is refused."""

import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from lary_schema.base import WeightsError
from lary_schema.cards import ImageCard
from lary_wan.config import Config
from lary_wan.models import Wan22
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")
SMALL = Config(dim=16, num_res_blocks=1)
CARD = ImageCard.load(files("lary_wan") / "image.yaml").card("wan2-2")


class Small(Wan22):
    config = SMALL


def _model(mode, variant="corrected", weights=None, dtype=torch.float32):
    model = Small(CARD, mode, variant)
    model.load({} if weights is None else {"model": weights}, CPU, dtype, seed=0)
    return model


def _batch(frames):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, frames, 224, 224, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def _tokens(model, batch):
    return model.encode(batch, np.arange(len(batch))).tokens


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A whole small autoencoder as diffusers saves it, with statistics of its own."""
    torch.manual_seed(3)
    vae = AutoencoderKLWan(
        base_dim=16,
        z_dim=48,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.5] * 48,
        latents_std=[2.0] * 48,
    )
    folder = tmp_path_factory.mktemp("hub") / "vae"
    vae.save_pretrained(folder)
    return vae.eval(), folder


@pytest.mark.parametrize(("mode", "variant"), [("video", "corrected"), ("image", "corrected"), ("image", "lary-v1")])
def test_shapes_are_the_cards(mode, variant):
    model = _model(mode, variant)
    assert tuple(_tokens(model, _batch(model.spec.input.shape[0])).shape[1:]) == model.spec.tokens


def test_the_hub_folder_gives_what_diffusers_gives(hub):
    vae, folder = hub
    batch = _batch(9)
    pixels = batch.permute(0, 4, 1, 2, 3).float() / 255 * 2 - 1
    with torch.inference_mode():
        expected = (vae.encode(pixels).latent_dist.mode() - 0.5) / 2
    got = _tokens(_model("video", weights=folder), batch)
    assert torch.allclose(got, expected.flatten(3).permute(0, 2, 3, 1), atol=1e-5)


def test_the_decoder_is_not_kept(hub):
    names = _model("video", weights=hub[1]).encoder.state_dict()
    assert not [name for name in names if "decoder" in name or "post_quant" in name]


def test_each_frame_of_a_pair_counts_in_corrected_and_the_first_alone_in_lary_v1():
    batch = _batch(2)
    other = batch.clone()
    other[:, 1] = 255 - other[:, 1]
    corrected, upstream = _model("image"), _model("image", "lary-v1")
    before, after = _tokens(corrected, batch), _tokens(corrected, other)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1], atol=0.1)
    assert torch.equal(_tokens(upstream, batch), _tokens(upstream, other))
    torch.testing.assert_close(_tokens(upstream, batch), before[:, :1], rtol=0, atol=2e-5)


def test_bf16_is_close_to_float32(hub):
    batch = _batch(2)
    exact, rough = (_tokens(_model("image", weights=hub[1], dtype=d), batch) for d in (torch.float32, torch.bfloat16))
    assert 0 < (exact - rough).norm() / exact.norm() < 0.05


def test_another_folder_is_refused(hub, tmp_path):
    config = json.loads((hub[1] / "config.json").read_text())
    save_file(
        load_file(hub[1] / "diffusion_pytorch_model.safetensors"), tmp_path / "diffusion_pytorch_model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({**config, "is_residual": False}))
    with pytest.raises(WeightsError, match=r"config\.json: is not the config of a Wan 2\.2 autoencoder"):
        _model("video", weights=tmp_path)
    del config["latents_std"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="has no entry 'latents_std'"):
        _model("video", weights=tmp_path)
