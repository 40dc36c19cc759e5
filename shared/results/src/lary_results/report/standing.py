"""The leaderboard as an HTML table: sortable where scripts run, a plain table elsewhere."""

import math
from collections.abc import Mapping

from lary_results.averages import Average
from lary_results.board import Board, Line, Reference
from lary_results.common_rows import CommonScore
from lary_results.comparing import REASONS
from lary_results.notes import marks, notes
from lary_results.report.markup import Child, Html, el, scrolling
from lary_results.scores import ARROWS, Column, Score, interval_text, number, printed_number

Anchors = Mapping[str, str]
"""Result file -> id of its provenance."""


def leaderboard(board: Board, anchors: Anchors) -> Html:
    """Models best first, baselines below, footnotes last."""
    body = [_line(board, line, anchors) for line in board.lines]
    below = [_reference(board, reference) for reference in board.baselines]
    below += [_reference(board, reference, "overfitting") for reference in board.overfitting]
    table = el(
        "table", el("thead", _head(board)), el("tbody", body), el("tfoot", below), class_="board", data_sortable=True
    )
    return el("div", scrolling(table), el("ul", [el("li", _note(note)) for note in notes(board)], class_="notes"))


def _note(note: str) -> Child:
    """A footnote begins with its letter."""
    letter, _, text = note.strip().partition("  ")
    return [el("b", letter), " ", text] if text else note


def _head(board: Board) -> Html:
    columns = [heading for column in board.columns for heading in _headings(board, column)]
    averages = [_heading(title, metric) for title, metric in board.average_columns]
    return el("tr", el("th", "model", scope="col", data_best="asc"), columns, averages)


def _headings(board: Board, column: Column) -> list[Html]:
    """A column's, and that of its common rows where there is such a column."""
    dataset, split, metric, probe = column
    own = _heading([dataset, "/", el("wbr"), split, f" ({probe})" if probe else None], metric)
    found = board.common.get(column)
    if found is None or not found.scores:
        return [own]
    return [own, _heading(f"common rows ({found.rows} of {found.of})", metric)]


def _heading(title: Child, metric: str) -> Html:
    best = "desc" if metric == "top1" else "asc"
    return el("th", title, el("br"), el("span", ARROWS[metric], class_="unit"), scope="col", class_="n", data_best=best)


def _line(board: Board, line: Line, anchors: Anchors) -> Html:
    cells = [cell for column in board.columns for cell in _cells(board, line, column, anchors)]
    averages = [_average(board, line, title) for title, _ in board.average_columns]
    name = el("th", line[0], " ", el("small", line[1]), scope="row", data_v=" ".join(line))
    return el("tr", name, cells, averages)


def _cells(board: Board, line: Line, column: Column, anchors: Anchors) -> list[Html]:
    score = board.cell(line, column)
    two = len(_headings(board, column)) > 1
    own = _none() if score is None else _cell(board, score, anchors, best=not two)
    if not two:
        return [own]
    common = None if score is None else board.on_common_rows(score)
    return [own, _none() if score is None or common is None else _common(board, score, common)]


def _none() -> Html:
    return el("td", "-", class_="n none")


def _cell(board: Board, score: Score, anchors: Anchors, *, best: bool) -> Html:
    lines: list[Child] = [
        el(
            "a",
            number(score.metric, score.value),
            href=f"#{anchors[score.file]}",
            class_="best" if best and _is_best(board, score) else None,
        ),
        marks(board, score),
        _reasons(board.letters_of(score), score.differences),
        el("small", interval_text(score.metric, score.low, score.high)),
        el("small", f"sd {number(score.metric, score.std)}") if score.std is not None else None,
        _published(score.metric, score.published),
    ]
    return el("td", lines, class_="n", data_v=_sorted_by(score.value))


def _common(board: Board, score: Score, common: CommonScore) -> Html:
    value = el("span", number(score.metric, common.value), class_="best" if _is_best(board, score) else None)
    small = el("small", interval_text(score.metric, common.low, common.high))
    return el("td", value, small, class_="n", data_v=_sorted_by(common.value))


def _is_best(board: Board, score: Score) -> bool:
    """Equal scores are all best."""
    best = board.best(score.column)
    return best is not None and board.rank(score) == board.rank(best)


def _sorted_by(value: float) -> str:
    """For the script; what is empty stays last."""
    return repr(value) if math.isfinite(value) else ""


def _average(board: Board, line: Line, title: str) -> Html:
    average: Average | None = board.averages[line].get(title)
    if average is None:
        return _none()
    letters = _reasons(board.average_letters(average, line[0]), average.differences)
    printed = _published(average.metric, average.published)
    value = number(average.metric, average.value)
    return el("td", value, letters, printed, class_="n", data_v=_sorted_by(average.value))


def _reasons(letters: str, names: tuple[str, ...]) -> Html | None:
    """The footnotes' letters, in full where a pointer rests."""
    return el("sup", letters, title="; ".join(REASONS[name] for name in names)) if letters else None


def _published(metric: str, value: float | None) -> Html | None:
    return el("small", f"published {printed_number(metric, value)}", class_="published") if value is not None else None


def _reference(board: Board, reference: Reference, class_: str | None = None) -> Html:
    name = el("th", reference.name, " ", el("small", reference.variant) if reference.variant else None, scope="row")
    cells: list[Child] = []
    for column in board.columns:
        value = reference.values.get(column)
        cells.append(el("td", "-" if value is None else number(column[2], value), class_="n"))
        cells += [el("td", "-", class_="n") for _ in _headings(board, column)[1:]]
    return el("tr", name, cells, [el("td", "-", class_="n") for _ in board.average_columns], class_=class_)
