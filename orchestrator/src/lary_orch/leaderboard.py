"""The leaderboard: results side by side, one table per protocol, floors below, published scores beside."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from lary_schema.base import ContractError
from lary_schema.results import ProbeResult, SplitScore

from lary_orch.protocol_cards import load_protocol
from lary_orch.published import PROTOCOL, VARIANT, published
from lary_orch.tables import Table, show

ARROWS = {"top1": "top-1 % ↑", "mse": "MSE ↓"}
FAILED, OTHER_ROWS = "*", "†"


@dataclass(frozen=True)
class Score:
    """One cell: a model's score on one evaluated split."""

    protocol: str
    model: str
    variant: str
    dataset: str
    split: str
    metric: str
    control: str
    value: float
    low: float
    high: float
    std: float | None
    """Over seeds."""
    seeds: int
    floor: float
    """What the most frequent class, or train's mean action, gets."""
    chance: float | None
    published: float | None
    """Printed score; only where protocol and variant are the same."""
    rows: int
    failed: int
    """Evaluated rows without a latent."""
    train_failed: int
    metadata: tuple[str, ...]
    """sha256 of the CSVs behind it."""
    run: str
    file: str

    @property
    def column(self) -> tuple[str, str, str]:
        return self.dataset, self.split, self.metric

    @property
    def line(self) -> tuple[str, str]:
        return self.model, self.variant

    @property
    def place(self) -> tuple[str, ...]:
        """Scores of the same place compete for one cell."""
        return (self.protocol, *self.line, *self.column, self.control)


def collect(results: Iterable[tuple[Path, ProbeResult]]) -> list[Score]:
    """All scores, in the order of the results."""
    return [_score(path, r, split, score) for path, r in results for split, score in r.splits.items()]


def _score(path: Path, result: ProbeResult, split: str, score: SplitScore) -> Score:
    comparable = (result.protocol, result.variant, result.control) == (PROTOCOL, VARIANT, "none")
    return Score(
        protocol=result.protocol,
        model=result.model,
        variant=result.variant,
        dataset=result.dataset,
        split=split,
        metric=result.metric,
        control=result.control,
        value=score.value,
        low=score.interval.low,
        high=score.interval.high,
        std=score.std,
        seeds=len(score.seeds),
        floor=score.floor,
        chance=score.chance,
        published=published(result.metric, result.model, result.dataset) if comparable else None,
        rows=score.rows.used + score.rows.failed,
        failed=score.rows.failed,
        train_failed=result.train_rows.failed,
        metadata=tuple(s.metadata_sha256 for s in (result.stores[0], *_stores_of(result, split))),
        run=result.run,
        file=str(path),
    )


def _stores_of(result: ProbeResult, split: str) -> list[Any]:
    return [store for store in result.stores[1:] if store.split == split]


def newest(scores: Iterable[Score]) -> list[Score]:
    """One score per cell: the first, which is the newest."""
    kept: dict[tuple[str, ...], Score] = {}
    for score in scores:
        kept.setdefault(score.place, score)
    return list(kept.values())


# --- tables -----------------------------------------------------------------------------------


def tables(scores: Sequence[Score]) -> list[Table]:
    """One table per protocol, by name."""
    kept = newest(scores)
    protocols = sorted({score.protocol for score in kept})
    return [_table(name, [s for s in kept if s.protocol == name], scores) for name in protocols]


def _table(protocol: str, kept: list[Score], everything: Sequence[Score]) -> Table:
    columns = sorted({score.column for score in kept}, key=lambda c: (c[2] != "top1", c))
    ours = [score for score in kept if score.control == "none"]
    first_rows = {column: next(s for s in kept if s.column == column).metadata for column in columns}
    lines = sorted({score.line for score in ours}, key=lambda line: _rank(line, columns, ours))
    body = [_model_row(line, columns, ours, first_rows) for line in lines]
    hidden = sum(score.protocol == protocol for score in everything) - len(kept)
    return Table(
        title=_title(protocol),
        columns=("model", "variant", *(f"{dataset}/{split} {ARROWS[metric]}" for dataset, split, metric in columns)),
        rows=[*body, *_floors(columns, kept)],
        right=frozenset(range(2, 2 + len(columns))),
        sections=frozenset({len(body) - 1} if body else ()),
        notes=tuple(_notes(kept, first_rows, hidden)),
    )


def _title(protocol: str) -> str:
    try:
        return f"protocol {protocol}: {load_protocol(protocol).title}"
    except ContractError:  # a YAML file of the user's, not named now
        return f"protocol {protocol}"


def _rank(line: tuple[str, str], columns: list[tuple[str, str, str]], scores: list[Score]) -> list[Any]:
    """Best first, by the first column; a model without a score there comes after those with one."""
    found = {score.column: score for score in scores if score.line == line}
    order = [(-s.value if s.metric == "top1" else s.value) if (s := found.get(c)) else float("inf") for c in columns]
    return [*order, *line]


def _model_row(
    line: tuple[str, str],
    columns: list[tuple[str, str, str]],
    scores: list[Score],
    first_rows: dict[tuple[str, str, str], tuple[str, ...]],
) -> tuple[str, ...]:
    found = {score.column: score for score in scores if score.line == line}
    return (*line, *(_cell(found.get(column), first_rows[column]) for column in columns))


def _cell(score: Score | None, rows: tuple[str, ...]) -> str:
    if score is None:
        return "-"
    text = (
        f"{number(score.metric, score.value)} [{number(score.metric, score.low)}, {number(score.metric, score.high)}]"
    )
    if score.std is not None:
        text += f" sd {number(score.metric, score.std)}"
    if score.published is not None:
        text += f" (published {number(score.metric, score.published)})"
    marks = (FAILED if score.failed or score.train_failed else "") + (OTHER_ROWS if score.metadata != rows else "")
    return text + marks


def number(metric: str, value: float) -> str:
    """top1 in percent, MSE as it is."""
    return f"{100 * value:.1f}" if metric == "top1" else f"{value:.3f}"


def _floors(columns: list[tuple[str, str, str]], kept: list[Score]) -> Iterator[tuple[str, ...]]:
    """What needs no latent, then what the probe makes of shuffled targets."""
    any_of = {column: next(s for s in kept if s.column == column) for column in columns}
    chances = [s.chance if s.metric == "top1" else None for s in any_of.values()]
    if any(chance is not None for chance in chances):
        yield ("chance", "", *("-" if c is None else number("top1", c) for c in chances))
    yield ("most frequent class, mean action", "", *(number(s.metric, s.floor) for s in any_of.values()))
    controls = [score for score in kept if score.control == "shuffled"]
    for line in sorted({score.line for score in controls}):
        found = {score.column: score for score in controls if score.line == line}
        cells = [number(s.metric, s.value) if (s := found.get(column)) else "-" for column in columns]
        yield (f"shuffled control of {line[0]}", line[1], *cells)


def _notes(kept: list[Score], first_rows: dict[tuple[str, str, str], tuple[str, ...]], hidden: int) -> Iterator[str]:
    yield "[ , ] is the 95 % bootstrap interval over rows, sd the spread over seeds."
    for score in kept:
        where = f"{score.model} ({score.variant}) on {score.dataset}/{score.split}"
        if score.control == "none" and (score.failed or score.train_failed):
            yield (
                f"{FAILED} {where}: {score.failed} of {score.rows} rows have no latent "
                f"({score.train_failed} in train); they are in no score"
            )
        if score.metadata != first_rows[score.column]:
            yield f"{OTHER_ROWS} {where}: from another CSV than the newest result of this column; do not compare"
    if any(score.published is not None for score in kept):
        yield "published: arXiv 2604.11689 v1. Its tables do not say which split agibotbeta and robocoin stand for."
    if hidden:
        yield f"{hidden} older scores of the same cells are not shown; --run shows one run's."


def show_all(scores: Sequence[Score], out: TextIO) -> None:
    """Every protocol's table."""
    for nth, table in enumerate(tables(scores)):
        out.write("\n" if nth else "")
        show(table, out)


# --- for programs -----------------------------------------------------------------------------


def as_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Every score of `newest`, also those of controls, sorted by what they are of."""
    return [asdict(score) for score in sorted(newest(scores), key=lambda score: score.place)]


def as_csv(scores: Sequence[Score]) -> str:
    """The same, one line each; several CSV hashes are joined by spaces."""
    text = StringIO()
    writer = csv.DictWriter(text, [*Score.__dataclass_fields__], lineterminator="\n")
    writer.writeheader()
    for row in as_json(scores):
        writer.writerow(row | {"metadata": " ".join(row["metadata"])})
    return text.getvalue()
