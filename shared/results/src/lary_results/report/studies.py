"""Studies: their tables, how the measures went while each arm trained, and what decoders made of held-out frames."""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lary_schema.trained import Checkpoint
from lary_schema.training import PICTURE_FILE, TrainResult
from lary_terminal.tables import Table

from lary_results.files import import_name
from lary_results.report.markup import Child, Html, details, el, slug, table
from lary_results.study.arms import Study
from lary_results.study.measures import codes, curve, is_collapsed
from lary_results.study.record import TRAINED
from lary_results.study.tables import study_tables

WIDTH, HEIGHT = 220, 90
"""Of a chart, in its own units."""
MOST_COLUMNS = 12
"""Of a table, in a page 1,140 px wide."""
MOST_NOTES = 5
"""Below a table; more are folded."""
PICTURE_BYTES = 1 << 20
"""A larger one is left out: the page is mailed."""


class Series(NamedTuple):
    """Curves of one measure, one per seed."""

    name: str
    kind: str
    """Of the line: a class of the style sheet."""


class Chart(NamedTuple):
    """Measures that share an axis."""

    title: str
    series: tuple[Series, ...]


CHARTS = (
    Chart("reconstruction error", (Series("rec", "one"), Series("shuffled", "two"), Series("copy", "three"))),
    Chart("perplexity of the codes", (Series("perplexity", "one"),)),
    Chart("centred cosine", (Series("centred_cosine", "one"),)),
    Chart("flow loss", (Series("flow", "one"), Series("flow_permuted", "two"))),
)


def anchor(study: Study) -> str:
    """The same key may stand in several imports."""
    return slug("study", study.record.key, *([] if import_name(study.home) is None else [study.home.name]))


def section(study: Study) -> Html:
    """One study of the page."""
    record = study.record
    names = [name for name in (*record.arms, *record.baselines) if study.results(name)]
    charts = [_figure(study, chart, names) for chart in CHARTS]
    return el(
        "section",
        el("h2", f"Study {study.name}", f": {record.title}" if record.title else ""),
        [_table(one) for one in study_tables(study)],
        [chart for chart in charts if chart is not None],
        list(_pictures(study, names)),
        id=anchor(study),
    )


def _table(shown: Table) -> Html:
    """One with more columns than the page has room for is turned: a line for each of them."""
    numbers = min(shown.right, default=99)
    rows = [
        [el("b", cell, class_="alarm") if at in shown.alarming and cell == row[2] else cell for cell in row]
        for at, row in enumerate(shown.rows)
    ]
    return el(
        "div",
        el("h3", shown.title),
        table(*_turned(shown.columns, rows), numbers=1)
        if _is_wide(shown)
        else table(shown.columns, rows, numbers=numbers),
        _notes(shown.notes),
    )


def _notes(notes: Sequence[str]) -> Child:
    """A training may warn at every measurement."""
    if len(notes) <= MOST_NOTES:
        return [el("p", note, class_="muted") for note in notes]
    return details(f"{len(notes)} notes", el("ul", [el("li", note) for note in notes], class_="notes"))


def _is_wide(shown: Table) -> bool:
    return len(shown.columns) > max(MOST_COLUMNS, len(shown.rows))


def _turned(columns: Sequence[str], rows: Sequence[Sequence[Child]]) -> tuple[list[Child], list[list[Child]]]:
    """Columns as lines: the first one is the header."""
    first, *rest = zip(columns, *rows, strict=True)
    return list(first), [list(line) for line in rest]


# --- curves -----------------------------------------------------------------------------------


def _figure(study: Study, chart: Chart, names: Sequence[str]) -> Html | None:
    """The chart of every arm, all with the same axes; None where no arm has such a measure."""
    curves = {
        (name, series): [curve(result, series.name) for result in study.results(name)]
        for name in names
        for series in chart.series
    }
    axes = _axes([point for several in curves.values() for one in several for point in one])
    if axes is None:
        return None
    drawn = {name: [(series, curves[name, series]) for series in chart.series] for name in names}
    charts = [
        _chart(name, study.results(name), one, axes) for name, one in drawn.items() if any(any(s) for _, s in one)
    ]
    return el(
        "figure",
        el("h3", f"{chart.title}, held out, by step"),
        el("div", charts, class_="charts"),
        el("figcaption", list(_legend(chart, axes))),
    )


class _Axes(NamedTuple):
    last: int
    low: float
    top: float

    def at(self, step: int, value: float) -> str:
        x = WIDTH * step / self.last
        y = HEIGHT * (1 - (value - self.low) / (self.top - self.low))
        return f"{x:.1f},{y:.1f}"


def _axes(points: Sequence[tuple[int, float]]) -> _Axes | None:
    """Axes that hold all points, 0 among the values; None where there are none."""
    if not points:
        return None
    values = [0.0, *(value for _, value in points)]
    return _Axes(max(step for step, _ in points) or 1, min(values), max(values) or 1.0)


def _chart(
    name: str,
    results: Sequence[TrainResult],
    drawn: Sequence[tuple[Series, list[list[tuple[int, float]]]]],
    axes: _Axes,
) -> Html:
    lines = [_line(points, series, axes) for series, several in drawn for points in several if points]
    frame = el("rect", x=0, y=0, width=WIDTH, height=HEIGHT, class_="frame")
    collapsed = sum(map(is_collapsed, results))
    alarm = el("b", f" {collapsed} of {len(results)} collapsed", class_="alarm") if collapsed else None
    drawing = el("svg", frame, lines, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=_in_words(name, drawn))
    return el("div", el("div", el("span", name, class_="name"), alarm), drawing, class_="chart")


def _line(points: Sequence[tuple[int, float]], series: Series, axes: _Axes) -> Html:
    if len(points) == 1:
        x, y = axes.at(*points[0]).split(",")
        return el("circle", cx=x, cy=y, r=2, class_=f"dot {series.kind}")
    return el("path", d="M" + " L".join(axes.at(*point) for point in points), class_=f"curve {series.kind}")


def _in_words(name: str, drawn: Sequence[tuple[Series, list[list[tuple[int, float]]]]]) -> str:
    ends = [f"{s.name} {points[-1][1]:.3g}" for s, several in drawn for points in several[:1] if points]
    return f"{name}, at the end: {', '.join(ends)}"


def _legend(chart: Chart, axes: _Axes) -> Iterator[Child]:
    for series in chart.series:
        yield el("span", el("i", class_=f"key line {series.kind}"), series.name.replace("_", " "))
    yield el("span", f"steps 0 to {axes.last:,}; {axes.low:.3g} to {axes.top:.3g}; a line per seed")


# --- pictures ---------------------------------------------------------------------------------


def _pictures(study: Study, names: Sequence[str]) -> Iterator[Html]:
    """The row of reconstructions of the first seed of every arm that has one."""
    trained = study.home / TRAINED
    found = [(name, data) for name in names if (data := _picture(trained, study.results(name)[0])) is not None]
    if found:
        images = [_picture_of(name, study.results(name)[0], data) for name, data in found]
        yield details("Reconstructions of held-out frames", images, open_=True)


def _picture_of(name: str, result: TrainResult, data: str) -> Html:
    image = el("img", src=f"data:image/png;base64,{data}", alt=f"reconstructions of {name}", loading="lazy")
    return el("figure", image, el("figcaption", f"{name}: {_of(result)}"))


def _picture(trained: Path, result: TrainResult) -> str | None:
    path = Checkpoint.of(trained, result.key).folder / PICTURE_FILE
    if not path.is_file() or path.stat().st_size > PICTURE_BYTES:
        return None
    return base64.b64encode(path.read_bytes()).decode()


def _of(result: TrainResult) -> str:
    size = codes(result)
    return f"{result.key}, seed {result.values.seed}" + (f", {size} codes" if size else "")
