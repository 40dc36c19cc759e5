"""One dataset of one protocol: bars, the table of everything that was scored, matrices, trajectories."""

import math
from collections.abc import Iterator
from typing import Any

from lary_schema.results import ProbeResult, SeedScores, SplitScore

from lary_results.board import Board
from lary_results.report.bars import bars
from lary_results.report.confusion import matrices
from lary_results.report.evidence import Evidence
from lary_results.report.markup import Child, Html, details, el, join, slug, table
from lary_results.report.trajectories import Pictures
from lary_results.scores import Score, number

SHOWN = {
    *("value", "interval", "std", "seeds", "floor", "beats_floor", "chance", "per_group", "per_dimension", "rows"),
}
"""Fields of `SplitScore` that the table knows; any further one is shown as it is."""


def names(board: Board) -> list[str]:
    """The board's datasets in the order of its columns."""
    return list(board.columns_of)


def anchor(board: Board, dataset: str) -> str:
    return slug("d", board.key, dataset)


def section(evidence: Evidence, board: Board, dataset: str, pictures: Pictures) -> Html:
    columns = board.columns_of[dataset]
    scores = board.of_dataset[dataset]
    return el(
        "section",
        el("h3", dataset),
        el("div", [bars(board, column) for column in columns], class_="figures"),
        el("h4", "All scores"),
        _table(evidence, scores),
        _warnings(evidence, scores),
        _dimensions(evidence, scores),
        matrices(scores),
        pictures.section(scores),
        id=anchor(board, dataset),
    )


def _table(evidence: Evidence, scores: list[Score]) -> Html:
    metric = scores[0].metric
    second = "macro" if metric == "top1" else "R²"
    header = ["model", "split", "best", "95 % interval", "chosen", "first epoch", "last epoch", second]
    header += ["seeds", "rows", "failed", "clamped"]
    ordered = _ordered(scores)
    shown = table(header, [_row(evidence.results[score.file], score) for score in ordered], numbers=2)
    found = [(score, _further(evidence.results[score.file].splits[score.split])) for score in ordered]
    # Sentences of many numbers: as a column they would make every row tall, or the table wider than the page.
    lines = [el("li", _name(score), f" on {score.split}: {more}") for score, more in found if more]
    return join(shown, details("Further figures", el("ul", lines, class_="notes"))) if lines else shown


def _ordered(scores: list[Score]) -> list[Score]:
    """By split, controls last, the best first."""
    return sorted(scores, key=lambda s: (s.split, s.control, s.probe, s.rank))


def _row(result: ProbeResult, score: Score) -> list[Child]:
    found = result.splits[score.split]
    seed = found.seeds[0] if found.seeds else None
    return [
        _name(score),
        score.split,
        number(score.metric, score.value) + (f" sd {number(score.metric, score.std)}" if score.std is not None else ""),
        _interval(score),
        *(_epochs(score.metric, seed) if seed else ("-",) * 4),
        ", ".join(str(s.seed) for s in found.seeds),
        found.rows.used,
        found.rows.failed,
        found.rows.clamped,
    ]


def _interval(score: Score) -> str:
    if math.isnan(score.low) or math.isnan(score.high):
        return "none"
    return f"{number(score.metric, score.low)} to {number(score.metric, score.high)}"


def _name(score: Score) -> Html:
    control = "" if score.control == "none" else f" {score.control} control"
    return join(score.model, " ", el("small", ", ".join(filter(None, (score.line[1], score.probe))) + control))


def _epochs(metric: str, seed: SeedScores) -> Iterator[str]:
    """Of the first seed: what was chosen, the first and the last epoch's score, macro top-1 or R2."""
    head = "" if seed.best.optimiser is None else f", head {seed.best.optimiser}"
    yield f"epoch {seed.best.epoch}{head}"
    yield number(metric, seed.early.value)
    yield number(metric, seed.last.value)
    second = seed.best.macro if metric == "top1" else seed.best.r2
    yield "-" if second is None else number(metric, second)


def _further(score: SplitScore) -> str:
    """What newer probes say of a split that this page has no column for."""
    known = score.model_dump(mode="json", exclude=SHOWN)
    counts = score.rows.model_dump(mode="json", exclude={"used", "failed", "clamped"})
    return "; ".join(f"{name.replace('_', ' ')}: {plain(value)}" for name, value in (known | counts).items() if value)


def plain(value: Any) -> str:
    """A JSON value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _warnings(evidence: Evidence, scores: list[Score]) -> Html | None:
    """What the probes warned of, and marks that the bars do not show."""
    of: dict[str, list[str]] = {}
    for score in _ordered(scores):
        control = "" if score.control == "none" else f" {score.control} control"
        for note in (*evidence.results[score.file].warnings, *filter(None, [score.note])):
            of.setdefault(note, []).append(f"{', '.join(score.line)} on {score.split}{control}")
    if not of:
        return None
    lines = [el("li", note, " ", el("small", "; ".join(dict.fromkeys(named)))) for note, named in of.items()]
    return join(el("h4", "Warnings"), el("ul", lines, class_="warnings"))


def _dimensions(evidence: Evidence, scores: list[Score]) -> Html | None:
    """Regression: the error of each group and each dimension, controls left out."""
    found = [(s, evidence.results[s.file].splits[s.split]) for s in _ordered(scores) if s.control == "none"]
    groups = list(dict.fromkeys(name for _, split in found for name in split.per_group))
    single = list(dict.fromkeys(name for _, split in found for name in split.per_dimension))
    if not groups and not single:
        return None
    rows = [
        [
            _name(score),
            score.split,
            *(_mse(split.per_group.get(name)) for name in groups),
            *(_mse(split.per_dimension.get(name)) for name in single),
        ]
        for score, split in found
    ]
    headers = [[name, el("small", " group")] for name in groups]
    return join(el("h4", "MSE by group and dimension"), table(("model", "split", *headers, *single), rows, numbers=2))


def _mse(value: float | None) -> str:
    return "-" if value is None else number("mse", value)
