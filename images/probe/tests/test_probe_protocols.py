"""What a protocol decides: class ids, choices and seeds; and the splits that strain it."""

import csv
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lary_schema.base import ContractError
from lary_schema.cards import ProtocolCard
from lary_schema.events import Progress, Warned
from lary_schema.results import SplitScore

WithProtocol = Callable[..., ProtocolCard]


def class_split(bench: Any, name: str, labels: list[str], seed: int, order: str = "abcd", **more: Any) -> None:
    """Rows whose classes can be distinguished."""
    ids = np.array([order.index(label) for label in labels])
    noise = 0.1 * np.random.default_rng(seed).normal(size=(len(labels), 1, 2, 8))
    bench.split(name, 3 * np.eye(8)[ids][:, None, None, :] + noise, labels, **more)


def warnings(bench: Any) -> list[str]:
    return [event.message for event in bench.events if isinstance(event, Warned)]


def test_a_class_with_one_row_is_trained_on_and_never_held_out(bench: Any) -> None:
    class_split(bench, "train", [*"ab" * 16, "c"], seed=1)
    class_split(bench, "val", [*"abc" * 4], seed=2)
    result = bench.run(bench.job("classify"))
    assert result.classes == ("a", "b", "c")
    # Balanced sampling draws the one row as often as sixteen others: it is learnt.
    assert result.splits["val"].value == 1.0


def test_every_class_with_one_row_leaves_nothing_to_hold_out(bench: Any, with_protocol: WithProtocol) -> None:
    for name in ("train", "val"):
        class_split(bench, name, [*"abcd"], seed=1)
    with pytest.raises(ContractError, match="nothing can be held out; use select_on: evaluated"):
        bench.run(bench.job("classify"))
    result = bench.run(bench.job("classify", protocol=with_protocol(select_on="evaluated")))
    assert result.splits["val"].rows.used == 4


@pytest.mark.parametrize(
    ("numbering", "says"),
    [
        ("train", "row 2: label 'c' is not in the train split"),
        ("per-split", "row 3: label 'd' is one of 4, train has 3"),
    ],
)
def test_classes_of_val_alone_are_refused(bench: Any, with_protocol: WithProtocol, numbering: str, says: str) -> None:
    class_split(bench, "train", [*"abd" * 8], seed=1)
    class_split(bench, "val", [*"abcd"], seed=2)
    with pytest.raises(ContractError, match=says):
        bench.run(bench.job("classify", protocol=with_protocol(class_ids=numbering)))


def test_train_without_any_latent_is_refused(bench: Any) -> None:
    class_split(bench, "train", [*"abab"], seed=1, failed=range(4))
    class_split(bench, "val", [*"abab"], seed=2)
    with pytest.raises(ContractError, match="no row of split 'train' has a latent"):
        bench.run(bench.job("classify"))


def test_lary_v1_shifts_ids_behind_an_absent_class_and_says_how_many(bench: Any, with_protocol: WithProtocol) -> None:
    """Val has no `b`: `a` keeps its id, `c` takes that of `b` and `d` that of `c`."""
    class_split(bench, "train", [*"abcd" * 8], seed=1)
    class_split(bench, "val", [*"acd" * 4], seed=2)
    recipe = with_protocol().classify.model_copy(update={"optimisers": ((1e-2, 0.01),), "epochs": 8})
    letter = with_protocol(class_ids="per-split", select_on="evaluated", classify=recipe)
    result = bench.run(bench.job("classify", protocol=letter))
    assert result.splits["val"].seeds[0].last.value == pytest.approx(1 / 3)
    assert warnings(bench) == [
        "class_ids per-split: 8 of 12 rows of val carry another class's id than in train; their score is LARYBench's"
    ]
    bench.events.clear()
    right = bench.job("classify", protocol=with_protocol(classify=recipe))
    assert bench.run(right).splits["val"].seeds[0].last.value == 1.0
    assert [warning for warning in warnings(bench) if "class_ids" in warning] == []


def test_each_choice_is_told(bench: Any, with_protocol: WithProtocol) -> None:
    """By an event at the end of each seed, one choice per evaluated split where that split chooses."""
    rng = np.random.default_rng(0)
    for name in ("train", "seen", "unseen"):
        bench.split(name, rng.normal(size=(40, 1, 2, 6)), ["abcd"[i % 4] for i in range(40)])
    letter = with_protocol(select_on="evaluated", seeds=(0, 5))
    result = bench.run(bench.job("classify", protocol=letter))
    notes = [e.note for e in bench.events if isinstance(e, Progress) and "chosen by" in e.note]
    assert [note.split(":")[0] for note in notes] == ["seed 0", "seed 5"]
    for index, note in enumerate(notes):
        for name, part in zip(("seen", "unseen"), note.split(": ", 1)[1].split("; "), strict=True):
            best = result.splits[name].seeds[index].best
            assert part.startswith(f"{name} {best.value:.4f} at epoch {best.epoch}, head {best.optimiser} (lr ")
            assert part.endswith(f"chosen by itself ({best.value:.4f})")
    for name in ("seen", "unseen"):
        stats = json.loads((bench.mounts.out / name / "classification_stats.json").read_text())
        best = result.splits[name].seeds[0].best
        assert (stats["chosen"]["epoch"], stats["chosen"]["head"]) == (best.epoch, best.optimiser)
        assert stats["chosen"]["by"] == "evaluated"


def test_regression_tells_its_choice(toy_actions: Any) -> None:
    best = toy_actions.run(toy_actions.job("regress")).splits["val"].seeds[0].best
    notes = [e.note for e in toy_actions.events if isinstance(e, Progress)][-1]
    assert notes == f"seed 0: val {best.value:.4f} at epoch {best.epoch} chosen by holdout ({best.selection:.4f})"


def check_seeds(score: SplitScore, alone: list[SplitScore]) -> None:
    """Several seeds in one job are the single jobs, their mean and their spread."""
    assert list(score.seeds) == [single.seeds[0] for single in alone]
    values = [single.value for single in alone]
    assert score.value == pytest.approx(np.mean(values))
    assert score.std == pytest.approx(np.std(values, ddof=1))
    assert len(set(values)) > 1
    assert score.interval.low <= score.value <= score.interval.high


def test_several_seeds_of_a_classification(bench: Any, with_protocol: WithProtocol) -> None:
    rng = np.random.default_rng(1)
    for name in ("train", "val"):
        bench.split(name, rng.normal(size=(40, 1, 2, 6)), ["abcd"[i % 4] for i in range(40)])
    alone = [bench.run(bench.job("classify", protocol=with_protocol(seeds=(seed,)))) for seed in (3, 4, 5)]
    together = bench.run(bench.job("classify", protocol=with_protocol(seeds=(3, 4, 5))))
    check_seeds(together.splits["val"], [one.splits["val"] for one in alone])


def test_several_seeds_of_a_regression(toy_actions: Any, with_protocol: WithProtocol) -> None:
    alone = [toy_actions.run(toy_actions.job("regress", protocol=with_protocol(seeds=(s,)))) for s in (3, 4)]
    together = toy_actions.run(toy_actions.job("regress", protocol=with_protocol(seeds=(3, 4))))
    check_seeds(together.splits["val"], [one.splits["val"] for one in alone])
    # The interval is of the rows' errors averaged over the seeds: of the first seed's alone it is another one.
    assert together.splits["val"].interval != alone[0].splits["val"].interval
    with (toy_actions.mounts.out / "best_result.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["3", "4"]


def test_the_hash_of_the_labels_follows_the_labels(toy_classes: Any) -> None:
    first = toy_classes.run(toy_classes.job("classify")).targets_sha256
    assert first is not None
    assert toy_classes.run(toy_classes.job("classify")).targets_sha256 == first
    tokens = np.random.default_rng(0).normal(size=(15, 2, 3, 8))
    labels = [("grasp", "push", "turn")[i % 3] for i in range(15)]
    toy_classes.split("val", tokens, labels)
    assert toy_classes.run(toy_classes.job("classify")).targets_sha256 == first
    toy_classes.split("val", tokens, [labels[1], labels[0], *labels[2:]])
    assert toy_classes.run(toy_classes.job("classify")).targets_sha256 != first
