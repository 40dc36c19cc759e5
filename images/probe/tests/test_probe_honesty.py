"""Numbers that say what they are: diverged heads, probes that learned nothing, ties, streams, statistics, baselines."""

import csv
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lary_probe.learning import learned_classes, learned_values
from lary_probe.sampling import balanced_order, holdout_random, shuffled_order
from lary_probe.selection import Track
from lary_probe.streams import Purpose, Streams
from lary_schema.base import ContractError
from lary_schema.cards import Normalisation, ProtocolCard
from lary_schema.events import Warned
from lary_schema.results import EpochScore

WithProtocol = Callable[..., ProtocolCard]


def warnings(bench: Any) -> list[str]:
    return [event.message for event in bench.events if isinstance(event, Warned)]


def with_heads(with_protocol: WithProtocol, *optimisers: tuple[float, float], **more: Any) -> ProtocolCard:
    recipe = with_protocol().classify.model_copy(update={"optimisers": optimisers})
    return with_protocol(classify=recipe, **more)


# --- heads that diverge -----------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2])
def test_a_classification_whose_heads_all_diverge_is_an_error(
    toy_classes: Any, with_protocol: WithProtocol, heads: int
) -> None:
    hot = with_heads(with_protocol, *[(1e30, 0.01)] * heads)
    with pytest.raises(ContractError, match=r"training diverged in epoch 1 of seed 0: .*head 0 \(lr 1e\+30"):
        toy_classes.run(toy_classes.job("classify", protocol=hot))
    assert not (toy_classes.mounts.out / "result.json").exists()


@pytest.mark.parametrize("select_on", ["holdout", "evaluated"])
def test_a_diverged_head_is_left_out_by_name(toy_classes: Any, with_protocol: WithProtocol, select_on: str) -> None:
    both = with_heads(with_protocol, (1e30, 0.01), (1e-2, 0.01), select_on=select_on)
    result = toy_classes.run(toy_classes.job("classify", protocol=both))
    (seed,) = result.splits["val"].seeds
    assert seed.diverged == (0,)
    assert np.isnan(seed.per_optimiser[0])
    assert {seed.early.optimiser, seed.best.optimiser, seed.last.optimiser} == {1}
    said = [w for w in warnings(toy_classes) if "diverged" in w]
    assert len(said) == 1
    assert said[0].startswith("head 0 (lr 1e+30, weight decay 0.01) diverged in epoch 1 of seed 0")
    document = json.loads((toy_classes.mounts.out / "result.json").read_text())
    assert document["splits"]["val"]["seeds"][0]["per_optimiser"][0] is None
    for path in toy_classes.mounts.out.rglob("*.json"):
        assert "NaN" not in path.read_text()


def test_a_step_that_is_not_finite_leaves_the_head_as_it_was(toy_classes: Any, with_protocol: WithProtocol) -> None:
    """A loss that is not finite in one batch: the other head steps, this one does not, and its row does not count."""
    import torch
    from lary_probe.classify import make_heads, make_plan
    from lary_probe.data import open_data
    from lary_probe.session import open_session
    from lary_probe.training import Part, train

    recipe = with_protocol().classify.model_copy(update={"epochs": 1, "batch_size": 36})
    job = toy_classes.job("classify", protocol=with_protocol(classify=recipe))
    targets = np.arange(36) % 3
    with open_session(job, toy_classes.mounts, lambda event: None) as session:
        data = open_data(job, toy_classes.mounts, lambda: None)
        heads = make_heads(session, data.train.shape, 3)
        with torch.no_grad():
            heads[0].network.linear.bias[0] = torch.inf  # type: ignore[union-attr,index]
        before = [[p.detach().clone() for p in head.network.parameters()] for head in heads]
        plan = make_plan(recipe, targets, Streams(0))
        plan = plan.__class__(**(vars(plan) | {"schedule": lambda step, total: 1.0}))
        (output,) = train(session, heads, plan, Part(data.train, np.arange(36), targets), {})
        after = [[p.detach() for p in head.network.parameters()] for head in heads]
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert np.isnan(output.train[0])
    assert 0 <= output.train[1] <= 1


# --- probes that learn nothing ----------------------------------------------------------------


def test_a_probe_that_never_learned_warns_and_is_marked(bench: Any, with_protocol: WithProtocol) -> None:
    labels = np.arange(240) % 4
    for name in ("train", "val"):
        bench.split(name, 3 * np.eye(8)[labels][:, None, None, :], ["abcd"[i] for i in labels])
    still = with_heads(with_protocol, (1e-9, 0.01), (1e-10, 0.01))
    result = bench.run(bench.job("classify", protocol=still))
    assert result.learned is False
    assert any("the probe learned nothing" in w and w.startswith("seed 0:") for w in result.warnings)
    bench.events.clear()
    result = bench.run(bench.job("classify", protocol=with_heads(with_protocol, (1e-9, 0.01), (1e-2, 0.01))))
    assert result.learned is True
    assert not any("learned nothing" in w for w in result.warnings)


def test_a_regression_that_never_learned_warns(toy_actions: Any) -> None:
    job = toy_actions.job("regress")
    recipe = job.protocol.regress.model_copy(update={"lr": 1e-12})
    result = toy_actions.run(job.model_copy(update={"protocol": job.protocol.model_copy(update={"regress": recipe})}))
    assert result.learned is False
    assert any("the probe learned nothing" in w for w in warnings(toy_actions))
    assert toy_actions.run(job).learned is True


def test_a_shuffled_control_that_learns_nothing_is_as_it_should_be(bench: Any) -> None:
    labels = np.arange(120) % 4
    noise = np.random.default_rng(0).normal(size=(120, 1, 1, 8))
    for name in ("train", "val"):
        bench.split(name, noise, ["abcd"[i] for i in labels])
    result = bench.run(bench.job("classify", control="shuffled"))
    assert not any("learned nothing" in w for w in result.warnings)


@pytest.mark.parametrize(("classes", "rows"), [(2, 400), (8, 400), (50, 5000)])
def test_chance_is_not_taken_for_learning(classes: int, rows: int) -> None:
    """Five heads, twenty epochs, a hundred times: at most a few cases of luck; and 1.5 times chance is seen."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    lucky = sum(
        learned_classes(list(rng.binomial(rows, 1 / classes, (20, 5)) / rows), rows, labels, True) for _ in range(100)
    )
    assert lucky <= 3
    assert learned_classes([np.array([1.5 / classes])], rows, labels, True) == (rows > 400 or classes == 2)
    assert not learned_classes([np.array([np.nan])], rows, labels, True)


def test_the_mean_is_not_taken_for_learning() -> None:
    assert not learned_values([np.array([1.4]), np.array([0.99])], 1.0)
    assert learned_values([np.array([1.4]), np.array([0.9])], 1.0)
    assert not learned_values([np.array([np.nan])], 1.0)


# --- ties -------------------------------------------------------------------------------------


def test_ties_of_epochs_go_to_the_smaller_held_out_loss() -> None:
    track = Track(0, higher_is_better=True)
    for epoch, (selection, loss) in enumerate([(0.5, 0.1), (1.0, 0.4), (1.0, 0.2), (1.0, 0.3), (0.9, 0.0)], start=1):
        track.add(EpochScore(epoch=epoch, value=0.0, selection=selection, loss=loss), 0.0, np.empty(0))
    assert track.chosen.epoch == 3


def test_ties_of_heads_go_to_the_smaller_held_out_loss(toy_classes: Any, with_protocol: WithProtocol) -> None:
    """Both heads are right on every held-out row; the second is surer of it."""
    recipe = with_protocol().classify.model_copy(
        update={"optimisers": ((3e-3, 0.01), (1e-2, 0.01)), "epochs": 6, "label_smoothing": 0.0}
    )
    for order in (1, -1):
        swapped = recipe.model_copy(update={"optimisers": recipe.optimisers[::order]})
        result = toy_classes.run(toy_classes.job("classify", protocol=with_protocol(classify=swapped)))
        best = result.splits["val"].seeds[0].best
        assert best.selection == 1.0
        lr, _ = swapped.optimisers[best.optimiser]
        assert lr == 1e-2


# --- streams ----------------------------------------------------------------------------------


def test_seeds_and_purposes_share_no_draw() -> None:
    labels = np.repeat(np.arange(4), 50)
    seen = {}
    for seed in range(4):
        streams = Streams(seed)
        for epoch in range(5):
            seen[seed, epoch] = shuffled_order(200, 200, streams.order(epoch)).tobytes()
            seen[seed, epoch, "b"] = balanced_order(labels, 200, streams.order(epoch)).tobytes()
        seen[seed, "control"] = np.random.default_rng(streams.control()).permutation(200).tobytes()
        seen[seed, "holdout"] = np.random.default_rng(streams.holdout()).permutation(200).tobytes()
    assert len(set(seen.values())) == len(seen)


def test_streams_are_what_numpys_spawn_gives() -> None:
    children = np.random.SeedSequence(7).spawn(5)
    streams = Streams(7)
    assert [streams.holdout().spawn_key, streams.control().spawn_key] == [c.spawn_key for c in children[:2]]  # type: ignore[union-attr]
    third = children[Purpose.ORDER].spawn(3)[2]
    assert np.random.default_rng(streams.order(2)).random() == np.random.default_rng(third).random()


def test_upstreams_streams_are_seed_plus_epoch() -> None:
    streams = Streams(3, "upstream")
    assert [streams.order(0), streams.order(4), streams.holdout(), streams.control()] == [3, 7, 3, 3]
    assert (shuffled_order(9, 9, Streams(0, "upstream").order(1)) == shuffled_order(9, 9, streams.order(-2))).all()


def test_torch_starts_differ_by_seed_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def drawn(seed: int) -> float:
        Streams(seed).start_torch()
        return float(torch.rand(()))

    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(5)}) == 5


def test_holdout_and_control_are_different_draws() -> None:
    streams = Streams(7)
    held = set(np.flatnonzero(holdout_random(200, 0.1, streams.holdout())).tolist())
    permuted = np.random.default_rng(streams.control()).permutation(200)[:20].tolist()
    assert len(held & set(permuted)) < 10


# --- statistics and baselines of the whole CSV ------------------------------------------------


def truth_of(bench: Any) -> Any:
    return np.load(bench.mounts.out / "predictions_val.npy")[:, 0]


def test_units_do_not_depend_on_which_rows_failed(toy_actions: Any) -> None:
    """A model that fails on the largest actions is scored in the same units, against the same baseline."""
    whole = toy_actions.run(toy_actions.job("regress"))
    units = truth_of(toy_actions)
    sizes = [np.abs(np.load(toy_actions.mounts.data / f"actions/train_{i}.npy")).sum() for i in range(64)]
    tokens = np.random.default_rng(1).normal(size=(64, 1, 2, 4))
    failed = tuple(int(i) for i in np.argsort(sizes)[-20:])
    toy_actions.split("train", tokens, [f"train_{i}.npy" for i in range(64)], failed=failed)
    job = toy_actions.job("regress", evaluate=(toy_actions.splits["val"],))
    part = toy_actions.run(job)
    np.testing.assert_array_equal(truth_of(toy_actions), units)
    assert part.splits["val"].floor == whole.splits["val"].floor
    assert part.train_rows.failed == 20


def test_units_by_robot_do_not_depend_on_which_rows_failed(toy_actions: Any) -> None:
    tokens = np.random.default_rng(1).normal(size=(64, 1, 2, 4))
    cells, robots = [f"train_{i}.npy" for i in range(64)], ["arm" if i % 2 else "leg" for i in range(64)]
    units = []
    for failed in ((), (1, 3, 5, 6, 8)):
        toy_actions.split("train", tokens, cells, failed=failed, columns={"robot_type": robots})
        val = [f"val_{i}.npy" for i in range(24)]
        toy_actions.split("val", tokens[:24], val, columns={"robot_type": robots[:24]})
        job = toy_actions.job("regress")
        actions = job.actions.model_copy(update={"normalisation": Normalisation(kind="per-robot")})
        toy_actions.run(job.model_copy(update={"actions": actions}))
        units.append(truth_of(toy_actions))
    np.testing.assert_array_equal(units[0], units[1])


def test_an_action_of_a_failed_train_row_is_needed(toy_actions: Any) -> None:
    cells = [*(f"train_{i}.npy" for i in range(63)), "gone.npy"]
    tokens = np.random.default_rng(1).normal(size=(64, 1, 2, 4))
    train = toy_actions.split("train", tokens, cells, failed=(63,))
    with pytest.raises(ContractError, match=r"train\.csv: row 63: .*No such file"):
        toy_actions.run(toy_actions.job("regress", train=train))


def test_the_most_frequent_class_is_the_whole_csvs(bench: Any) -> None:
    """15 rows of `a`, 12 of `b`; six rows of `a` failed."""
    tokens = np.random.default_rng(0).normal(size=(27, 1, 2, 6))
    bench.split("train", tokens, [*"a" * 15, *"b" * 12], failed=range(6))
    bench.split("val", tokens[:10], [*"aaaaaaabbb"])
    assert bench.run(bench.job("classify")).splits["val"].floor == pytest.approx(0.7)


# --- what a number measures -------------------------------------------------------------------


def test_a_control_says_what_it_measures(toy_actions: Any, toy_classes: Any) -> None:
    pairs = [(None, "score"), ("shuffled", "chance")]
    for control, measures in pairs:
        more = {} if control is None else {"control": control}
        toy_classes.splits.clear()
        for name in ("train", "val"):
            labels = np.arange(36) % 3
            toy_classes.split(name, 3 * np.eye(8)[labels][:, None, None, :], ["abc"[i] for i in labels])
        assert toy_classes.run(toy_classes.job("classify", **more)).measures == measures


def test_a_regressions_control_measures_overfitting(toy_actions: Any) -> None:
    assert toy_actions.run(toy_actions.job("regress")).measures == "score"
    assert toy_actions.run(toy_actions.job("regress", control="shuffled")).measures == "overfitting"


def test_a_score_within_its_interval_of_the_baseline_does_not_beat_it(bench: Any) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("val", 40)):
        bench.split(name, rng.normal(size=(count, 1, 1, 8)), ["ab"[i % 2] for i in range(count)])
    score = bench.run(bench.job("classify")).splits["val"]
    assert score.interval.low < score.floor
    assert score.beats_floor is False


def test_a_regression_beats_the_mean_beyond_its_interval(toy_actions: Any) -> None:
    score = toy_actions.run(toy_actions.job("regress")).splits["val"]
    assert score.interval.high < score.floor
    assert score.beats_floor is True
    control = toy_actions.run(toy_actions.job("regress", control="shuffled")).splits["val"]
    assert control.beats_floor is False


def test_logs_hold_no_nan_where_a_head_diverged(toy_classes: Any, with_protocol: WithProtocol) -> None:
    both = with_heads(with_protocol, (1e30, 0.01), (1e-2, 0.01))
    toy_classes.run(toy_classes.job("classify", protocol=both))
    with (toy_classes.mounts.out / "log_r0.csv").open(newline="") as file:
        assert all(row["head"] == "1" and 0 <= float(row["val_acc"]) <= 1 for row in csv.DictReader(file))
