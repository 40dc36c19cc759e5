"""The joint stage: what gets gradients, what is aligned, the arms' switches, the policy's measures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_lara.alignment import RELATIVE, alignment_loss, alignment_measures, policy_rows
from lary_lara.joint import JointNetwork
from lary_lara.joint_facts import LaraConfig
from lary_lara.lara import LaraTrainee
from lary_lara.moto import MotoTrainee
from lary_parts.flow import flow_times
from lary_parts.words import word_numbers
from lary_schema.base import ContractError, WeightsError
from lary_schema.training import Recipe
from lary_trainer.chance import stream
from lary_trainer.schedule import make_optimiser
from lary_trainer.steps import Stepper
from lary_trainer.trainee import Batch, Facts, Outputs
from lary_trainer.world import World
from safetensors.torch import save_file

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "size": 16, "patch": 8, "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "queries": 3,
    "codes": 12, "code_width": 4, "encoder": "pixel", "initial": "fan-in",
    "quantiser": {"kind": "ema", "start": "data", "continuous_steps": 4, "restart": True},
}  # fmt: skip
POLICY = {"policy_width": 16, "policy_blocks": 4, "policy_heads": 2}
LOSSES = {"flow": 1.0, "alignment": 0.1, "regression": 0.1, "pixels": 0.02, "quantiser": 0.01}
FACTS = Facts(rows=64, action_shape=(4, 2), words=("down", "up"))


def recipe(losses: Mapping[str, float] | None = None, trainee: str = "lara", **config: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "key": f"{trainee}-tiny",
            "title": "tiny",
            "trainee": trainee,
            "config": SIZES | (POLICY if trainee == "lara" else {}) | config,
            "optimiser": {"lr": 2e-3, "scale": {"lam": 0.15} if trainee == "lara" else {}, "warmup": 2},
            "batch_size": 8,
            "steps": 20,
            "losses": losses or LOSSES,
        }
    )


def batch(step: int = 0, rows: np.ndarray | None = None, seed: int = 0) -> Batch:
    """A bright bar that moves by as much as the action and the text say."""
    rows = np.arange(8) if rows is None else rows
    frames = np.full((len(rows), 2, 16, 16, 3), 40, np.uint8)
    moves = [int(row) // 6 % 5 - 2 for row in rows]
    for frame, row, move in zip(frames, rows, moves, strict=True):
        start = 3 + int(row) % 6
        frame[0, :, start : start + 4] = frame[1, :, start + move : start + move + 4] = 220
    actions = torch.tensor(moves, dtype=torch.float32)[:, None, None].expand(-1, 4, 2) / 1.4
    return Batch(
        seed=seed,
        step=step,
        rows=rows,
        frames=torch.from_numpy(frames),
        actions=actions.contiguous(),
        labelled=torch.ones(len(rows), dtype=torch.bool),
        text=tuple("up" if move > 0 else "down now" for move in moves),
    )


def trainee(seed: int = 0, **config: Any) -> LaraTrainee:
    return LaraTrainee(recipe(**config), FACTS, seed)


def built(made: MotoTrainee, init: Mapping[str, Path] | None = None) -> Any:
    return made.build(init or {}, CPU)


def train(made: MotoTrainee, network: Any, steps: int) -> list[dict[str, float]]:
    groups = made.parameter_groups(network)
    scale = made.recipe.optimiser.scale
    optimiser = torch.optim.AdamW(
        [{"params": group, "lr": 5e-3 * scale.get(name, 1)} for name, group in groups.items()], weight_decay=0
    )
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


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tokenizer."""
    made = MotoTrainee(recipe({"pixels": 1.0, "quantiser": 1.0}, "moto"), Facts(rows=64), 3)
    network = built(made)
    train(made, network, 6)
    folder = tmp_path_factory.mktemp("start")
    tensors, config = made.export(network)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def gradients(made: LaraTrainee, network: JointNetwork, term: str) -> dict[str, float]:
    """Sum of magnitudes by parameter, of those that the term reaches."""
    part = batch()
    made.losses(made.forward(network, part), part)[term].backward()
    found = {n: p.grad.abs().sum().item() for n, p in network.named_parameters() if p.grad is not None}
    return {name: size for name, size in found.items() if size > 0}


# --- gradients --------------------------------------------------------------------------------

LATENT = (
    *("m_former.embeddings.latent_motion_token", "m_former.encoder.layer.0.attention.attention.query.weight"),
    *("m_former.embeddings.projection.weight", "vq_down_resampler.0.weight", "vq_down_resampler.2.weight"),
)


@pytest.mark.parametrize("alignment", ["cosine", "centred", "contrastive"])
@pytest.mark.parametrize(("stopped", "lam", "policy"), [("none", 1, 1), ("lam", 0, 1), ("policy", 1, 0)])
def test_alignment_reaches_both_sides_or_one(start: Path, alignment: str, stopped: str, lam: int, policy: int) -> None:
    made = trainee(alignment=alignment, stop_gradient=stopped)
    found = gradients(made, built(made, {"start": start}), "alignment")
    assert all((f"tokenizer.{name}" in found) == bool(lam) for name in LATENT)
    assert ("alignment.weight" in found) == bool(policy)
    assert ("policy.blocks.0.query.weight" in found) == bool(policy)
    assert not any(name.startswith(("tokenizer.decoder", "tokenizer.image_encoder")) for name in found)


@pytest.mark.parametrize(("layer", "reached"), [(-1, 4), (-2, 3), (-3, 2), (1, 1), (0, 0), (-5, 0)])
def test_the_layer_is_the_one_of_the_recipe(start: Path, layer: int, reached: int) -> None:
    made = trainee(alignment_layer=layer)
    found = gradients(made, built(made, {"start": start}), "alignment")
    blocks = {int(name.split(".")[2]) for name in found if name.startswith("policy.blocks.")}
    assert blocks == set(range(reached))


@pytest.mark.parametrize("token", [-1, 0, 2])
def test_the_token_is_the_one_of_the_recipe(start: Path, token: int) -> None:
    made = trainee(alignment_token=token, alignment_layer=0)  # the input: no token has seen another yet
    network, part = built(made, {"start": start}), batch()
    assert part.actions is not None
    before = made.forward(network, part)["aligned"]
    for changed in range(4):
        actions = part.actions.clone()
        actions[:, changed] += 1
        after = made.forward(network, Batch(**{**part.__dict__, "actions": actions}))["aligned"]
        assert torch.equal(before, after) == (changed != token % 4)


def test_flow_trains_the_policy_alone(start: Path) -> None:
    made = trainee()
    found = gradients(made, built(made, {"start": start}), "flow")
    assert all(name.startswith("policy.") for name in found)
    assert {"policy.words.weight", "policy.observation.weight", "policy.positions"} <= set(found)


def test_nothing_frozen_gets_a_gradient(start: Path) -> None:
    made = trainee(encoder="random-vit")
    network, part = built(made), batch()
    torch.stack(list(made.losses(made.forward(network, part), part).values())).sum().backward()
    frozen = [p for n, p in network.named_parameters() if "image_encoder" in n]
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"alignment": "contrastive"},
        {"alignment": "contrastive", "pairing": "permuted"},
        {"lam": "frozen"},
        {"policy": "none", "action_head": "linear"},
    ],
    ids=["A2", "A2c", "A3c", "A4", "A5"],
)
def test_the_objective_is_the_weighted_sum_whole_and_in_parts(start: Path, config: dict[str, Any]) -> None:
    part, totals, weights = batch(), [], []
    for micro_batch in (8, 3):
        made = trainee(**config)
        network = built(made, {"start": start})
        optimiser, rates = make_optimiser(made.recipe, made.parameter_groups(network), network)
        stepper = Stepper(
            made, network, optimiser, rates, World(CPU), CPU, False, micro_batch, lambda _: None, lambda whole, _: whole
        )
        figures = stepper.step(part, [8]).figures
        assert set(LOSSES) <= set(figures)
        assert figures["total"] == pytest.approx(sum(w * figures[name] for name, w in LOSSES.items()), rel=1e-5)
        totals.append(figures)
        weights.append({n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None})
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)
    for name, gradient in weights[0].items():
        torch.testing.assert_close(weights[1].get(name, torch.zeros_like(gradient)), gradient, rtol=1e-3, atol=1e-6)


# --- the arms ---------------------------------------------------------------------------------


def test_a_frozen_tokenizer_keeps_its_bytes(start: Path) -> None:
    made = trainee(lam="frozen")
    network = built(made, {"start": start})
    before = {name: t.clone() for name, t in network.tokenizer.state_dict().items()}
    curve = train(made, network, 5)
    assert all(torch.equal(t, before[name]) for name, t in network.tokenizer.state_dict().items())
    assert made.parameter_groups(network)["lam"] == []
    assert curve[0]["flow"] != curve[-1]["flow"]
    exported, _ = made.export(network)
    moto = MotoTrainee(recipe({"pixels": 1.0, "quantiser": 1.0}, "moto"), Facts(rows=64), 0)
    kept, _ = moto.export(built(moto, {"start": start}))
    assert all(torch.equal(exported[name], t) for name, t in kept.items())


@pytest.mark.parametrize("alignment", ["cosine", "centred", "contrastive"])
def test_permuted_pairs_change_the_pairing_alone(start: Path, alignment: str) -> None:
    """Network, outputs and every other term are equal; the alignment is that of the embeddings with other samples."""
    made = [trainee(alignment=alignment, pairing=pairing) for pairing in ("own", "permuted")]
    networks, part = [built(one, {"start": start}) for one in made], batch(step=3)
    assert all(torch.equal(networks[0].state_dict()[name], t) for name, t in networks[1].state_dict().items())
    outputs = [one.forward(network, part) for one, network in zip(made, networks, strict=True)]
    assert outputs[0].keys() == outputs[1].keys()
    assert all(torch.equal(outputs[1][name], value) for name, value in outputs[0].items())
    own, permuted = (one.losses(found, part) for one, found in zip(made, outputs, strict=True))
    assert {name for name, term in own.items() if not torch.equal(permuted[name], term)} == {"alignment"}
    rows = policy_rows(made[1].config, part, 8, relative=alignment in RELATIVE)
    aligned, embeddings = outputs[0]["aligned"], outputs[0]["embeddings"].flatten(1)
    assert torch.equal(permuted["alignment"], alignment_loss(made[1].config, aligned[rows], embeddings))
    assert torch.equal(own["alignment"], alignment_loss(made[0].config, aligned, embeddings))


@pytest.mark.parametrize("relative", [False, True])
def test_rows_get_the_samples_of_others(relative: bool) -> None:
    """Each once, by seed and step alone; of itself never, or where rows are compared as often as any other."""
    config = LaraConfig.model_validate(SIZES | {"pairing": "permuted"})
    drawn = torch.stack([policy_rows(config, batch(step), 8, relative=relative) for step in range(400)])
    assert torch.equal(drawn[7], policy_rows(config, batch(7), 8, relative=relative))
    assert not torch.equal(drawn[7], policy_rows(config, batch(7, seed=1), 8, relative=relative))
    assert torch.equal(drawn.sort(1).values, torch.arange(8).expand(400, -1))
    own = (drawn == torch.arange(8)).float().mean().item()
    assert own == pytest.approx(1 / 8, abs=0.03) if relative else own == 0


def test_regression_of_permuted_pairs_reads_the_actions_of_others(start: Path) -> None:
    made = trainee(policy="none", action_head="linear", pairing="permuted")
    part = batch()
    outputs = made.forward(built(made, {"start": start}), part)
    rows = policy_rows(made.config, part, 8, relative=False)
    assert part.actions is not None
    expected = (outputs["regressed"] - part.actions.flatten(1)[rows]).square().mean()
    torch.testing.assert_close(made.losses(outputs, part)["regression"], expected)


def test_supervision_says_which_labels_were_seen() -> None:
    assert LaraTrainee.supervision(recipe()) == "joint"
    assert LaraTrainee.supervision(recipe(policy="none", action_head="linear")) == "weak"
    assert MotoTrainee.supervision(recipe({"pixels": 1, "quantiser": 1}, "moto")) == "none"
    assert LaraTrainee.reads_text(recipe())
    assert not LaraTrainee.reads_text(recipe(instruction=False))
    assert not LaraTrainee.reads_text(recipe(policy="none", action_head="linear"))


def test_regression_reaches_the_embedding_and_has_no_policy(start: Path) -> None:
    made = trainee(policy="none", action_head="linear")
    network = built(made, {"start": start})
    found = gradients(made, network, "regression")
    assert {"regression.weight", *(f"tokenizer.{name}" for name in LATENT)} <= set(found)
    assert network.policy is None
    before = made.evaluate(network, lambda: [batch(rows=np.arange(30))])
    curve = train(made, network, 100)
    assert {entry["flow"] for entry in curve} == {entry["alignment"] for entry in curve} == {0.0}
    after = made.evaluate(network, lambda: [batch(rows=np.arange(30))])
    assert after["regression"] < 0.9 * before["regression"]
    assert "flow" not in after


def test_rows_without_labels_are_left_out_of_the_action_terms(start: Path) -> None:
    made = trainee(alignment="contrastive")
    network, part = built(made, {"start": start}), batch()
    assert part.actions is not None
    labelled = torch.tensor([True] * 5 + [False] * 3)
    actions = torch.where(labelled[:, None, None], part.actions, torch.nan)
    masked = Batch(**{**part.__dict__, "labelled": labelled, "actions": actions})
    found = made.losses(made.forward(network, masked), masked)
    five = Batch(**{**batch(rows=np.arange(5)).__dict__})
    expected = made.losses(made.forward(network, five), five)
    for term in ("flow", "alignment"):
        torch.testing.assert_close(found[term], expected[term])
    torch.stack(list(found.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


# --- flow and alignment -----------------------------------------------------------------------


def test_flow_times_belong_to_rows_and_follow_the_beta() -> None:
    rows = np.arange(4000)
    times = flow_times(0, "x", 3, rows)
    assert torch.equal(flow_times(0, "x", 3, rows[70:90]), times[70:90])
    assert not torch.equal(flow_times(0, "x", 4, rows[:9]), times[:9])
    assert times.min() >= 0
    assert times.max() <= 1
    assert times.mean().item() == pytest.approx(1 - 0.6 / 0.999, abs=0.02)  # the mean of Beta(1.5, 1) is .6


def test_a_constant_is_not_taken_for_alignment() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(200, 8, generator=generator) for _ in range(2)]
    constant = torch.full((8,), 10.0)
    found = alignment_measures(constant + noise[0], constant + noise[1])
    assert found["raw_cosine"] > 0.9
    assert abs(found["centred_cosine"]) < 0.1
    assert found["retrieval"] < 0.05
    assert found["retrieval_chance"] == 1 / 200
    same = alignment_measures(constant + noise[0], noise[0])
    assert same["retrieval"] == 1
    assert same["centred_cosine"] == pytest.approx(1)
    warned = trainee().health({"copy": 1.0, "perplexity": 9, **found})
    assert any("aligned with a constant" in line for line in warned)
    assert trainee().health({"copy": 1.0, "perplexity": 9, **same}) == []


def test_losses_of_alignment_on_known_vectors() -> None:
    def loss(kind: str, one: torch.Tensor, other: torch.Tensor) -> float:
        return alignment_loss(LaraConfig.model_validate(SIZES | {"alignment": kind}), one, other).item()

    eye = torch.eye(4)
    assert loss("cosine", eye, eye) == pytest.approx(0, abs=1e-6)
    assert loss("cosine", eye, eye + 5) > 0.3
    assert loss("centred", eye, eye + 5) == pytest.approx(0, abs=1e-6)
    matched, mismatched = loss("contrastive", eye, eye + 5), loss("contrastive", eye, eye.roll(1, 0))
    # Centred unit vectors of 4 rows have cosine -1/3 to each other: by hand, at temperature .1.
    assert matched == pytest.approx(np.log(1 + 3 * np.exp(-(1 + 1 / 3) / 0.1)), abs=1e-6)
    assert mismatched > 10


def test_words_have_numbers_and_ends() -> None:
    known = ("down", "up")
    assert word_numbers(("up", "down now up"), known, 2).tolist() == [[1, -1, -1], [0, 2, 1]]
    assert word_numbers((), known, 3).shape == (3, 0)


def test_the_policy_learns_and_its_conditions_matter(start: Path) -> None:
    made = trainee(alignment="contrastive")
    network = built(made, {"start": start})
    held_out = [batch(rows=np.arange(0, 30, 2))]
    before = made.evaluate(network, lambda: held_out)
    train(made, network, 150)
    after = made.evaluate(network, lambda: held_out)
    assert after["flow"] < 0.8 * before["flow"]
    assert after["flow"] < after["flow_permuted"]
    assert after["euler"] < 0.9 * after["mean_action"]
    assert {"raw_cosine", "centred_cosine", "retrieval", "retrieval_chance", "effective_rank", "perplexity"} <= set(
        after
    )
    assert made.evaluate(network, lambda: held_out) == after


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"alignement": "cosine"}, "alignement"),
        ({"alignment": "cos"}, "alignment"),
        ({"alignment_layer": -6}, "alignment_layer -6 is none of 5 hidden states"),
        ({"policy": "none"}, "needs action_head: linear"),
        ({"pairing": "shuffled"}, "pairing"),
        ({"policy_width": 18}, "policy_width 18"),
        ({"losses": {"flow": 1.0, "pixels": 1.0, "quantiser": 1.0}}, "without a weight: alignment"),
    ],
)
def test_a_recipe_is_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        LaraTrainee.card(recipe(**config))


@pytest.mark.parametrize(("config", "named"), [({"width": 32}, "width"), ({"codes": 13}, "codes 12, here 13")])
def test_a_start_of_another_kind_is_refused(start: Path, config: dict[str, Any], named: str) -> None:
    with pytest.raises(WeightsError, match=named):
        built(trainee(**config), {"start": start})


def test_data_without_actions_are_refused_where_the_network_is_made() -> None:
    made = LaraTrainee(recipe(), Facts(rows=8), 0)  # as decode processes make it, for frames alone
    assert made.preprocess(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 16, 16, 3)
    with pytest.raises(ContractError, match="the data give none"):
        made.build({}, CPU)


def test_outputs_have_an_entry_for_each_row(start: Path) -> None:
    made = trainee()
    network = built(made, {"start": start})
    whole: Outputs = made.forward(network, batch(rows=np.arange(6)))
    for row in range(6):
        # One row's text may be shorter than the batch's longest: what is not there must not count.
        alone = made.forward(network, batch(rows=np.array([row])))
        for name, value in alone.items():
            torch.testing.assert_close(whole[name][row : row + 1], value, rtol=1e-4, atol=1e-5)
