"""What the regression probe predicts: absolute and relative targets, robot types, splits, and their hash."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lary_probe.actions import relative_actions, standardised
from lary_probe.scales import Scale, train_scale
from lary_probe.targets import targets_sha256
from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import Actions, Normalisation, ProtocolCard, RegressRecipe
from lary_schema.events import Progress, Warned
from numpy.typing import NDArray

WithProtocol = Callable[..., ProtocolCard]
STATS = {
    "robot_stats": {"arm": {"count": 2, "mean": [0, 1, 2], "std": [1, 2, 4]}, "nan": {"mean": [1] * 3, "std": [2] * 3}}
}


def relative(with_protocol: WithProtocol) -> ProtocolCard:
    base = with_protocol().regress
    return with_protocol(regress=RegressRecipe(**(base.model_dump() | {"target": "relative"})))


def actions_with(job: Any, **changes: Any) -> Any:
    return job.model_copy(update={"actions": Actions(**(job.actions.model_dump() | changes))})


def raw(bench: Any, split: str, rows: int) -> NDArray[Any]:
    return np.stack([np.load(bench.mounts.data / f"actions/{split}_{row}.npy") for row in range(rows)])


def truth(bench: Any, split: str) -> NDArray[Any]:
    """(n, steps, dim) targets as the probe held them against its predictions."""
    pairs: NDArray[Any] = np.load(bench.mounts.out / f"predictions_{split}.npy")
    return pairs[:, 0]


def robots(bench: Any, **types: list[str]) -> Any:
    """Splits of these robot types, by name; the first trains."""
    rng = np.random.default_rng(0)
    bench.splits.clear()
    for split, column in types.items():
        chunks = rng.normal(size=(len(column), 2, 3)) * 3 + 1
        cells = [bench.action(f"{split}_{row}.npy", chunk) for row, chunk in enumerate(chunks)]
        bench.split(split, rng.normal(size=(len(column), 1, 2, 4)), cells, columns={"robot_type": column})
    return bench


def by_file(bench: Any, stats: Any = STATS, **changes: Any) -> Any:
    """A job whose absolute and relative actions are standardised from a file."""
    (bench.mounts.data / "stats.json").write_text(json.dumps(stats))
    norm = Normalisation(kind="per-robot", stats="stats.json")
    return actions_with(bench.job("regress", **changes), normalisation=norm, relative=norm)


# --- relative targets -------------------------------------------------------------------------


def test_relative_is_the_last_step_minus_the_first() -> None:
    chunks = np.array([[[1.0, 10], [5, 5], [4, 12]], [[0, 0], [9, 9], [-1, 3]]])
    assert relative_actions(chunks).tolist() == [[[3, 2]], [[-1, 3]]]


def test_relative_targets_are_standardised_by_trains_own(toy_actions: Any, with_protocol: WithProtocol) -> None:
    result = toy_actions.run(toy_actions.job("regress", protocol=relative(with_protocol)))
    change = {split: raw(toy_actions, split, rows) for split, rows in (("train", 64), ("val", 24))}
    change = {split: chunks[:, 1] - chunks[:, 0] for split, chunks in change.items()}
    wanted = (change["val"] - change["train"].mean(axis=0)) / change["train"].std(axis=0)
    np.testing.assert_allclose(truth(toy_actions, "val"), wanted[:, None], rtol=1e-5, atol=1e-6)
    score = result.splits["val"]
    assert (result.head, result.target) == ("mlp", "relative")
    assert list(score.per_dimension) == ["x", "y", "grip"]
    assert np.mean(list(score.per_dimension.values())) == pytest.approx(score.value)
    assert score.per_group["gripper"] == score.per_dimension["grip"]
    assert score.value < 0.7 * score.floor


def test_relative_normalisation_may_be_fixed(toy_actions: Any, with_protocol: WithProtocol) -> None:
    fixed = Normalisation(kind="fixed", mean=(1, 2, 3), std=(2, 4, 0))
    job = actions_with(toy_actions.job("regress", protocol=relative(with_protocol)), relative=fixed)
    toy_actions.run(job)
    chunks = raw(toy_actions, "val", 24)
    wanted = (chunks[:, 1] - chunks[:, 0] - [1, 2, 3]) / [2, 4, 1]
    np.testing.assert_allclose(truth(toy_actions, "val")[:, 0], wanted, rtol=1e-5, atol=1e-6)


def test_relative_targets_by_robot_from_train(bench: Any, with_protocol: WithProtocol) -> None:
    robots(bench, train=["arm"] * 5 + ["hand"] * 4, val=["hand", "arm"])
    own = Normalisation(kind="per-robot")
    bench.run(actions_with(bench.job("regress", protocol=relative(with_protocol)), relative=own))
    train, val = (raw(bench, *split)[:, 1] - raw(bench, *split)[:, 0] for split in (("train", 9), ("val", 2)))
    arm, hand = train[:5], train[5:]
    np.testing.assert_allclose(truth(bench, "val")[0, 0], (val[0] - hand.mean(axis=0)) / hand.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(truth(bench, "val")[1, 0], (val[1] - arm.mean(axis=0)) / arm.std(axis=0), rtol=1e-5)


def test_one_step_has_no_change(bench: Any, with_protocol: WithProtocol) -> None:
    for split in ("train", "val"):
        bench.split(split, np.zeros((4, 1, 2, 4)), [bench.action(f"{split}.npy", np.zeros((1, 3)))] * 4)
    job = actions_with(bench.job("regress", protocol=relative(with_protocol)), stride=1)
    with pytest.raises(ContractError, match="chunks of one step have no relative target"):
        bench.run(job)


def test_pictures_of_changes(toy_actions: Any, with_protocol: WithProtocol, monkeypatch: pytest.MonkeyPatch) -> None:
    from lary_probe import plots

    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(plots, "plot_step", lambda path, *more: (path.write_bytes(b"png"), drawn.append(more)))
    toy_actions.run(toy_actions.job("regress", protocol=relative(with_protocol)))
    assert len(drawn) == 4
    best, predicted, names, frames, title = drawn[0]
    assert best.shape == predicted.shape == (3,)
    assert (names, frames) == (("x", "y", "grip"), [])
    assert "last step minus first" in title


# --- robot types ------------------------------------------------------------------------------


def test_absolute_targets_by_robot_from_train(bench: Any) -> None:
    robots(bench, train=["arm"] * 5 + [""] * 4, val=["", "arm"])
    bench.run(actions_with(bench.job("regress"), normalisation=Normalisation(kind="per-robot")))
    train, val = raw(bench, "train", 9), raw(bench, "val", 2)
    empty = train[5:].reshape(-1, 3)
    np.testing.assert_allclose(truth(bench, "val")[0], (val[0] - empty.mean(axis=0)) / empty.std(axis=0), rtol=1e-5)


def test_absolute_targets_by_robot_from_a_file(bench: Any) -> None:
    robots(bench, train=["arm"] * 4, val=["arm", ""])
    job = by_file(bench)
    bench.run(job.model_copy(update={"stats_sha256": file_sha256(bench.mounts.data / "stats.json")}))
    val = raw(bench, "val", 2)
    np.testing.assert_allclose(truth(bench, "val")[0], (val[0] - [0, 1, 2]) / [1, 2, 4], rtol=1e-5)
    np.testing.assert_allclose(truth(bench, "val")[1], (val[1] - 1) / 2, rtol=1e-5)


def test_a_failed_row_needs_no_known_robot(bench: Any) -> None:
    robots(bench, train=["arm"] * 4, val=["arm"] * 2)
    cells = ["val_0.npy", "val_1.npy"]
    bench.split("val", np.zeros((2, 1, 2, 4)), cells, failed=(1,), columns={"robot_type": ["arm", "hand"]})
    score = bench.run(by_file(bench)).splits["val"]
    assert (score.rows.used, score.unknown_robots) == (1, {})


def test_unknown_robots_are_listed_and_refused(bench: Any) -> None:
    robots(bench, seen_train=["arm"] * 4, seen_val=["arm", "hand"], unseen=["leg", "hand", "leg", "", "arm"])
    with pytest.raises(ContractError) as caught:
        bench.run(by_file(bench))
    said = str(caught.value)
    assert re.search(r"'hand' \(\S*seen_val.csv: 1 rows, first row 1\)", said)
    assert re.search(r"'leg' \(\S*unseen.csv: 2 rows, first row 0\)", said)
    assert re.search(r"'hand' \(\S*unseen.csv: 1 rows, first row 1\)", said)
    assert "stats.json has arm, nan. Add theirs, or run with --allow-unknown-robot" in said
    assert not (bench.mounts.out / "result.json").exists()


def test_unknown_robots_may_be_allowed(bench: Any) -> None:
    robots(bench, seen_train=["arm"] * 4 + ["foot"], seen_val=["arm", ""], unseen=["leg", "hand", "leg", "", "arm"])
    result = bench.run(by_file(bench, allow_unknown_robot=True))
    assert result.splits["seen_val"].unknown_robots == {}
    assert result.splits["unseen"].unknown_robots == {"leg": 2, "hand": 1}
    assert list(result.splits["unseen"].unknown_robots) == ["leg", "hand"]
    values = raw(bench, "unseen", 5)
    np.testing.assert_allclose(truth(bench, "unseen")[:3], values[:3], rtol=1e-5)
    np.testing.assert_allclose(truth(bench, "unseen")[3], (values[3] - 1) / 2, rtol=1e-5)
    said = [event.message for event in bench.events if isinstance(event, Warned)]
    (warned,) = [message for message in said if "robot types" in message]
    assert all(part in warned for part in ("'foot'", "'leg'", "'hand'", "mean 0 and std 1", "2 rows"))


def test_a_robot_that_train_does_not_have_is_unknown(bench: Any) -> None:
    robots(bench, train=["arm"] * 4, val=["arm", ""])
    job = actions_with(bench.job("regress"), normalisation=Normalisation(kind="per-robot"))
    with pytest.raises(ContractError, match=r"'nan' .* 1 rows, first row 1.; the train split has arm"):
        bench.run(job)


def test_a_csv_without_robot_types_is_refused(toy_actions: Any) -> None:
    with pytest.raises(ContractError, match=r"train.csv: no column 'robot_type'.*robot_column"):
        toy_actions.run(by_file(toy_actions))


@pytest.mark.parametrize("target", ["absolute", "relative"])
def test_a_missing_statistics_file_is_said(bench: Any, with_protocol: WithProtocol, target: str) -> None:
    robots(bench, train=["arm"] * 4, val=["arm"])
    job = by_file(bench, protocol=relative(with_protocol) if target == "relative" else with_protocol())
    (bench.mounts.data / "stats.json").unlink()
    with pytest.raises(ContractError, match=r"stats.json: the robot types' statistics are missing; make them"):
        bench.run(job)


def test_changed_statistics_are_refused(bench: Any) -> None:
    robots(bench, train=["arm"] * 4, val=["arm"])
    job = by_file(bench).model_copy(update={"stats_sha256": "0" * 64})
    with pytest.raises(ContractError, match=r"stats.json: changed since the job was planned; plan the run again"):
        bench.run(job)


@pytest.mark.parametrize(
    ("stats", "says"),
    [
        ("[1", "not JSON"),
        ([], "expected {"),
        ({"robots": {}}, "expected {"),
        ({"robot_stats": {"arm": {"mean": [0, 0, 0]}}}, "expected {"),
        ({"robot_stats": {"arm": {"mean": ["x"] * 3, "std": [1, 1, 1]}}}, "expected {"),
        ({"robot_stats": {"arm": {"mean": [0], "std": [1]}}}, "robot type 'arm' needs 3 means and stds, all finite"),
        ({"robot_stats": {"arm": {"mean": [0, 0, 0], "std": [1, 1, float("nan")]}}}, "'arm' needs 3 means"),
    ],
)
def test_wrong_statistics_are_refused(bench: Any, stats: Any, says: str) -> None:
    robots(bench, train=["arm"] * 4, val=["arm"])
    job = by_file(bench)
    (bench.mounts.data / "stats.json").write_text(stats if isinstance(stats, str) else json.dumps(stats))
    with pytest.raises(ContractError, match=re.escape(says)) as caught:
        bench.run(job)
    assert "stats.json: " in str(caught.value)


# --- splits -----------------------------------------------------------------------------------


def test_seen_and_unseen_splits_are_scored_apart(toy_actions: Any) -> None:
    """Unseen rows whose actions are another function of the tokens: only they are decoded badly."""
    tokens = np.random.default_rng(9).normal(size=(30, 1, 2, 4))
    cells = [toy_actions.action(f"unseen_{row}.npy", np.full((2, 3), row % 5)) for row in range(30)]
    toy_actions.split("unseen", tokens, cells)
    result = toy_actions.run(toy_actions.job("regress"))
    seen, unseen = result.splits["val"], result.splits["unseen"]
    assert (seen.rows.used, unseen.rows.used) == (24, 30)
    assert seen.value < 0.55 * seen.floor
    assert unseen.value > unseen.floor
    assert (toy_actions.mounts.out / "predictions_unseen.npy").exists()
    assert {path.name for path in (toy_actions.mounts.out / "eval_vis").iterdir()} == {"val", "unseen"}


def test_select_on_evaluated_judges_all_splits_by_the_first(toy_actions: Any, with_protocol: WithProtocol) -> None:
    """As LARYBench: the unseen split's score is that of the epoch that was best on the seen one."""
    tokens = np.random.default_rng(9).normal(size=(6, 1, 2, 4))
    toy_actions.split("unseen", tokens, [f"val_{row}.npy" for row in range(6)])
    result = toy_actions.run(toy_actions.job("regress", protocol=with_protocol(select_on="evaluated")))
    seen, unseen = (result.splits[name].seeds[0].best for name in ("val", "unseen"))
    assert unseen.epoch == seen.epoch
    assert seen.selection == unseen.selection == pytest.approx(seen.value)
    assert unseen.value != pytest.approx(seen.value, rel=0.1)
    notes = [event.note for event in toy_actions.events if isinstance(event, Progress)]
    assert f"val {seen.value:.4f} at epoch {seen.epoch} chosen by itself" in notes[-1]
    assert f"unseen {unseen.value:.4f} at epoch {seen.epoch} chosen by val" in notes[-1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_latent_is_refused(toy_actions: Any, split: str) -> None:
    cells = [f"{split}_{row}.npy" for row in range(4)]
    toy_actions.split(split, np.zeros((4, 1, 2, 4)), cells, failed=range(4))
    with pytest.raises(ContractError, match=f"no row of split '{split}' has a latent"):
        toy_actions.run(toy_actions.job("regress"))


@pytest.mark.parametrize("shape", [(5, 3), (2, 4), (3,), (2, 3, 1), ()])
def test_an_action_of_the_wrong_size_is_named_with_its_row(toy_actions: Any, shape: tuple[int, ...]) -> None:
    toy_actions.action("train_9.npy", np.zeros(shape))
    with pytest.raises(ContractError) as caught:
        toy_actions.run(toy_actions.job("regress"))
    said = str(caught.value)
    assert "train.csv: row 9: action file " in said
    assert f"actions/train_9.npy has shape {shape}, expected (2, 3) or (6,)" in said


# --- the hash ---------------------------------------------------------------------------------


def test_a_changed_action_file_shows_in_the_result(toy_actions: Any, with_protocol: WithProtocol) -> None:
    job = toy_actions.job("regress")
    first = toy_actions.run(job).targets_sha256
    assert first is not None
    assert len(first) == 64
    assert toy_actions.run(job).targets_sha256 == first
    # Of the files, not of what is made of them.
    assert toy_actions.run(toy_actions.job("regress", protocol=relative(with_protocol))).targets_sha256 == first
    chunk = np.load(toy_actions.mounts.data / "actions/val_3.npy")
    chunk[1, 2] += 1e-9
    toy_actions.action("val_3.npy", chunk)
    assert toy_actions.run(job).targets_sha256 != first


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_hashes_of_rows_do_not_depend_on_which_rows_failed(bench: Any, kind: str) -> None:
    rng = np.random.default_rng(0)
    for name, count, failed in (("train", 12, (4,)), ("val", 6, ()), ("other", 6, (0, 3))):
        cells = [bench.action(f"{i}.npy", rng.normal(size=(2, 3))) for i in range(count)]
        cells = cells if kind == "regress" else ["push" if i % 2 else "pull" for i in range(count)]
        bench.split(name, rng.normal(size=(count, 1, 2, 4)), cells, failed=failed)
    recipe = {"epochs": 1, "batch_size": 16}
    protocol = bench.protocol(
        select_on="evaluated",
        classify=bench.protocol().classify.model_copy(update=recipe),
        regress=bench.protocol().regress.model_copy(update=recipe),
    )
    bench.run(bench.job(kind, protocol=protocol))
    whole, part = (dict(np.load(bench.mounts.out / f"row_scores_{name}.npz")) for name in ("val", "other"))
    assert part["row"].tolist() == [1, 2, 4, 5]
    assert part["target"].tolist() == whole["target"][part["row"]].tolist()
    assert len(set(whole["target"].tolist())) == (2 if kind == "classify" else 6)
    assert part["train_target"] == whole["train_target"]


def test_the_hash_sees_order_shape_and_split() -> None:
    one, two = np.arange(6.0).reshape(1, 2, 3), np.ones((1, 2, 3))
    hashes = {
        targets_sha256(splits)
        for splits in ([one, two], [two, one], [one.reshape(1, 3, 2), two], [np.concatenate([one, two])], [one])
    }
    assert len(hashes) == 5
    assert targets_sha256([["a", "b"], ["c"]]) != targets_sha256([["a"], ["b", "c"]])
    assert targets_sha256([["a", "b"]]) != targets_sha256([["b", "a"]])
    assert targets_sha256([np.asfortranarray(one)]) == targets_sha256([one])


def test_standardising_leaves_the_chunks_as_they_are() -> None:
    chunks = np.random.default_rng(0).normal(2, 3, size=(7, 2, 3))
    kept = chunks.copy()
    standardised(chunks, train_scale(chunks))
    standardised(chunks, Scale(np.ones((7, 1, 3)), np.ones((7, 1, 3))))
    assert np.array_equal(chunks, kept)
