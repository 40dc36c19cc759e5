"""Policies on drawn image-text models: what each strategy sees, labels and trains, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_latentvla.backbones import image_inputs, image_tokens
from lary_latentvla.latent_vla import LatentVla, LatentVlaTrainee
from lary_latentvla.tokenizer_checkpoint import config_document as tokenizer_document
from lary_latentvla.tokenizer_facts import TokenizerConfig
from lary_latentvla.tokenizer_network import ActionTokenizer
from lary_latentvla.vla_build import Parts, load_network, make_network
from lary_latentvla.vla_facts import TERMS, Strategy, VlaConfig
from lary_latentvla.vla_head import entries
from lary_latentvla.vla_network import VlaNetwork, at, before, make_prompt
from lary_latentvla.vocabulary import ACTION_SLOT, WRAPPINGS, Vocabulary, label_token, word_tokenizer
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import Latents
from lary_schema.training import Recipe
from lary_trainer.rows import Standardise
from lary_trainer.trainee import Batch, Facts
from safetensors.torch import save_file
from torch.nn import functional

CPU = torch.device("cpu")
STRATEGIES: tuple[Strategy, ...] = tuple(TERMS)
BACKBONES = ("qwen3-vl-tiny", "smolvlm-tiny")
ROWS, N, A, K, CODES, D = 3, 4, 2, 2, 6, 5
TEXTS = ("push red", "pull the big blue one", "push blue")
WORDS = tuple(sorted({word for text in TEXTS for word in text.split()}))
CARD = Latents(folder="x", steps=N, tokens=K, width=D, codes=CODES, dt=4, model="f" * 64)


def recipe(
    strategy: Strategy = "baseline", losses: dict[str, float] | None = None, steps: int = 4, **config: Any
) -> Recipe:
    config = {"strategy": strategy, "backbone": "qwen3-vl-tiny", "size": 64, "chunk": N, "latent_tokens": K} | config
    fields = {"key": "latent-vla-tiny", "title": "tiny", "trainee": "latent-vla", "config": config, "steps": steps}
    optimiser = {"lr": 1e-3, "weight_decay": 0.01, "clip": 1.0, "schedule": "constant"}
    terms = dict.fromkeys(TERMS[strategy], 1.0) if losses is None else losses
    return Recipe.model_validate(fields | {"optimiser": optimiser, "batch_size": 4, "losses": terms})


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `la-tok`: an action tokenizer for chunks (N, A), as it is drawn."""
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"), (N, A))


def write_tokenizer(folder: Path, shape: tuple[int, int]) -> Path:
    from lary_latentvla.action_range import ActionRange

    config = TokenizerConfig(width=16, heads=2, feed_forward=16, layers=1, codes=CODES)
    torch.manual_seed(0)
    network = ActionTokenizer(config, shape[1])
    network.vq.draw(np.random.default_rng(0))
    save_file(network.kept_state(), folder / "model.safetensors")
    limits = ActionRange(np.full(shape[1], -1.0), np.full(shape[1], 1.0))
    (folder / "config.json").write_text(json.dumps(tokenizer_document("action-tokenizer-x", config, shape, limits)))
    return folder


def data() -> tuple[Any, torch.Tensor, dict[str, torch.Tensor]]:
    rng = np.random.default_rng(0)
    latents = {
        "latent_idx": torch.from_numpy(rng.integers(0, CODES, (ROWS, N, K))),
        "latent_z": torch.from_numpy(rng.normal(size=(ROWS, N, K, D)).astype(np.float32)),
        "latent_valid": torch.from_numpy(rng.random((ROWS, N)) < 0.7),
    }
    frames = torch.from_numpy(rng.integers(0, 256, (ROWS, 2, 64, 64, 3), np.uint8))
    return rng.normal(size=(ROWS, N, A)), frames, latents


def built(
    chosen: Recipe, tokenizer: Path | None = None, card: Latents | None = CARD
) -> tuple[LatentVlaTrainee, VlaNetwork, Batch]:
    actions, frames, latents = data()
    standardise = Standardise(actions)
    reads = LatentVlaTrainee.reads_latents(chosen)
    facts = Facts(ROWS, (N, A), WORDS, standardise.facts, card if reads else None)
    made = LatentVlaTrainee(chosen, facts, 0)
    torch.manual_seed(0)
    start = {"start": tokenizer} if chosen.config["strategy"] == "la-tok" and tokenizer else {}
    network = made.build(start, CPU)
    assert isinstance(network, VlaNetwork)
    standard = torch.from_numpy(standardise(actions))
    given = {name: latents[name] for name in (*reads, "latent_valid")} if reads else {}
    batch = Batch(
        seed=0, step=0, rows=np.arange(ROWS), frames=frames, actions=standard, text=TEXTS, latents=given
    )  # fmt: skip
    return made, network, batch


# --- tokens and positions --------------------------------------------------------------------------


def vocabulary(labels: int = CODES) -> Vocabulary:
    return Vocabulary(word_tokenizer(WORDS), WRAPPINGS["tiny"], labels)


def test_ids_are_those_of_the_tokenizer_and_all_differ() -> None:
    found = vocabulary()
    own = [found.latent_slot, found.action_slot, *found.labels]
    assert len(set(own)) == CODES + 2 == len(found.added)
    assert found.tokenizer.convert_ids_to_tokens(found.labels) == [label_token(n) for n in range(CODES)]
    other = Vocabulary(word_tokenizer((*WORDS, "further")), WRAPPINGS["tiny"], CODES)
    assert set(own).isdisjoint(other.labels[-1:]), "another tokenizer, other ids"
    assert other.labels[0] == found.labels[0] + 1


def test_tokens_that_exist_already_are_refused() -> None:
    tokenizer = word_tokenizer(WORDS)
    Vocabulary(tokenizer, WRAPPINGS["tiny"], 2)
    with pytest.raises(ContractError, match="has '<|lary_latent|>' already".replace("|", r"\|")):
        Vocabulary(tokenizer, WRAPPINGS["tiny"], 2)
    with pytest.raises(ContractError, match="it is not of this backbone's family"):
        Vocabulary(word_tokenizer(WORDS), WRAPPINGS["qwen3-vl"], 2)


@pytest.mark.parametrize("text", [ACTION_SLOT, f"push {label_token(1)}", f"push{ACTION_SLOT}red", "push <image>"])
def test_an_instruction_that_holds_a_token_of_the_model_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="which the model reads as its own"):
        vocabulary().ids(text, 4, (2, 2))


@pytest.mark.parametrize("length", [0, 1, 5])
def test_positions_are_found_by_their_ids(length: int) -> None:
    """Whatever the texts' lengths; what is neither padded nor a placeholder is image or text."""
    found = vocabulary()
    rows = [found.ids(text, 4, (N * K, N)) for text in ("push " * length, "pull the big blue one")]
    prompt = make_prompt(rows, found, CPU)
    for row, ids in enumerate(rows):
        assert prompt.slots[row].tolist() == list(range(len(ids) - N * K - N, len(ids)))
        assert prompt.ids[row, prompt.slots[row]].tolist() == [found.latent_slot] * N * K + [found.action_slot] * N
        assert int(prompt.task[row].sum()) == len(ids) - N * K - N
        assert int(prompt.image[row].sum()) == 4
        assert int(prompt.there[row].sum()) == len(ids)


@pytest.mark.parametrize("compute", ["matched", "released"])
def test_numbers_of_placeholders(compute: Any) -> None:
    found = {s: sum(VlaConfig(strategy=s, backbone="qwen3-vl-tiny", size=64, chunk=8, compute=compute).slots)
             for s in STRATEGIES}  # fmt: skip
    if compute == "matched":
        assert set(found.values()) == {5 * 8}
    else:
        assert list(found.values()) == [40, 40, 32, 40, 8]


def test_labels_are_scored_one_position_before_they_stand() -> None:
    """By a model that copies its input: its logits at a position are the token there."""
    ids = torch.randint(0, 9, (2, 12))
    logits = functional.one_hot(ids, 9).float()
    slots = torch.arange(4, 10).expand(2, -1)
    scored = at(logits, before(slots)).argmax(-1)
    assert torch.equal(scored, ids[:, 3:9])
    assert not torch.equal(scored, ids[:, 4:10])


@pytest.mark.parametrize("strategy", ["la-direct", "la-cond", "la-tok"])
def test_labels_move_the_states_before_their_placeholders_and_no_others(
    strategy: Strategy, tokenizer_folder: Path
) -> None:
    made, network, batch = built(recipe(strategy), tokenizer_folder)
    prompt = network.prompt(TEXTS, CPU)
    states = [state.detach() for state in network.states(batch.frames[:, 0], prompt)]
    states[-1].requires_grad_()
    network.states = lambda *_: tuple(states)  # type: ignore[method-assign]
    outputs = made.forward(network, batch)
    made.losses(outputs, batch)["labels"].backward()
    gradient = states[-1].grad
    assert gradient is not None
    moved = gradient.abs().sum(-1) > 0
    labelled = network.labelled(prompt)
    assert labelled is not None
    expected = torch.zeros_like(moved).scatter(1, before(labelled), made.labels(batch)[1])
    assert torch.equal(moved, expected)


def test_labels_are_in_the_order_of_steps_and_those_of_the_data() -> None:
    made, network, batch = built(recipe("la-cond"))
    codes, valid = made.labels(batch)
    assert torch.equal(codes.reshape(ROWS, N, K), batch.latents["latent_idx"])
    assert torch.equal(valid.reshape(ROWS, N, K)[..., 0], batch.latents["latent_valid"])
    assert network.label_ids.tolist() == network.vocabulary.labels


# --- the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_reach_both_towers_and_the_chunk_varies(
    strategy: Strategy, backbone: str, tokenizer_folder: Path
) -> None:
    made, network, batch = built(recipe(strategy, backbone=backbone), tokenizer_folder)
    terms = made.losses(made.forward(network, batch), batch)
    assert set(terms) == set(TERMS[strategy])
    sum(terms.values(), torch.zeros(())).backward()
    unreached = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    towers = {"qwen3-vl-tiny": ("visual", "language_model"), "smolvlm-tiny": ("vision_model", "text_model")}
    for tower in (f"backbone.model.{name}." for name in towers[backbone]):
        inside = {name for name, _ in network.named_parameters() if name.startswith(tower)}
        assert inside, tower
        assert len(inside & unreached) < len(inside) / 3, sorted(inside & unreached)
    # A gate and a query that begin at 0 let nothing through to what they gate and weigh, at first.
    assert {n for n in unreached if n.startswith(("head.", "pool.", "aligner."))} <= {
        n for n, _ in network.named_parameters() if ".task." in n or n.endswith("key.bias") or "pool.norm" in n
    }
    with torch.no_grad():
        chunk = network(batch.frames[:, 0], TEXTS).actions
    assert chunk.shape == (ROWS, N, A)
    assert float(chunk.std(1).min()) > 1e-3


@pytest.mark.parametrize("backbone", BACKBONES)
def test_rows_do_not_depend_on_each_other_nor_on_padding(backbone: str) -> None:
    _, network, batch = built(recipe("la-direct", backbone=backbone))
    network.eval()
    with torch.no_grad():
        for block in network.head.blocks:
            block.gate.fill_(1.0)
        whole = network(batch.frames[:, 0], TEXTS)
        for row in range(ROWS):
            alone = network(batch.frames[row : row + 1, 0], TEXTS[row : row + 1])
            torch.testing.assert_close(alone.actions[0], whole.actions[row], atol=1e-5, rtol=1e-4)
            assert alone.scores is not None
            assert whole.scores is not None
            torch.testing.assert_close(alone.scores[0], whole.scores[row], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frame_and_instruction_are_seen_and_the_second_frame_is_not(backbone: str) -> None:
    made, network, batch = built(recipe(backbone=backbone))
    with torch.no_grad():
        first = made.see(network, batch).actions
        other = batch.frames.clone()
        other[:, 1] = 0
        assert torch.equal(first, made.see(network, _with(batch, frames=other)).actions)
        other[:, 0] = 255 - other[:, 0]
        assert not torch.allclose(first, made.see(network, _with(batch, frames=other)).actions, atol=1e-6)
        assert not torch.allclose(first, made.see(network, _with(batch, text=TEXTS[::-1])).actions, atol=1e-6)


def _with(batch: Batch, **changes: Any) -> Batch:
    return Batch(**{name: getattr(batch, name) for name in Batch.__dataclass_fields__} | changes)


@pytest.mark.parametrize("size", [64, 96])
def test_images_are_cut_as_the_familys_own_processor_does(size: int) -> None:
    processors = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    network = make_network(VlaConfig(backbone="qwen3-vl-tiny", size=size, chunk=N), Parts(WORDS, 0, A, 0), None)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8))
    settings = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "do_resize": False}
    processor = processors.Qwen2VLImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3, **settings)
    expected = processor(list(frames.numpy()), return_tensors="pt", input_data_format="channels_last")
    found = image_inputs("qwen3-vl", network.backbone, frames)
    torch.testing.assert_close(found["pixel_values"], expected["pixel_values"], atol=1e-5, rtol=0)
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    assert image_tokens("qwen3-vl", network.backbone, size) == (size // 32) ** 2


def test_blocks_read_the_last_states() -> None:
    assert entries(3, 5) == [2, 3, 4]
    assert entries(4, 5) == [1, 2, 3, 4]
    assert entries(6, 3) == [1, 1, 1, 2, 2, 2]


def test_attention_is_sdpa() -> None:
    for backbone in BACKBONES:
        config = built(recipe(backbone=backbone))[1].backbone.config
        assert config._attn_implementation == "sdpa"


def test_adapters_train_themselves_and_the_added_tokens_alone() -> None:
    pytest.importorskip("peft")
    made, network, batch = built(recipe("la-cond", lora={"rank": 2, "alpha": 4}))
    trained = {name for name, p in network.named_parameters() if p.requires_grad and name.startswith("backbone.")}
    assert all("lora_" in name or "trainable_tokens" in name for name in trained)
    assert sum("lora_" in name for name in trained) > 20
    before_step = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # lora_A moves once lora_B is no longer 0
        optimiser.zero_grad()
        sum(made.losses(made.forward(network, batch), batch).values(), torch.zeros(())).backward()
        optimiser.step()
    moved = {
        n for n, p in network.named_parameters() if n.startswith("backbone.") and not torch.equal(p, before_step[n])
    }
    assert moved <= trained
    assert any("visual" in name for name in moved)
    assert any("trainable_tokens" in name for name in moved)
    kept, config = made.export(network)[0], network.config
    assert any(name.endswith("base_layer.weight") for name in kept), "a drawn backbone is nowhere else"
    network.config = config.model_copy(update={"backbone": "qwen3-vl-2b"})
    assert set(network.kept_state()) == {n for n, p in network.named_parameters() if p.requires_grad}


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_term_that_a_strategy_lacks_cannot_be_asked_for(strategy: Strategy) -> None:
    LatentVlaTrainee.card(recipe(strategy))
    for other in {"labels", "alignment", "flow"} - set(TERMS[strategy]):
        with pytest.raises(ContractError, match=f"strategy {strategy} computes {', '.join(TERMS[strategy])};"):
            LatentVlaTrainee.card(recipe(strategy, dict.fromkeys((*TERMS[strategy], other), 1.0)))
    with pytest.raises(ContractError, match="computes"):
        LatentVlaTrainee.card(recipe(strategy, {}))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"chunks": 3}, "chunks"),
        ({"size": 40}, "no multiple of 32"),
        ({"head_heads": 5}, "do not divide"),
        ({"prompt": "do it"}, "has no {instruction}"),
        ({"backbone": "gpt"}, "backbone"),
    ],
)
def test_configs_that_cannot_be_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        LatentVlaTrainee.card(recipe(**config))


def test_data_of_other_sizes_are_refused() -> None:
    with pytest.raises(ContractError, match="chunk 5, and the card's actions have 4 steps"):
        built(recipe(chunk=5))
    with pytest.raises(ContractError, match="latent_tokens 3, and the card's latents have 2"):
        built(recipe("la-align", latent_tokens=3))
    with pytest.raises(ContractError, match="say steps 1"):
        built(recipe("la-direct"), card=CARD.model_copy(update={"steps": 1}))


@pytest.mark.parametrize("layer", [-6, 5])
def test_hidden_states_that_are_not_there_are_refused(layer: int) -> None:
    with pytest.raises(ContractError, match="has 4 layers, so the hidden states are 0 to 4"):
        built(recipe("la-align", align_layer=layer))


def test_starts_that_cannot_be_are_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="needs a trained action tokenizer"):
        built(recipe("la-tok"))
    with pytest.raises(WeightsError, match=r"codes chunks \(4, 3\), the data's are \(4, 2\)"):
        built(recipe("la-tok"), write_tokenizer(tmp_path, (N, 3)))
    made, _, _ = built(recipe())
    with pytest.raises(WeightsError, match="starts from no checkpoint"):
        made.build({"start": tokenizer_folder}, CPU)
    with pytest.raises(WeightsError, match="needs its downloaded folder"):
        built(recipe(backbone="qwen3-vl-2b"))


# --- measures and checkpoints ----------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_measures_stand_beside_what_a_constant_gives(strategy: Strategy, tokenizer_folder: Path) -> None:
    made, network, batch = built(recipe(strategy), tokenizer_folder)
    with torch.no_grad():
        found = made.evaluate(network.eval(), lambda: [batch, batch])
        actions = made.see(network, batch).actions
    truth = made.targets(batch)
    assert found["l1"] == pytest.approx(float((actions - truth).abs().mean()), rel=1e-5)
    assert found["l1_step_2"] == pytest.approx(float((actions - truth)[:, 1].abs().mean()), rel=1e-5)
    assert ("label_accuracy" in found) == ("labels" in TERMS[strategy])
    assert ("cosine_centred" in found) == (strategy == "la-align")
    if "label_majority" in found:
        codes, valid = made.labels(batch)
        shares = torch.bincount(codes[valid]) / valid.sum()
        assert found["label_majority"] == pytest.approx(float(shares.max()))
        assert found["label_unigram"] == pytest.approx(float(shares.square().sum()))
    assert made.health(found | {"spread": 0.0})


@pytest.mark.parametrize("strategy", ["la-align", "la-direct"])
@pytest.mark.parametrize("config", [{}, {"lora": {"rank": 2, "alpha": 4}}, {"backbone": "smolvlm-tiny"}])
def test_what_is_read_is_what_was_trained(strategy: Strategy, config: dict[str, Any], tmp_path: Path) -> None:
    if "lora" in config:
        pytest.importorskip("peft")
    made, network, batch = built(recipe(strategy, **config))
    tensors, document = made.export(network)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(document))
    again = load_network(tmp_path, None).eval()
    with torch.no_grad():
        expected, found = (one.eval()(batch.frames[:, 0], TEXTS) for one in (network, again))
    assert torch.equal(expected.actions, found.actions)
    for name in ("aligned", "scores"):
        one, other = getattr(expected, name), getattr(found, name)
        assert (one is None and other is None) or torch.equal(one, other), "shared weights are shared again"
    model = LatentVla.__new__(LatentVla)
    model.network = again
    tokens = model.encode(batch.frames, batch.rows).tokens
    assert tokens.shape == (ROWS, 1, N * K + N, 64)
    (tmp_path / "model.safetensors").unlink()
    save_file(
        {n: t.contiguous().clone() for n, t in tensors.items() if n != "head.queries"}, tmp_path / "model.safetensors"
    )
    with pytest.raises(WeightsError, match=r"head\.queries"):
        load_network(tmp_path, None)
