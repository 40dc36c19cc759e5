"""The leaderboard as text: one table per board, baselines below."""

from collections.abc import Sequence
from typing import TextIO

from lary_terminal.tables import Table, show

from lary_results.board import MAX_FAILED, NO_TITLES, Board, Line, Reference, Titles, boards
from lary_results.common_rows import CommonScore
from lary_results.notes import marks, notes
from lary_results.scores import ARROWS, Column, Score, interval_text, number, printed_number, title_of


def tables(scores: Sequence[Score], titles: Titles = NO_TITLES, max_failed: float = MAX_FAILED) -> list[Table]:
    """One table per board."""
    return [_table(board) for board in boards(scores, titles, max_failed)]


def show_all(scores: Sequence[Score], out: TextIO, titles: Titles = NO_TITLES, max_failed: float = MAX_FAILED) -> None:
    """Every board's table."""
    for nth, table in enumerate(tables(scores, titles, max_failed)):
        out.write("\n" if nth else "")
        show(table, out)


def _table(board: Board) -> Table:
    titles = [title for column in board.columns for title in _titles(board, column)]
    titles += [f"{title} {ARROWS[metric]}" for title, metric in board.average_columns]
    lines = [_model_row(board, line) for line in board.lines]
    baselines = [_reference_row(board, reference) for reference in board.baselines]
    overfitting = [_reference_row(board, reference) for reference in board.overfitting]
    ends = {len(lines) - 1} | ({len(lines) + len(baselines) - 1} if overfitting else set())
    return Table(
        title=board.title,
        columns=("model", "variant", *titles),
        rows=[*lines, *baselines, *overfitting],
        right=frozenset(range(2, 2 + len(titles))),
        sections=frozenset(ends),
        notes=tuple(notes(board)),
    )


def _titles(board: Board, column: Column) -> list[str]:
    """A column's header, and that of its common rows where there is such a column."""
    found = board.common.get(column)
    return [title_of(column), *([f"common rows ({found.rows} of {found.of})"] if found and found.scores else [])]


def _model_row(board: Board, line: Line) -> tuple[str, ...]:
    cells = [cell for column in board.columns for cell in _cells(board, line, column)]
    return (*line, *cells, *(_average_cell(board, line, title) for title, _ in board.average_columns))


def _cells(board: Board, line: Line, column: Column) -> list[str]:
    score = board.cell(line, column)
    own = "-" if score is None else _cell(board, score)
    if len(_titles(board, column)) == 1:
        return [own]
    return [own, _common_cell(column[2], None if score is None else board.on_common_rows(score))]


def _cell(board: Board, score: Score) -> str:
    text = f"{number(score.metric, score.value)} {interval_text(score.metric, score.low, score.high)}"
    if score.std is not None:
        text += f" sd {number(score.metric, score.std)}"
    return text + _published(score.metric, score.published, board.letters_of(score)) + marks(board, score)


def _common_cell(metric: str, common: CommonScore | None) -> str:
    if common is None:
        return "-"
    return f"{number(metric, common.value)} {interval_text(metric, common.low, common.high)}"


def _average_cell(board: Board, line: Line, title: str) -> str:
    average = board.averages[line].get(title)
    if average is None:
        return "-"
    letters = board.average_letters(average, line[0])
    return number(average.metric, average.value) + _published(average.metric, average.published, letters)


def _published(metric: str, value: float | None, letters: str) -> str:
    if value is not None:
        return f" (published {printed_number(metric, value)})"
    return f" ({letters})" if letters else ""


def _reference_row(board: Board, reference: Reference) -> tuple[str, ...]:
    cells = []
    for column in board.columns:
        value = reference.values.get(column)
        cells.append("-" if value is None else number(column[2], value))
        cells += ["-"] * (len(_titles(board, column)) - 1)
    return (reference.name, reference.variant, *cells, *["-"] * len(board.average_columns))
