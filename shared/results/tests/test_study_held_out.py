"""Measures of single held-out rows: intervals and paired differences of arms that nothing probes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_results.study.arms import Study
from lary_results.study.held_out import held_out_differences, held_out_json, mean, read_held_out
from lary_results.study.record import StudyEntry, StudyRecord
from lary_results.study.tables import study_json, study_tables
from lary_schema.trained import Checkpoint
from lary_schema.training import ROWS_FILE, Measures, TrainResult
from lary_terminal.tables import plain

ROWS, GROUPS = 120, 40
ENTRIES = tuple(StudyEntry(arm=arm, model=f"m-{arm}{s}", seed=s, probed=False) for arm in "ab" for s in (0, 1, 2))
RECORD = StudyRecord(
    key="demo", dataset="set", protocol="study", variants=("embed",), arms={"a": "first", "b": ""}, baselines={},
    compare=(("b", "a"),), entries=ENTRIES,
)  # fmt: skip


def write(folder: Path, model: str, level: float, **changes: Any) -> TrainResult:
    """Errors whose spread over episodes all models share; what `training.json` says of them."""
    rows = np.arange(ROWS)
    shared = np.random.default_rng(0).normal(0, 0.3, GROUPS)[rows % GROUPS]
    own = np.random.default_rng([*map(ord, model)]).normal(0, 0.02, ROWS)
    l1 = level + shared + own - own.mean()
    arrays = {
        "row": rows, "group": rows % GROUPS, "group_names": np.array([f"e{g}" for g in range(GROUPS)]), "l1": l1,
    } | changes  # fmt: skip
    path = Checkpoint.of(folder, model).folder / ROWS_FILE
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays)
    measured = (Measures(step=9, split="val", values={"l1": float(l1.mean())}),)
    return TrainResult.model_construct(measured=measured, supervision="none", warnings=())


@pytest.fixture
def trainings(tmp_path: Path) -> dict[str, TrainResult]:
    """b is better by .1 for every seed; the seeds of both differ by more."""
    levels = {"a": (1.0, 1.3, 0.8), "b": (0.9, 1.2, 0.7)}
    return {e.model: write(tmp_path, e.model, levels[e.arm][e.seed or 0]) for e in ENTRIES}


def test_what_episodes_and_seeds_have_in_common_is_no_uncertainty_of_a_difference(
    trainings: dict[str, TrainResult], tmp_path: Path
) -> None:
    broken: list[str] = []
    found = read_held_out(RECORD, trainings, tmp_path, broken)
    assert (broken, [(one.arm, one.measure, list(one.by_seed)) for one in found]) == (
        [],
        [("a", "l1", [0, 1, 2]), ("b", "l1", [0, 1, 2])],
    )
    whole = mean(found[0])
    (made,) = held_out_differences(RECORD, found)
    assert made.interval.value == pytest.approx(-0.1)
    assert made.by_seed == pytest.approx([-0.1] * 3)
    assert (made.interval.excludes_zero, made.interval.groups) == (True, GROUPS)
    assert made.interval.high - made.interval.low < 0.1 * (whole.high - whole.low)


def test_rows_and_seeds_that_both_have_count(trainings: dict[str, TrainResult], tmp_path: Path) -> None:
    for name in ("m-b0", "m-b1"):
        (Checkpoint.of(tmp_path, name).folder / ROWS_FILE).unlink()
    (made,) = held_out_differences(RECORD, read_held_out(RECORD, trainings, tmp_path, []))
    assert len(made.by_seed) == 1
    del trainings["m-b2"]
    assert held_out_differences(RECORD, read_held_out(RECORD, trainings, tmp_path, [])) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"l1": np.full(ROWS, 5.0)}, "the mean of l1 is 5, and"),
        ({"l1": np.full(ROWS, np.nan)}, "no scores of rows"),
        ({"row": np.zeros(ROWS, np.int64)}, "no scores of rows"),
        ({"group": np.full(ROWS, GROUPS)}, "no scores of rows"),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_left_out(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    broken: list[str] = []
    trainings = {"m-a0": write(tmp_path, "m-a0", 1.0, **changes)}
    assert read_held_out(RECORD, trainings, tmp_path, broken) == ()
    assert said in broken[0]
    assert ROWS_FILE in broken[0]


def test_tables_and_document(trainings: dict[str, TrainResult], tmp_path: Path) -> None:
    found = read_held_out(RECORD, trainings, tmp_path, [])
    study = Study(RECORD, errors=found)
    text = "".join(plain(table) for table in study_tables(study))
    assert "held-out rows: means over 120 rows of 40 episodes, and seeds" in text
    assert "b - a" in text
    assert "-0.100 [" in text
    assert "] *" in text
    assert "3 seeds: a sign test" in text
    document = study_json(study)
    assert document["held_out"] == held_out_json(RECORD, found)["held_out"]
    assert [one["value"] for one in document["held_out"]] == pytest.approx([31 / 30, 28 / 30], abs=0.2)
    assert [one["excludes_zero"] for one in document["held_out_differences"]] == [True]
