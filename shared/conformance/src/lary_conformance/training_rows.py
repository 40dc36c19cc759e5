"""The rows of `fixture` as a set that can be trained on: with actions, an instruction, and the episode of each."""

import csv
import struct
from pathlib import Path

from lary_schema.base import file_sha256
from lary_schema.cards import Actions, Normalisation
from lary_schema.groups import Grouping
from lary_schema.jobs import MetadataFile, Source
from lary_schema.presence import SplitSource
from lary_schema.training import TrainData

from lary_conformance.fixture import BAD_ROW, ROWS

TRAIN, HELD_OUT = "train", "held-out"
"""Two splits of the same rows."""


def actions_of(stride: int, dim: int) -> Actions:
    """Chunks of so many steps and dimensions, next to the media."""
    names = tuple(f"action{at}" for at in range(dim))
    return Actions(folder=".", stride=stride, dim=dim, names=names, normalisation=Normalisation(kind="train"))


ACTIONS = actions_of(2, 3)
"""What trainings read."""
EPISODE, INSTRUCTION = "episode", "instruction"
WORDS = ("push left", "pull right")


def with_labels(made: SplitSource, split: str, actions: Actions = ACTIONS, *, corrupt: bool = False) -> SplitSource:
    """A split of a fixture's rows, labelled. The CSV and the actions are written next to the media.

    `corrupt` makes the action file of row `BAD_ROW` no array.
    """
    with made.csv.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    for row in range(ROWS):
        content = b"these are no actions" if corrupt and row == BAD_ROW else _npy(row, actions.stride, actions.dim)
        (made.data / f"{row}.npy").write_bytes(content)
    further = [[f"{row}.npy", f"episode{row // 2}", WORDS[row % 2]] for row in range(ROWS)]
    target = made.data / f"{split}.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, ACTIONS.column, EPISODE, INSTRUCTION])
        writer.writerows([*row, *more] for row, more in zip(rows, further, strict=True))
    metadata = MetadataFile(path=f"metadata/{split}.csv", sha256=file_sha256(target), rows=ROWS)
    return SplitSource(split, made.data, target, made.source.model_copy(update={"metadata": metadata}))


def _npy(row: int, steps: int, dimensions: int) -> bytes:
    """A chunk of (steps, dimensions) float32, another in each row, in NumPy's format 1.0."""
    values = [((row + 1) * (at + 3)) % 7 - 3.0 for at in range(steps * dimensions)]
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({steps}, {dimensions}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    return start + header.encode() + struct.pack(f"<{len(values)}f", *values)


def train_data(split: SplitSource, *, labels: bool) -> TrainData:
    """What a training's values say of a split."""
    source: Source = split.source
    return TrainData(
        dataset="conformance",
        split=split.split,
        metadata_sha256=source.metadata.sha256,
        columns=source.columns,
        media=source.media,
        frames=source.frames,
        group=Grouping(column=EPISODE),
        actions=ACTIONS if labels else None,
        instruction=INSTRUCTION if labels else None,
    )


def files(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, but for hidden ones; links are files."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): file_sha256(p) for p in found}
