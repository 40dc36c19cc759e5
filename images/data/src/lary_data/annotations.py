"""Time annotations of long videos, and the clips that they name (LARYBench: seed_ssv2.csv and seed_egodex.csv).

`seed_output` holds lines of text; the first pair of numbers `a - b` in a line are the seconds of a clip. Row and line
number are in the clip's name, so every line counts, also one without numbers.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from lary_schema.metadata import RowError, read_rows

Source = Literal["SSv2", "EgoDex"]
REVERSED = "_rev"
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


def parse_spans(text: str) -> list[Span]:
    """The parts that an annotation names, those of no or negative length left out.

    Lines end by a newline or by the two characters backslash and n.
    """
    spans = []
    for line, said in enumerate(text.replace("\\n", "\n").strip().split("\n")):
        if match := _SPAN.search(said):
            start, end = map(float, match.groups())
            duration = round(end - start, 2)
            if duration > 0:
                spans.append(Span(line, start, duration))
    return spans


def annotated_clips(csv: Path, source: Source, videos: Path) -> Iterator[Clip]:
    """Every clip that the annotations name, forwards and reversed; `videos` is the folder of the source's videos.

    Raises ContractError for a CSV that cannot be read or lacks a column.
    """
    for row in read_rows(csv, ("video_path", "seed_output")):
        try:
            video, text = row["video_path"], row["seed_output"]
        except RowError:
            continue
        file = videos / _below(video, source)
        for span in parse_spans(text):
            for suffix in ("", REVERSED):
                name = f"{_folder(video, source)}/{row.index}_{span.line}{suffix}.mp4"
                yield Clip(name, str(file), span.start_s, span.duration_s, bool(suffix))


def _below(video: str, source: Source) -> str:
    name = PurePosixPath(video).name
    return video.partition(_EGODEX_ROOT)[2] or name if source == "EgoDex" else name


def _folder(video: str, source: Source) -> str:
    return f"EgoDex/{PurePosixPath(video).stem}" if source == "EgoDex" else "SSv2"
