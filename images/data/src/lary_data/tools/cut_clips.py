"""`cut-clips`: the clips of SSv2 and EgoDex that LARYBench's annotations name."""

from collections import Counter
from pathlib import Path

import click
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.printable import printable

from lary_data.annotations import Clip, Source, annotated_clips
from lary_data.options import max_failed_option, timeout_option, workers_option
from lary_data.progress import notify

SHOWN = 20
_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path)


@click.command()
@click.option("--ssv2-csv", type=_file, help="seed_ssv2.csv")
@click.option("--ssv2-root", type=_folder, help="Folder of SSv2's videos (100020.webm ...).")
@click.option("--egodex-csv", type=_file, help="seed_egodex.csv")
@click.option("--egodex-root", type=_folder, help="Folder of EgoDex (part1/ ...).")
@click.option("--out", type=_folder, required=True, help="Folder of classification media; SSv2/ and EgoDex/ go there.")
@click.option("--metadata", type=_file, multiple=True, help="Cut only the clips that this CSV names; repeat it.")
@workers_option
@timeout_option(300)
@max_failed_option
def command(
    ssv2_csv: Path | None, ssv2_root: Path | None, egodex_csv: Path | None, egodex_root: Path | None, out: Path,
    metadata: tuple[Path, ...], workers: int, timeout: float, max_failed: float,
) -> None:  # fmt: skip
    """Cut the clips of SSv2 and EgoDex out of the videos, by ffmpeg.

    Clips that are there are kept, so a killed run goes on where it was. Without --metadata every annotated clip is
    cut, forwards and reversed.

    \b
    lary-orch data cut-clips --ssv2-csv seed_ssv2.csv --ssv2-root /videos/ssv2 \\
        --metadata human_1st_metadata_train.csv --metadata human_1st_metadata_val.csv --out /data/classification
    """
    from lary_data.cutting import cut_clips

    given: list[tuple[Source, Path | None, Path | None]] = [
        ("SSv2", ssv2_csv, ssv2_root), ("EgoDex", egodex_csv, egodex_root),
    ]  # fmt: skip
    clips = [clip for source, csv, root in given for clip in _annotated(source, csv, root)]
    if not any(csv for _, csv, _ in given):
        raise ContractError("give --ssv2-csv and --ssv2-root, or --egodex-csv and --egodex-root, or all four")
    sources = [source for source, csv, _ in given if csv]
    unknown = 0
    if metadata:
        clips, unknown = _wanted(clips, sources, metadata)
    report = cut_clips(clips, out, workers, timeout)
    notify(f"{out}: {report.cut:,} cut, {report.kept:,} there before, {len(report.failed):,} failed")
    for line in report.failed[:SHOWN]:
        notify(f"  {line}")
    if len(report.failed) + unknown > max_failed * (len(clips) + unknown):
        raise TooManyFailedError(f"{len(report.failed):,} clips failed, {unknown:,} are not annotated")


def _annotated(source: Source, csv: Path | None, root: Path | None) -> list[Clip]:
    if csv is None:
        return []
    name = source.lower()
    if root is None or not root.is_dir():
        raise ContractError(f"--{name}-csv needs --{name}-root, the folder of its videos; it is {root or 'not given'}")
    return list(annotated_clips(csv, source, root))


def _wanted(clips: list[Clip], sources: list[Source], metadata: tuple[Path, ...]) -> tuple[list[Clip], int]:
    """The clips that CSVs name, and how many they name that no annotation has."""
    from lary_schema.metadata import read_rows

    cells = [row.get("video_path") or "" for csv in metadata for row in read_rows(csv, ("video_path",))]
    named = dict.fromkeys(cell for cell in cells if cell.partition("/")[0] in sources)
    if others := Counter(cell.partition("/")[0] or "(empty)" for cell in cells if cell not in named):
        counts = ", ".join(f"{printable(name)} ({count:,})" for name, count in others.most_common(SHOWN))
        notify(f"{others.total():,} rows of the metadata name clips of other sources, which are not cut: {counts}")
    wanted = [clip for clip in clips if clip.name in named]
    unknown = sorted(set(named) - {clip.name for clip in wanted})
    for name in unknown[:SHOWN]:
        notify(f"{name}: named by the metadata, but no annotation has it")
    return wanted, len(unknown)
