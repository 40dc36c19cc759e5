"""Every model against the best of its column: is the distance more than chance?"""

from lary_results.board import Board
from lary_results.paired import HEADER, METHOD, UNCLEAR, Difference, against_best, numbers
from lary_results.report.markup import Child, Html, details, el, join, table
from lary_results.scores import column_name

ALONE = (
    "Each interval stands for itself: with many models some exclude 0 by chance, and the best of a column is best "
    "partly by luck."
)


def section(board: Board) -> Html | None:
    """One foldable table of a board."""
    found = against_best(board)
    if not found:
        return None
    header = ("column", "a: the best", "b", *HEADER)
    rows: list[list[Child]] = [
        [column_name(made.a.column), _name(made.a.line), _name(made.b.line), *_cells(made)] for made in found
    ]
    apart = sum(made.reason is None and made.verdict != UNCLEAR for made in found)
    compared = sum(made.reason is None for made in found)
    title = f"Against the best of each column: {apart} of {compared} differences exclude 0"
    reasons = list(dict.fromkeys(f"{made.b.named}: {made.reason}" for made in found if made.reason is not None))
    why = el("ul", [el("li", f"not compared: {reason}") for reason in reasons], class_="notes") if reasons else None
    text = el("p", METHOD, " ", ALONE, class_="muted")
    return details(title, text, table(header, rows, numbers=len(header)), why, class_="differences")


def _name(line: tuple[str, str]) -> Html:
    return join(line[0], " ", el("small", line[1]))


def _cells(made: Difference) -> list[Child]:
    value, interval, verdict, rows, drawn = numbers(made)
    return [value, interval, el("b", verdict) if verdict.endswith("better") else verdict, rows, drawn]
