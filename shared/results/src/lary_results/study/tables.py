"""A study for people and programs: arms with their means and intervals, then the differences that were asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, TextIO

from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.intervals import FEW_GROUPS
from lary_schema.printable import finite, json_text
from lary_terminal.tables import Table, show

from lary_results.study import measures
from lary_results.study.arms import (
    TARGETS,
    Difference,
    Reading,
    Study,
    difference,
    r2_interval,
)
from lary_results.study.held_out import held_out_json, held_out_tables
from lary_results.study.loading import load_study
from lary_results.study.texts import NOTHING, difference_text, interval_text, sign_test, spread_text

METHOD = (
    "[ , ] 95 %: episodes resampled within seeds, then seeds; differences are paired by row and seed, * excludes 0. "
    "A high nuisance R2 is no merit."
)
COLLAPSED, WELL = "COLLAPSED", "ok"


def print_study(root: Path, key: str, out: TextIO, *, as_json: bool = False) -> None:
    """Print all tables of a study of a workspace, or its JSON document. Raises ContractError as `load_study` does."""
    study = load_study(root, key)
    if as_json:
        out.write(json_text(study_json(study), indent=2) + "\n")
        return
    for table in study_tables(study):
        show(table, out)
        out.write("\n")


def study_tables(study: Study) -> list[Table]:
    """Arms on each split, their trainings, and the differences."""
    probed = [_arms_table(study, split) for split in study.splits]
    made = differences(study)
    errors = held_out_tables(study.record, study.errors)
    return [*probed, _trainings_table(study), *([_differences_table(made)] if made else []), *errors]


# --- arms -------------------------------------------------------------------------------------


def _arms_table(study: Study, split: str) -> Table:
    record = study.record
    rows = [row for name in (*record.arms, *record.baselines) for row in _arm_rows(study, name, split)]
    rows_read, groups = _counts(study, split)
    seeds = len({entry.seed for entry in record.entries if entry.seed is not None})
    return Table(
        f"study {study.name}: {len(record.arms)} arms x {seeds} seeds, {rows_read:,} rows of {groups:,} episodes of "
        f"{record.dataset}/{split}, unseen by any training",
        ("arm", "", "labels", "read", "seeds", "action R2", "sd", "nuisance R2", "sd"),
        rows,
        right=frozenset({4, 6, 8}),
        notes=tuple(_notes(study, groups)),
    )


def _arm_rows(study: Study, name: str, split: str) -> Iterator[tuple[str, ...]]:
    record = study.record
    title = record.arms.get(name) or record.baselines.get(name, "")
    first = (name, title, measures.labels_seen(study.results(name)))
    variants = study.variants(name, split)
    for variant in variants:
        yield (*(first if variant == variants[0] else ("", "", "")), *_variant_cells(study, name, split, variant))
    if not variants and name in record.arms:
        yield (*first, NOTHING, "0", *(NOTHING,) * 4)


def _variant_cells(study: Study, name: str, split: str, variant: str) -> tuple[str, ...]:
    readings = [study.reading(name, split, target, variant) for target in TARGETS]
    seeds = max(len(reading.by_seed) for reading in readings if reading)
    return (variant, str(seeds), *(cell for reading in readings for cell in _cells(reading)))


def _cells(reading: Reading | None) -> tuple[str, str]:
    if reading is None:
        return NOTHING, NOTHING
    return interval_text(r2_interval(reading)), spread_text(reading.values)


def _counts(study: Study, split: str) -> tuple[int, int]:
    rows = [probed.rows for r in study.readings if r.split == split for probed in r.by_seed.values()]
    return max((len(one.rows) for one in rows), default=0), max((len(one.names) for one in rows), default=0)


def _notes(study: Study, groups: int) -> Iterator[str]:
    yield METHOD
    if 0 < groups < FEW_GROUPS:
        yield f"{groups} episodes, fewer than {FEW_GROUPS}: intervals may be too narrow."
    missing = [e.model for e in study.record.entries if e.trained and e.model not in study.trainings]
    if missing:
        count = sum(entry.trained for entry in study.record.entries)
        again = commands.command("study", study.record.key)
        yield f"{len(missing)} of {count} trainings are not done; `{again}` goes on."


# --- trainings --------------------------------------------------------------------------------


def _trainings_table(study: Study) -> Table:
    record = study.record
    names = [name for name in (*record.arms, *record.baselines) if study.results(name)]
    measured = {name: measures.means(study.results(name)) for name in names}
    shown = measures.columns(list(measured.values()))
    rows = [(name, *_health(study, name), *(_number(measured[name], c) for c in shown)) for name in names]
    warnings = dict.fromkeys(text for name in names for r in study.results(name) for text in _warned(name, r.warnings))
    return Table(
        "trainings: held-out measures of the finished models, means over seeds",
        ("arm", "seeds", "codebook", *(column.header for column in shown)),
        rows,
        right=frozenset(range(1, 3 + len(shown))) - {2},
        alarming=frozenset(at for at, row in enumerate(rows) if row[2] != WELL),
        notes=tuple(warnings),
    )


def _warned(name: str, warnings: Sequence[str]) -> Iterator[str]:
    yield from (f"{name}: {text}" for text in warnings)


def _health(study: Study, name: str) -> tuple[str, str]:
    results = study.results(name)
    collapsed = sum(map(measures.is_collapsed, results))
    return str(len(results)), f"{COLLAPSED} ({collapsed} of {len(results)})" if collapsed else WELL


def _number(measured: dict[str, float], column: measures.Column) -> str:
    value = measured.get(column.name)
    return NOTHING if value is None else f"{value:.{column.digits}f}"


# --- differences ------------------------------------------------------------------------------


def differences(study: Study) -> list[Difference | str]:
    """All that the study asks for, on each split and for each target; a text says why one is not there."""
    made: list[Difference | str] = []
    for a, b in study.record.compare:
        for split in study.splits:
            for target in TARGETS:
                one, two = (study.reading(name, split, target) for name in (a, b))
                if one is None or two is None:
                    continue
                try:
                    made.append(difference(one, two))
                except ContractError as error:
                    made.append(f"{a} - {b} on {split}: {error}")
    return made


def _differences_table(made: Sequence[Difference | str]) -> Table:
    found = [one for one in made if isinstance(one, Difference)]
    pairs = dict.fromkeys((one.a, one.b, one.split) for one in found)
    rows = []
    for a, b, split in pairs:
        by_target = {one.target: one for one in found if (one.a, one.b, one.split) == (a, b, split)}
        first = next(iter(by_target.values()))
        there = [by_target.get(target) for target in TARGETS]
        cells = [difference_text(one.interval if one else None) for one in there]
        rows.append((f"{a} - {b}", split, first.variant, str(first.seeds), *cells))
    texts = [one for one in made if isinstance(one, str)]
    return Table(
        "differences",
        ("difference", "split", "read", "seeds", "action R2", "nuisance R2"),
        rows,
        right=frozenset({3}),
        notes=(METHOD, sign_test(max((one.seeds for one in found), default=0)), *texts),
    )


# --- for programs -----------------------------------------------------------------------------


def study_json(study: Study) -> dict[str, Any]:
    """All of it; numbers that are not there are null."""
    record = study.record
    document: dict[str, Any] = finite(
        {
            "study": record.model_dump(mode="json"),
            "readings": [_reading_json(reading) for reading in study.readings],
            "trainings": [_training_json(study, name) for name in (*record.arms, *record.baselines)],
            "differences": [_difference_json(one) for one in differences(study)],
            **held_out_json(study.record, study.errors),
        }
    )
    return document


def _reading_json(reading: Reading) -> dict[str, Any]:
    made = r2_interval(reading)
    named = {"arm": reading.arm, "variant": reading.variant, "split": reading.split, "target": reading.target}
    seeds = [{"seed": seed, "r2": probed.r2} for seed, probed in reading.by_seed.items()]
    sd = stdev(reading.values) if len(reading.values) > 1 else None
    return {**named, "r2": made.value, "low": made.low, "high": made.high, "sd": sd, "seeds": seeds}


def _training_json(study: Study, name: str) -> dict[str, Any]:
    results = study.results(name)
    return {
        "arm": name,
        "done": len(results),
        "labels": {"supervision": results[0].supervision, "rows": results[0].labelled_rows} if results else None,
        "collapsed": sum(map(measures.is_collapsed, results)),
        "means": measures.means(results),
        "models": [{"key": r.key, "seed": r.values.seed, "measures": measures.last(r)} for r in results],
        "warnings": list(dict.fromkeys(text for result in results for text in result.warnings)),
    }


def _difference_json(one: Difference | str) -> dict[str, Any]:
    if isinstance(one, str):
        return {"reason": one}
    value, low, high, groups = one.interval
    named = {"a": one.a, "b": one.b, "target": one.target, "split": one.split, "variant": one.variant}
    counts = {"seeds": one.seeds, "groups": groups, "by_seed": list(one.by_seed)}
    numbers = {"difference": value, "low": low, "high": high, "excludes_zero": one.interval.excludes_zero}
    return named | numbers | counts
