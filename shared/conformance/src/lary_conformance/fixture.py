"""Tiny datasets for the checks: eight rows of moving squares, in clips or in image pairs."""

from pathlib import Path

import numpy as np
from lary_demo.files import write_clip, write_image, write_table
from lary_schema.base import file_sha256
from lary_schema.cards import Mode, PairColumns, VideoColumns
from lary_schema.jobs import MetadataFile, Source
from lary_schema.presence import SplitSource
from numpy.typing import NDArray

ROWS = 8
BAD_ROW = 3
SHARD_ROWS = 2
HEIGHT, WIDTH, SQUARE = 48, 64, 16
METADATA = "metadata/rows.csv"
"""Below the job mount."""


def make_rows(folder: Path, mode: Mode, frames: int, *, corrupt: bool = False) -> SplitSource:
    """Write the media and the CSV; `corrupt` makes the file of row `BAD_ROW` no picture at all."""
    folder.mkdir(parents=True)
    rows = [_write_row(folder, mode, row, frames) for row in range(ROWS)]
    if corrupt:
        (folder / rows[BAD_ROW][0]).write_bytes(b"this is no picture")
    columns = VideoColumns() if mode == "video" else PairColumns()
    csv = folder / "rows.csv"
    write_table(csv, _names(columns), rows)
    metadata = MetadataFile(path=METADATA, sha256=file_sha256(csv), rows=ROWS)
    source = Source(metadata=metadata, columns=columns, media=".", host_data=str(folder), frames=frames)
    return SplitSource("corrupt" if corrupt else "whole", folder, csv, source)


def _names(columns: VideoColumns | PairColumns) -> list[str]:
    if isinstance(columns, VideoColumns):
        return [columns.video, columns.indices]
    return [columns.source, columns.target]


def _write_row(folder: Path, mode: Mode, row: int, frames: int) -> list[str]:
    """The media of one row; its cells."""
    if mode == "video":
        write_clip(folder / f"{row}.mp4", _clip(row, frames))
        return [f"{row}.mp4", str(list(range(frames)))]
    names = [f"{row}-{end}.png" for end in ("source", "target")]
    for name, pixels in zip(names, _clip(row, len(names)), strict=True):
        write_image(folder / name, pixels)
    return names


def _clip(row: int, frames: int) -> NDArray[np.uint8]:
    """(T, H, W, 3): a bright square that moves over noise, differently in each row."""
    drawn = np.random.default_rng(row).integers(0, 128, (frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for time, frame in enumerate(drawn):
        x, y = (3 * row + 2 * time) % (WIDTH - SQUARE), (5 * row + time) % (HEIGHT - SQUARE)
        frame[y : y + SQUARE, x : x + SQUARE] = 255 - 16 * row
    return drawn
