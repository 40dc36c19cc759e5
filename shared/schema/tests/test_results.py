"""Results: valid JSON whatever the numbers are, and old files stay readable."""

import json
import math
from typing import Any, Literal

import pytest
from lary_schema.cards import ProtocolCard
from lary_schema.results import EpochScore, Interval, ProbeResult, RowCount, SeedScores, SplitScore, recipe_of

OLD: dict[str, Any] = {
    "version": 1, "kind": "classify", "metric": "top1", "run": "r", "model": "m", "variant": "corrected",
    "dataset": "d", "protocol": "clean", "control": "none", "head": None, "target": None, "targets_sha256": "0",
    "fingerprint": "f", "train_rows": {"used": 9, "failed": 0, "clamped": 0}, "classes": ["a", "b"], "stores": [],
    "probe_image": "p", "probe_image_digest": None, "probe_code_sha256": "c", "code_revision": None, "device": "cpu",
    "libraries": {}, "seconds": 1.5,
    "splits": {
        "val": {
            "value": 0.5, "interval": {"low": 0.25, "high": 0.75}, "std": None, "floor": 0.5, "chance": 0.5,
            "per_group": {}, "per_dimension": {}, "rows": {"used": 4, "failed": 0, "clamped": 0},
            "unknown_robots": {},
            "seeds": [
                {
                    "seed": 0, "per_optimiser": [0.5, 0.25],
                    **{
                        when: {"epoch": 1, "value": 0.5, "selection": 0.5, "macro": 0.5, "r2": None, "optimiser": 0}
                        for when in ("early", "best", "last")
                    },
                }
            ],
        }
    },
}  # fmt: skip
"""As results were written before they said which groups they draw."""


def test_results_of_the_first_release_are_read() -> None:
    result = ProbeResult.parse(OLD, "result.json")
    score = result.splits["val"]
    assert (score.interval.low, score.interval.high, score.interval.unit) == (0.25, 0.75, "rows")
    assert (score.interval.groups, score.beats_floor, result.learned, result.group) == (None, None, None, None)
    assert result.measures == "score"
    again = ProbeResult.parse(json.loads(result.to_json()), "again")
    assert again == result


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_and_comes_back_as_nan(number: float) -> None:
    epoch = EpochScore(epoch=1, value=number, selection=number, loss=number, macro=number)
    score = SplitScore(
        value=number,
        interval=Interval(low=number, high=number, unit="groups", groups=1, note="one group"),
        std=number,
        seeds=(SeedScores(seed=0, early=epoch, best=epoch, last=epoch, per_optimiser=(0.5, number), diverged=(1,)),),
        floor=number,
        chance=number,
        per_dimension={"x": number},
        per_group={"x": number},
        rows=RowCount(used=1, failed=0),
    )
    text = score.to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    read = SplitScore.parse(json.loads(text), "score")
    assert math.isnan(read.value)
    assert math.isnan(read.interval.low)
    assert math.isnan(read.seeds[0].per_optimiser[1])
    assert read.seeds[0].per_optimiser[0] == 0.5
    assert read.to_json() == text


CARD: dict[str, Any] = {
    "key": "mine", "title": "t", "select_on": "holdout", "holdout": 0.2, "classify": {"epochs": 2},
    "regress": {"epochs": 3},
}  # fmt: skip


def recipe(kind: Literal["classify", "regress"], **changes: Any) -> dict[str, Any]:
    return recipe_of(ProtocolCard.parse(CARD | changes, "card"), kind)


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_a_recipe_is_what_decides_a_score_of_its_kind(kind: Literal["classify", "regress"]) -> None:
    other: Literal["classify", "regress"] = "regress" if kind == "classify" else "classify"
    plain = recipe(kind)
    assert plain == json.loads(json.dumps(plain))
    assert recipe(kind, key="another", title="u", bootstrap=500) == plain
    assert recipe(kind, **{other: {"epochs": 9, "batch_size": 1}}) == plain
    assert recipe(kind, **{kind: {"epochs": 9}}) == plain | {"epochs": 9}
    assert recipe(kind, seeds=[1, 2])["seeds"] == [1, 2]
    assert recipe(kind, holdout=0.3) != plain
    evaluated = recipe(kind, select_on="evaluated")
    assert evaluated == recipe(kind, select_on="evaluated", holdout=0.3)


def test_the_networks_that_a_recipe_names_are_those_in_use() -> None:
    assert "dit" not in recipe("regress")
    assert recipe("regress")["width"] == 4096
    with_dit = recipe("regress", regress={"head": "dit", "width": 7})
    assert with_dit["dit"]["width"] == 512
    assert "width" not in with_dit
    assert with_dit == recipe("regress", regress={"head": "dit", "target": "relative"})
    assert "class_ids" in recipe("classify")
    assert "class_ids" not in recipe("regress")
