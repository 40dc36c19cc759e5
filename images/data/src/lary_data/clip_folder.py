"""A manifest of a folder of clips: one folder per class, the clips anywhere below it."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard, Labels, VideoColumns
from lary_schema.groups import PART, Grouping
from lary_schema.labels import alike
from lary_schema.metadata import INDICES_SEPARATOR

from lary_data.folder_walk import Found, LeftOut, name_fault, shown, walk
from lary_data.manifest import (
    GROUP_COLUMN,
    TRAIN,
    VAL,
    SetFacts,
    held_out,
    metadata_name,
    own_root,
    write_splits,
)
from lary_data.owned_cards import write_card
from lary_data.progress import notify
from lary_data.resuming import ResultLog
from lary_data.sample_frames import HOW_COLUMN, LOG_SUFFIX, Outcome, Sampler, csv_text, failed, sample_clips

NAMED = 5
"""Files of a reason that are named; all are counted."""
FAILED_NAMED = 20


def write_clip_manifest(
    out: Path, facts: SetFacts, sampler: Sampler, pattern: str | None = None
) -> tuple[Path, int, int]:
    """CSVs and card of the clips below `sampler.media.root`; the card, how many clips there are and how many failed.

    A clip that fails stays, without indices; every other file is named or at least counted on stderr, and in
    `KEY_left_out.csv`. `pattern` finds each clip's group in its path: whole groups are held out then. Raises
    ContractError for a folder without clips in classes, and for classes whose names look alike.
    """
    root = sampler.media.root
    if not root.is_dir():
        raise ContractError(f"{root}: no such folder")
    found = walk(root, out)
    _say_left_out(found.left_out, out, facts.key)
    classes = _classes(found, root)
    groups = {name: _group(pattern, name) for name in found.clips} if pattern is not None else None
    outcomes = _sampled(found.clips, sampler, out / f"{facts.key}{LOG_SUFFIX}")
    val = _held_out(classes, groups, facts)
    rows: dict[str, list[list[str]]] = {TRAIN: [], VAL: []}
    for label, clips in classes.items():
        for name in clips:
            cells = _cells(name, label, outcomes[name], groups)
            rows[VAL if name in val else TRAIN].append(cells)
    columns = VideoColumns()
    header = [columns.video, Labels().column, columns.indices, HOW_COLUMN, *([GROUP_COLUMN] if groups else [])]
    write_splits(out, facts.key, header, rows)
    card = DatasetCard(
        key=facts.key, title=facts.title, task="classification", columns=columns, metadata=(metadata_name(facts.key),),
        root=own_root(root),
        frames=sampler.frames, labels=Labels(classes=len(classes)), license=facts.license,
        group=Grouping(column=GROUP_COLUMN) if groups else None, source=f"the folder {shown(root.name)}",
    )  # fmt: skip
    failures = [how for indices, how in outcomes.values() if not indices]
    for line in failures[:FAILED_NAMED]:
        notify(line)
    return write_card(out, card), len(found.clips), len(failures)


def _sampled(clips: Sequence[str], sampler: Sampler, log_file: Path) -> dict[str, Outcome]:
    """The outcome of every clip; one whose name no CSV can hold has failed unread."""
    faults = {name: fault for name in clips if (fault := name_fault(name))}
    with ResultLog(log_file) as log:
        outcomes = sample_clips([name for name in clips if name not in faults], sampler, log)
    for name, fault in faults.items():
        outcomes[name] = failed(f"{shown(name)}: {fault}, so no CSV can hold it; rename the file")
    return outcomes


def _classes(found: Found, root: Path) -> dict[str, list[str]]:
    """Label -> its clips, both sorted."""
    by_folder: dict[str, list[str]] = {folder: [] for folder in found.folders}
    for name in found.clips:
        by_folder[name.partition("/")[0]].append(name)
    for folder, clips in by_folder.items():
        if not clips:
            notify(f"class {shown(folder)!r} has no clip: it is left out")
        elif len(clips) == 1:
            notify(f"class {shown(folder)!r} has one clip: it is in {TRAIN} alone")
    classes = {shown(folder): clips for folder, clips in by_folder.items() if clips}
    if not classes:
        raise ContractError(
            f"{root}: no clips in folders of classes; expected {root.name}/CLASS/.../NAME.mp4 (or .avi, .mkv, ...)"
        )
    if same := alike(classes):
        raise ContractError(f"{root}: the folders {' and '.join(map(repr, same[0]))} would be two classes; rename one")
    return classes


def _say_left_out(left_out: tuple[LeftOut, ...], out: Path, key: str) -> None:
    """Name the files that give no clip, by reason; all of them in a CSV, which is there only where there are any."""
    path = out / f"{key}_left_out.csv"
    if not left_out:
        path.unlink(missing_ok=True)
        return
    publish_text(path, csv_text([LeftOut._fields, *left_out]))
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in left_out:
        by_reason[reason].append(name)
    notify(f"{len(left_out):,} {'file is' if len(left_out) == 1 else 'files are'} left out, see {path}:")
    for reason, names in sorted(by_reason.items()):
        notify(f"  {len(names):,} {reason}: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}")


def _group(pattern: str, name: str) -> str:
    match = re.search(pattern, name)
    group = (match.group(PART) or "").strip() if match else ""
    if not group:
        raise ContractError(f"{shown(name)}: --group {pattern!r} finds no group in it")
    return shown(group)


def _held_out(classes: dict[str, list[str]], groups: dict[str, str] | None, facts: SetFacts) -> set[str]:
    """The clips of val: of every class its share, or whole groups."""
    if groups is None:
        return {n for label, clips in classes.items() for n in held_out(clips, facts.val, f"{facts.seed}/{label}")}
    names = held_out(sorted(set(groups.values())), facts.val, facts.seed)
    val = {name for name, group in groups.items() if group in names}
    for label, clips in classes.items():
        if missing := [split for split, there in ((TRAIN, set(clips) - val), (VAL, val & set(clips))) if not there]:
            notify(f"class {label!r} has no clip in {missing[0]}: its groups are all in the other split")
    return val


def _cells(name: str, label: str, outcome: Outcome, groups: dict[str, str] | None) -> list[str]:
    indices, how = outcome
    group = [groups[name]] if groups is not None else []
    return [shown(name) if name_fault(name) else name, label, INDICES_SEPARATOR.join(map(str, indices)), how, *group]
