"""The two-stage model: what text, stages and labels change, what stage 2 takes, files, read-out, measures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_latentvla import univla_checkpoint as checkpoints
from lary_latentvla.univla import UnivlaTrainee
from lary_latentvla.univla_checkpoint import load_released, take
from lary_latentvla.univla_extract import TINY, Univla
from lary_latentvla.univla_facts import UnivlaConfig
from lary_latentvla.univla_network import UnivlaLam, make_univla
from lary_parts.encoders import make_encoder
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import ModelCard
from lary_schema.training import Recipe, TrainedCard
from lary_trainer.trainee import Batch, Facts
from safetensors.torch import save_file
from torch import nn

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "stage": 1, "size": 16, "patch": 8, "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "tokens": 2,
    "codes": 6, "code_width": 4, "encoder": "pixel", "residual": True, "target_input": "difference",
}  # fmt: skip
EMA = {"kind": "ema", "start": "data", "continuous_steps": 3, "restart": True}
WORDS = ("left", "right")


def recipe(losses: Mapping[str, float] | None = None, **config: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "key": "univla-lam-tiny",
            "title": "tiny",
            "trainee": "univla-lam",
            "config": SIZES | config,
            "optimiser": {"lr": 3e-3},
            "batch_size": 8,
            "steps": 20,
            "losses": losses or {"features": 1.0, "quantiser": 1.0},
        }
    )


def trainee(seed: int = 0, losses: Mapping[str, float] | None = None, **config: Any) -> UnivlaTrainee:
    facts = Facts(rows=64, action_shape=(2, 3), words=WORDS)
    return UnivlaTrainee(recipe(losses, **config), facts, seed)


def batch(step: int = 0, **fields: Any) -> Batch:
    rows = np.arange(8) + 8 * step
    frames = np.full((8, 2, 16, 16, 3), 40, np.uint8)
    for frame, row in zip(frames, rows, strict=True):
        start, move = int(row) % 6, 1 + int(row) // 6 % 5
        frame[0, :, start : start + 4] = frame[1, :, start + move : start + move + 4] = 220
    text = tuple(WORDS[int(row) % 2] for row in rows)
    return Batch(0, step, rows, torch.from_numpy(frames), text=text, **fields)


def train(one: UnivlaTrainee, network: nn.Module, steps: int, **fields: Any) -> dict[str, torch.Tensor]:
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    terms: dict[str, torch.Tensor] = {}
    for step in range(steps):
        now = batch(step % 8, **fields)
        now = Batch(now.seed, step, now.rows, now.frames, now.actions, now.labelled, now.text)
        outputs = one.forward(network, now)
        terms = one.losses(outputs, now)
        optimiser.zero_grad()
        sum(one.recipe.losses[name] * term for name, term in terms.items()).backward()
        optimiser.step()
        one.after_step(network, {name: t.detach() for name, t in outputs.items()}, now)
    return terms


def saved(one: UnivlaTrainee, network: nn.Module, folder: Path) -> Path:
    tensors, config = one.export(network)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    card = TrainedCard(image="latentvla", card=one.card(one.recipe))
    (folder / "card.json").write_text(card.to_json())
    return folder


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = trainee(text="words", text_to=["decoder"], quantiser=EMA)
    network = one.build({}, CPU)
    train(one, network, 8)
    return saved(one, network, tmp_path_factory.mktemp("one"))


def test_the_frozen_codebook_keeps_its_bytes(stage_one: Path, tmp_path: Path) -> None:
    from lary_worker.checkpoints import read_state

    two = trainee(stage=2, quantiser=EMA)
    network = two.build({"start": stage_one}, CPU)
    before = read_state(stage_one / "model.safetensors")
    assert torch.equal(network.get_parameter("action_latent"), before["action_latent"])
    terms = train(two, network, 8)
    assert terms["quantiser"] > 0
    after = read_state(saved(two, network, tmp_path) / "model.safetensors")
    assert after["vq.embedding.weight"].numpy().tobytes() == before["vq.embedding.weight"].numpy().tobytes()
    assert not torch.equal(after["action_latent"], before["action_latent"]), "the learned tokens go on"
    assert not torch.equal(after["vq_action.embedding.weight"], before["vq.embedding.weight"])
    assert after["vq_action.started"] == 1


@pytest.mark.parametrize("taken", [["codebook"], ["codebook", "queries"], ["all"]])
def test_what_stage_two_takes(stage_one: Path, taken: list[str]) -> None:
    two = trainee(seed=1, stage=2, taken=taken)
    fresh = make_univla(two.config, make_encoder(two.config, None), 1).state_dict()
    found = two.build({"start": stage_one}, CPU).state_dict()
    moved = {name for name, tensor in found.items() if not torch.equal(tensor, fresh[name])}
    expected = {"vq.embedding.weight"}
    if taken != ["codebook"]:
        expected.add("action_latent")
    assert expected <= moved
    new = ("vq_action", "to_codebook.", "action_up.", "action_latent_controllable")
    assert not [name for name in moved if name.startswith(new)], "what stage 1 has not begins anew"
    if taken == ["all"]:
        second = ("to_codebook_uncontrol.weight", "action_up_uncontrol.weight", "patch_up.weight", "decoder.out.weight")
        assert set(second) <= moved
        assert all(name in moved for name in found if name.startswith("encoder.transformer") and "ffn" in name)
    else:
        assert moved == expected


def test_starts_that_do_not_fit(stage_one: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="goes on from a checkpoint of stage 1"):
        trainee(stage=2).build({}, CPU)
    with pytest.raises(WeightsError, match="code_width 4, here 8"):
        trainee(stage=2, code_width=8).build({"start": stage_one}, CPU)
    with pytest.raises(WeightsError, match="width 16, here 32"):
        trainee(stage=2, taken=["all"], width=32).build({"start": stage_one}, CPU)
    blind = trainee(latent="none")
    folder = saved(blind, blind.build({}, CPU), tmp_path)
    with pytest.raises(WeightsError, match="no codebook to go on from"):
        trainee(stage=2).build({"start": folder}, CPU)
    network = trainee(stage=2).build({"start": stage_one}, CPU)
    assert isinstance(network, UnivlaLam)
    two = saved(trainee(stage=2), network, tmp_path / "two")
    with pytest.raises(WeightsError, match="is of stage 2"):
        take(network, two)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"stage": 2, "text": "words"}, "stage 2 reads no text"),
        ({"stage": 2, "taken": ["queries"]}, "stage 2 needs the codebook of stage 1"),
        ({"text": "words", "text_to": []}, "nothing reads the text"),
        ({"text": "words", "text_to": ["decoder"], "text_states": "encoded"}, "text_to does not name it"),
        ({"latent": "none", "labels": {"share": 0.5}}, "leaves nothing from which actions are read"),
        ({"labels": {"share": 0.5}}, "losses: without a weight: actions"),
        ({"stage": 3}, "stage"),
        ({"unheard": 1}, "unheard"),
        ({"width": 15}, "width 15"),
    ],
)
def test_recipes_that_are_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        UnivlaTrainee.card(recipe(**config))


@pytest.mark.parametrize("to", [["encoder"], ["decoder"], ["encoder", "decoder"]])
@pytest.mark.parametrize("states", ["text", "encoded"])
def test_where_text_goes(to: list[str], states: str) -> None:
    if states == "encoded" and "encoder" not in to:
        return
    one = trainee(text="words", text_to=to, text_states=states)
    network = one.build({}, CPU)
    assert isinstance(network, UnivlaLam)
    first, target = (network.features(frames) for frames in network.pixels(batch().frames).unbind(1))
    left, right = (network.find(first, target, (word,) * 8) for word in WORDS)
    assert ("encoder" in to) != torch.equal(left.controllable.embeddings, right.controllable.embeddings)
    decoded = [network.decode(first, left.carried, found.text) for found in (left, right)]
    assert ("decoder" in to) != torch.equal(*decoded)


def test_an_empty_instruction_is_refused() -> None:
    one = trainee(text="words")
    network = one.build({}, CPU)
    told = batch()
    silent = Batch(0, 0, told.rows, told.frames, text=(*told.text[:3], "  ", *told.text[4:]))
    with pytest.raises(ContractError, match="row 3: its instruction is empty"):
        one.forward(network, silent)
    assert UnivlaTrainee.reads_text(one.recipe)
    assert not UnivlaTrainee.reads_text(recipe())


def test_labels_move_the_head_by_labelled_rows_alone(stage_one: Path) -> None:
    losses = {"features": 1.0, "quantiser": 1.0, "actions": 0.5}
    two = trainee(losses=losses, stage=2, labels={"share": 0.5}, quantiser=EMA)
    assert UnivlaTrainee.supervision(two.recipe) == "weak"
    assert UnivlaTrainee.label_share(two.recipe) == 0.5
    assert UnivlaTrainee.supervision(recipe()) == "none"
    assert UnivlaTrainee.label_share(recipe()) is None
    network = two.build({"start": stage_one}, CPU)
    actions = torch.randn(8, 2, 3)
    actions[4:] = torch.nan
    known = torch.arange(8) < 4
    grads = []
    for other in (torch.nan, 7.0):
        actions[4:] = other
        now = batch(actions=actions.clone(), labelled=known)
        outputs = two.forward(network, now)
        network.zero_grad()
        two.losses(outputs, now)["actions"].backward()
        found = network.get_parameter("action_latent_controllable").grad
        assert found is not None
        assert found.isfinite().all()
        grads.append(found.clone())
    assert grads[0].abs().sum() > 0, "the actions reach the controllable tokens"
    assert torch.equal(*grads), "unlabelled rows count for nothing"
    none = batch(actions=torch.full((8, 2, 3), torch.nan), labelled=torch.zeros(8, dtype=torch.bool))
    assert two.losses(two.forward(network, none), none)["actions"] == 0


def test_dead_codes_restart_in_the_codebook_that_trains(stage_one: Path) -> None:
    two = trainee(stage=2, quantiser={"restart": True})
    network = two.build({"start": stage_one}, CPU)
    assert isinstance(network, UnivlaLam)
    frozen = network.vq.embedding.weight.clone()
    with torch.no_grad():
        network.vq_action.embedding.weight.fill_(100.0)
        network.vq_action.embedding.weight[0] = 0.0
    one = batch()
    for step in range(55):
        outputs = {name: t.detach() for name, t in two.forward(network, one).items()}
        two.after_step(network, outputs, Batch(0, step, one.rows, one.frames))
    moved = (network.vq_action.embedding.weight < 99).all(1)
    assert moved.all()
    assert torch.equal(network.vq.embedding.weight, frozen)


def test_measures_and_their_controls(stage_one: Path) -> None:
    two = trainee(stage=2, quantiser=EMA)
    network = two.build({"start": stage_one}, CPU)
    train(two, network, 30)
    measured = two.evaluate(network, lambda: [batch(0), batch(1)])
    assert measured["rec"] < measured["copy"]
    assert measured["shuffled"] >= measured["rec"]
    assert {"shuffled_controllable", "shuffled_uncontrolled", "perplexity_uncontrolled"} <= measured.keys()
    assert 1 <= measured["codes_used"] <= 6
    assert 1 <= measured["codes_used_uncontrolled"] <= 6
    collapsed = measured | {"perplexity_uncontrolled": 1.2, "codes_used_uncontrolled": 2.0}
    assert any("codebook of stage 1 has collapsed" in line for line in two.health(collapsed))
    assert two.health({"copy": 0.0})

    blind = trainee(latent="none", text="words", losses={"features": 1.0})
    lonely = blind.build({}, CPU)
    train(blind, lonely, 2)
    assert blind.evaluate(lonely, lambda: [batch()]).keys() == {"rec", "copy"}


def test_a_trained_model_is_read_as_it_was(stage_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = trainee(stage=2, quantiser=EMA)
    network = two.build({"start": stage_one}, CPU)
    train(two, network, 6)
    weights = tmp_path / "weights"
    folder = saved(two, network, weights / "checkpoint")
    monkeypatch.setenv("LARY_MOUNT_WEIGHTS", str(weights))
    card: ModelCard = two.card(two.recipe)
    assert card.variants == ("embed", "codebook", "onehot", "uncontrolled")
    assert isinstance(network, UnivlaLam)
    frames = batch().frames
    first, target = (network.features(pixels) for pixels in network.pixels(frames).unbind(1))
    with torch.no_grad():
        found = network.find(first, target)
    assert found.uncontrolled is not None
    expected = {
        "embed": (found.controllable.embeddings, found.controllable.indices),
        "codebook": (found.controllable.codes, found.controllable.indices),
        "onehot": (nn.functional.one_hot(found.controllable.indices, 6).float(), found.controllable.indices),
        "uncontrolled": (found.uncontrolled.codes, found.uncontrolled.indices),
    }
    for variant, (tokens, indices) in expected.items():
        model = Univla(card, "image", variant)
        model.load({"checkpoint": folder}, CPU, torch.float32, 0)
        with torch.inference_mode():
            read = model.encode(frames, np.arange(8))
        assert read.indices is not None
        assert torch.allclose(read.tokens[:, 0], tokens, atol=1e-6), variant
        assert torch.equal(read.indices[:, 0], indices), variant


def test_a_changed_config_is_refused(stage_one: Path, tmp_path: Path) -> None:
    for file in stage_one.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["pixels"]["mean"] = [0.0, 0.0, 0.0]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="the file was changed"):
        checkpoints.read_checkpoint_config(tmp_path)
    one = trainee(text="words", text_to=["decoder"], quantiser=EMA)
    other = UnivlaTrainee(one.recipe, Facts(rows=64, words=("up",)), 0)
    with pytest.raises(WeightsError, match="knows 2 words"):
        other.build({"start": stage_one}, CPU)
    again = one.build({"start": stage_one}, CPU)
    assert again.get_buffer("vq.started") == 1


# --- released files ---------------------------------------------------------------------------


def _released(stage: int, *, policy: bool = False) -> tuple[UnivlaLam, dict[str, torch.Tensor]]:
    """A network of another seed, and its tensors under the released names."""
    config = UnivlaConfig.model_validate(SIZES | {"stage": stage})
    network = make_univla(config, make_encoder(config, None), 5, numbers=6 if policy else None)
    state = {}
    for name, tensor in network.kept_state().items():
        released = name.replace("vq.embedding.", "vq.codebook.").replace("vq_action.embedding.", "vq_action.codebook.")
        state[released if name.startswith("action_decoder.") else f"lam.{released}"] = tensor.clone()
    return network, state | {"lam.dino_encoder.cls_token": torch.zeros(1, 1, 16)}


@pytest.mark.parametrize(("stage", "policy"), [(1, False), (2, False), (2, True)])
def test_released_names_load_strictly(stage: int, policy: bool) -> None:
    source, state = _released(stage, policy=policy)
    config = source.config
    network = make_univla(config, make_encoder(config, None), 0, numbers=6 if policy else None)
    load_released(network, state, "file")
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in source.state_dict().items())
    with pytest.raises(WeightsError, match="missing"):
        load_released(network, {k: t for k, t in state.items() if k != "lam.patch_up.weight"}, "file")
    with pytest.raises(WeightsError, match="unexpected"):
        load_released(network, state | {"lam.more": torch.zeros(1)}, "file")
    assert all(not p.requires_grad for p in network.vq.parameters()) or stage == 1


# --- resume -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2])
def test_all_that_lasts_lies_in_the_networks_state(stage_one: Path, stage: int) -> None:
    """A training whose network and optimiser go through their states after every step ends in the same bits."""
    options = {"text": "words", "quantiser": EMA} if stage == 1 else {"stage": 2, "quantiser": EMA}
    one = trainee(**options)
    init = {"start": stage_one} if stage == 2 else {}

    def run(interrupted: bool) -> dict[str, torch.Tensor]:
        network = one.build(init, CPU)
        optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=3e-3)
        for step in range(8):
            if interrupted:
                states = network.state_dict(), optimiser.state_dict()
                network = trainee(seed=9, **options).build(init, CPU)
                network.load_state_dict({name: tensor.clone() for name, tensor in states[0].items()})
                optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=3e-3)
                optimiser.load_state_dict(states[1])
            now = batch(step)
            outputs = one.forward(network, now)
            optimiser.zero_grad()
            torch.stack(list(one.losses(outputs, now).values())).sum().backward()
            optimiser.step()
            one.after_step(network, {name: t.detach() for name, t in outputs.items()}, now)
        return network.state_dict()

    straight, broken = run(False), run(True)
    assert all(torch.equal(tensor, broken[name]) for name, tensor in straight.items())


def test_the_self_test_has_the_shapes_of_the_card() -> None:
    assert (TINY.tokens, TINY.code_width, TINY.codes, TINY.stage) == (4, 32, 16, 2)
