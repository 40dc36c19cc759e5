"""PNG pictures, drawn without a display. Import this module where a picture is made: matplotlib is slow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.image import imread
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lary_probe.fonts import plain_text, shown

LABEL_CHARS = 22
TITLE_CHARS = 80
COUNTS_UP_TO = 20
"""Classes up to which each cell shows its count."""
COLUMNS = 4
PANEL_IN = 3.1, 2.1
"""A panel with its title and ticks."""
TOP_IN, FRAMES_IN = 0.35, 2.4
"""A picture's title, and the frames below it."""
FRAMES = "source", "target"


@plain_text()
def plot_confusion(path: Path, matrix: NDArray[np.int64], labels: Sequence[str], title: str) -> None:
    """Confusion matrix (classes, classes): rows truth, columns prediction, colour the share of the row."""
    count = len(labels)
    side = min(26.0, 4.0 + 0.34 * count if count <= COUNTS_UP_TO else 6.5 + 0.16 * count)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.add_subplot()
    support = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    font = 9 if count <= COUNTS_UP_TO else 8
    # The class number keeps labels apart that differ in what was cut.
    names = [f"{_abbreviated(label)}  {number}" for number, label in enumerate(labels)]
    axes.set_xticks(range(count), names, rotation=90, fontsize=font)
    axes.set_yticks(range(count), names, fontsize=font)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(shown(title)[:TITLE_CHARS], fontsize=10)
    if count <= COUNTS_UP_TO:
        for (row, column), number in np.ndenumerate(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(number), ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, label="share of the true class")
    figure.savefig(path, format="png", dpi=110)


@plain_text()
def plot_trajectory(
    path: Path,
    truth: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    names: Sequence[str],
    frames: Sequence[NDArray[Any]],
    title: str,
) -> None:
    """Truth, prediction and error (stride, dim) over time, a panel a dimension; `frames` above where there are any."""
    columns = min(COLUMNS, max(2, len(names)))
    rows = -(-len(names) // columns)
    # Margins in inches, since `layout="constrained"`, which finds them, takes half a second for twelve panels.
    top, left, bottom = (TOP_IN + FRAMES_IN if frames else TOP_IN), 0.3, 0.3
    width, height = columns * PANEL_IN[0] + left, rows * PANEL_IN[1] + top + bottom
    figure = Figure(figsize=(width, height))
    figure.suptitle(shown(title)[:TITLE_CHARS], fontsize=9, y=1 - 0.1 / height)
    figure.supxlabel("step of the chunk", fontsize=8, y=0.05 / height)
    figure.supylabel("normalised action", fontsize=8, x=0.05 / width)
    side = (FRAMES_IN - 0.4) / height
    for number, frame in enumerate(frames):
        middle = (2 * number + 1) / (2 * len(frames))
        _show(figure.add_axes((middle - side / 2, 1 - (top - 0.15) / height, side, side)), frame, FRAMES[number])
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        corner = left + column * PANEL_IN[0] + 0.4, bottom + (rows - 1 - row) * PANEL_IN[1] + 0.25
        axes = figure.add_axes(
            (corner[0] / width, corner[1] / height, (PANEL_IN[0] - 0.5) / width, (PANEL_IN[1] - 0.55) / height)
        )
        _panel(axes, truth[:, index], predicted[:, index], name)
        if index == 0:
            axes.legend(fontsize=7)
    figure.savefig(path, format="png", dpi=100)


def _panel(axes: Axes, truth: NDArray[np.floating[Any]], predicted: NDArray[np.floating[Any]], name: str) -> None:
    """One dimension, (stride,) each."""
    error = np.abs(truth - predicted)
    axes.plot(truth, "o-", ms=3, lw=1.2, color="black", label="truth")
    axes.plot(predicted, "s--", ms=3, lw=1.2, color="tab:red", label="prediction")
    axes.plot(error, ":", lw=1.2, color="tab:orange", label="error")
    axes.set_title(f"{_abbreviated(name)}  MSE {np.square(error).mean():.3g}", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))


@plain_text()
def plot_step(
    path: Path,
    truth: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    names: Sequence[str],
    frames: Sequence[NDArray[Any]],
    title: str,
) -> None:
    """Truth, prediction and error (dim,) of one step, a group of bars a dimension; `frames` as above."""
    figure, lower = _under_frames(max(4.0, 0.6 * len(names) + 1), 2.6, frames, title)
    axes = lower.subplots()
    positions = np.arange(len(names))
    bars = {"truth": (truth, "black"), "prediction": (predicted, "tab:red")}
    bars["error"] = (np.abs(truth - predicted), "tab:orange")
    for number, (label, (values, colour)) in enumerate(bars.items()):
        axes.bar(positions + 0.27 * (number - 1), values, width=0.25, color=colour, label=label)
    axes.axhline(0, lw=0.6, color="grey")
    axes.set_xticks(positions, [_abbreviated(name) for name in names], fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel("normalised action", fontsize=8)
    axes.legend(fontsize=7)
    figure.savefig(path, format="png", dpi=100)


def _under_frames(width: float, height: float, frames: Sequence[NDArray[Any]], title: str) -> tuple[Figure, FigureBase]:
    """A figure with the frames on top where there are any, and its lower part, in inches."""
    figure = Figure(figsize=(width, height + (2.4 if frames else 0) + 0.5), layout="constrained")
    figure.suptitle(shown(title)[:TITLE_CHARS], fontsize=9)
    if not frames:
        return figure, figure
    grid = figure.add_gridspec(2, 1, height_ratios=[2.4, height])
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    for axes, frame, name in zip(upper.subplots(1, len(frames)), frames, FRAMES, strict=True):
        _show(axes, frame, name)
    return figure, lower


def _show(axes: Axes, frame: NDArray[Any], name: str) -> None:
    axes.imshow(frame, cmap="gray")
    axes.set_title(name, fontsize=8)
    axes.set_axis_off()


def read_frame(path: Path) -> NDArray[Any] | None:
    """An image to show above a prediction: None where it cannot be read."""
    try:
        frame: NDArray[Any] = imread(path)
    except (OSError, SyntaxError, ValueError):  # Pillow's PNG reader raises SyntaxError for a broken file
        return None
    return frame


def _abbreviated(label: str) -> str:
    """Both ends of a long label: labels of one set often begin alike. Escapes are not cut in two."""
    tail = LABEL_CHARS // 3
    if shown(label) != label:
        units = [shown(character) for character in label]
        if sum(map(len, units)) <= LABEL_CHARS:
            return "".join(units)
        return f"{_fitting(units, LABEL_CHARS - tail - 1)}…{_fitting(units[::-1], tail, reverse=True)}"
    return label if len(label) <= LABEL_CHARS else f"{label[: LABEL_CHARS - tail - 1]}…{label[-tail:]}"


def _fitting(units: Sequence[str], width: int, *, reverse: bool = False) -> str:
    """As many whole units as fit into `width` characters."""
    kept: list[str] = []
    for unit in units:
        if sum(map(len, kept)) + len(unit) > width:
            break
        kept.append(unit)
    return "".join(reversed(kept) if reverse else kept)
