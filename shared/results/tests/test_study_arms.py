"""The arms of a study: means, intervals and differences from rows whose answer is known."""

from typing import Any

import numpy as np
import pytest
from lary_results.row_scores import RowScores
from lary_results.study.arms import Probed, Reading, Study, difference, r2_interval
from lary_results.study.record import StudyEntry, StudyRecord
from lary_results.study.tables import study_json, study_tables
from lary_results.study.texts import sign_test
from lary_schema.base import ContractError
from lary_terminal.tables import plain

ROWS, GROUPS, VARIANCE = 400, 80, 2.0


def _probed(errors: np.ndarray[Any, np.dtype[np.float64]], rows: Any = None) -> Probed:
    rows = np.arange(ROWS) if rows is None else rows
    names = np.array([f"e{i}" for i in range(GROUPS)])
    return Probed(
        RowScores(rows, rows % GROUPS, names, errors[None, : len(rows)]), 1 - errors.mean() / VARIANCE, VARIANCE
    )


def _reading(arm: str, levels: dict[int | None, float], *, noise: float = 0.0) -> Reading:
    """Squared errors of mean `level`, whose spread over episodes all arms share; `noise` is their own."""
    shared = np.random.default_rng(0).normal(0, 0.3, GROUPS)[np.arange(ROWS) % GROUPS]
    shared -= shared.mean()
    made = {}
    for seed, level in levels.items():
        own = np.random.default_rng([*map(ord, arm), seed or 0]).normal(0, noise, ROWS)
        made[seed] = _probed(level + shared + own - own.mean())
    return Reading(arm, "embed", "val", "actions", made)


def test_a_mean_holds_the_draw_of_episodes_and_of_seeds() -> None:
    one = r2_interval(_reading("a", {0: 1.0}))
    several = r2_interval(_reading("a", {0: 0.9, 1: 1.1, 2: 1.0}))
    assert one.value == pytest.approx(1 - 1.0 / VARIANCE)
    assert several.value == pytest.approx(one.value)
    assert one.low < one.value < one.high
    assert several.high - several.low > one.high - one.low


def test_a_difference_is_paired_by_row_and_by_seed() -> None:
    """The same gain in every seed: what episodes and seeds have in common is no uncertainty of it."""
    a = _reading("a", {0: 0.7, 1: 1.2, 2: 0.9}, noise=0.05)
    b = _reading("b", {0: 0.8, 1: 1.3, 2: 1.0, 5: 9.0}, noise=0.05)
    made = difference(a, b)
    assert made.interval.value == pytest.approx(0.1 / VARIANCE, abs=1e-9)
    assert (made.seeds, made.interval.groups) == (3, GROUPS)
    assert made.by_seed == pytest.approx([0.05] * 3)
    assert made.interval.excludes_zero
    assert made.interval.high - made.interval.low < 0.02
    back = difference(b, a).interval
    assert (back.value, back.low, back.high) == pytest.approx(
        (-made.interval.value, -made.interval.high, -made.interval.low), abs=2e-3
    )


def test_seeds_that_disagree_widen_the_interval() -> None:
    alike = difference(_reading("a", {0: 0.9, 1: 0.9, 2: 0.9}), _reading("b", {0: 1.0, 1: 1.0, 2: 1.0}))
    apart = difference(_reading("a", {0: 0.5, 1: 1.2, 2: 1.0}), _reading("b", {0: 1.0, 1: 1.0, 2: 1.0}))
    assert apart.interval.value == pytest.approx(alike.interval.value, abs=1e-9)
    assert alike.interval.excludes_zero
    assert not apart.interval.excludes_zero


def test_a_model_without_seeds_is_compared_with_each() -> None:
    made = difference(_reading("a", {0: 0.9, 1: 1.1}), _reading("pixels", {None: 1.2}))
    assert made.seeds == 2
    assert made.interval.value == pytest.approx(0.1)


def test_only_rows_that_both_have_count() -> None:
    errors = np.random.default_rng(1).uniform(0.5, 1.5, ROWS)
    few = np.arange(0, ROWS, 2)
    one = Reading("a", "embed", "val", "actions", {0: _probed(errors[few], few)})
    other = Reading("b", "embed", "val", "actions", {0: _probed(errors + 0.2)})
    assert difference(one, other).interval.value == pytest.approx(0.1)


def test_without_a_common_seed_there_is_no_difference() -> None:
    with pytest.raises(ContractError, match="no seed in common"):
        difference(_reading("a", {0: 1.0}), _reading("b", {1: 1.0}))


def test_what_few_seeds_can_show() -> None:
    assert "1 seed" in sign_test(1)
    assert "5 seeds: a sign test over them cannot go below p = 0.062" in sign_test(5)


def test_tables_and_document() -> None:
    entries = tuple(StudyEntry(arm=arm, model=f"m-{arm}{s}", seed=s) for arm in ("A0", "A1") for s in (0, 1, 2))
    record = StudyRecord(
        key="demo", dataset="set", protocol="study", variants=("embed",), arms={"A0": "first", "A1": ""},
        baselines={}, compare=(("A1", "A0"),), entries=entries,
    )  # fmt: skip
    readings = (
        _reading("A0", {0: 1.0, 1: 1.0, 2: 1.0}, noise=0.05),
        _reading("A1", {0: 0.8, 1: 0.8, 2: 0.8}, noise=0.05),
    )
    study = Study(record, readings)
    text = "".join(plain(table) for table in study_tables(study))
    assert "study demo: 2 arms x 3 seeds, 400 rows of 80 episodes of set/val" in text
    assert "A1 - A0" in text
    assert "+0.100 [" in text
    assert "] *" in text
    assert "3 seeds: a sign test" in text
    assert "6 of 6 trainings are not done" in text
    document = study_json(study)
    (made,) = document["differences"]
    assert (made["excludes_zero"], made["seeds"]) == (True, 3)
    assert [reading["r2"] for reading in document["readings"]] == pytest.approx([0.5, 0.6])
