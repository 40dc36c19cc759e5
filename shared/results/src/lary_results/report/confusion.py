"""Confusion matrices, from the probes' confusion_matrix.json: small ones as tables, large ones drawn."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lary_schema.base import ContractError, read_json
from lary_schema.printable import printable

from lary_results.report.markup import Child, Html, details, el, join, scrolling, table
from lary_results.scores import Score, number

FILE = "confusion_matrix.json"
TABLE_UP_TO = 20
"""Classes up to which every cell is a number that can be read."""
STEPS = (0.0, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Lower bounds of the colour steps of a drawn matrix: share of the true class's rows."""
CELL_PX = 5
TICKS = 10
"""Every so many classes carry their number."""
MARGIN = 5
"""Room for those numbers, in cells."""
CONFUSIONS = 12
LEGIBLE_ON_DARK = 0.55


@dataclass(frozen=True)
class Matrix:
    """Rows are the truth, columns the prediction."""

    labels: list[str]
    counts: list[list[int]]

    def share(self, row: int, column: int) -> float:
        total = sum(self.counts[row])
        return self.counts[row][column] / total if total else 0.0

    def recall(self, row: int) -> float | None:
        """None for a class without a row."""
        return self.share(row, row) if sum(self.counts[row]) else None


def matrices(scores: list[Score]) -> Html | None:
    """One foldable matrix per model and split, the best one open; controls left out."""
    ours = [score for score in scores if score.control == "none" and score.metric == "top1"]
    shown = sorted(ours, key=lambda s: (s.split, s.rank))
    parts = [_section(score, open_=nth == 0) for nth, score in enumerate(shown)]
    return join(el("h4", "Confusion matrices"), el("div", parts, class_="matrices")) if parts else None


def _section(score: Score, *, open_: bool) -> Html:
    title = f"{score.model} ({score.variant}) on {score.split}: {number(score.metric, score.value)} %"
    folder = Path(score.file).parent
    # A split that was evaluated alone has its files in the folder itself.
    own = folder / score.split / FILE
    try:
        matrix = read_matrix(own if own.is_file() else folder / FILE)
    except ContractError as error:
        return details(title, el("p", str(error), class_="muted"))
    return details(title, draw(matrix), open_=open_)


def read_matrix(path: Path) -> Matrix:
    """Raises ContractError for a file that holds no matrix."""
    content = read_json(path)
    fields = content if isinstance(content, dict) else {}
    labels, counts = fields.get("labels"), fields.get("matrix")
    square = (
        # LARYBench's own files have predictions in rows and do not say so.
        fields.get("rows") == "truth"
        and isinstance(labels, list)
        and isinstance(counts, list)
        and len(counts) == len(labels)
        and all(isinstance(row, list) and len(row) == len(labels) for row in counts)
        and all(isinstance(count, int) and count >= 0 for row in counts for count in row)
    )
    if not square:
        raise ContractError(
            f"{path}: no confusion matrix with the truth in rows: it needs labels and a square matrix of counts"
        )
    # The page's script shows labels as they are, so they are made printable here.
    return Matrix([printable(str(label)) for label in fields["labels"]], fields["matrix"])


def draw(matrix: Matrix) -> Html:
    if len(matrix.labels) <= TABLE_UP_TO:
        return _as_table(matrix)
    return el("div", _as_drawing(matrix), _confusions(matrix), _classes(matrix), class_="matrix")


# --- small ------------------------------------------------------------------------------------


def _as_table(matrix: Matrix) -> Html:
    """Columns carry the class's number alone, its name is in the row of that number."""
    header = el(
        "tr",
        el("th", "truth ↓  prediction →", class_="corner"),
        [el("th", n, title=label, scope="col") for n, label in enumerate(matrix.labels)],
    )
    rows = [
        el("tr", el("th", el("span", n, class_="num"), " ", label, scope="row"), _heat_cells(matrix, n))
        for n, label in enumerate(matrix.labels)
    ]
    return scrolling(el("table", el("thead", header), el("tbody", rows), class_="heat"))


def _heat_cells(matrix: Matrix, row: int) -> Iterator[Html]:
    for column, count in enumerate(matrix.counts[row]):
        share = matrix.share(row, column)
        title = f"{matrix.labels[row]} taken for {matrix.labels[column]}: {count} ({100 * share:.1f} %)"
        deep = "deep" if share > LEGIBLE_ON_DARK else "zero" if not count else None
        yield el("td", count, style=f"--s:{100 * share:.0f}%", title=title, class_=deep)


# --- large ------------------------------------------------------------------------------------


def _as_drawing(matrix: Matrix) -> Html:
    """One path per colour step: a 123 x 123 matrix is nine elements. Scripts name the cell under the pointer."""
    size = len(matrix.labels)
    paths = [el("path", d=d, class_=f"s{step}") for step, d in sorted(_paths(matrix).items())]
    drawing = el(
        "svg",
        el("rect", width=size, height=size, class_="field"),
        paths,
        el("path", d=f"M0 0L{size} {size}", class_="diagonal"),
        [_ticks(n) for n in range(0, size, TICKS)],
        viewBox=f"-{MARGIN} -{MARGIN} {size + MARGIN} {size + MARGIN}",
        role="img",
        aria_label=f"confusion matrix of {size} classes",
        style=f"width:{(size + MARGIN) * CELL_PX}px",
        data_cells=json.dumps({"labels": matrix.labels, "rows": [_sparse(row) for row in matrix.counts]}),
    )
    hint = "rows: truth, columns: prediction; colour: share of the true class. Point at a cell, or tap it, to read it."
    return join(scrolling(drawing), el("p", hint, class_="muted readout", aria_live="polite"))


def _ticks(n: int) -> Html:
    row = el("text", n, x=-0.6, y=n + 1, class_="row")
    return join(row, el("text", n, x=n + 0.5, y=-0.8, class_="column"))


def _paths(matrix: Matrix) -> dict[int, str]:
    """Step -> one path of all its cells; neighbours in a row are one rectangle."""
    pieces: dict[int, list[str]] = defaultdict(list)
    for row, counts in enumerate(matrix.counts):
        total = sum(counts)
        steps = [_step(count / total) if count else None for count in counts]
        start = 0
        for column in range(1, len(steps) + 1):
            if column < len(steps) and steps[column] == steps[start]:
                continue
            step, width = steps[start], column - start
            if step is not None:
                pieces[step].append(f"M{start} {row}h{width}v1h-{width}z")
            start = column
    return {step: "".join(found) for step, found in pieces.items()}


def _step(share: float) -> int:
    return max(step for step, bound in enumerate(STEPS) if share >= bound)


def _sparse(row: list[int]) -> list[int]:
    """Column, count, column, count: what is not 0."""
    return [number for column, count in enumerate(row) if count for number in (column, count)]


def _confusions(matrix: Matrix) -> Html:
    """The most frequent mistakes, readable without a script and on paper."""
    cells = (
        (count, row, column)
        for row, counts in enumerate(matrix.counts)
        for column, count in enumerate(counts)
        if count and row != column
    )
    worst = sorted(cells, key=lambda cell: (-cell[0], cell[1:]))[:CONFUSIONS]
    rows: list[list[Child]] = [
        [matrix.labels[row], matrix.labels[column], count, f"{100 * matrix.share(row, column):.1f}"]
        for count, row, column in worst
    ]
    return table(("truth", "taken for", "rows", "% of the class"), rows, numbers=2, caption="most frequent confusions")


def _classes(matrix: Matrix) -> Html:
    """Every class, the worst first."""
    known = [(recall, n) for n in range(len(matrix.labels)) if (recall := matrix.recall(n)) is not None]
    rows = [_class_row(matrix, n, recall) for recall, n in sorted(known)]
    empty = len(matrix.labels) - len(known)
    note = f" ({empty} have no row here)" if empty else ""
    header = ("class", "no.", "rows", "recall %", "precision %", "most often taken for")
    return details(f"all {len(matrix.labels)} classes{note}", table(header, rows, numbers=1), class_="inner")


def _class_row(matrix: Matrix, n: int, recall: float) -> list[Child]:
    counts = matrix.counts[n]
    predicted = sum(row[n] for row in matrix.counts)
    precision = f"{100 * counts[n] / predicted:.1f}" if predicted else "-"
    others = [(count, -column) for column, count in enumerate(counts) if count and column != n]
    taken = f"{matrix.labels[-max(others)[1]]} ({max(others)[0]})" if others else "-"
    return [matrix.labels[n], n, sum(counts), f"{100 * recall:.1f}", precision, taken]
