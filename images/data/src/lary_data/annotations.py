"""Time annotations of long videos, and the clips that they name (LARYBench: seed_ssv2.csv and seed_egodex.csv).

`seed_output` holds lines of text; the first pair of numbers `a - b` in a line are the seconds of a clip. Row and line
number are in the clip's name, so every line counts, also one without numbers.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from lary_schema.metadata import RowError, read_rows

from lary_data.progress import notify

Source = Literal["SSv2", "EgoDex"]
REVERSED = "_rev"
NAMED = 10
"""Rows that are named; all are counted."""
_SPAN = re.compile(r"(\d+\.?\d*)\s*-\s*(\d+\.?\d*)")
_EGODEX_ROOT = "unzipped/"
"""The annotations' paths of EgoDex hold this folder; what follows is below the user's EgoDex folder."""


class Span(NamedTuple):
    """A part of a video."""

    line: int
    start_s: float
    duration_s: float


class Clip(NamedTuple):
    """A clip to cut."""

    name: str
    """Below the folder of classification media."""
    source: str
    start_s: float
    duration_s: float
    reversed: bool


def lines_of(text: str) -> list[str]:
    """The lines of an annotation; they end by a newline or by the two characters backslash and n."""
    return text.replace("\\n", "\n").strip().split("\n")


def parse_spans(text: str) -> list[Span]:
    """The parts that an annotation names, those of no or negative length left out."""
    spans = []
    for line, words in enumerate(lines_of(text)):
        if match := _SPAN.search(words):
            start, end = map(float, match.groups())
            duration = round(end - start, 2)
            if duration > 0:
                spans.append(Span(line, start, duration))
    return spans


def annotated_clips(csv: Path, source: Source, videos: Path) -> Iterator[Clip]:
    """Every clip that the annotations name, forwards and reversed; `videos` is the folder of the source's videos.

    Rows without a video or an annotation, and lines that name no part of it, are counted on stderr. Raises
    ContractError for a CSV that cannot be read or has not both columns.
    """
    empty: list[int] = []
    lines = 0
    for row in read_rows(csv, ("video_path",), texts=("seed_output",)):
        try:
            video, text = row["video_path"], row["seed_output"]
        except RowError:
            empty.append(row.index)
            continue
        file = videos / _below(video, source)
        spans = parse_spans(text)
        lines += len(lines_of(text)) - len(spans)
        for span in spans:
            for suffix in ("", REVERSED):
                name = f"{_folder(video, source)}/{row.index}_{span.line}{suffix}.mp4"
                yield Clip(name, str(file), span.start_s, span.duration_s, bool(suffix))
    if empty:
        numbers = ", ".join(map(str, empty[:NAMED])) + (", ..." if len(empty) > NAMED else "")
        notify(f"{csv}: {len(empty):,} rows have no video_path or no seed_output and give no clip: row {numbers}")
    if lines:
        notify(f"{csv}: {lines:,} lines of seed_output name no part of the video (two numbers `a - b`, b later)")


def _below(video: str, source: Source) -> str:
    name = PurePosixPath(video).name
    return video.partition(_EGODEX_ROOT)[2] or name if source == "EgoDex" else name


def _folder(video: str, source: Source) -> str:
    return f"EgoDex/{PurePosixPath(video).stem}" if source == "EgoDex" else "SSv2"
