"""Policies in closed loop: a section of the page for each board."""

from collections.abc import Sequence
from pathlib import Path

from lary_terminal.tables import Table

from lary_results.evaluation_tables import tables
from lary_results.evaluations import Board, boards, read_evaluations
from lary_results.report.markup import Child, Html, el, slug, table


def found(results: Path) -> tuple[list[Board], list[str]]:
    """What was evaluated, and what is wrong with files that are none."""
    broken: list[str] = []
    return boards(read_evaluations(results, broken)), broken


def anchor(board: Board) -> str:
    return slug("policies", board.benchmark, board.simulator[:8], *map(str, board.protocol.model_dump().values()))


def section(board: Board) -> Html:
    """The tables that `lary-orch evaluate --results` prints."""
    return el("section", el("h2", f"Policies on {board.benchmark}"), list(map(_table, tables(board))), id=anchor(board))


def _table(made: Table) -> Html:
    notes: Sequence[Child] = [el("p", note, class_="muted") for note in made.notes]
    return el("div", el("h3", made.title), table(made.columns, made.rows, numbers=1), notes)


def unreadable(broken: Sequence[str]) -> Html | None:
    """Files that are no evaluations."""
    return el("ul", [el("li", text) for text in broken], class_="notes") if broken else None
