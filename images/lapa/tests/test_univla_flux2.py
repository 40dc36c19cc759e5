"""UniVLA and FLUX.2: hub folder, conversion, what the variants read, bf16."""

import json
from argparse import Namespace
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2
from lary_lapa.flux2 import Flux2
from lary_lapa.flux2_size import Flux2Size
from lary_lapa.univla import Univla
from lary_lapa.univla_size import LamSize, UnivlaSize, VitSize
from lary_schema.base import WeightsError
from lary_schema.cards import ImageCard
from lary_worker.checkpoints import renamed
from lary_worker.convert import convert

CPU = torch.device("cpu")
CARDS = ImageCard.load(files("lary_lapa") / "image.yaml")


class SmallFlux2(Flux2):
    config = Flux2Size(ch=32, num_res_blocks=1, z_channels=4)


class SmallUnivla(Univla):
    config = UnivlaSize(
        VitSize(embed_dim=48, depth=1, num_heads=2),
        LamSize(model_dim=32, latent_dim=8, num_latents=512, enc_blocks=2, num_heads=2),
    )


def _model(kind, mode, variant="corrected", weights=None, dtype=torch.float32):
    model = kind(CARDS.card("flux2" if kind is SmallFlux2 else "univla"), mode, variant)
    model.load({} if weights is None else {"model": weights}, CPU, dtype, seed=0)
    return model


def _batch(frames, rows=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, frames, 224, 224, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def _encode(model, batch):
    return model.encode(batch, np.arange(len(batch)))


# --- FLUX.2 -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    torch.manual_seed(3)
    vae = AutoencoderKLFlux2(block_out_channels=(32, 64, 128, 128), layers_per_block=1, latent_channels=4).eval()
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    folder = tmp_path_factory.mktemp("hub") / "vae"
    vae.save_pretrained(folder)
    return vae, folder


def test_the_hub_folder_gives_what_diffusers_gives(hub):
    """One token is one position: folded 2 x 2 as (channel, row, column), standardised, channels last."""
    vae, folder = hub
    batch = _batch(2, rows=1)
    with torch.inference_mode():
        means = vae.encode(batch[0].permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
    folded = means.reshape(2, 4, 14, 2, 14, 2).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    expected = (folded - vae.bn.running_mean[:, None, None]) / (vae.bn.running_var[:, None, None] + 1e-4).sqrt()
    got = _encode(_model(SmallFlux2, "image", weights=folder), batch).tokens[0]  # (2, 196, 16)
    assert torch.allclose(got, expected.flatten(2).mT, atol=1e-4)


def test_the_decoder_is_not_kept(hub):
    names = _model(SmallFlux2, "image", weights=hub[1]).encoder.state_dict()
    assert not [name for name in names if "decoder" in name or "post_quant" in name]


def test_frames_are_encoded_alone():
    model, batch = _model(SmallFlux2, "image"), _batch(2, rows=1)
    other = batch.clone()
    other[:, 1] = 0
    before, after = _encode(model, batch).tokens, _encode(model, other).tokens
    assert torch.allclose(before[:, 0], after[:, 0], atol=1e-5)
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-2)


def test_another_folder_is_refused(hub, tmp_path):
    config = json.loads((hub[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderKL"}))
    name = "diffusion_pytorch_model.safetensors"
    (tmp_path / name).write_bytes((hub[1] / name).read_bytes())
    with pytest.raises(WeightsError, match="is a AutoencoderKL, but AutoencoderKLFlux2 is expected"):
        _model(SmallFlux2, "image", weights=tmp_path)


def test_flux2_in_bf16_is_close_to_float32(hub):
    batch = _batch(2, rows=1)
    exact, rough = (
        _encode(_model(SmallFlux2, "image", weights=hub[1], dtype=d), batch).tokens
        for d in (torch.float32, torch.bfloat16)
    )
    assert 0 < (exact - rough.float()).norm() / exact.norm() < 0.1


# --- UniVLA -------------------------------------------------------------------------------------


OFFICIAL_NAMES = (
    (r"^backbone\.layernorm\.", "dino_encoder.norm."),
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "dino_encoder.patch_embed.proj."),
    (r"^backbone\.embeddings\.position_embeddings$", "dino_encoder.pos_embed"),
    (r"^backbone\.embeddings\.", "dino_encoder."),
    (r"^backbone\.encoder\.layer\.", "dino_encoder.blocks."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"^codebook\.", "vq_action.codebook."),
    (r"\.to_out\.", ".to_out.0."),
    (r"^", "lam."),
)


def _state(model):
    """The model's tensors under the names of the official file."""
    state = {renamed(name, OFFICIAL_NAMES): tensor for name, tensor in model.network.state_dict().items()}
    for name in [n for n in state if ".attn.q_proj." in n]:
        parts = [state.pop(name.replace(".q_proj.", f".{p}_proj.")) for p in "qkv"]
        state[name.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
    return {**state, "lam.vq.codebook.weight": torch.zeros(2, 2), "lam.decoder.ffn.0.weight": torch.zeros(2)}


def test_a_pickled_lightning_file_is_refused_until_it_is_converted(tmp_path):
    born, batch = _model(SmallUnivla, "image"), _batch(2)
    pickled = {"state_dict": _state(born), "hyper_parameters": Namespace(optimizer=partial(print))}
    torch.save(pickled, tmp_path / "lam.ckpt")
    with pytest.raises(WeightsError, match=r"lam\.ckpt: holds pickled objects .* weights convert"):
        _model(SmallUnivla, "image", weights=tmp_path / "lam.ckpt")
    convert(tmp_path / "lam.ckpt", tmp_path / "lam.safetensors", trusted=True)
    found = _encode(_model(SmallUnivla, "image", weights=tmp_path / "lam.safetensors"), batch)
    expected = _encode(born, batch)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.tokens, expected.tokens)


def test_a_clip_is_its_pairs():
    clip, pair = _model(SmallUnivla, "video"), _model(SmallUnivla, "image")
    batch = _batch(9, rows=1)
    tokens = _encode(clip, batch).tokens
    for t in (0, 4, 7):
        assert torch.equal(tokens[:, t : t + 1], _encode(pair, batch[:, t : t + 2]).tokens)


def test_the_order_of_a_pair_matters():
    model, batch = _model(SmallUnivla, "image"), _batch(2)
    with torch.inference_mode():
        forward, backward = (
            model.network.latents(b.permute(0, 1, 4, 2, 3).float() / 255) for b in (batch, batch.flip(1))
        )
    assert not torch.allclose(forward, backward, atol=1e-3)


def test_univla_in_bf16_is_close_to_float32():
    frames = torch.randn(1, 2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        exact = _model(SmallUnivla, "image").network.latents(frames)
        rough = _model(SmallUnivla, "image", dtype=torch.bfloat16).network.latents(frames.bfloat16())
    assert 0 < (exact - rough.float()).norm() / exact.norm() < 0.05
