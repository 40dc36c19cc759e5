"""The tokenizer: its names and shapes, what gets gradients, the quantiser, checkpoints, read-out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_lara import checkpoint, measures
from lary_lara.extract import Moto
from lary_lara.facts import MotoConfig
from lary_lara.moto import MotoTrainee
from lary_lara.network import Tokenizer, make_tokenizer
from lary_lara.pictures import GAP, SIDE
from lary_parts.encoders import make_encoder
from lary_parts.layers import Stack
from lary_schema.base import ContractError, WeightsError
from lary_schema.training import Recipe, TrainedCard
from lary_trainer.chance import stream
from lary_trainer.trainee import Batch, Facts
from safetensors.torch import save_file

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "size": 16, "patch": 8, "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "queries": 3,
    "codes": 12, "code_width": 4, "encoder": "pixel", "initial": "fan-in",
}  # fmt: skip
EMA = {"kind": "ema", "start": "data", "continuous_steps": 5, "restart": True}


def recipe(steps: int = 20, losses: Mapping[str, float] | None = None, **config: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "key": "moto-tiny",
            "title": "tiny",
            "trainee": "moto",
            "config": TINY | config,
            "optimiser": {"lr": 3e-3},
            "batch_size": 8,
            "steps": steps,
            "losses": losses or {"pixels": 1.0, "quantiser": 1.0},
        }
    )


def trainee(seed: int = 0, **config: Any) -> MotoTrainee:
    return MotoTrainee(recipe(**config), Facts(rows=64), seed)


def pairs(rows: np.ndarray) -> torch.Tensor:
    """uint8 (B, 2, 16, 16, 3): a bright bar that moves by the row's number."""
    frames = np.full((len(rows), 2, 16, 16, 3), 40, np.uint8)
    for frame, row in zip(frames, rows, strict=True):
        start, move = int(row) % 6, 1 + int(row) // 6 % 5
        frame[0, :, start : start + 4] = frame[1, :, start + move : start + move + 4] = 220
    return torch.from_numpy(frames)


def batch(step: int = 0, rows: np.ndarray | None = None, seed: int = 0) -> Batch:
    rows = np.arange(8) if rows is None else rows
    return Batch(seed=seed, step=step, rows=rows, frames=pairs(rows))


def built(made: MotoTrainee, init: Mapping[str, Path] | None = None) -> Tokenizer:
    network = made.build(init or {}, CPU)
    assert isinstance(network, Tokenizer)
    return network


def train(made: MotoTrainee, network: Tokenizer, steps: int) -> list[dict[str, float]]:
    """A loop of a few lines, without states and events."""
    groups = made.parameter_groups(network)
    optimiser = torch.optim.AdamW([p for group in groups.values() for p in group], lr=3e-3, weight_decay=0)
    curve = []
    for step in range(steps):
        part = batch(step, stream(made.seed, "order", step).integers(0, 30, 16))
        outputs = made.forward(network, part)
        terms = made.losses(outputs, part)
        optimiser.zero_grad()
        torch.stack([made.recipe.losses[k] * v for k, v in terms.items()]).sum().backward()
        optimiser.step()
        made.after_step(network, {k: v.detach() for k, v in outputs.items()}, part)
        curve.append({k: v.item() for k, v in terms.items()})
    return curve


def saved(made: MotoTrainee, network: Tokenizer, folder: Path) -> Path:
    folder.mkdir()
    tensors, config = made.export(network)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "card.json").write_text(TrainedCard(image="lara", card=made.card(made.recipe)).to_json())
    return folder


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


# --- names and shapes -------------------------------------------------------------------------

_LAYER = {
    **{f"attention.attention.{p}": ("W", "W") for p in ("query", "key", "value")},
    "attention.output.dense": ("W", "W"),
    "intermediate.dense": ("M", "W"),
    "output.dense": ("W", "M"),
}
_NORMS = ("layernorm_before", "layernorm_after")


def released(
    w: int, encoder: int, decoder: int, queries: int, tokens: int, features: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the release, from its published facts: patch 16, 128 codes of 32, frames of 224."""
    sizes = {"W": w, "M": 4 * w}
    named: dict[str, tuple[int, ...]] = {
        "m_former.embeddings.latent_motion_token": (1, queries, w),
        "m_former.embeddings.sep_token": (1, 1, w),
        "m_former.embeddings.projection.weight": (w, features),
        "m_former.embeddings.projection.bias": (w,),
        "m_former.embeddings.position_embeddings": (1, queries + 2 * tokens + 1, w),
        "m_former.embeddings.token_type_embeddings": (2, w),
        "vector_quantizer.embedding.weight": (128, 32),
        "decoder.transformer.embeddings.patch_embeddings.projection.weight": (w, 3, 16, 16),
        "decoder.transformer.embeddings.patch_embeddings.projection.bias": (w,),
        "decoder.transformer.embeddings.query_pooling_layer.weight": (w, queries * w),
        "decoder.transformer.embeddings.query_pooling_layer.bias": (w,),
        "decoder.transformer.embeddings.position_embeddings": (1, 196, w),
        "decoder.decoder.0.weight": (768, w, 1, 1),
        "decoder.decoder.0.bias": (768,),
    }
    for stack, depth in (("m_former", encoder), ("decoder.transformer", decoder)):
        named |= {f"{stack}.layernorm.{p}": (w,) for p in ("weight", "bias")}
        for layer in range(depth):
            prefix = f"{stack}.encoder.layer.{layer}."
            for name, (rows, columns) in _LAYER.items():
                named[f"{prefix}{name}.weight"] = (sizes[rows], sizes[columns])
                named[f"{prefix}{name}.bias"] = (sizes[rows],)
            named |= {f"{prefix}{norm}.{p}": (w,) for norm in _NORMS for p in ("weight", "bias")}
    for name, shapes in {"vq_down_resampler": ((w, w), (32, w)), "vq_up_resampler": ((32, 32), (w, 32))}.items():
        for place, shape in zip((0, 2), shapes, strict=True):
            named |= {f"{name}.{place}.weight": shape, f"{name}.{place}.bias": shape[:1]}
    return named


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_first_tokens_alone_are_those_of_all(depth: int) -> None:
    generator = torch.Generator().manual_seed(depth)
    stack = Stack(16, 2, depth)
    x = torch.randn(3, 7, 16, generator=generator, requires_grad=True)
    whole, part = stack(x)[:, :4], stack(x, 4)
    torch.testing.assert_close(part, whole)
    gradients = [torch.autograd.grad(found.square().sum(), x)[0] for found in (whole, part)]
    torch.testing.assert_close(*gradients)
    assert gradients[0][:, 4:].abs().sum() > 0 or depth == 0


@pytest.mark.parametrize(("config", "rows"), [({}, 4), ({"pixel_convention": "unit"}, 4), ({"latent": "none"}, 3)])
def test_a_picture_shows_pairs_and_what_is_made_of_them(config: dict[str, Any], rows: int) -> None:
    made = trainee(**config)
    parts = [batch(rows=np.arange(at, at + 2)) for at in range(3)]
    picture = made.picture(made.build({}, CPU), lambda: parts)
    assert picture is not None
    assert (picture.dtype, picture.shape) == (np.uint8, (rows * (SIDE + GAP), 3 * (SIDE + GAP), 3))
    for at, part in enumerate(parts):  # first and second frame, as they are
        for below in range(2):
            found = picture[below * (SIDE + GAP) + GAP :, at * (SIDE + GAP) + GAP :][:SIDE, :SIDE]
            frame = part.frames[0, below].numpy()
            assert np.array_equal(found[:: SIDE // len(frame), :: SIDE // len(frame)], frame)
    assert made.picture(made.build({}, CPU), lambda: []) is None


LARGE = MotoConfig(size=224, patch=16, width=768, heads=12, encoder_layers=4, decoder_layers=12, encoder="mae-l")


def test_moto_l_has_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        network = Tokenizer(LARGE, make_encoder(LARGE, None, untrained=True))
    found = {name: tuple(t.shape) for name, t in network.kept_state().items()}
    assert found == released(768, 4, 12, queries=8, tokens=197, features=1024)
    trainable = {"former": network.m_former, "decoder": network.decoder}
    millions = {k: sum(p.numel() for p in part.parameters()) / 1e6 for k, part in trainable.items()}
    assert millions == pytest.approx({"former": 29.5, "decoder": 91.2}, abs=0.5)


SMALL = MotoConfig(
    size=224, patch=16, width=16, heads=2, encoder_layers=1, decoder_layers=2, queries=8, encoder="random-vit"
)


@pytest.fixture(scope="module")
def released_state() -> dict[str, torch.Tensor]:
    shapes = released(16, 1, 2, queries=8, tokens=196, features=128)
    return {
        name: torch.from_numpy(stream(0, name).standard_normal(shape, dtype=np.float32))
        for name, shape in shapes.items()
    }


def small() -> Tokenizer:
    return make_tokenizer(SMALL, make_encoder(SMALL, None), 0)


@pytest.mark.parametrize("prefix", ["", "action_head.latent_motion_tokenizer."])
def test_released_names_load_strictly(released_state: dict[str, torch.Tensor], prefix: str) -> None:
    network = small()
    extra = {"image_encoder.a": torch.zeros(1), "loss_fn_lpips.b": torch.zeros(1)}
    policy = {"action_head.model.x": torch.zeros(1)} if prefix else {}
    state = {prefix + name: t for name, t in (released_state | extra).items()} | policy
    checkpoint.load_state(network, state, Path("file"))
    assert all(torch.equal(network.kept_state()[name], t) for name, t in released_state.items())
    assert all(not p.requires_grad for p in network.image_encoder.parameters())
    assert all(p.requires_grad for p in network.m_former.parameters())


@pytest.mark.parametrize("name", sorted(released(16, 1, 2, 8, 196, 128))[::4])
def test_each_missing_name_is_named(released_state: dict[str, torch.Tensor], name: str) -> None:
    with pytest.raises(WeightsError, match=f"1 missing: {name}"):
        checkpoint.load_state(small(), {k: v for k, v in released_state.items() if k != name}, Path("file"))


def test_unexpected_names_are_named(released_state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"1 unexpected: m_former\.pooler\.weight"):
        checkpoint.load_state(small(), released_state | {"m_former.pooler.weight": torch.zeros(1)}, Path("file"))


# --- gradients and frames ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [{}, {"quantiser": EMA}, {"fusion": "tokens"}, {"encoder": "random-vit", "target_input": "difference"}],
    ids=["gradient", "ema", "tokens", "random-vit"],
)
def test_gradients_reach_all_that_trains_and_nothing_frozen(config: dict[str, Any]) -> None:
    made = trainee(**config)
    network = built(made)
    part = batch()
    terms = made.losses(made.forward(network, part), part)
    torch.stack(list(terms.values())).sum().backward()
    trained = {id(p) for group in made.parameter_groups(network).values() for p in group}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in trained) == parameter.requires_grad, name
        # The second token type is never used, as in the release.
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name
    assert not any(p.requires_grad for p in network.image_encoder.parameters())


def test_of_the_pixels_the_code_alone_carries_gradient_to_the_queries() -> None:
    made = trainee()
    network = built(made)
    made.losses(made.forward(network, batch()), batch())["pixels"].backward()
    assert network.m_former.embeddings.latent_motion_token.grad.abs().sum() > 0
    assert network.vector_quantizer.embedding.weight.grad is None


@pytest.mark.parametrize("target_input", ["frame", "difference"])
@pytest.mark.parametrize("encoder", ["pixel", "random-vit"])
def test_the_latent_changes_with_each_of_its_frames_and_no_other(target_input: str, encoder: str) -> None:
    made = trainee(target_input=target_input, encoder=encoder, size=32)
    card = made.card(made.recipe)
    model = Moto(card.model_copy(update={"pattern": None}), "video", "embed")
    model.use(built(made), made.config.codes, 1, CPU, torch.float32)
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 9, 32, 32, 3), np.uint8))
    before = model.encode(clip, np.array([0])).tokens[0]
    for frame in range(9):
        changed = clip.clone()
        changed[0, frame] = 255 - changed[0, frame]
        moved = (model.encode(changed, np.array([0])).tokens[0] - before).abs().amax((1, 2)) > 1e-4
        assert moved.nonzero().flatten().tolist() == [t for t in (frame - 1, frame) if 0 <= t < 8]


def test_residual_is_the_first_frame_and_what_is_added() -> None:
    networks = [built(trainee(residual=residual)) for residual in (False, True)]
    frame = networks[0].pixels(pairs(np.arange(4))[:, 0])
    code = torch.zeros(4, 3, 4)
    torch.testing.assert_close(networks[1].decode(frame, code), frame + 0.1 * networks[0].decode(frame, code))


def test_without_a_latent_the_decoder_alone_is_trained() -> None:
    made = MotoTrainee(recipe(latent="none"), Facts(rows=64), 0)
    MotoTrainee.card(recipe(latent="none", losses={"pixels": 1.0}))
    network = built(made)
    part = batch()
    terms = made.losses(made.forward(network, part), part)
    assert terms["quantiser"].item() == 0
    terms["pixels"].backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None}
    assert all(name.startswith("decoder.") and "query_pooling" not in name for name in trained)
    frame, codes = network.pixels(part.frames[:, 0]), torch.ones(2, 8, 3, 4)
    assert torch.equal(network.decode(frame, codes[0]), network.decode(frame, codes[1] * 5))
    assert set(made.evaluate(network, lambda: [part])) == {"rec", "copy"}
    untrained = built(trainee()).kept_state()
    assert all(torch.equal(network.kept_state()[n], untrained[n]) for n in untrained if n.startswith("m_former"))


def test_first_weights_follow_from_the_seed_alone() -> None:
    states = [built(trainee(seed)).kept_state() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    name = "m_former.embeddings.sep_token"
    assert not torch.equal(states[0][name], states[2][name])


def test_rows_do_not_depend_on_each_other() -> None:
    made = trainee()
    network = built(made)
    whole = made.forward(network, batch(rows=np.arange(6)))
    for row in range(6):
        alone = made.forward(network, batch(rows=np.array([row])))
        for name, value in alone.items():
            torch.testing.assert_close(whole[name][row : row + 1], value)


# --- training and measures --------------------------------------------------------------------


def make_trained() -> tuple[MotoTrainee, Tokenizer, list[dict[str, float]]]:
    made = trainee(quantiser=EMA, target_input="difference", residual=True)
    network = built(made)
    return made, network, train(made, network, 60)


@pytest.fixture(scope="module")
def trained() -> tuple[MotoTrainee, Tokenizer, list[dict[str, float]]]:
    return make_trained()


def test_it_learns(trained: tuple[MotoTrainee, Tokenizer, list[dict[str, float]]]) -> None:
    curve = trained[2]
    assert [entry["quantiser"] for entry in curve[:5]] == [0.0] * 5
    assert all(entry["quantiser"] > 0 for entry in curve[5:])
    assert np.mean([e["pixels"] for e in curve[-10:]]) < 0.6 * np.mean([e["pixels"] for e in curve[:10]])


def test_measures_say_what_they_say(trained: tuple[MotoTrainee, Tokenizer, list[dict[str, float]]]) -> None:
    made, network, _ = trained
    parts = [batch(rows=np.arange(16)), batch(rows=np.arange(16, 28))]
    found = made.evaluate(network, lambda: parts)
    frames = network.pixels(torch.cat([part.frames for part in parts]))
    assert found["copy"] == pytest.approx((frames[:, 0] - frames[:, 1]).square().mean().item(), rel=1e-5)
    outputs = [made.forward(network, part) for part in parts]
    assert found["rec"] == pytest.approx(torch.cat([o["pixels"] for o in outputs]).mean().item(), rel=1e-5)
    indices = torch.cat([o["indices"] for o in outputs])
    assert found["codes_used"] == len(indices.unique())
    assert found["shuffled"] > found["rec"]
    assert made.evaluate(network, lambda: [batch(rows=np.arange(28))]) == pytest.approx(found, rel=1e-4)


def test_perplexity_and_rank_of_known_distributions() -> None:
    assert measures.perplexity(torch.tensor([[0, 1], [2, 3]]), 9) == pytest.approx(4)
    assert measures.perplexity(torch.zeros(5, 2, dtype=torch.int64), 9) == pytest.approx(1)
    rows = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert measures.effective_rank(rows + 7) == pytest.approx(2)
    assert np.isnan(measures.effective_rank(torch.ones(4, 3)))


@pytest.mark.parametrize("count", [2, 3, 17])
def test_every_row_gets_the_code_of_another(count: int) -> None:
    other = measures.other_rows(count, "x")
    assert sorted(other) == list(range(count))
    assert (other != np.arange(count)).all()


def test_health_names_a_collapse_and_still_frames() -> None:
    made = trainee()
    assert made.health({"copy": 0.1, "perplexity": 9.0, "codes_used": 12}) == []
    assert "3 of 12 codes in use (perplexity 2.1)" in made.health({"perplexity": 2.1, "codes_used": 3.0})[0]
    assert "copying is perfect" in made.health({"copy": 0.0, "perplexity": 9.0})[0]


# --- recipes that are refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widht": 3}, "widht"),
        ({"quantiser": {"decay": 0.9, "kinds": "ema"}}, "quantiser.kinds"),
        ({"patch": 5}, "patch 5 does not divide size 16"),
        ({"heads": 3}, "heads 3 do not divide width 16"),
        ({"encoder": "clip"}, "encoder"),
        ({"encoder": "mae-l"}, "size 224"),
        ({"encoder": "dinov2-b-reg", "size": 28, "patch": 14, "pixel_convention": "unit"}, "imagenet"),
    ],
)
def test_a_config_is_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        MotoTrainee.card(recipe(**config))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"pixels": 1.0}, "without a weight: quantiser"),
        ({"pixels": 1.0, "quantiser": 1.0, "flow": 1.0}, "unknown: flow"),
    ],
)
def test_terms_are_those_that_it_computes(losses: dict[str, float], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        MotoTrainee.card(recipe(losses=losses))


def lpips_state() -> dict[str, torch.Tensor]:
    """Names and shapes of the LPIPS package's network over VGG16, with its second names of the same layers."""
    widths, state = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512), {}
    places = ((1, 0), (1, 2), (2, 5), (2, 7), *((3, n) for n in (10, 12, 14)), *((4, n) for n in (17, 19, 21)),
              *((5, n) for n in (24, 26, 28)))  # fmt: skip
    for (stage, place), inputs, outputs in zip(places, widths, widths[1:], strict=False):
        state[f"net.slice{stage}.{place}.weight"] = vectors(outputs, inputs, 3, 3) * 0.05
        state[f"net.slice{stage}.{place}.bias"] = vectors(outputs)
    for number, width in enumerate((64, 128, 256, 512, 512)):
        for name in (f"lin{number}", f"lins.{number}"):
            state[f"{name}.model.1.weight"] = vectors(1, width, 1, 1).abs()
    return state | {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.zeros(1, 3, 1, 1)}


def test_lpips_is_a_term_where_its_weights_are_given(tmp_path: Path) -> None:
    save_file(lpips_state(), tmp_path / "lpips.safetensors")
    made = MotoTrainee(recipe(losses={"pixels": 1, "quantiser": 1, "lpips": 1}), Facts(rows=8), 0)
    assert [w.name for w in made.card(made.recipe).weights] == ["checkpoint", "lpips"]
    network = built(made, {"lpips": tmp_path / "lpips.safetensors"})
    part = batch()
    term = made.losses(made.forward(network, part), part)["lpips"]
    term.backward()
    assert term.item() > 0
    assert network.decoder.get_parameter("decoder.0.weight").grad is not None
    frames = network.pixels(part.frames[:, 0])
    assert made.perceptual(frames, frames, "imagenet").abs().max().item() == pytest.approx(0, abs=1e-6)
    unit = (frames * frames.new_tensor([0.229, 0.224, 0.225])[:, None, None]) + frames.new_tensor(
        [0.485, 0.456, 0.406]
    )[:, None, None]
    moved = [made.perceptual(f, f.roll(1, -1), c) for f, c in ((frames, "imagenet"), (unit, "unit"))]
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-3, atol=1e-5)


def test_lpips_without_weights_is_refused() -> None:
    made = MotoTrainee(recipe(losses={"pixels": 1, "quantiser": 1, "lpips": 1}), Facts(rows=8), 0)
    with pytest.raises(WeightsError, match=r"losses\.lpips needs the weights"):
        made.build({}, CPU)


@pytest.mark.parametrize(("encoder", "size", "patch"), [("mae-l", 224, 16), ("dinov2-b-reg", 28, 14)])
def test_an_encoder_without_weights_is_refused(encoder: str, size: int, patch: int) -> None:
    with pytest.raises(WeightsError, match=f"encoder {encoder} needs its weights"):
        trainee(encoder=encoder, size=size, patch=patch).build({}, CPU)
