"""Rows of one episode are not independent: hold-outs, intervals and the scores of every row."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_probe.sampling import FEW_GROUPS, FEW_ROWS, holdout_random, holdout_stratified
from lary_schema.base import ContractError
from lary_schema.cards import ProtocolCard
from lary_schema.events import Warned
from lary_schema.groups import Grouping
from lary_schema.intervals import estimate
from lary_schema.results import Holdout

WithProtocol = Callable[..., ProtocolCard]
EPISODE = Grouping(column="episode")


def episodes_of(bench: Any, *, per: int = 4) -> None:
    """Classes of noisy rows in episodes of `per` rows: 30 train and 12 val episodes."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 30 * per), ("val", 12 * per)):
        labels = (np.arange(count) // per) % 3
        tokens = np.eye(8)[labels][:, None, None, :] + 0.8 * rng.normal(size=(count, 1, 1, 8))
        episodes = [f"{name}-é{i // per}" for i in range(count)]
        bench.split(name, tokens, ["abc"[i] for i in labels], columns={"episode": episodes})


def warnings(bench: Any) -> list[str]:
    return [event.message for event in bench.events if isinstance(event, Warned)]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=20),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_a_random_holdout_takes_whole_groups(sizes: list[int], share: float, seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    held = holdout_random(len(groups), share, seed, groups)
    assert 0 < held.sum() < len(groups)
    assert not set(groups[held]) & set(groups[~held])
    # No further from the wanted number than half of the largest group, where such a number can be had.
    wanted = np.clip(share * len(groups), 1, len(groups) - max(sizes))
    assert abs(held.sum() - wanted) <= max(sizes)


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=24),
    classes=st.integers(2, 5),
    mixed=st.booleans(),
    seed=st.integers(0, 5),
)
def test_a_stratified_holdout_takes_whole_groups_and_leaves_every_class(
    sizes: list[int], classes: int, mixed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.integers(classes, size=len(groups)) if mixed else rng.integers(classes, size=len(sizes))[groups]
    shuffled = rng.permutation(len(groups))
    groups, labels = groups[shuffled], labels[shuffled]
    whole = [(labels[groups == g], labels[groups != g]) for g in range(len(sizes))]
    possible = any(set(inside) <= set(outside) for inside, outside in whole)
    if not possible:
        with pytest.raises(ContractError, match="no group can be held out; use select_on: evaluated"):
            holdout_stratified(labels, 0.2, seed, groups)
        return
    held = holdout_stratified(labels, 0.2, seed, groups)
    assert held.any()
    assert not set(groups[held]) & set(groups[~held])
    assert set(labels[~held]) == set(labels)


def test_a_stratified_holdout_of_groups_has_each_class_at_its_share() -> None:
    groups = np.repeat(np.arange(200), 10)
    labels = (np.arange(200) % 4)[groups]
    held = holdout_stratified(labels, 0.1, 0, groups)
    assert np.bincount(labels[held]).tolist() == [50, 50, 50, 50]


def test_groups_larger_than_a_classs_share_give_about_the_share_in_total() -> None:
    """Eight classes of four episodes of 25 rows: a tenth of a class is less than half an episode."""
    groups = np.repeat(np.arange(32), 25)
    labels = (np.arange(32) % 8)[groups]
    for seed in range(5):
        held = holdout_stratified(labels, 0.1, seed, groups)
        assert held.sum() == 75
        assert len(set(labels[held])) == 3


def test_one_group_cannot_be_held_out() -> None:
    with pytest.raises(ContractError, match=r"one group \(6 rows\): nothing is left to hold out"):
        holdout_random(6, 0.1, 0, np.zeros(6, np.int64))


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_the_probe_holds_out_episodes(bench: Any, toy_actions: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held out and what is trained on share no episode, for every seed."""
    import importlib

    if kind == "classify":
        episodes_of(bench)
    else:
        for name, count in (("train", 64), ("val", 24)):
            tokens = np.random.default_rng(1).normal(size=(count, 1, 2, 4))
            cells = [f"{name}_{i}.npy" for i in range(count)]
            bench.split(name, tokens, cells, columns={"episode": [str(i // 4) for i in range(count)]})
    module = importlib.import_module(f"lary_probe.{kind}")
    seen, train = [], module.train

    def spy(session: Any, heads: Any, plan: Any, fit: Any, parts: Any) -> Any:
        seen.append((fit.rows(np.arange(len(fit))) // 4, parts["holdout"].rows(np.arange(len(parts["holdout"]))) // 4))
        return train(session, heads, plan, fit, parts)

    monkeypatch.setattr(module, "train", spy)
    result = bench.run(bench.job(kind, group=EPISODE, protocol=bench.protocol(seeds=(0, 1))))
    assert len(seen) == 2
    for fitted, held in seen:
        assert not set(fitted) & set(held)
    assert set(seen[0][1]) != set(seen[1][1])
    assert result.group == "episode"
    assert result.holdout == Holdout(rows=4 * len(set(seen[0][1])), groups=len(set(seen[0][1])))


def test_intervals_draw_groups_and_scores_of_rows_are_written(bench: Any) -> None:
    episodes_of(bench)
    result = bench.run(bench.job("classify", group=EPISODE, protocol=bench.protocol(seeds=(0, 3))))
    score = result.splits["val"]
    with np.load(bench.mounts.out / "row_scores_val.npz", allow_pickle=False) as file:
        found = dict(file)
    assert found["row"].tolist() == list(range(48))
    assert found["seed"].tolist() == [0, 3]
    assert found["score"].shape == (2, 48)
    assert found["score"].mean(axis=1) == pytest.approx([seed.best.value for seed in score.seeds])
    assert [found["group_names"][code] for code in found["group"]] == [f"val-é{i // 4}" for i in range(48)]
    assert {found[name].dtype for name in ("row", "group", "seed")} == {np.dtype(np.int64)}
    again = [estimate(found["score"], found["group"], resamples=200, seed=seed, bounds=(0, 1)) for seed in range(20)]
    assert score.interval.low == pytest.approx(np.mean([e.low for e in again]), abs=0.04)
    assert (score.interval.unit, score.interval.groups, score.interval.seeds) == ("groups", 12, True)
    assert score.interval.note == "12 groups, fewer than 30: the interval may be too narrow"


def test_without_groups_rows_are_taken_as_independent(toy_actions: Any) -> None:
    result = toy_actions.run(toy_actions.job("regress"))
    score = result.splits["val"]
    assert (score.interval.unit, score.interval.groups, score.interval.seeds) == ("rows", 24, False)
    assert result.group is None
    with np.load(toy_actions.mounts.out / "row_scores_val.npz", allow_pickle=False) as file:
        assert file["group"].tolist() == file["row"].tolist() == list(range(24))
        assert file["group_names"].size == 0
        assert file["score"].mean() == pytest.approx(score.value)


def test_row_numbers_are_the_csvs(bench: Any) -> None:
    tokens = np.random.default_rng(0).normal(size=(24, 1, 2, 6))
    labels, episodes = ["ab"[i % 2] for i in range(24)], [str(i // 6) for i in range(24)]
    bench.split("train", tokens, labels, columns={"episode": episodes})
    # A failed row needs no group.
    bench.split("val", tokens, labels, failed=(5, 7), columns={"episode": [*episodes[:5], "", *episodes[6:]]})
    bench.run(bench.job("classify", group=EPISODE))
    with np.load(bench.mounts.out / "row_scores_val.npz", allow_pickle=False) as file:
        assert file["row"].tolist() == [row for row in range(24) if row not in (5, 7)]


@pytest.mark.parametrize(
    ("grouping", "says"),
    [
        (Grouping(column="scene"), "no column 'scene'"),
        (Grouping(column="episode", pattern=r"x(?P<group>\d+)"), r"train\.csv: row 0: no group"),
    ],
)
def test_rows_without_a_group_are_refused(bench: Any, grouping: Grouping, says: str) -> None:
    episodes_of(bench)
    with pytest.raises(ContractError, match=says):
        bench.run(bench.job("classify", group=grouping))


def test_a_pattern_finds_the_group(bench: Any) -> None:
    episodes_of(bench)
    by_pattern = Grouping(column="episode", pattern=r"é(?P<group>\d+)$")
    result = bench.run(bench.job("classify", group=by_pattern))
    assert result.splits["val"].interval.groups == 12
    assert result.group == r"episode: é(?P<group>\d+)$"


def test_a_small_holdout_is_warned_of_with_its_number(bench: Any) -> None:
    episodes_of(bench)
    few = f"fewer than {FEW_ROWS}"
    result = bench.run(bench.job("classify", group=EPISODE))
    assert warnings(bench) == list(result.warnings)
    assert any(
        f"{result.holdout.rows} held-out rows of {result.holdout.groups} groups, {few}" in w for w in warnings(bench)
    )
    bench.events.clear()
    result = bench.run(bench.job("classify"))
    assert any(w.startswith(f"30 held-out rows, {few}:") for w in warnings(bench))
    bench.events.clear()
    episodes_of(bench, per=12)
    result = bench.run(bench.job("classify", protocol=bench.protocol(holdout=0.5)))
    assert result.holdout == Holdout(rows=180)
    assert not any("held-out" in w for w in result.warnings)
    result = bench.run(bench.job("classify", group=EPISODE, protocol=bench.protocol(holdout=0.2)))
    assert result.holdout.rows >= FEW_ROWS
    assert result.holdout.groups < FEW_GROUPS
    assert any("held-out" in w for w in result.warnings)


def test_one_evaluated_group_has_no_interval_and_valid_json(bench: Any) -> None:
    episodes_of(bench)
    tokens = np.random.default_rng(0).normal(size=(8, 1, 1, 8))
    bench.split("val", tokens, ["abc"[i % 3] for i in range(8)], columns={"episode": ["one"] * 8})
    score = bench.run(bench.job("classify", group=EPISODE)).splits["val"]
    assert math.isnan(score.interval.low)
    assert score.interval.note == "one of the groups alone: no interval can be given"
    assert score.beats_floor is False
    text = (bench.mounts.out / "result.json").read_text()
    assert "NaN" not in text
    assert '"low": null' in text
