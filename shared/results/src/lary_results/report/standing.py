"""The leaderboard as an HTML table: sortable where scripts run, a plain table elsewhere."""

import math
from collections.abc import Mapping

from lary_results.averages import Average
from lary_results.comparing import REASONS
from lary_results.leaderboard import FAILED, OTHER_ROWS, Board, Floor, Line
from lary_results.report.markup import Child, Html, el, scrolling
from lary_results.scores import ARROWS, Column, Score, number

Anchors = Mapping[str, str]
"""Result file -> id of its provenance."""


def leaderboard(board: Board, anchors: Anchors) -> Html:
    """Models best first, floors below, footnotes last."""
    best = {column: _best(board, column) for column in board.columns}
    body = [_line(board, line, best, anchors) for line in board.lines]
    floors = [_floor(board, floor) for floor in board.floors]
    table = el(
        "table", el("thead", _head(board)), el("tbody", body), el("tfoot", floors), class_="board", data_sortable=True
    )
    return el("div", scrolling(table), el("ul", [el("li", _note(note)) for note in board.notes], class_="notes"))


def _note(note: str) -> Child:
    """A footnote begins with its letter."""
    letter, _, told = note.strip().partition("  ")
    return [el("b", letter), " ", told] if told else note


def _head(board: Board) -> Html:
    columns = [_heading([d, "/", el("wbr"), s, f" ({p})" if p else None], m) for d, s, m, p in board.columns]
    averages = [_heading(title, metric) for title, metric in board.average_columns]
    return el("tr", el("th", "model", scope="col", data_best="asc"), columns, averages)


def _heading(title: Child, metric: str) -> Html:
    best = "desc" if metric == "top1" else "asc"
    return el("th", title, el("br"), el("span", ARROWS[metric], class_="unit"), scope="col", class_="n", data_best=best)


def _best(board: Board, column: Column) -> float:
    """The lowest rank of the column."""
    return min((score.rank for score in board.ours if score.column == column), default=math.nan)


def _line(board: Board, line: Line, best: Mapping[Column, float], anchors: Anchors) -> Html:
    cells = [_cell(board, board.cell(line, column), best[column], anchors) for column in board.columns]
    averages = [_average(board, line, title) for title, _ in board.average_columns]
    name = el("th", line[0], " ", el("small", line[1]), scope="row", data_v=" ".join(line))
    return el("tr", name, cells, averages)


def _cell(board: Board, score: Score | None, best: float, anchors: Anchors) -> Html:
    if score is None:
        return el("td", "-", class_="n none")
    value, low, high = (number(score.metric, x) for x in (score.value, score.low, score.high))
    lines: list[Child] = [
        el("a", value, href=f"#{anchors[score.file]}", class_="best" if score.rank == best else None),
        (FAILED if score.failed or score.train_failed else "") + (OTHER_ROWS if board.other_rows(score) else ""),
        _reasons(board.marks(score), score.differences),
        el("small", f"[{low}, {high}]"),
        el("small", f"sd {number(score.metric, score.std)}") if score.std is not None else None,
        _published(score.metric, score.published),
    ]
    return el("td", lines, class_="n", data_v=_sorted_by(score.value))


def _sorted_by(value: float) -> str:
    """For the script; what is empty stays last."""
    return repr(value) if math.isfinite(value) else ""


def _average(board: Board, line: Line, title: str) -> Html:
    average: Average | None = board.averages[line].get(title)
    if average is None:
        return el("td", "-", class_="n none")
    marks = _reasons(board.average_marks(average, line[0]), average.differences)
    beside = _published(average.metric, average.published)
    return el("td", number(average.metric, average.value), marks, beside, class_="n", data_v=_sorted_by(average.value))


def _reasons(marks: str, names: tuple[str, ...]) -> Html | None:
    """The footnotes' letters, told in full where a pointer rests."""
    return el("sup", marks, title="; ".join(REASONS[name] for name in names)) if marks else None


def _published(metric: str, value: float | None) -> Html | None:
    return el("small", f"published {number(metric, value)}", class_="beside") if value is not None else None


def _floor(board: Board, floor: Floor) -> Html:
    name = el("th", floor.name, " ", el("small", floor.variant) if floor.variant else None, scope="row")
    cells = [
        el("td", number(column[2], floor.values[column]) if column in floor.values else "-", class_="n")
        for column in board.columns
    ]
    return el("tr", name, cells, [el("td", "-", class_="n") for _ in board.average_columns])
