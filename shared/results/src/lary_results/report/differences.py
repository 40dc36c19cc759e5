"""Every model against the best of its column: is the distance more than chance?"""

from collections.abc import Iterator, Sequence

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
    why = el("ul", [el("li", reason) for reason in _not_compared(found)], class_="notes")
    text = el("p", METHOD, " ", ALONE, class_="muted")
    return details(title, text, table(header, rows, numbers=len(header)), why, class_="differences")


def _not_compared(found: Sequence[Difference]) -> Iterator[str]:
    """Each reason once, with all that it keeps from being compared."""
    of: dict[str, list[str]] = {}
    for made in found:
        if made.reason is not None:
            of.setdefault(made.reason, []).append(made.b.named)
    for reason, named in of.items():
        yield f"not compared: {'; '.join(dict.fromkeys(named))}: {reason}"


def _name(line: tuple[str, str]) -> Html:
    return join(line[0], " ", el("small", line[1]))


def _cells(made: Difference) -> list[Child]:
    value, interval, verdict, rows, drawn = numbers(made)
    return [value, interval, el("b", verdict) if verdict.endswith("better") else verdict, rows, drawn]
