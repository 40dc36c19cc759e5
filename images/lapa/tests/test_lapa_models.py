"""Facts of the lapa image that the golden vectors do not hold: cards, families, noise, batches, bfloat16."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lary_lapa import models
from lary_lapa.facts import LaqConfig, MagvitConfig, code_count
from lary_lapa.laq import Codes, Nsvq, PositionBias, code_convolutions, with_noise
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard

IMAGE = ImageCard.load(Path(models.__file__).with_name("image.yaml"))
CPU = torch.device("cpu")
SMALL = LaqConfig(dim=32, heads=2, dim_head=16, spatial_depth=1, temporal_depth=1)


class SmallLapa(models.Lapa):
    config = replace(SMALL, code_seq_len=4, codebook_size=64)


class SmallMagvit2(models.LapaMagvit2):
    config = replace(SMALL, dim=18)
    tokenizer = MagvitConfig(ch=32, num_res_blocks=1)


def loaded(cls, key="lapa", variant="corrected", mode="video", seed=7, dtype=torch.float32):
    model = cls(IMAGE.card(key), mode, variant)
    model.random_weights(CPU, dtype, seed)
    return model


def clips(*seeds, t=9):
    return np.stack([np.random.default_rng(s).integers(0, 256, (t, 224, 224, 3), np.uint8) for s in seeds])


def encode(model, batch, rows):
    with torch.inference_mode():
        return model.encode(torch.from_numpy(batch), np.array(rows))


# --- read-outs --------------------------------------------------------------------------------


def test_noise_belongs_to_the_row_whatever_its_batch():
    model = loaded(SmallLapa, variant="lary-v1")
    a, b = clips(0, 1)
    together = encode(model, np.stack([a, b]), [40, 41]).tokens
    swapped = encode(model, np.stack([b, a]), [41, 40]).tokens
    alone = encode(model, b[None], [41]).tokens
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together, swapped.flip(0), rtol=0, atol=1e-5)


def test_noise_differs_between_rows_and_seeds_and_is_absent_elsewhere():
    clip = clips(0)
    noisy = loaded(SmallLapa, variant="lary-v1")
    first, second = (encode(noisy, clip, [row]).tokens for row in (3, 4))
    assert (first - second).abs().max() > 0.1
    noisy.seed = 8
    assert (first - encode(noisy, clip, [3]).tokens).abs().max() > 0.1
    clean = loaded(SmallLapa)
    assert torch.equal(encode(clean, clip, [3]).tokens, encode(clean, clip, [4]).tokens)


def test_the_same_call_twice_is_bit_equal():
    model, clip = loaded(SmallLapa, variant="lary-v1"), clips(0)
    assert torch.equal(encode(model, clip, [3]).tokens, encode(model, clip, [3]).tokens)


def test_all_variants_give_the_same_codes():
    clip = clips(0)
    found = [encode(loaded(SmallLapa, variant=v), clip, [0]).indices for v in ("corrected", "codebook", "lary-v1")]
    assert found[0].dtype == torch.int64
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_noise_has_the_length_of_the_quantisation_error():
    torch.manual_seed(0)
    codes = Codes(torch.randn(3, 4, 8), torch.randn(3, 4, 8), torch.zeros(3, 4, dtype=torch.int64))
    added = with_noise(codes, torch.randn(3, 4, 8)) - codes.change
    torch.testing.assert_close(added.norm(dim=-1), (codes.change - codes.nearest).norm(dim=-1))


def test_the_nearest_code_is_found():
    torch.manual_seed(0)
    vq = Nsvq(replace(SMALL, codebook_size=50)).eval()
    codes = vq(torch.randn(2, 2, 14, 14, 32))
    squared = (codes.change[:, :, None] - vq.codebooks).square().sum(-1)
    assert torch.equal(codes.indices, squared.argmin(-1))
    assert torch.equal(codes.nearest, vq.codebooks[codes.indices])


# --- frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "key", "tokens"), [(SmallLapa, "lapa", (4, 32)), (SmallMagvit2, "magvit2", (16, 18))])
def test_a_clip_is_its_pairs(cls, key, tokens):
    clip = clips(0)
    of_clip = encode(loaded(cls, key), clip, [0]).tokens[0]
    pair = loaded(cls, key, mode="image")
    assert of_clip.shape == (8, *tokens)
    for t in (0, 7):
        of_pair = encode(pair, clip[:, t : t + 2], [0]).tokens
        assert of_pair.shape == (1, 1, *tokens)
        torch.testing.assert_close(of_pair[0, 0], of_clip[t], rtol=0, atol=1e-5)


def test_mixed_planes_are_consecutive_colour_planes():
    batch = torch.arange(9)[:, None] + torch.tensor([0, 100, 200])  # frame t, channel c -> t + 100 c
    batch = batch.to(torch.uint8)[None, :, None, None].expand(2, 9, 2, 2, 3)
    mixed = models._PatchFeatureModel._mixed_planes(batch)
    seen = (mixed[:, :, 0, 0] * 255).round().int()
    assert mixed.shape == (18, 3, 2, 2)
    assert seen[:4].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [100, 101, 102]]


def test_the_position_bias_is_the_network_of_every_offset():
    torch.manual_seed(0)
    bias = PositionBias(16, 2)
    grid = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"), -1).reshape(-1, 2)
    offset = (grid[:, None] - grid).float()
    expected = bias.mlp(offset.sign() * offset.abs().add(1).log()).permute(2, 0, 1)
    torch.testing.assert_close(bias(3, 4), expected)


# --- cards ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "side", "codes"), [
    (1, 14, 16), (2, 14, 20), (4, 14, 25), (16, 14, 16), (49, 14, 49), (64, 14, 64), (256, 14, 49),
    (1, 16, 25), (2, 16, 30), (16, 16, 16), (64, 16, 81), (4, 7, 4), (64, 7, 16),
])  # fmt: skip
def test_code_counts(length, side, codes):
    out = code_convolutions(length, 8)(torch.zeros(1, 8, side, side))
    assert code_count(length, side) == codes == out.shape[2] * out.shape[3]


def test_a_family_key_tells_its_file_and_shapes():
    key = "dinov3-cs256_sl49_dim64_lr1e-4"
    card = IMAGE.card(key)
    resolved = models.LapaDinov3Ablation.resolve(card, key)
    assert resolved.key == key
    assert resolved.weights[0].path == "dinov3_cs256_sl49_dim64_lr1e-4.pt"
    assert resolved.weights[1] == card.weights[1]
    assert resolved.modes["video"].tokens == (8, 49, 1024)
    assert resolved.modes["image"].indices == (1, 49)
    model = models.LapaDinov3Ablation(resolved, "video", "corrected")
    assert model.config == LaqConfig(codebook_size=256, code_seq_len=49, quant_dim=64)


def test_a_family_key_outside_the_pattern_is_refused():
    card = IMAGE.card("dinov3-cs8_sl16_dim32_lr1e-4")
    assert IMAGE.card("dinov3-cs8_sl17_dim32_lr1e-4") is None
    with pytest.raises(ContractError, match="dinov3-cs8_sl16_dim32_lr1e-4"):
        models.LapaDinov3Ablation.resolve(card, "dinov3-nonsense")


def test_official_sizes_have_the_published_number_of_parameters():
    """Encoder side, in millions; upstream's count holds a norm per layer that nothing uses."""
    from lary_lapa.laq import Laq, PatchEmbedding
    from lary_lapa.magvit2 import MagvitEncoder

    def millions(*networks):
        return sum(p.numel() for n in networks for p in n.parameters()) / 1e6

    with torch.device("meta"):
        lapa = models.Lapa.config
        assert millions(Laq(lapa), PatchEmbedding(32, lapa.dim)) == pytest.approx(206.2, abs=0.1)
        assert millions(Laq(models.LapaDinov3.config)) == pytest.approx(102.1, abs=0.1)
        assert millions(MagvitEncoder(MagvitConfig())) == pytest.approx(49.8, abs=0.1)


# --- the worker's side ------------------------------------------------------------------------


def test_bfloat16_runs_and_stays_near():
    clip = clips(0)
    full = encode(loaded(SmallLapa), clip, [0]).tokens
    half = encode(loaded(SmallLapa, dtype=torch.bfloat16), clip, [0]).tokens
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().mean() < 0.05 * full.abs().mean()


def test_decode_processes_do_without_torch():
    code = "import sys, lary_lapa.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
