"""Released files: loaded strictly, and what they give, against the published formulas written out. At small sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lary_lara import released
from lary_lara.released import Released, released_config
from lary_parts import encoders
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import ImageCard, ModelCard, PairColumns
from lary_schema.jobs import MetadataFile, Source
from lary_schema.values import ExtractionSettings, make_values
from safetensors.torch import save_file
from torch.nn import functional

CARD = ImageCard.model_validate(yaml.safe_load((Path(released.__file__).parent / "image.yaml").read_text()))
KEYS = ("moto-oxe", "moto-calvin", "lara-stage1")
WIDTH, HEADS, LAYERS, FEATURES, TOKENS = 16, 2, 2, 8, 197
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
State = dict[str, torch.Tensor]


def layer_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    named: dict[str, tuple[int, ...]] = {}
    linear = {f"attention.attention.{p}": (WIDTH, WIDTH) for p in ("query", "key", "value")} | {
        "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (4 * WIDTH, WIDTH),
        "output.dense": (WIDTH, 4 * WIDTH),
    }
    for name, shape in linear.items():
        named |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
    for norm in ("layernorm_before", "layernorm_after"):
        named |= {f"{prefix}.{norm}.weight": (WIDTH,), f"{prefix}.{norm}.bias": (WIDTH,)}
    return named


def shapes() -> dict[str, tuple[int, ...]]:
    """Of a whole released file, but for its width and depth."""
    former, decoder = "m_former", "decoder.transformer"
    named: dict[str, tuple[int, ...]] = {
        f"{former}.embeddings.latent_motion_token": (1, 8, WIDTH),
        f"{former}.embeddings.sep_token": (1, 1, WIDTH),
        f"{former}.embeddings.projection.weight": (WIDTH, FEATURES),
        f"{former}.embeddings.projection.bias": (WIDTH,),
        f"{former}.embeddings.position_embeddings": (1, 8 + 2 * TOKENS + 1, WIDTH),
        f"{former}.embeddings.token_type_embeddings": (2, WIDTH),
        "vector_quantizer.embedding.weight": (128, 32),
        f"{decoder}.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, 16, 16),
        f"{decoder}.embeddings.patch_embeddings.projection.bias": (WIDTH,),
        f"{decoder}.embeddings.query_pooling_layer.weight": (WIDTH, 8 * WIDTH),
        f"{decoder}.embeddings.query_pooling_layer.bias": (WIDTH,),
        f"{decoder}.embeddings.position_embeddings": (1, 196, WIDTH),
        "decoder.decoder.0.weight": (768, WIDTH, 1, 1),
        "decoder.decoder.0.bias": (768,),
    }
    for stack, depth in ((former, LAYERS), (decoder, 1)):
        named |= {f"{stack}.layernorm.{p}": (WIDTH,) for p in ("weight", "bias")}
        for number in range(depth):
            named |= layer_shapes(f"{stack}.encoder.layer.{number}")
    for name, (inner, out) in {"down": (WIDTH, 32), "up": (32, WIDTH)}.items():
        first = inner
        named |= {f"vq_{name}_resampler.0.weight": (first, first), f"vq_{name}_resampler.0.bias": (first,)}
        named |= {f"vq_{name}_resampler.2.weight": (out, first), f"vq_{name}_resampler.2.bias": (out,)}
    return named


@pytest.fixture(scope="module")
def state() -> State:
    made = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=made) for name, shape in sorted(shapes().items())}
    return {name: t * (0.3 if name.endswith("weight") else 0.1) for name, t in drawn.items()}


@pytest.fixture(scope="module")
def mae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub's, of a smaller network."""
    import transformers

    torch.manual_seed(1)
    config = transformers.ViTMAEConfig(
        hidden_size=FEATURES, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    folder = tmp_path_factory.mktemp("mae")
    transformers.ViTMAEModel(config).save_pretrained(folder)
    return folder


Load = Callable[..., Released]


@pytest.fixture
def load(mae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load(card, variant, state)`: the model with these tensors in its file."""
    sizes = {"hidden_size": FEATURES, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    monkeypatch.setattr(encoders, "MAE", {**encoders.MAE, **sizes})
    small = {"width": WIDTH, "heads": HEADS, "encoder_layers": LAYERS, "decoder_layers": 1}
    monkeypatch.setattr(released, "CONFIG", released.CONFIG.model_copy(update=small))

    def loaded(card: ModelCard, variant: str, tensors: State) -> Released:
        file = tmp_path / "tokenizer.safetensors"
        save_file(tensors, file)
        model = Released(card, "image", variant)
        model.load({"tokenizer": file, "encoder": mae}, torch.device("cpu"), torch.float32, 0)
        return model

    return loaded


def written_out(state: State, mae: Path, frames: torch.Tensor, convention: str) -> torch.Tensor:
    """z_e (B, 8, 32) of uint8 (B, 2, 224, 224, 3), by the published formulas alone."""
    import transformers

    backbone: Any = transformers.ViTMAEModel.from_pretrained(mae, mask_ratio=0.0).eval()
    pixels = frames.float() / 255
    if convention == "imagenet":
        pixels = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
    images = pixels.permute(0, 1, 4, 2, 3)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def features(image: torch.Tensor) -> torch.Tensor:
        noise = torch.arange(196.0).expand(len(image), -1)
        return linear(backbone(pixel_values=image, noise=noise).last_hidden_state, "m_former.embeddings.projection")

    rows = len(frames)
    parts = "m_former.embeddings"
    tokens = [state[f"{parts}.{name}"].expand(rows, -1, -1) for name in ("latent_motion_token", "sep_token")]
    x = torch.cat([tokens[0], features(images[:, 0]), tokens[1], features(images[:, 1])], 1)
    x = x + state[f"{parts}.position_embeddings"] + state[f"{parts}.token_type_embeddings"][0]
    for number in range(LAYERS):
        at = f"m_former.encoder.layer.{number}"
        normed = norm(x, f"{at}.layernorm_before")
        heads = {
            p: linear(normed, f"{at}.attention.attention.{p}").reshape(rows, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
            for p in ("query", "key", "value")
        }
        weights = (heads["query"] @ heads["key"].mT / (WIDTH // HEADS) ** 0.5).softmax(-1)
        mixed = (weights @ heads["value"]).transpose(1, 2).reshape(rows, -1, WIDTH)
        x = x + linear(mixed, f"{at}.attention.output.dense")
        hidden = functional.gelu(linear(norm(x, f"{at}.layernorm_after"), f"{at}.intermediate.dense"))
        x = x + linear(hidden, f"{at}.output.dense")
    queries = norm(x, "m_former.layernorm")[:, :8]
    return linear(torch.tanh(linear(queries, "vq_down_resampler.0")), "vq_down_resampler.2")


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 2, 224, 224, 3), np.uint8))


@pytest.mark.parametrize(("key", "convention"), list(zip(KEYS, ("imagenet", "imagenet", "unit"), strict=True)))
@torch.inference_mode()
def test_values(load: Load, state: State, mae: Path, frames: torch.Tensor, key: str, convention: str) -> None:
    card = CARD.card(key)
    assert card is not None
    expected = written_out(state, mae, frames, convention)
    codes = state["vector_quantizer.embedding.weight"]
    nearest = torch.cdist(expected, codes[None], compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
    rows = np.arange(2)
    found = {v: load(card, v, state).encode(frames, rows) for v in card.variants}
    torch.testing.assert_close(found["embed"].tokens[:, 0], expected, rtol=1e-4, atol=1e-5)
    for latents in found.values():
        assert latents.indices is not None
        assert torch.equal(latents.indices[:, 0], nearest)
    torch.testing.assert_close(found["codebook"].tokens[:, 0], codes[nearest])
    assert torch.equal(found["onehot"].tokens[:, 0].argmax(-1), nearest)
    other = written_out(state, mae, frames, "unit" if convention == "imagenet" else "imagenet")
    assert not torch.allclose(other, expected, atol=1e-2)


def test_the_file_of_a_policy_is_read_too(load: Load, state: State, frames: torch.Tensor) -> None:
    """The tokenizer's tensors under their prefix inside a policy's shards, with the frozen encoder and LPIPS's."""
    card = CARD.card("lara-stage1")
    assert card is not None
    prefix = "action_head.latent_motion_tokenizer."
    inside = {prefix + name: t for name, t in state.items()} | {"action_head.model.x": torch.zeros(1)}
    beside = state | {"image_encoder.x": torch.zeros(1), "loss_fn_lpips.y": torch.zeros(1)}
    with torch.inference_mode():
        found = [load(card, "embed", some).encode(frames, np.arange(2)).tokens for some in (state, inside, beside)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", sorted(shapes())[::6])
def test_a_missing_tensor_is_named(load: Load, state: State, name: str) -> None:
    card = CARD.card("moto-oxe")
    assert card is not None
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load(card, "embed", {k: t for k, t in state.items() if k != name})


def test_an_unexpected_tensor_is_named(load: Load, state: State) -> None:
    card = CARD.card("moto-oxe")
    assert card is not None
    with pytest.raises(WeightsError, match=r"m_former\.pooler\.weight"):
        load(card, "embed", state | {"m_former.pooler.weight": torch.zeros(1)})


def test_another_pixel_convention_is_another_store() -> None:
    """Of the same file: its hash is the same, what it is fed is not."""
    card = CARD.card("moto-oxe")
    assert card is not None
    source = Source(
        metadata=MetadataFile(path="m.csv", sha256="0" * 64, rows=1), columns=PairColumns(), media=".", frames=1
    )
    weights = {"tokenizer": "1" * 64, "encoder": "2" * 64}
    prints = set()
    for preprocessing in ("area-224-imagenet", "area-224-unit"):
        other = card.model_copy(update={"preprocessing": preprocessing, "code_sha256": "3" * 64})
        assert released_config(other).pixel_convention == preprocessing.removeprefix("area-224-")
        values = make_values(other, "moto-oxe", "embed", "set", "val", source, weights, ExtractionSettings())
        prints.add(values.fingerprint)
    assert len(prints) == 2
    with pytest.raises(ContractError, match="not area-224-imagenet or area-224-unit"):
        released_config(card.model_copy(update={"preprocessing": "area-224"}))
