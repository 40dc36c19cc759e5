"""Bars of one column: every model's score with its interval, and the baselines that it has to beat."""

import math
from collections.abc import Iterable

from lary_results.baselines import BASELINE_MODELS
from lary_results.board import Board
from lary_results.report.markup import Child, Html, el
from lary_results.scores import Column, Score, interval_text, number, title_of

CLIP = 3.0
"""MSE bars end at this many times the mean action's: one diverged probe must not flatten all the others."""


def bars(board: Board, column: Column) -> Html:
    """Best first; text is HTML, only the bars are SVG, so that it stays readable at any width."""
    own = board.of_column[column]
    scores = [s for s in own if s.control == "none" and s.model not in BASELINE_MODELS]
    models = [s for s in own if s.model in BASELINE_MODELS and s.control == "none"]
    controls = [s for s in own if s.control == "shuffled"]
    axis = _Axis(column, own)
    rows = [_row(axis, s.line[0], s.line[1] + _doubt(s), s) for s in sorted(scores, key=lambda s: s.rank)]
    rows += [_row(axis, s.line[0], f"baseline, {s.line[1]}", s, control=True) for s in models]
    rows += [_row(axis, _control(s), f"of {', '.join(s.line)}", s, control=True) for s in controls]
    legend = el("figcaption", _legend(axis, published=any(s.published is not None for s in scores)))
    return el("figure", el("h4", title_of(column)), el("div", rows, class_="bars"), legend)


def _doubt(score: Score) -> str:
    return ", never learned" if score.learned is False else "" if score.beats_floor else ", not above the baseline"


def _control(score: Score) -> str:
    return "overfitting (shuffled)" if score.measures == "overfitting" else "shuffled control"


class _Axis:
    """Where a value stands, in percent of the width."""

    def __init__(self, column: Column, scores: list[Score]) -> None:
        self.metric = column[2]
        self.floor = scores[0].floor
        self.chance = scores[0].chance
        known = [x for s in scores for x in (s.value, s.high, s.floor) if math.isfinite(x)]
        highest = max(known, default=1.0)
        floor = self.floor if math.isfinite(self.floor) else highest
        self.end = 1.0 if self.metric == "top1" else max(min(1.05 * highest, CLIP * floor), 1.05 * floor)

    @property
    def apart(self) -> bool:
        """Whether chance is to be drawn as well as the most frequent class."""
        return self.chance is not None and self.at(self.chance) != self.at(self.floor)

    def at(self, value: float) -> str:
        if math.isnan(value):  # of an error: a diverged one
            return "0.00%" if self.metric == "top1" else "100.00%"
        share = value / self.end if self.end > 0 else math.inf
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _row(axis: _Axis, name: str, variant: str, score: Score, *, control: bool = False) -> Html:
    interval = interval_text(axis.metric, score.low, score.high)
    label = el("div", el("span", name, class_="name"), " ", el("small", variant), class_="label")
    value = el("div", el("b", number(axis.metric, score.value)), " ", el("small", interval), class_="value")
    return join_row(label, _drawing(axis, score, control=control), value)


def join_row(*cells: Child) -> Html:
    return el("div", *cells, class_="bar-row")


def _drawing(axis: _Axis, score: Score, *, control: bool) -> Html:
    class_ = "control" if control else "bar"
    bar = el("rect", x=0, y="20%", width=axis.at(score.value), height="60%", class_=class_)
    shapes: list[Child] = [bar, *_lines(axis)]
    if math.isfinite(score.low) and math.isfinite(score.high):
        shapes += _whisker(axis.at(score.low), axis.at(score.high))
    if score.published is not None:
        shapes.append(el("circle", cx=axis.at(score.published), cy="50%", r=5, class_="published"))
    beyond = not score.value <= axis.end and axis.metric == "mse"
    clipped = el("span", "▸", class_="clipped", title="beyond the drawing") if beyond else None
    return el("div", el("svg", shapes, aria_hidden="true"), clipped, class_="track")


def _whisker(low: str, high: str) -> Iterable[Html]:
    yield el("line", x1=low, x2=high, y1="50%", y2="50%", class_="whisker")
    for x in (low, high):
        yield el("line", x1=x, x2=x, y1="34%", y2="66%", class_="whisker")


def _lines(axis: _Axis) -> Iterable[Html]:
    for value, class_ in ((axis.floor, "floor"), *([(axis.chance, "chance")] if axis.apart else [])):
        if value is not None and math.isfinite(value):
            yield el("line", x1=axis.at(value), x2=axis.at(value), y1=0, y2="100%", class_=class_)


def _legend(axis: _Axis, *, published: bool) -> Iterable[Child]:
    what = "most frequent class" if axis.metric == "top1" else "mean action"
    yield el("span", el("i", class_="key whisker"), "95 % interval")
    yield el("span", el("i", class_="key floor"), f"{what} {number(axis.metric, axis.floor)}")
    if axis.chance is not None and axis.apart:
        yield el("span", el("i", class_="key chance"), f"chance {number(axis.metric, axis.chance)}")
    if published:
        yield el("span", el("i", class_="key published"), "published")
    yield el("span", f"axis 0 to {'100 %' if axis.metric == 'top1' else number('mse', axis.end)}")
