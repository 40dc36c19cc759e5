"""Labels written into trajectories: one .npz per episode, LeRobot v3, or TFRecord shards of episodes.

Every file is whole or absent. What is done is kept in a log; a killed run goes on after it and ends in the same bytes.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.atomic import PARTIAL_SUFFIX, is_unused, publish_text, replacing
from lary_schema.base import ContractError, canonical_json

from lary_data.labels import Arrays, Counts, Labels, one_model
from lary_data.progress import Tick
from lary_data.resuming import ResultLog, file_identity, result_key

SETTINGS, LOG = "annotate.json", "annotate.log"
"""What the folder was made from; which files are done. Both are of that folder alone."""
Write = Callable[[Path, Path, Counts], None]
"""Make the second file of the first, and count."""
_REVISION = 1
"""Bump when the same sources could give other files."""


@dataclass(frozen=True)
class Annotation:
    """Labels of some splits, and where they go."""

    labels: Mapping[str, Labels]
    out: Path
    replace: bool
    """Labels that are there already are replaced; else refused."""

    @property
    def facts(self) -> dict[str, Any]:
        """Of the labels: what a reader needs to know of them."""
        return one_model(self.labels).facts | {"codes": max(labels.codes for labels in self.labels.values())}

    @property
    def any(self) -> Labels:
        """Of some split: names, columns and single values are those of all."""
        return next(iter(self.labels.values()))

    def refuse_present(self, found: Iterable[str], where: str, prefix: str = "") -> None:
        """Raises ContractError where labels of these names are there already and are not to be replaced."""
        there = [name for name in found if name.removeprefix(prefix) in self.any.names]
        if there and not self.replace:
            raise ContractError(f"{where}: has {', '.join(there)} already; replace them by --replace")

    def all_episodes(self) -> dict[str, Labels]:
        """Of all splits. Raises ContractError for an episode that stands in two of them."""
        found: dict[str, Labels] = {}
        for split, labels in self.labels.items():
            for episode in labels.by_episode:
                if episode in found:
                    raise ContractError(f"split {split}: episode {episode} stands in another split too")
                found[episode] = labels
        return found

    def claim(self, **made_from: str) -> None:
        """Make the folder, or go on in it. Raises ContractError where it was made from something else."""
        path = self.out / SETTINGS
        text = canonical_json({"facts": self.facts, "revision": _REVISION, **made_from}).decode() + "\n"
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise ContractError(f"{path}: the folder holds labels made otherwise; choose another --to")
        if not path.is_file() and not is_unused(self.out):
            raise ContractError(f"{self.out}: is not empty and was not made by this tool; choose another --to")
        publish_text(path, text)
        for left_behind in self.out.rglob(f"*{PARTIAL_SUFFIX}"):
            left_behind.unlink(missing_ok=True)

    def finish(self, folder: Path, counts: Counts) -> None:
        """The last file: labels are whole where it is."""
        said = {"episodes": counts.episodes, "steps": counts.steps, "valid": counts.valid, "failed": counts.failed}
        publish_text(folder / self.any.sidecar, json.dumps(self.facts | said, indent=2, sort_keys=True) + "\n")

    def write_files(self, sources: Iterable[tuple[Path, Path]], write: Write, counts: Counts, tick: Tick) -> None:
        """`write` each (source, target) that was not written from the same source before."""
        with ResultLog(self.out / LOG) as log:
            for source, target in sources:
                identity = file_identity(source)
                key = None if identity is None else result_key(identity, [_REVISION, self.facts, str(target)])
                before = None if key is None else log.get(key)
                if before is not None and target.is_file() and target.stat().st_size == before["bytes"]:
                    add(counts, before["counts"])
                else:
                    mine = Counts()
                    write(source, target, mine)
                    if key is not None:
                        log.put(key, {"bytes": target.stat().st_size, "counts": mine.__dict__})
                    add(counts, mine.__dict__)
                tick(0)


def add(counts: Counts, more: Mapping[str, Any]) -> None:
    """`counts` with those of another file."""
    for name, value in more.items():
        setattr(counts, name, getattr(counts, name) + value)


def link(source: Path, target: Path) -> None:
    """`target` is the same file as `source`; across volumes a symbolic link. What is there already stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a symbolic link whose file has gone
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())


# --- npz ------------------------------------------------------------------------------------------


def write_npz(annotation: Annotation, tick: Tick) -> Counts:
    """`SPLIT/EPISODE.npz` below the folder, as `latents:` of dataset cards reads them.

    The length of an episode is that which its pairs reach.
    """
    counts = Counts()
    annotation.claim(into="npz")
    for split, labels in annotation.labels.items():
        for episode in labels.by_episode:
            target = annotation.out / split / f"{episode}.npz"
            if not target.resolve().is_relative_to(annotation.out.resolve()):
                raise ContractError(f"episode {episode!r}: names a file outside of {annotation.out}")
            arrays = labels.of(episode, labels.length(episode), counts)
            if not target.is_file():
                write_arrays(target, arrays)
            tick(0)
    annotation.finish(annotation.out, counts)
    return counts


def write_arrays(path: Path, arrays: Arrays) -> None:
    """One uncompressed .npz, whole or absent; the same arrays are the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
