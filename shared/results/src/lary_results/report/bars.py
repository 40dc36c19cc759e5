"""Bars of one column: every model's score with its interval, and the floors that it has to beat."""

import math
from collections.abc import Iterable

from lary_results.leaderboard import Board
from lary_results.report.markup import Child, Html, el
from lary_results.scores import Column, Score, number, title_of

CLIP = 3.0
"""MSE bars end at this many floors: one diverged probe must not flatten all the others."""


def bars(board: Board, column: Column) -> Html:
    """Best first; text is HTML, only the bars are SVG, so that it stays readable at any width."""
    scores = [s for s in board.ours if s.column == column]
    controls = [s for s in board.kept if s.column == column and s.control == "shuffled"]
    best_first = sorted(scores, key=lambda s: s.rank)
    axis = _Axis(column, [*scores, *controls])
    rows = [_row(axis, f"{s.model}", s.variant, s) for s in best_first]
    rows += [_row(axis, "shuffled control", f"of {s.model}, {s.variant}", s, control=True) for s in controls]
    legend = el("figcaption", _legend(axis, published=any(s.published is not None for s in scores)))
    return el("figure", el("h4", title_of(column)), el("div", rows, class_="bars"), legend)


class _Axis:
    """Where a value stands, in percent of the width."""

    def __init__(self, column: Column, scores: list[Score]) -> None:
        self.metric = column[2]
        self.floor = scores[0].floor
        self.chance = scores[0].chance
        highest = max((x for s in scores for x in (s.value, s.high) if math.isfinite(x)), default=self.floor)
        self.end = 1.0 if self.metric == "top1" else max(min(1.05 * highest, CLIP * self.floor), 1.05 * self.floor)

    def at(self, value: float) -> str:
        share = value / self.end if self.end > 0 and math.isfinite(value) else math.inf
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _row(axis: _Axis, name: str, variant: str, score: Score, *, control: bool = False) -> Html:
    value, low, high = (number(axis.metric, x) for x in (score.value, score.low, score.high))
    label = el("div", el("span", name, class_="name"), " ", el("small", variant), class_="label")
    told = el("div", el("b", value), " ", el("small", f"[{low}, {high}]"), class_="value")
    return join_row(label, _drawing(axis, score, control=control), told)


def join_row(*cells: Child) -> Html:
    return el("div", *cells, class_="bar-row")


def _drawing(axis: _Axis, score: Score, *, control: bool) -> Html:
    shapes = [
        el("rect", x=0, y="20%", width=axis.at(score.value), height="60%", class_="control" if control else "bar"),
        *_lines(axis),
        el("line", x1=axis.at(score.low), x2=axis.at(score.high), y1="50%", y2="50%", class_="whisker"),
        *(
            el("line", x1=axis.at(x), x2=axis.at(x), y1="34%", y2="66%", class_="whisker")
            for x in (score.low, score.high)
        ),
    ]
    if score.published is not None:
        shapes.append(el("circle", cx=axis.at(score.published), cy="50%", r=5, class_="published"))
    clipped = el("span", "▸", class_="clipped", title="beyond the drawing") if not score.value <= axis.end else None
    return el("div", el("svg", shapes, aria_hidden="true"), clipped, class_="track")


def _lines(axis: _Axis) -> Iterable[Html]:
    yield el("line", x1=axis.at(axis.floor), x2=axis.at(axis.floor), y1=0, y2="100%", class_="floor")
    if axis.chance is not None and axis.at(axis.chance) != axis.at(axis.floor):
        yield el("line", x1=axis.at(axis.chance), x2=axis.at(axis.chance), y1=0, y2="100%", class_="chance")


def _legend(axis: _Axis, *, published: bool) -> Iterable[Child]:
    what = "most frequent class" if axis.metric == "top1" else "mean action"
    yield el("span", el("i", class_="key whisker"), "95 % interval")
    yield el("span", el("i", class_="key floor"), f"floor ({what}) {number(axis.metric, axis.floor)}")
    if axis.chance is not None and axis.at(axis.chance) != axis.at(axis.floor):
        yield el("span", el("i", class_="key chance"), f"chance {number(axis.metric, axis.chance)}")
    if published:
        yield el("span", el("i", class_="key published"), "published")
    yield el("span", f"axis 0 to {'100 %' if axis.metric == 'top1' else number('mse', axis.end)}")
