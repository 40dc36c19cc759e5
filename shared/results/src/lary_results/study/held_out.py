"""Measures of single held-out rows that trainings leave: arms that nothing probes have intervals and differences too.

Rows are paired by their number, seeds by their number; episodes are drawn within seeds, then seeds (as for R2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lary_schema.base import ContractError
from lary_schema.intervals import Estimate, estimate
from lary_schema.trained import Checkpoint
from lary_schema.training import ROWS_FILE, TrainResult
from lary_terminal.tables import Table

from lary_results.row_scores import AGREES, SEED, RowScores, read_arrays, resamples, row_scores
from lary_results.study import measures
from lary_results.study.record import StudyRecord
from lary_results.study.texts import NOTHING, difference_text, interval_text, sign_test

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS = ("row", "group", "group_names")
METHOD = (
    "[ , ] 95 %: episodes resampled within seeds, then seeds; differences are paired by row and seed, * excludes 0."
)


@dataclass(frozen=True)
class HeldOut:
    """One measure of one arm."""

    arm: str
    measure: str
    by_seed: dict[int | None, RowScores]
    """Each with one line of scores."""


@dataclass(frozen=True)
class HeldOutDifference:
    """Arm a minus arm b, on the rows and seeds that both have."""

    a: str
    b: str
    measure: str
    interval: Estimate
    by_seed: tuple[float, ...]


def read_held_out(
    record: StudyRecord, trainings: Mapping[str, TrainResult], trained: Path, broken: list[str]
) -> tuple[HeldOut, ...]:
    """Of all arms, in the study's order. What cannot be read is added to `broken`."""
    made: dict[tuple[str, str], HeldOut] = {}
    for name in (*record.arms, *record.baselines):
        for entry in record.of(name):
            path = Checkpoint.of(trained, entry.model).folder / ROWS_FILE
            if entry.model not in trainings or not path.is_file():
                continue
            try:
                found = _read(path, trainings[entry.model])
            except ContractError as error:
                broken.append(str(error))
                continue
            for measure, scores in found.items():
                made.setdefault((name, measure), HeldOut(name, measure, {})).by_seed[entry.seed] = scores
    return tuple(made.values())


def _read(path: Path, result: TrainResult) -> dict[str, RowScores]:
    """By measure. Raises ContractError where the file is damaged, or of another training."""
    arrays = read_arrays(path, ROWS)
    last, found = measures.last(result), {}
    for name in arrays:
        if name in ROWS:
            continue
        found[name] = row_scores(path, arrays["row"], arrays["group"], arrays["group_names"], arrays[name][None])
        mean, said = float(found[name].scores.mean()), last.get(name, math.nan)
        if not abs(mean - said) <= AGREES * max(1.0, abs(said)):
            raise ContractError(f"{path}: the mean of {name} is {mean:.6g}, and {said:.6g} in training.json")
    return found


def mean(held: HeldOut) -> Estimate:
    """Over seeds and rows."""
    return _estimate([(scores,) for scores in held.by_seed.values()])[0]


def difference(a: HeldOut, b: HeldOut) -> HeldOutDifference:
    """An arm that is the same for every seed is compared with each. Raises ContractError where none is in common."""
    if None in a.by_seed or None in b.by_seed:
        pairs = list(product(a.by_seed.values(), b.by_seed.values()))
    else:
        pairs = [(a.by_seed[seed], b.by_seed[seed]) for seed in a.by_seed if seed in b.by_seed]
    if not pairs:
        raise ContractError(f"{a.arm} and {b.arm} have no seed in common")
    interval, by_seed = _estimate(pairs)
    return HeldOutDifference(a.arm, b.arm, a.measure, interval, by_seed)


def _estimate(seeds: Sequence[tuple[RowScores, ...]]) -> tuple[Estimate, tuple[float, ...]]:
    """Of each seed's scores, or its first less its second; and the means of seeds."""
    import numpy as np

    common = reduce(np.intersect1d, (scores.rows for one in seeds for scores in one))
    if not len(common):
        raise ContractError("they have no row in common")
    lines = [[scores.at(common) for scores in one] for one in seeds]
    values = np.stack([_less(one) for one in lines])
    groups = lines[0][0].groups
    made = estimate(values, groups, resamples=resamples(groups), seed=SEED)
    return made, tuple(float(value) for value in values.mean(axis=1))


def _less(scores: Sequence[RowScores]) -> NDArray[np.float64]:
    first: NDArray[np.float64] = scores[0].scores[0]
    return first - scores[1].scores[0] if len(scores) > 1 else first


def held_out_differences(record: StudyRecord, errors: Sequence[HeldOut]) -> list[HeldOutDifference]:
    """Those that the study asks for, of every measure that both have."""
    by_arm = {(one.arm, one.measure): one for one in errors}
    names = dict.fromkeys(one.measure for one in errors)
    wanted = [(a, b, name) for a, b in record.compare for name in names]
    there = [(by_arm[a, n], by_arm[b, n]) for a, b, n in wanted if (a, n) in by_arm and (b, n) in by_arm]
    return [difference(a, b) for a, b in there if _comparable(a, b)]


def _comparable(a: HeldOut, b: HeldOut) -> bool:
    return bool(a.by_seed.keys() & b.by_seed.keys()) or None in a.by_seed or None in b.by_seed


# --- tables -----------------------------------------------------------------------------------


def held_out_tables(record: StudyRecord, errors: Sequence[HeldOut]) -> list[Table]:
    """Arms and differences; none where no training measured single rows."""
    names = tuple(dict.fromkeys(one.measure for one in errors))
    made = held_out_differences(record, errors)
    arms = [_arms_table(names, errors)] if errors else []
    return [*arms, *([_differences_table(names, made)] if made else [])]


def _arms_table(names: tuple[str, ...], errors: Sequence[HeldOut]) -> Table:
    scores = next(iter(errors[0].by_seed.values()))
    cells: dict[str, dict[str, str]] = {}
    for one in errors:
        cells.setdefault(one.arm, {})[one.measure] = interval_text(mean(one))
    seeds = {one.arm: len(one.by_seed) for one in errors}
    return Table(
        f"held-out rows: means over {len(scores.rows):,} rows of {len(scores.names):,} episodes, and seeds",
        ("arm", "seeds", *names),
        [(arm, str(seeds[arm]), *(found.get(name, NOTHING) for name in names)) for arm, found in cells.items()],
        right=frozenset({1}),
        notes=(METHOD,),
    )


def _differences_table(names: tuple[str, ...], made: Sequence[HeldOutDifference]) -> Table:
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for one in made:
        cells.setdefault((one.a, one.b), {})[one.measure] = difference_text(one.interval)
    seeds = {(one.a, one.b): len(one.by_seed) for one in made}
    return Table(
        "differences of held-out rows",
        ("difference", "seeds", *names),
        [
            (f"{a} - {b}", str(seeds[a, b]), *(found.get(name, NOTHING) for name in names))
            for (a, b), found in cells.items()
        ],
        right=frozenset({1}),
        notes=(METHOD, sign_test(max(seeds.values()))),
    )


def held_out_json(record: StudyRecord, errors: Sequence[HeldOut]) -> dict[str, Any]:
    """`held_out` and `held_out_differences`."""
    arms = []
    for one in errors:
        value, low, high, groups = mean(one)
        seeds = [{"seed": seed, "value": float(scores.scores.mean())} for seed, scores in one.by_seed.items()]
        named = {"arm": one.arm, "measure": one.measure, "value": value, "low": low, "high": high, "groups": groups}
        arms.append(named | {"seeds": seeds})
    differences = []
    for made in held_out_differences(record, errors):
        value, low, high, groups = made.interval
        named = {"a": made.a, "b": made.b, "measure": made.measure, "difference": value, "low": low, "high": high}
        further = {"excludes_zero": made.interval.excludes_zero, "groups": groups, "by_seed": list(made.by_seed)}
        differences.append(named | further)
    return {"held_out": arms, "held_out_differences": differences}
