"""A manifest of a folder of clips: one folder per class, the clips anywhere below it."""

from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard, Labels, VideoColumns
from lary_schema.metadata import INDICES_SEPARATOR

from lary_data.manifest import TRAIN, VAL, SetFacts, held_out, metadata_name, write_card, write_splits
from lary_data.progress import say
from lary_data.resuming import AnswerLog
from lary_data.sample_frames import HOW_COLUMN, LOG_SUFFIX, Sampler, sample_clips

SUFFIXES = {".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v"}


def write_clip_manifest(out: Path, facts: SetFacts, sampler: Sampler) -> tuple[Path, int, int]:
    """CSVs and card of the clips in `sampler.media`; the card, how many clips there are and how many failed.

    A clip that fails stays, without indices. Raises ContractError for a folder without clips in classes.
    """
    classes = find_clips(sampler.media)
    names = [name for clips in classes.values() for name in clips]
    with AnswerLog(out / f"{facts.key}{LOG_SUFFIX}") as log:
        outcomes = sample_clips(names, sampler, log)
    val = {name for label, clips in classes.items() for name in held_out(clips, facts.val, f"{facts.seed}/{label}")}
    for label, clips in classes.items():
        if len(clips) == 1:
            say(f"class {label!r} has one clip: it is in {TRAIN} alone")
    rows: dict[str, list[list[str]]] = {TRAIN: [], VAL: []}
    for label, clips in classes.items():
        for name in clips:
            indices, how = outcomes[name]
            rows[VAL if name in val else TRAIN].append(
                [name, label, INDICES_SEPARATOR.join(map(str, indices)), how],
            )
    columns = VideoColumns()
    write_splits(out, facts.key, [columns.video, Labels().column, columns.indices, HOW_COLUMN], rows)
    card = DatasetCard(
        key=facts.key, title=facts.title, task="classification", columns=columns, metadata=(metadata_name(facts.key),),
        frames=sampler.frames, labels=Labels(classes=len(classes)), license=facts.license,
        source=f"the folder {sampler.media.name}",
    )  # fmt: skip
    failures = [how for indices, how in outcomes.values() if not indices]
    for line in failures[:20]:
        say(line)
    return write_card(out, card), len(names), len(failures)


def find_clips(root: Path) -> dict[str, list[str]]:
    """Class -> its clips, as paths relative to `root`, both sorted. Raises ContractError where there are none."""
    if not root.is_dir():
        raise ContractError(f"{root}: no such folder")
    classes = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if clips := sorted(path.relative_to(root).as_posix() for path in files):
            classes[folder.name] = clips
    if not classes:
        raise ContractError(
            f"{root}: no clips in folders of classes; expected {root.name}/CLASS/.../NAME.mp4 "
            f"(or {', '.join(sorted(SUFFIXES - {'.mp4'}))})"
        )
    return classes
