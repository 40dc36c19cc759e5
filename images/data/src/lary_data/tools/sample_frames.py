"""`sample-frames`: choose the frames of every clip of a CSV."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.cards import VideoColumns
from lary_schema.media import CellFiles

from lary_data.datasets import find_dataset
from lary_data.options import max_failed_option, timeout_option, workers_option
from lary_data.progress import notify

if TYPE_CHECKING:
    from lary_data.sampling import Method

FRAMES = 9
"""Of a clip, as in LARYBench."""


@click.command()
@click.argument("source", metavar="[CSV]", required=False, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The CSV to write; may be the same file.")
@click.option(
    "--media", type=click.Path(path_type=Path), help="Folder that the paths are relative to; default: the CSV's."
)
@click.option("-d", "--dataset", metavar="KEY", help="Take CSV, folder and columns from a dataset's card.")
@click.option("--split", metavar="SPLIT", help="With -d: which split.")
@click.option("--column", default=VideoColumns().video, show_default=True, help="Column of the clips.")
@click.option("--frames", type=click.IntRange(min=2), help="Frames of a clip; default: the card's, else 9.")
@click.option("--method", type=click.Choice(["motion", "uniform"]), default="motion", show_default=True)
@workers_option
@timeout_option(300)
@max_failed_option
def command(
    source: Path | None, out: Path, media: Path | None, dataset: str | None, split: str | None, column: str,
    frames: int | None, method: "Method", workers: int, timeout: float, max_failed: float,
) -> None:  # fmt: skip
    """Choose the frames of every clip that a CSV names.

    `motion` takes frames at equal steps of accumulated motion, as LARYBench; clips that are short or do not move are
    sampled uniformly, and the column `sampling` says so. Every row is kept: one that fails has an empty cell and its
    reason in `sampling`. A killed run goes on where it was.

    \b
    lary-orch data sample-frames clips.csv --out sampled.csv --media /data/clips
    lary-orch data sample-frames -d human_1st --split val --out human_1st_metadata_val.csv
    """
    from lary_data.sample_frames import Sampler, sample_csv

    if dataset is not None:
        if source is not None:
            raise ContractError("give a CSV, or a dataset by -d KEY --split SPLIT, not both")
        source, clips, columns, frames = _of_dataset(dataset, split, media, frames)
    elif source is not None:
        folder = media or source.parent
        clips = CellFiles(folder, folder, None)
        columns = VideoColumns(video=column)
    else:
        raise ContractError("name a CSV, or a dataset by -d KEY --split SPLIT")
    sampler = Sampler(clips, frames or FRAMES, method, workers, timeout)
    counts = sample_csv(source, out, columns.video, columns.indices, sampler)
    rows = counts.total()
    notify(f"{out}: {rows:,} rows: " + ", ".join(f"{count:,} {how}" for how, count in counts.most_common()))
    if counts["failed"] > max_failed * rows:
        raise TooManyFailedError(f"{counts['failed']:,} of {rows:,} rows failed; column 'sampling' says why")


def _of_dataset(
    key: str, split: str | None, media: Path | None, frames: int | None
) -> tuple[Path, CellFiles, VideoColumns, int]:
    """CSV, clips, columns and frames of a split."""
    files = find_dataset(key)
    columns = files.card.columns
    if not isinstance(columns, VideoColumns):
        raise ContractError(f"dataset {key} has image pairs and no clips; there is nothing to sample")
    if split not in files.csv:
        raise ContractError(f"-d {key} needs --split {'|'.join(files.csv)}")
    clips = files.media(split)
    return files.csv[split], replace(clips, root=media or clips.root), columns, frames or files.card.frames
