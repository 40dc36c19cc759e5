"""The classification probe on toy stores: what it scores, what it writes, what it refuses."""

import csv
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lary_schema.base import ContractError
from lary_schema.cards import Labels, ProtocolCard
from lary_schema.events import Finished, Progress, Started, Warned
from lary_schema.results import ProbeResult

WithProtocol = Callable[..., ProtocolCard]


def scores(result: ProbeResult) -> dict[str, Any]:
    """A result without what may differ between two runs of one job."""
    return result.model_dump(exclude={"seconds"})


def noise_split(bench: Any, name: str, count: int, seed: int) -> None:
    tokens = np.random.default_rng(seed).normal(size=(count, 1, 2, 6))
    bench.split(name, tokens, ["abcd"[i % 4] for i in range(count)])


def test_separable_classes_are_told_apart(toy_classes: Any) -> None:
    result = toy_classes.run(toy_classes.job("classify"))
    score = result.splits["val"]
    assert (score.value, score.interval.high) == (1.0, 1.0)
    # Fifteen hits of fifteen do not prove that no row is ever missed: the exact bound.
    assert score.interval.low == pytest.approx(0.025 ** (1 / 15))
    assert score.beats_floor
    assert score.chance == pytest.approx(1 / 3)
    assert score.floor == pytest.approx(1 / 3)
    assert result.classes == ("grasp", "push", "turn")
    assert (score.rows.used, score.rows.failed) == (15, 0)
    (seed,) = score.seeds
    assert (seed.early.epoch, seed.last.epoch) == (1, 3)
    assert len(seed.per_optimiser) == 2
    assert [trace.split for trace in result.stores] == ["train", "val"]
    assert all(trace.settings is not None and trace.settings.dtype == "float32" for trace in result.stores)
    assert result.recipe is not None
    assert result.recipe["epochs"] == 3


def test_events_count_every_step(toy_classes: Any) -> None:
    toy_classes.run(toy_classes.job("classify"))
    started, *_, finished = toy_classes.events
    # 36 rows, 3 of each class of 12 held out: 27 rows in 2 batches, 3 epochs.
    assert isinstance(started, Started)
    assert (started.total, started.unit) == (6, "steps")
    assert isinstance(finished, Finished)
    assert finished.done == 6
    notes = [event.note for event in toy_classes.events if isinstance(event, Progress) and event.note]
    assert notes[-2].startswith("seed 0 epoch 3/3 val 1.0")
    head = "head 0 (lr 0.01, weight decay 0.01)"
    assert notes[-1] == f"seed 0: val 1.0000 at epoch 3, {head}, chosen by holdout (1.0000)"


def test_same_job_same_bits(toy_classes: Any, with_protocol: WithProtocol) -> None:
    job = toy_classes.job("classify", protocol=with_protocol(seeds=(0, 1)))
    first, weights = toy_classes.run(job), (toy_classes.mounts.out / "probe.safetensors").read_bytes()
    second = toy_classes.run(job)
    assert scores(first) == scores(second)
    assert weights == (toy_classes.mounts.out / "probe.safetensors").read_bytes()


@pytest.mark.parametrize("ram_bytes", [1, 21 * 48, 41 * 48])
def test_reading_from_disk_gives_the_same_numbers(bench: Any, ram_bytes: int) -> None:
    """Nothing fits into memory; half of train does, or all of it and one row of val."""
    for name, seed in (("train", 1), ("val", 2)):
        noise_split(bench, name, 40, seed)
    in_memory = bench.run(bench.job("classify"))
    streamed = bench.run(bench.job("classify", ram_bytes=ram_bytes))
    assert scores(in_memory) == scores(streamed)
    assert in_memory.fingerprint == streamed.fingerprint


def test_memory_takes_the_first_rows_that_fit(bench: Any) -> None:
    from lary_probe.latents import load_within, open_latents

    tokens = np.random.default_rng(0).normal(size=(40, 1, 2, 6)).astype(np.float32)
    for name in ("train", "val"):
        bench.split(name, tokens, ["ab"[i % 2] for i in range(40)], failed=(3,))
    both = [open_latents(split, bench.mounts.latents, time_axis=True) for split in bench.splits.values()]
    load_within(both, 48 * 60 + 47, lambda: None)
    assert [latents.held for latents in both] == [39, 21]
    order = np.array([38, 20, 21, 0, 3, 21])
    expected = tokens[[39, 21, 22, 0, 4, 22]]
    assert all(np.array_equal(latents.batch(order), expected) for latents in both)


def test_two_seeds_give_mean_and_spread(bench: Any, with_protocol: WithProtocol) -> None:
    for name, seed in (("train", 1), ("val", 2)):
        noise_split(bench, name, 40, seed)
    score = bench.run(bench.job("classify", protocol=with_protocol(seeds=(3, 4)))).splits["val"]
    values = [seed.best.value for seed in score.seeds]
    assert [seed.seed for seed in score.seeds] == [3, 4]
    assert score.value == pytest.approx(np.mean(values))
    assert score.std == pytest.approx(np.std(values, ddof=1))
    assert score.interval.low <= score.value <= score.interval.high


def test_shuffled_control_is_at_chance(bench: Any, with_protocol: WithProtocol) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("train", 160), ("val", 400)):
        labels = np.arange(count) % 4
        tokens = np.eye(8)[labels][:, None, None, :] + 0.1 * rng.normal(size=(count, 1, 1, 8))
        bench.split(name, tokens, ["abcd"[i] for i in labels])
    seeds = with_protocol(seeds=(0, 1, 2))
    assert bench.run(bench.job("classify", protocol=seeds)).splits["val"].value > 0.95
    control = bench.run(bench.job("classify", control="shuffled", protocol=seeds))
    assert control.control == "shuffled"
    # The classes are trivially distinguished, so a shuffled probe names each as a whole: multiples of a quarter.
    assert control.splits["val"].value <= 0.6


def test_failed_rows_are_in_no_score(bench: Any) -> None:
    tokens = np.random.default_rng(0).normal(size=(24, 1, 2, 6))
    labels = ["ab"[i % 2] for i in range(24)]
    bench.split("train", tokens, labels, failed=(0, 17), clamped=(3, 4))
    bench.split("val", tokens, labels, failed=(5,))
    result = bench.run(bench.job("classify"))
    assert (result.train_rows.used, result.train_rows.failed, result.train_rows.clamped) == (22, 2, 2)
    assert (result.splits["val"].rows.used, result.splits["val"].rows.failed) == (23, 1)
    with (bench.mounts.out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [int(row["row"]) for row in csv.DictReader(file)]
    assert rows == [r for r in range(24) if r != 5]


def test_holdout_choice_never_sees_the_evaluated_split(bench: Any, with_protocol: WithProtocol) -> None:
    """Another evaluated split changes no selection value and no choice."""
    noise_split(bench, "train", 40, 1)
    noise_split(bench, "val", 40, 2)
    first = bench.run(bench.job("classify")).splits["val"].seeds[0]
    noise_split(bench, "val", 40, 3)
    second = bench.run(bench.job("classify")).splits["val"].seeds[0]
    for one, other in ((first.early, second.early), (first.best, second.best), (first.last, second.last)):
        assert (one.epoch, one.selection, one.optimiser) == (other.epoch, other.selection, other.optimiser)
    assert first.best.value != second.best.value


def test_selection_on_the_evaluated_split_takes_its_best(bench: Any, with_protocol: WithProtocol) -> None:
    for name, seed in (("train", 1), ("val", 2), ("other", 3)):
        noise_split(bench, name, 40, seed)
    result = bench.run(bench.job("classify", protocol=with_protocol(select_on="evaluated")))
    for split in ("val", "other"):
        best = result.splits[split].seeds[0]
        assert best.best.value == best.best.selection == max(best.per_optimiser)
        assert best.best.value >= max(best.early.value, best.last.value)
        assert (bench.mounts.out / split / "confusion_matrix.json").is_file()


def test_outputs_agree_with_each_other(bench: Any, real_pictures: None) -> None:
    for name, seed in (("train", 1), ("val", 2)):
        noise_split(bench, name, 40, seed)
    result = bench.run(bench.job("classify"))
    score = result.splits["val"]
    document = bench.document("confusion_matrix.json")
    matrix = np.array(document["matrix"])
    with (bench.mounts.out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_hand = np.zeros((4, 4), int)
    for row in rows:
        by_hand["abcd".index(row["truth"]), "abcd".index(row["predicted"])] += 1
    assert matrix.tolist() == by_hand.tolist()
    assert np.trace(matrix) / matrix.sum() == pytest.approx(score.value)
    stats = bench.document("classification_stats.json")
    assert stats["macro_recall"] == pytest.approx(score.seeds[0].best.macro)
    assert sum(c["support"] for c in stats["per_class"].values()) == 40
    case = (bench.mounts.out / "case.txt").read_text(encoding="utf-8").splitlines()
    assert case[0].split("\t") == ["val/é 0.png", rows[0]["predicted"], "a"]
    log = (bench.mounts.out / "log_r0.csv").read_text().splitlines()
    assert log[0] == "epoch,train_acc,val_acc,selection,head"
    best = score.seeds[0].best
    recipe = dict(zip(("lr", "weight_decay"), ((1e-2, 0.01), (1e-4, 0.1))[best.optimiser], strict=True))
    chosen = {"seed": 0, "epoch": best.epoch, "head": best.optimiser, "by": "holdout", "score": best.selection}
    assert stats["chosen"] == chosen | recipe
    assert log[best.epoch].split(",")[-1] == str(best.optimiser)
    assert float(log[-1].split(",")[2]) == score.seeds[0].last.value
    assert (bench.mounts.out / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    assert not list(bench.mounts.out.rglob("*.partial"))


def test_weights_give_the_scored_predictions_again(toy_classes: Any) -> None:
    import torch
    from lary_probe.attentive import AttentiveClassifier
    from lary_probe.latents import open_latents
    from safetensors.torch import load_file

    job = toy_classes.job("classify")
    toy_classes.run(job)
    latents = open_latents(job.evaluate[0], toy_classes.mounts.latents, time_axis=True)
    network = AttentiveClassifier(8, 3, width=16, depth=2, heads=2, time_axis=True)
    network.load_state_dict(load_file(toy_classes.mounts.out / "probe.safetensors"))
    with torch.inference_mode():
        predicted = network(latents.batch(np.arange(15))).argmax(-1).tolist()
    assert predicted == [i % 3 for i in range(15)]


def test_without_time_axis_the_probe_gets_flat_tokens(bench: Any) -> None:
    for name, seed in (("train", 1), ("val", 2)):
        noise_split(bench, name, 24, seed)
    bench.run(bench.job("classify", time_axis=False))
    from safetensors.torch import load_file

    assert "time" not in load_file(bench.mounts.out / "probe.safetensors")


def test_fewer_classes_in_val_keep_trains_ids(bench: Any) -> None:
    """LARYBench numbers val alone: without `a` every id shifts and all predictions count as wrong."""
    labels = np.arange(36) % 3
    noise = 0.1 * np.random.default_rng(0).normal(size=(36, 1, 2, 8))
    tokens = 3 * np.eye(8)[labels][:, None, None, :] + noise
    bench.split("train", tokens, ["abc"[i] for i in labels])
    kept = np.flatnonzero(labels > 0)
    bench.split("val", tokens[kept], ["abc"[i] for i in labels[kept]])
    assert bench.run(bench.job("classify")).splits["val"].seeds[0].last.value == 1.0


def test_per_split_ids_repeat_larybenchs_fault(bench: Any, with_protocol: WithProtocol) -> None:
    labels = np.arange(36) % 3
    noise = 0.1 * np.random.default_rng(0).normal(size=(36, 1, 2, 8))
    tokens = 3 * np.eye(8)[labels][:, None, None, :] + noise
    bench.split("train", tokens, ["abc"[i] for i in labels])
    kept = np.flatnonzero(labels > 0)
    bench.split("val", tokens[kept], ["abc"[i] for i in labels[kept]])
    result = bench.run(bench.job("classify", protocol=with_protocol(class_ids="per-split")))
    assert result.splits["val"].seeds[0].last.value == 0.0


def test_a_class_without_latents_is_warned_of(bench: Any) -> None:
    tokens = np.random.default_rng(0).normal(size=(21, 1, 2, 6))
    labels = ["ab"[i % 2] for i in range(20)]
    bench.split("train", tokens, [*labels, "rare"], failed=(20,))
    bench.split("val", tokens[:20], labels)
    result = bench.run(bench.job("classify"))
    assert result.classes == ("a", "b", "rare")
    assert any(isinstance(event, Warned) and "rare" in event.message for event in bench.events)


def test_a_label_unknown_to_train_is_refused(toy_classes: Any) -> None:
    toy_classes.split("val", np.zeros((2, 2, 3, 8)), ["push", "throw"])
    with pytest.raises(ContractError, match=r"val\.csv: row 1: label 'throw'.*not in the train split"):
        toy_classes.run(toy_classes.job("classify"))
    assert not (toy_classes.mounts.out / "result.json").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": Labels(classes=4)}, "train.csv: 3 classes in column 'action', the dataset card says 4"),
        ({"labels": Labels(column="verb")}, "train.csv: no column 'verb'"),
        ({"code_sha256": "0" * 64}, "was planned for probe sources 0000000000000000"),
        ({"evaluate": ()}, "evaluate must name one split or more"),
        ({"device": "cuda"}, "device cuda and torch sees none"),
    ],
)
def test_bad_jobs_are_refused(toy_classes: Any, changes: dict[str, Any], says: str) -> None:
    import torch

    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ContractError, match=re.escape(says)):
        toy_classes.run(toy_classes.job("classify", **changes))


def test_heads_must_divide_the_width(toy_classes: Any, with_protocol: WithProtocol) -> None:
    narrow = with_protocol()
    recipe = narrow.classify.model_copy(update={"width": 15})
    with pytest.raises(ContractError, match="width 15 is no multiple of 2 heads"):
        toy_classes.run(toy_classes.job("classify", protocol=narrow.model_copy(update={"classify": recipe})))


def test_values_that_are_not_finite_name_store_and_row(bench: Any) -> None:
    tokens = np.random.default_rng(0).normal(size=(20, 1, 2, 6))
    bench.split("train", tokens, ["ab"[i % 2] for i in range(20)])
    tokens[7, 0, 1, 2] = np.nan
    bench.split("val", tokens, ["ab"[i % 2] for i in range(20)], failed=(2,))
    with pytest.raises(ContractError, match=r"toys/val/toy/.*\.zarr: row 7 is marked ok"):
        bench.run(bench.job("classify"))


def test_an_absent_a_foreign_and_a_short_store_are_refused(toy_classes: Any) -> None:
    train = toy_classes.splits["train"]
    for update, says in (
        ({"path": "toys/none.zarr"}, "no latent store"),
        ({"fingerprint": "f" * 64}, "expected ffffffffffffffff"),
        ({"rows": 35}, "holds 36 rows, the job says 35"),
    ):
        store = train.store.model_copy(update=update)
        with pytest.raises(ContractError, match=says):
            toy_classes.run(toy_classes.job("classify", train=train.model_copy(update={"store": store})))


def test_a_csv_that_changed_is_refused(toy_classes: Any) -> None:
    path = toy_classes.mounts.job / "metadata/val.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("push", "pull"), encoding="utf-8")
    with pytest.raises(ContractError, match=r"val\.csv: changed since the job was planned"):
        toy_classes.run(toy_classes.job("classify"))


def test_an_empty_label_names_its_row(toy_classes: Any) -> None:
    toy_classes.split("val", np.zeros((2, 2, 3, 8)), ["push", " "])
    with pytest.raises(ContractError, match=r"val\.csv: row 1: column 'action' is empty"):
        toy_classes.run(toy_classes.job("classify"))


def test_one_class_is_nothing_to_tell_apart(bench: Any) -> None:
    for name in ("train", "val"):
        bench.split(name, np.zeros((4, 1, 2, 3)), ["push"] * 4)
    with pytest.raises(ContractError, match="1 classes in column 'action'; nothing to distinguish"):
        bench.run(bench.job("classify"))


def test_a_split_without_any_latent_is_refused(toy_classes: Any) -> None:
    toy_classes.split("val", np.zeros((2, 2, 3, 8)), ["push", "turn"], failed=(0, 1))
    with pytest.raises(ContractError, match="no row of split 'val' has a latent"):
        toy_classes.run(toy_classes.job("classify"))


def test_an_older_result_does_not_survive_a_failed_attempt(toy_classes: Any) -> None:
    toy_classes.run(toy_classes.job("classify"))
    with pytest.raises(ContractError):
        toy_classes.run(toy_classes.job("classify", labels=Labels(classes=9)))
    assert not (toy_classes.mounts.out / "result.json").exists()


def test_bf16_training_still_learns(toy_classes: Any, with_protocol: WithProtocol) -> None:
    base = with_protocol()
    recipe = base.classify.model_copy(update={"autocast": "bf16"})
    job = toy_classes.job("classify", protocol=base.model_copy(update={"classify": recipe}))
    assert toy_classes.run(job).splits["val"].value == 1.0
