"""Tiny datasets for the checks: eight rows of moving squares, in clips or in image pairs."""

import subprocess
import sys
from csv import writer as csv_writer
from pathlib import Path

from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import Mode, PairColumns, VideoColumns
from lary_schema.jobs import MetadataFile, Source
from lary_schema.presence import SplitSource

ROWS = 8
BAD_ROW = 3
SHARD_ROWS = 2
METADATA = "metadata/rows.csv"
"""Below the job mount."""


def make_rows(
    folder: Path, mode: Mode, frames: int, *, corrupt: bool = False, python: Path = Path(sys.executable)
) -> SplitSource:
    """Write the media and the CSV; `corrupt` makes the file of row `BAD_ROW` no picture at all.

    `python` has what draws and encodes (`lary-demo[make]`). Raises ContractError where it fails.
    """
    folder.mkdir(parents=True)
    command = [str(python), "-m", "lary_demo.samples", str(folder), mode, str(ROWS), str(frames)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContractError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr.strip()[-2000:]}")
    rows = [_cells(mode, row, frames) for row in range(ROWS)]
    if corrupt:
        (folder / rows[BAD_ROW][0]).write_bytes(b"this is no picture")
    columns = VideoColumns() if mode == "video" else PairColumns()
    csv = folder / "rows.csv"
    with csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv_writer(file, lineterminator="\n")
        writer.writerows([_names(columns), *rows])
    metadata = MetadataFile(path=METADATA, sha256=file_sha256(csv), rows=ROWS)
    source = Source(metadata=metadata, columns=columns, media=".", host_data=str(folder), frames=frames)
    return SplitSource("corrupt" if corrupt else "whole", folder, csv, source)


def _names(columns: VideoColumns | PairColumns) -> list[str]:
    if isinstance(columns, VideoColumns):
        return [columns.video, columns.indices]
    return [columns.source, columns.target]


def _cells(mode: Mode, row: int, frames: int) -> list[str]:
    if mode == "video":
        return [f"{row}.mp4", str(list(range(frames)))]
    return [f"{row}-{end}.png" for end in ("source", "target")]
