"""The leaderboard: results side by side, one board per protocol, floors below, published scores beside."""

import math
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, TextIO

from lary_results.averages import TITLES, Average, averages, misprint
from lary_results.comparing import REASONS
from lary_results.published import published
from lary_results.scores import ARROWS, Column, Score, newest, number, title_of
from lary_results.tables import Table, show

FAILED, OTHER_ROWS = "*", "†"
Line = tuple[str, str]
"""Model and variant."""
Titles = Mapping[str, str]
"""Titles of protocols, by key; a protocol may be without one (a YAML file of the user's, not named now)."""
NO_TITLES: Titles = MappingProxyType({})


@dataclass(frozen=True)
class Floor:
    """A line of what any score has to beat."""

    name: str
    variant: str
    values: dict[Column, float]


@dataclass(frozen=True)
class Board:
    """All newest scores of one protocol, and how they are laid out."""

    protocol: str
    kept: tuple[Score, ...]
    hidden: int
    """Older scores of the same cells."""
    name: str | None = None
    """The protocol's title."""

    @cached_property
    def title(self) -> str:
        return f"protocol {self.protocol}" + (f": {self.name}" if self.name else "")

    @cached_property
    def columns(self) -> list[Column]:
        return sorted({score.column for score in self.kept}, key=lambda c: (c[2] != "top1", c))

    @cached_property
    def ours(self) -> list[Score]:
        """All but controls."""
        return [score for score in self.kept if score.control == "none"]

    @cached_property
    def _cells(self) -> dict[tuple[Line, Column], Score]:
        return {(score.line, score.column): score for score in self.ours}

    def cell(self, line: Line, column: Column) -> Score | None:
        return self._cells.get((line, column))

    @cached_property
    def lines(self) -> list[Line]:
        """Best first, by the first column; a model without a score there comes after those with one."""
        return sorted({score.line for score in self.ours}, key=self._rank)

    def _rank(self, line: Line) -> list[Any]:
        found = [self.cell(line, column) for column in self.columns]
        return [*(math.inf if score is None else score.rank for score in found), *line]

    @cached_property
    def averages(self) -> dict[Line, dict[str, Average]]:
        """By line and title."""
        scores = {line: [score for score in self.ours if score.line == line] for line in self.lines}
        return {line: {a.title: a for a in averages(found)} for line, found in scores.items()}

    @cached_property
    def average_columns(self) -> list[tuple[str, str]]:
        """Title and metric of the averages that at least one model is complete for."""
        return list(dict.fromkeys((a.title, a.metric) for found in self.averages.values() for a in found.values()))

    @cached_property
    def letters(self) -> dict[str, str]:
        """Reason -> its footnote's letter, of those that keep a published score away."""
        used = {reason for score in self.ours if score.beside is not None for reason in score.differences}
        return dict(zip((name for name in REASONS if name in used), string.ascii_lowercase, strict=False))

    def marks(self, score: Score) -> str:
        """Letters of the reasons why no published score stands beside this one."""
        return "" if score.beside is None else ",".join(self.letters[name] for name in score.differences)

    def average_marks(self, average: Average, model: str) -> str:
        if published(average.metric, model, average.name) is None:
            return ""
        return ",".join(self.letters[name] for name in REASONS if name in average.differences)

    def other_rows(self, score: Score) -> bool:
        """Whether a score is from another CSV than the newest one of its column."""
        return score.metadata != self._newest[score.column].metadata

    @cached_property
    def _newest(self) -> dict[Column, Score]:
        """The newest score of each column: scores come newest first."""
        return {score.column: score for score in reversed(self.kept)}

    @cached_property
    def floors(self) -> list[Floor]:
        """What needs no latent, then what the probe makes of shuffled targets."""
        any_of = {column: self._newest[column] for column in self.columns}
        chance = {c: s.chance for c, s in any_of.items() if s.metric == "top1" and s.chance is not None}
        made = [Floor("chance", "", chance)] if chance else []
        made.append(Floor("most frequent class, mean action", "", {c: s.floor for c, s in any_of.items()}))
        controls = [score for score in self.kept if score.control == "shuffled"]
        for line in sorted({score.line for score in controls}):
            values = {score.column: score.value for score in controls if score.line == line}
            made.append(Floor(f"shuffled control of {line[0]}", line[1], values))
        return made

    @cached_property
    def notes(self) -> list[str]:
        """Sentences below the table."""
        return [*self._row_notes(), *self._published_notes()]

    def _row_notes(self) -> Iterator[str]:
        yield "[ , ] is the 95 % bootstrap interval over rows, sd the spread over seeds."
        for score in self.kept:
            where = f"{score.model} ({score.variant}) on {score.dataset}/{score.split}"
            if score.control == "none" and (score.failed or score.train_failed):
                yield (
                    f"{FAILED} {where}: {score.failed} of {score.rows} rows have no latent "
                    f"({score.train_failed} in train); they are in no score"
                )
            if self.other_rows(score):
                yield f"{OTHER_ROWS} {where}: from another CSV than the newest result of this column; do not compare"
        if self.hidden:
            yield f"{self.hidden} older scores of the same cells are not shown; --run shows one run's."

    def _published_notes(self) -> Iterator[str]:
        if any(score.published is not None for score in self.ours):
            yield "published: arXiv 2604.11689 v1, Tables 1, 2 and 6."
        if self.letters:
            yield "A letter in brackets says why the published score does not stand beside ours:"
        yield from (f"  {letter}  {REASONS[name]}" for name, letter in self.letters.items())
        for (model, _), found in self.averages.items():
            for name in dict.fromkeys(average.name for average in found.values()):
                mean, metric = misprint(name, model), next(a.metric for a in found.values() if a.name == name)
                if mean is not None and (printed := published(metric, model, name)) is not None:
                    told = f"the paper prints {_exact(metric, printed)} as its {TITLES[name]}"
                    yield f"{model}: {told}, its own row averages {_exact(metric, mean)}"


def _exact(metric: str, value: float) -> str:
    """With the digits that the paper prints."""
    return f"{100 * value:.2f}" if metric == "top1" else f"{value:.2f}"


def boards(scores: Sequence[Score], titles: Titles = NO_TITLES) -> list[Board]:
    """One per protocol, by name."""
    kept = newest(scores)
    counts = {name: sum(s.protocol == name for s in scores) for name in sorted({s.protocol for s in kept})}
    made = {name: tuple(s for s in kept if s.protocol == name) for name in counts}
    return [Board(name, found, counts[name] - len(found), titles.get(name)) for name, found in made.items()]


# --- as text ----------------------------------------------------------------------------------


def tables(scores: Sequence[Score], titles: Titles = NO_TITLES) -> list[Table]:
    """One table per protocol."""
    return [_table(board) for board in boards(scores, titles)]


def _table(board: Board) -> Table:
    titles = [*map(title_of, board.columns), *(f"{title} {ARROWS[metric]}" for title, metric in board.average_columns)]
    floors = [
        (
            floor.name,
            floor.variant,
            *(_floor_cell(floor, c) for c in board.columns),
            *["-"] * len(board.average_columns),
        )
        for floor in board.floors
    ]
    return Table(
        title=board.title,
        columns=("model", "variant", *titles),
        rows=[*(_model_row(board, line) for line in board.lines), *floors],
        right=frozenset(range(2, 2 + len(titles))),
        sections=frozenset({len(board.lines) - 1} if board.lines else ()),
        notes=tuple(board.notes),
    )


def _floor_cell(floor: Floor, column: Column) -> str:
    return number(column[2], floor.values[column]) if column in floor.values else "-"


def _model_row(board: Board, line: Line) -> tuple[str, ...]:
    cells = [_cell(board, board.cell(line, column)) for column in board.columns]
    return (*line, *cells, *(_average_cell(board, line, title) for title, _ in board.average_columns))


def _cell(board: Board, score: Score | None) -> str:
    if score is None:
        return "-"
    value, low, high = (number(score.metric, x) for x in (score.value, score.low, score.high))
    text = f"{value} [{low}, {high}]"
    if score.std is not None:
        text += f" sd {number(score.metric, score.std)}"
    text += _published(score.metric, score.published, board.marks(score))
    marks = (FAILED if score.failed or score.train_failed else "") + (OTHER_ROWS if board.other_rows(score) else "")
    return text + marks


def _average_cell(board: Board, line: Line, title: str) -> str:
    average = board.averages[line].get(title)
    if average is None:
        return "-"
    marks = board.average_marks(average, line[0])
    return number(average.metric, average.value) + _published(average.metric, average.published, marks)


def _published(metric: str, value: float | None, marks: str) -> str:
    if value is not None:
        return f" (published {number(metric, value)})"
    return f" ({marks})" if marks else ""


def show_all(scores: Sequence[Score], out: TextIO, titles: Titles = NO_TITLES) -> None:
    """Every protocol's table."""
    for nth, table in enumerate(tables(scores, titles)):
        out.write("\n" if nth else "")
        show(table, out)
