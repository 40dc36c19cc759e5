"""The linear head: the ridge solution itself, how its strength is chosen, and what its result says."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from lary_probe import regress_linear, ridge
from lary_probe.ridge import STRENGTHS, Ridge, best_strength, needed_bytes
from lary_schema.base import ContractError
from lary_schema.groups import Grouping
from lary_schema.results import recipe_of
from safetensors import safe_open
from safetensors.torch import load_file


def data(rows: int, features: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(rows * 1000 + features)
    x = torch.from_numpy(rng.normal(size=(rows, features)) * rng.uniform(0.1, 9, features) + 3).to(dtype)
    return x, torch.from_numpy(rng.normal(size=(rows, 2)) + 5)


def minimiser(x: torch.Tensor, y: torch.Tensor, strength: float) -> np.ndarray:
    """The same weights by least squares on rows that stand for the penalty."""
    z = x.double().numpy()
    deviation = z.std(axis=0)
    z = np.divide(z - z.mean(axis=0), deviation, out=np.zeros_like(z), where=deviation > 1e-12)
    root = np.sqrt(strength * z.size) * np.eye(z.shape[1])
    wanted = np.vstack([y.numpy() - y.numpy().mean(axis=0), np.zeros((z.shape[1], 2))])
    return np.linalg.lstsq(np.vstack([z, root]), wanted, rcond=None)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("rows", "features"), [(40, 7), (40, 40), (7, 40), (40, 1), (2, 30)])
@pytest.mark.parametrize("block_bytes", [1, 1 << 10, 64 << 20])
def test_both_forms_minimise_the_penalised_error(
    rows: int, features: int, dtype: torch.dtype, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge, "BLOCK_BYTES", block_bytes)
    x, y = data(rows, features, dtype)
    for strength in (1e-4, 1.0):
        fitted = Ridge(x, y, lambda: None)
        linear = fitted.fit(strength)
        assert fitted.dual == (features > rows)
        assert linear.weight.dtype == torch.float64
        np.testing.assert_allclose(linear.weight.numpy(), minimiser(x, y, strength), rtol=1e-6, atol=1e-9)
        # The intercept is not penalised: a prediction of the mean row is the mean target.
        torch.testing.assert_close(linear(x.double().mean(dim=0)[None])[0], y.mean(dim=0))


def test_a_feature_that_does_not_vary_has_no_say() -> None:
    """In float64 the mean of equal values may be another value: their deviation must not be taken for one."""
    for value in (0.1, 1e-30, 12345.678, -7e8):
        x, y = data(30, 4)
        x[:, 2] = value
        for rows in (x, x[:3]):
            linear = Ridge(rows, y[: len(rows)], lambda: None).fit(1e-3)
            assert linear.scale[2] == 0
            moved = rows.clone()
            moved[:, 2] += 1e6
            torch.testing.assert_close(linear(moved), linear(rows))


def test_of_equal_errors_the_strongest_is_taken() -> None:
    assert best_strength([3.0, 1.0, 1.0, 2.0]) == 1
    assert list(STRENGTHS) == sorted(STRENGTHS, reverse=True)


def linear_job(bench: Any, with_protocol: Any, **changes: Any) -> Any:
    recipe = with_protocol().regress.model_copy(update={"head": "linear"} | changes.pop("recipe", {}))
    return bench.job("regress", **({"protocol": with_protocol(regress=recipe, seeds=(0, 1))} | changes))


def test_what_is_linear_is_read_whole(toy_actions: Any, with_protocol: Any) -> None:
    result = toy_actions.run(linear_job(toy_actions, with_protocol))
    score = result.splits["val"]
    assert (result.head, result.reads, result.learned) == ("linear", "actions", True)
    assert score.value < 1e-4 * score.floor
    assert all(seed.early == seed.best == seed.last for seed in score.seeds)
    assert all(seed.strength == STRENGTHS[-1] for seed in score.seeds)
    assert list(score.r2_per_dimension) == ["x", "y", "grip"]
    assert all(0.999 < r2 <= 1 for r2 in score.r2_per_dimension.values())
    assert result.holdout is not None
    progress = [event for event in toy_actions.events if getattr(event, "total", None) is not None]
    assert {event.total for event in progress} == {2}


def test_outputs_are_those_of_the_other_heads_less_the_pictures(toy_actions: Any, with_protocol: Any) -> None:
    out, names = toy_actions.mounts.out, []
    for recipe in ({}, {"head": "mlp", "epochs": 1}):
        for file in [file for file in out.rglob("*") if file.is_file()]:
            file.unlink()
        toy_actions.run(linear_job(toy_actions, with_protocol, recipe=recipe))
        names.append(sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()))
    assert names[0] == [name for name in names[1] if not name.startswith("eval_vis/")]
    assert len(names[0]) == len(names[1]) - 4
    toy_actions.run(linear_job(toy_actions, with_protocol))
    score = toy_actions.document("result.json")["splits"]["val"]
    rows = np.load(out / "row_scores_val.npz")
    assert rows["score"].mean() == pytest.approx(score["value"])
    pairs = np.load(out / "predictions_val.npy")
    assert (pairs.dtype, pairs.shape) == (np.float32, (24, 2, 2, 3))


def test_the_weights_that_are_kept_predict_what_was_scored(toy_actions: Any, with_protocol: Any) -> None:
    toy_actions.run(linear_job(toy_actions, with_protocol))
    out = toy_actions.mounts.out
    tensors = load_file(out / "probe.safetensors")
    with safe_open(out / "probe.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["lary"])
    assert facts["recipe"]["head"] == "linear"
    tokens = np.random.default_rng(2).normal(size=(24, 1, 2, 4)).astype("float32").reshape(24, 8)
    found = ridge.Linear(**tensors)(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(found, np.load(out / "predictions_val.npy")[:, 1].reshape(24, 6), rtol=1e-5, atol=1e-6)


def test_same_job_same_bits_from_memory_and_disk(
    toy_actions: Any, with_protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regress_linear, "needed_bytes", lambda *_: 0)
    one, two, streamed = (
        toy_actions.run(linear_job(toy_actions, with_protocol, **more)).model_dump(exclude={"seconds"})
        for more in ({}, {}, {"ram_bytes": 1})
    )
    assert one == two == streamed


def test_noise_chooses_a_strong_ridge(bench: Any, with_protocol: Any) -> None:
    """More features than rows, and nothing to be read: without the ridge the error would be far above the mean's."""
    for name, count, seed in (("train", 60, 1), ("val", 40, 2)):
        rng = np.random.default_rng(seed)
        cells = [bench.action(f"{name}_{i}.npy", rng.normal(size=(2, 3))) for i in range(count)]
        bench.split(name, rng.normal(size=(count, 1, 10, 20)), cells)
    score = bench.run(linear_job(bench, with_protocol)).splits["val"]
    assert score.value < 1.2 * score.floor
    assert not score.beats_floor
    assert all(seed.strength >= 0.1 for seed in score.seeds)


def test_the_strength_is_chosen_on_whole_groups(bench: Any, with_protocol: Any) -> None:
    """Rows of an episode share their latent and their action: siblings among the fitted rows would praise memory."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 20), ("val", 10)):
        tokens = np.repeat(rng.normal(size=(count, 1, 5, 20)), 6, axis=0)
        chunks = np.repeat(rng.normal(size=(count, 2, 3)), 6, axis=0)
        cells = [bench.action(f"{name}_{i}.npy", chunk) for i, chunk in enumerate(chunks)]
        bench.split(name, tokens, cells, columns={"episode": [str(i // 6) for i in range(len(cells))]})
    grouped = bench.run(linear_job(bench, with_protocol, group=Grouping(column="episode")))
    alone = bench.run(linear_job(bench, with_protocol))
    assert grouped.holdout.groups == 5
    strengths = [result.splits["val"].seeds[0].strength for result in (grouped, alone)]
    assert strengths[0] > 100 * strengths[1]
    assert grouped.splits["val"].value < alone.splits["val"].value


def test_where_the_evaluated_split_chooses_the_strength_still_is_not(toy_actions: Any, with_protocol: Any) -> None:
    recipe = with_protocol().regress.model_copy(update={"head": "linear"})
    lary = with_protocol(regress=recipe, select_on="evaluated")
    result = toy_actions.run(toy_actions.job("regress", protocol=lary))
    assert result.holdout.rows == 16
    assert "holdout" in result.recipe
    best = result.splits["val"].seeds[0].best
    assert best.selection != best.value


def test_a_shuffled_control_measures_overfitting(toy_actions: Any, with_protocol: Any) -> None:
    result = toy_actions.run(linear_job(toy_actions, with_protocol, control="shuffled"))
    assert result.measures == "overfitting"
    assert 0.9 * result.splits["val"].floor < result.splits["val"].value


def test_failed_rows_are_left_out(bench: Any, with_protocol: Any) -> None:
    for name, count in (("train", 30), ("val", 10)):
        tokens = np.random.default_rng(count).normal(size=(count, 1, 2, 3))
        cells = [bench.action(f"{name}_{i}.npy", row.reshape(2, 3)) for i, row in enumerate(tokens)]
        bench.split(name, tokens, cells, failed=[3])
    result = bench.run(linear_job(bench, with_protocol))
    assert (result.train_rows.used, result.splits["val"].rows.used) == (29, 9)
    assert result.splits["val"].value < 1e-3


def test_too_little_memory_is_said_before_anything_is_fitted(
    toy_actions: Any, with_protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 64 rows of 8 float32 values, three matrices of 8 x 8 and the weights of 6 targets.
    needed = needed_bytes(64, 8, 6, 4)
    assert needed == 64 * 8 * 4 + 8 * (3 * 64 + 8 * 8)
    monkeypatch.setattr(regress_linear, "Ridge", None)
    with pytest.raises(ContractError, match=r"linear head on 64 rows of 8 values needs .* --ram"):
        toy_actions.run(linear_job(toy_actions, with_protocol, ram_bytes=needed - 1))


def test_relative_targets_are_read_too(toy_actions: Any, with_protocol: Any) -> None:
    result = toy_actions.run(linear_job(toy_actions, with_protocol, recipe={"target": "relative"}))
    assert result.target == "relative"
    assert result.splits["val"].value < 1e-4


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_nuisance_is_read_like_actions_and_said(toy_actions: Any, with_protocol: Any, head: str) -> None:
    job = linear_job(toy_actions, with_protocol, recipe={"head": head, "epochs": 1})
    actions = toy_actions.run(job)
    nuisance = toy_actions.run(job.model_copy(update={"reads": "nuisance"}))
    assert (actions.reads, nuisance.reads) == ("actions", "nuisance")
    assert actions.splits == nuisance.splits
    with safe_open(toy_actions.mounts.out / "probe.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["lary"])
    assert "nuisance" in facts
    assert "actions" not in facts


def test_the_linear_recipe_is_what_it_uses(with_protocol: Any) -> None:
    made = {
        recipe_of(
            with_protocol(regress=with_protocol().regress.model_copy(update={"head": "linear"} | change)), "regress"
        )
        .items()
        .__repr__()
        for change in ({}, {"epochs": 9}, {"lr": 0.5}, {"width": 7}, {"batch_size": 3})
    }
    assert len(made) == 1
    recipe = recipe_of(with_protocol(), "regress")
    assert {"epochs", "lr", "width"} <= set(recipe)
