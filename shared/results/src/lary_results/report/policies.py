"""Policies in closed loop: a section of the page for each board."""

from collections.abc import Sequence
from pathlib import Path

from lary_terminal.tables import Table

from lary_results.evaluation_tables import tables
from lary_results.evaluations import Board, boards, read_evaluations
from lary_results.report.markup import Child, Html, el, slug, table
from lary_results.report.videos import Videos


def found(results: Path) -> tuple[list[Board], list[str]]:
    """What was evaluated, and what is wrong with files that are none."""
    broken: list[str] = []
    return boards(read_evaluations(results, broken)), broken


def anchor(board: Board) -> str:
    versions = (text for pair in sorted(board.libraries.items()) for text in pair)
    simulator = (board.simulator[:8], *versions, str(board.renderer))
    return slug("policies", board.benchmark, *simulator, *map(str, board.protocol.model_dump().values()))


def section(board: Board, videos: Videos) -> Html:
    """The tables that `lary-orch evaluate --results` prints, and videos of a few episodes."""
    title = el("h2", f"Policies on {board.benchmark}")
    return el("section", title, list(map(_table, tables(board))), videos.section(board), id=anchor(board))


def _table(made: Table) -> Html:
    notes: Sequence[Child] = [el("p", note, class_="muted") for note in made.notes]
    return el("div", el("h3", made.title), table(made.columns, made.rows, numbers=1), notes)


def unreadable(broken: Sequence[str]) -> Html | None:
    """Files that are no evaluations."""
    return el("ul", [el("li", text) for text in broken], class_="notes") if broken else None
