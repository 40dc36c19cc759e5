"""The action tokenizer: range of actions, codebook, switches, measures, checkpoints, and the loop."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_latentvla.action_range import ActionRange
from lary_latentvla.action_tokenizer import ActionTokenizerTrainee, ActionTokens
from lary_latentvla.tokenizer_checkpoint import load_released, load_tokenizer
from lary_latentvla.tokenizer_facts import RELEASED, TokenizerConfig
from lary_latentvla.tokenizer_measures import Simple, jerk, kmeans, levels, uniform, usage
from lary_latentvla.tokenizer_network import ActionTokenizer, RunningCodebook
from lary_schema.base import ContractError, WeightsError
from lary_schema.command import run_command
from lary_schema.jobs import ExtractJob, WeightFile
from lary_schema.store.reader import LatentReader
from lary_schema.training import Recipe, TrainedCard
from lary_schema.values import ExtractionSettings, make_values, new_layout
from lary_trainer.rows import Standardise
from lary_trainer.trainee import Batch, Facts
from lary_worker.encode import check_latents
from lary_worker.extract import extract
from lary_worker.registry import describe
from lary_worker.selftest import selftest
from safetensors.torch import load_file, save_file

from .conftest import ACTIONS, Killed, Rows, killed_after

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"width": 16, "heads": 2, "feed_forward": 16, "layers": 1, "codes": 8, "continuous_steps": 3}
LOSSES = {"actions": 1.0, "consistency": 1.0, "commitment": 0.25}


def recipe(losses: dict[str, float] | None = None, **config: Any) -> Recipe:
    fields = {"key": "action-tokenizer-tiny", "title": "tiny", "trainee": "action-tokenizer", "config": SMALL | config}
    optimiser = {"kind": "adam", "lr": 1e-2, "schedule": "constant"}
    return Recipe.model_validate(
        fields | {"optimiser": optimiser, "batch_size": 8, "steps": 7, "losses": losses or LOSSES}
    )


def chunks(count: int, constant: bool = False) -> Any:
    rng = np.random.default_rng(count)
    found = rng.normal(5, [1, 10, 0.1], (count, 1, 3)) + np.arange(6)[:, None] * rng.normal(0, 0.1, (count, 1, 3))
    if constant:
        found[..., 1] = 7.5
    return found


def trainee(count: int = 32, constant: bool = False, **config: Any) -> tuple[ActionTokenizerTrainee, Any]:
    """And its batches: by step and rows."""
    data = chunks(count, constant)
    standardise = Standardise(data)
    made = ActionTokenizerTrainee(recipe(**config), Facts(count, (6, 3), (), standardise.facts), 0)
    standard = torch.from_numpy(standardise(data))

    def batch(step: int, rows: Any = None) -> Batch:
        chosen = np.arange(count) if rows is None else np.asarray(rows)
        frames = torch.empty(len(chosen), 0, dtype=torch.uint8)
        return Batch(seed=0, step=step, rows=chosen, frames=frames, actions=standard[chosen])

    return made, batch


# --- the range of actions --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_scaling_has_an_inverse_and_constant_dimensions_pass_through(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.normal(0, 10, (2, 4)), axis=0)
    high[seed % 4] = low[seed % 4]
    found = ActionRange(low, high)
    actions = rng.normal(0, 10, (5, 6, 4))
    scaled = found.scale(actions)
    np.testing.assert_allclose(found.unscale(scaled), actions)
    np.testing.assert_allclose(scaled[..., seed % 4], actions[..., seed % 4])
    np.testing.assert_array_equal(found.clip(scaled)[..., seed % 4], scaled[..., seed % 4])
    others = np.arange(4) != seed % 4
    np.testing.assert_allclose(found.scale(np.stack([low, high]))[:, others], [[-1] * 3, [1] * 3], atol=1e-9)
    changed = (found.clip(scaled) != scaled).mean()
    assert found.outside(scaled) == pytest.approx(changed)
    again = ActionRange.parse(found.document())
    np.testing.assert_array_equal(again.low, low)
    assert found.document()["constant"] == [seed % 4]


def test_a_constant_dimension_is_trained_on_as_it_is_and_said() -> None:
    made, batch = trainee(constant=True)
    scaled = made.scaled(batch(0))
    np.testing.assert_allclose(scaled[..., 1], 7.5, rtol=1e-6)
    with torch.no_grad():
        measured = made.evaluate(made.build({}, CPU).eval(), lambda: [batch(0)])
    assert measured["constant_dimensions"] == 1
    assert 0 < measured["clipped"] < 0.1


# --- switches --------------------------------------------------------------------------------------


def test_released_sets_all_switches() -> None:
    found = TokenizerConfig.model_validate({"released": True})
    assert {name: getattr(found, name) for name in RELEASED} == RELEASED
    ours = TokenizerConfig()
    assert all(getattr(ours, name) != value for name, value in RELEASED.items()), "each is a switch that we turned"


@pytest.mark.parametrize("name", RELEASED)
def test_released_and_another_switch_are_refused(name: str) -> None:
    ours = TokenizerConfig().model_dump()[name]
    with pytest.raises(ContractError, match=f"released: true sets {name}"):
        TokenizerConfig.parse({"released": True, name: ours}, "config")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"codez": 3}, "codez"),
        ({"heads": 3}, "do not divide"),
        ({"continuous_steps": 0}, "start: data"),
    ],
)
def test_configs_that_cannot_be_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        ActionTokenizerTrainee.card(recipe(**config))


@pytest.mark.parametrize("losses", [{"actions": 1.0}, LOSSES | {"labels": 1.0}])
def test_terms_are_those_that_it_computes(losses: dict[str, float]) -> None:
    with pytest.raises(ContractError, match="actions, consistency, commitment"):
        ActionTokenizerTrainee.card(recipe(losses))


# --- the codebook ----------------------------------------------------------------------------------


def codebook(**config: Any) -> RunningCodebook:
    made = RunningCodebook(TokenizerConfig.model_validate(SMALL | config))
    made.draw(np.random.default_rng(0))
    return made


def test_codes_start_from_the_data_of_the_last_continuous_step() -> None:
    book, rng = codebook(), np.random.default_rng(1)
    for step in range(3):
        assert not book.quantises
        data = torch.randn(20, 16)
        book.update(data, torch.zeros(20, dtype=torch.int64), step, rng)
    assert book.quantises
    assert all(any(torch.equal(code, row) for row in data) for code in book.embedding)
    assert len(book.embedding.unique(dim=0)) == 8


def test_codes_follow_the_means_and_dead_ones_start_again() -> None:
    book, rng = codebook(unused_steps=4), np.random.default_rng(1)
    book.update(torch.randn(20, 16), torch.zeros(20, dtype=torch.int64), 2, rng)
    data = torch.randn(20, 16) + 3
    for step in range(3, 6):
        book.update(data, torch.zeros(20, dtype=torch.int64), step, rng)
    before = book.embedding.clone()
    assert torch.dist(book.embedding[0], data.mean(0)) < torch.dist(before[1], data.mean(0))
    book.update(data, torch.zeros(20, dtype=torch.int64), 6, rng)
    assert all(any(torch.equal(code, row) for row in data) for code in book.embedding[1:])


def test_fewest_codes_count_from_fifty_steps_on() -> None:
    book, rng = codebook(restart=False), np.random.default_rng(1)
    book.update(torch.randn(20, 16), torch.zeros(20, dtype=torch.int64), 2, rng)
    for step in range(3, 60):
        used = 1 if step < 20 else 5 if step < 55 else 3
        book.update(torch.randn(20, 16), torch.arange(20) % used, step, rng)
    assert book.fewest == 3


@pytest.mark.parametrize("counted", [False, True])
def test_masked_steps_move_the_codes_where_the_release_lets_them(counted: bool) -> None:
    made, batch = trainee(masked_in_statistics=counted, mask=0.5, continuous_steps=1)
    network = made.build({}, CPU)
    assert isinstance(network, ActionTokenizer)
    seen: list[torch.Tensor] = []
    network.vq.update = lambda embeddings, *_: seen.append(embeddings)  # type: ignore[method-assign]
    outputs = made.forward(network, batch(5))
    made.after_step(network, {name: output.detach() for name, output in outputs.items()}, batch(5))
    zeros = int((seen[0] == 0).all(1).sum())
    assert zeros == (int(outputs["masked"].sum()) if counted else 0)
    assert len(seen[0]) == 32 * 6 - (0 if counted else int(outputs["masked"].sum()))


@pytest.mark.parametrize("switch", [False, True])
def test_the_target_of_the_consistency_is_trained_where_the_release_lets_it(switch: bool) -> None:
    """With a decoder whose output is constant nothing but the target depends on the first look."""
    made, batch = trainee(consistency_gradient=switch, dropout=0.0, continuous_steps=1)
    network = made.build({}, CPU)
    assert isinstance(network, ActionTokenizer)
    again = torch.zeros(32, 6, 3)
    network.decoder.forward = lambda codes: again  # type: ignore[method-assign]
    inputs: list[torch.Tensor] = []
    encoder = network.encoder.forward

    def noted(actions: torch.Tensor) -> torch.Tensor:
        inputs.append(actions.clone().requires_grad_())
        return encoder(inputs[-1])

    network.encoder.forward = noted  # type: ignore[method-assign]
    made.losses(made.forward(network, batch(0)), batch(0))["consistency"].backward()
    first = inputs[0].grad
    assert (first is not None and bool(first.any())) == switch


# --- measures --------------------------------------------------------------------------------------


def test_simple_codes_are_what_they_say() -> None:
    assert [levels(n) for n in (1, 2, 3, 7, 9)] == [[256], [16, 16], [7, 6, 6], [3] + [2] * 6, [2] * 8 + [1]]
    rng = np.random.default_rng(0)
    data = rng.uniform(-1, 1, (400, 4, 2))
    assert np.abs(uniform(data, [16, 16]) - data).max() <= 1 / 16 + 1e-12
    assert len(np.unique(uniform(data, [16, 16])[..., 0])) == 16
    assert uniform(np.array([[1.0, -1.0]]), [4, 4]).tolist() == [[0.75, -0.75]]
    blobs = rng.integers(0, 5, 300)[:, None] * 10.0 + rng.normal(0, 0.1, (300, 1))
    assert sorted(np.round(kmeans(blobs, 5), 0).ravel()) == [0, 10, 20, 30, 40]
    errors = Simple(data).errors(data)
    assert errors["uniform_256"] < errors["kmeans"] < errors["uniform_8_bits"] < errors["mean"]
    assert errors["mean"] == pytest.approx(data.var((0, 1)).mean())
    assert usage(np.arange(8).repeat(3), 16) == {"perplexity": pytest.approx(8.0), "codes_used": 8.0}
    assert jerk(np.arange(5.0)[None, :, None] ** 3) == pytest.approx(6)
    assert np.isnan(jerk(data[:, :3]))


def test_it_learns_and_uses_its_codes() -> None:
    made, batch = trainee(mask=0.0, dropout=0.0, continuous_steps=30)
    torch.manual_seed(0)
    network = made.build({}, CPU)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(60):
        optimiser.zero_grad()
        outputs = made.forward(network, batch(step))
        terms = made.losses(outputs, batch(step))
        sum((LOSSES[name] * term for name, term in terms.items()), torch.zeros(())).backward()
        optimiser.step()
        made.after_step(network, {name: output.detach() for name, output in outputs.items()}, batch(step))
        assert (terms["commitment"] == 0) == (step < 30)
    with torch.no_grad():
        measured = made.evaluate(network.eval(), lambda: [batch(60, range(16)), batch(60, range(16, 32))])
    assert measured["ratio"] < 0.5
    assert measured["codes_used"] >= 6
    assert not made.health(measured)
    assert "collapsed" in made.health(measured | {"perplexity": 1.5, "codes_used": 2})[0]


# --- checkpoints -----------------------------------------------------------------------------------

RELEASED_NAMES = {
    *(f"encoder.{part}.{kind}" for part in ("in_proj", "conv1", "conv2", "conv3") for kind in ("weight", "bias")),
    *(
        f"encoder.transformer.layers.{layer}.{name}"
        for layer in (0, 1)
        for name in (
            "self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight",
            "self_attn.out_proj.bias", "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias",
            "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias",
        )
    ),
    "vq.embedding", "vq.cluster_size", "vq.ema_w",
    *(f"decoder.net.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
}  # fmt: skip


def test_names_and_shapes_are_those_of_the_release() -> None:
    kept = ActionTokenizer(TokenizerConfig(), 7).kept_state()
    assert set(kept) == RELEASED_NAMES
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items()}
    assert shapes["encoder.in_proj.weight"] == (128, 21)
    assert shapes["encoder.conv2.weight"] == (128, 128, 3)
    assert shapes["encoder.transformer.layers.1.linear1.weight"] == (256, 128)
    assert shapes["vq.embedding"] == shapes["vq.ema_w"] == (256, 128)
    assert shapes["decoder.net.0.weight"] == (256, 128)
    assert shapes["decoder.net.2.weight"] == (7, 256)


def test_a_released_file_loads_strictly_through_the_converter(tmp_path: Path) -> None:
    from lary_worker.convert import convert

    torch.manual_seed(0)
    made = ActionTokenizer(TokenizerConfig(), 7)
    made.vq.draw(np.random.default_rng(0))
    nested: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "vq": {}, "decoder": {}}
    for name, tensor in made.kept_state().items():
        part, _, rest = name.partition(".")
        nested[part][rest] = tensor
    torch.save(nested, tmp_path / "tokenizer_step_9.pt")
    for part in nested:
        convert(tmp_path / "tokenizer_step_9.pt", tmp_path / f"{part}.safetensors", part, trusted=True)
    read = ActionTokenizer(TokenizerConfig(), 7)
    load_released(read, tmp_path)
    assert read.vq.quantises
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in read.kept_state().items())
    with pytest.raises(WeightsError, match=r"encoder\.in_proj"):
        load_released(ActionTokenizer(TokenizerConfig(), 6), tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose codebook is in use."""
    made, batch = trainee()
    network = made.build({}, CPU)
    for step in range(5):
        outputs = made.forward(network, batch(step))
        made.after_step(network, {name: output.detach() for name, output in outputs.items()}, batch(step))
    tensors, config = made.export(network)
    import json

    out = tmp_path / "tokenizer"
    out.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config))
    return out


def test_what_is_read_is_what_was_trained(folder: Path) -> None:
    network, found, document = load_tokenizer(folder)
    assert (document.shape, network.vq.quantises) == ((6, 3), True)
    made, batch = trainee()
    np.testing.assert_array_equal(found.low, made.range.low)
    physical = chunks(32)
    expected = network(made.scaled(batch(0)))
    card = ActionTokenizerTrainee.card(recipe()).of_chunks(ACTIONS.model_copy(update={"stride": 6}))
    ours = {}
    for variant in card.variants:
        model = ActionTokens(card, "actions", variant)
        model.load({"checkpoint": folder}, CPU, torch.float32, 0)
        with torch.inference_mode():
            latents = model.encode(torch.from_numpy(model.preprocess(physical)), np.arange(32))
        check_latents(model, latents, 32)
        assert latents.indices is not None
        assert (latents.indices[..., 0] == expected.indices).float().mean() > 0.99
        ours[variant] = latents.tokens[:, :, 0]
    assert torch.equal(ours["codebook"], network.vq.embedding[latents.indices[..., 0]])
    torch.testing.assert_close(ours["embed"], expected.embeddings, rtol=1e-3, atol=1e-3)
    assert torch.equal(ours["onehot"].argmax(-1), latents.indices[..., 0])
    assert torch.equal(ours["onehot"].sum(-1), torch.ones(32, 6))


def test_chunks_of_another_size_than_trained_are_refused(folder: Path) -> None:
    model = ActionTokens(ActionTokenizerTrainee.card(recipe()).of_chunks(ACTIONS), "actions", "codebook")
    with pytest.raises(WeightsError, match=r"trained on chunks \(6, 3\), planned are \(4, 3\)"):
        model.load({"checkpoint": folder}, CPU, torch.float32, 0)
    with pytest.raises(WeightsError, match="needs the folder of its training"):
        model.load({}, CPU, torch.float32, 0)


def test_each_missing_or_further_tensor_is_named(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    for name in ("vq.embedding", "encoder.conv2.bias", "decoder.net.2.weight"):
        save_file({n: t for n, t in whole.items() if n != name}, folder / "model.safetensors")
        with pytest.raises(WeightsError, match=name):
            load_tokenizer(folder)
    save_file(whole | {"extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="extra"):
        load_tokenizer(folder)


def test_a_training_goes_on_from_a_checkpoint_of_its_kind_alone(folder: Path) -> None:
    made, batch = trainee()
    begun = made.build({"start": folder}, CPU)
    assert isinstance(begun, ActionTokenizer)
    assert begun.vq.quantises
    assert made.losses(made.forward(begun, batch(0)), batch(0))["commitment"] > 0, "codes are read from step 0 on"
    for changes, said in (({"codes": 9}, "codes 8, here 9"), ({"width": 18}, "width 16, here 18")):
        with pytest.raises(WeightsError, match=said):
            trainee(**changes)[0].build({"start": folder}, CPU)
    with pytest.raises(WeightsError, match="the range of its training rows"):
        trainee(count=40)[0].build({"start": folder}, CPU)
    with pytest.raises(WeightsError, match="takes no weights encoder"):
        made.build({"encoder": folder}, CPU)


# --- the loop --------------------------------------------------------------------------------------


def test_killed_it_ends_in_the_same_bytes(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rows.job(recipe())
    assert rows.train(job, "whole")[0] == 0
    for step in (3, 5):
        killed_after(monkeypatch, step)
        with pytest.raises(Killed):
            rows.train(job, "killed")
    code, events = rows.train(job, "killed")
    assert (code, events[0].skipped) == (0, 4)
    whole, killed = (rows.root / name / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
    card = TrainedCard.read(rows.root / "whole/card.json")
    spec = card.card.spec("actions", "codebook")
    assert (card.supervision, spec.input.shape, spec.tokens, spec.indices) == ("actions", (4, 3), (4, 1, 16), (4, 1))


@pytest.mark.usefixtures("rows")
def test_the_example_passes_the_self_test() -> None:
    out = io.StringIO()
    selftest("action-tokenizer-demo-000000000000", "cpu", out)
    assert '"ok": true' in out.getvalue()


def test_a_trained_tokenizer_is_extracted_over_actions(rows: Rows) -> None:
    """From the training's folder to a store: the code of each step of each chunk, as the network gives it."""
    job = rows.job(recipe())
    assert rows.train(job, "tokenizer")[0] == 0
    start = weight(rows, "checkpoint", "tokenizer")
    key = job.values.key
    card = describe(key).models[0]
    _, source = rows.data("val")
    settings = ExtractionSettings(dtype="float32")
    values = make_values(card, key, "codebook", "set", "val", source, {"checkpoint": start.sha256}, settings, ACTIONS)
    done = ExtractJob(
        id="extract", image="latentvla", values=values, source=source, store=new_layout(values, 8, 4), shards=(0, 1),
        weights=(start,), workers=1, threads=1,
    )  # fmt: skip
    events: list[Any] = []
    assert run_command(lambda: extract(done, events.append), events.append, "extract") == 0, events[-1]
    store = LatentReader.open(rows.root / "latents" / done.store.path)
    network, found, _ = load_tokenizer(rows.root / "tokenizer")
    physical = np.stack([np.load(rows.root / f"data/set/val{row}.npy") for row in range(8)]).astype(np.float64)
    coded = network(torch.from_numpy(found.clip(found.scale(physical))).float())
    np.testing.assert_array_equal(store.indices(np.arange(8))[..., 0], coded.indices)
    np.testing.assert_array_equal(store.tokens(np.arange(8))[:, :, 0], coded.codes.detach())


def weight(rows: Rows, name: str, out: str) -> WeightFile:
    """A trained checkpoint as the start of another training."""
    from lary_schema.training import TrainResult

    (rows.root / "weights" / name).symlink_to(rows.root / out)
    result = TrainResult.read(rows.root / out / "training.json")
    return WeightFile(name=name, path=name, sha256=result.fingerprint, trained=True)
