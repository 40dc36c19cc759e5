"""A manifest of image pairs with action chunks from a LeRobot dataset, split by episode."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lary_schema.atomic import PARTIAL_SUFFIX, publish_text
from lary_schema.base import ContractError, canonical_json, file_sha256
from lary_schema.cards import Actions, DatasetCard, Normalisation, PairColumns

from lary_data.lerobot import Episode, LeRobot
from lary_data.lerobot_files import (
    Chunk,
    DataRows,
    Faults,
    Frame,
    VideoFrames,
    absent,
    action_name,
    image_name,
    write_data_rows,
    write_video_frames,
)
from lary_data.manifest import TRAIN, VAL, SetFacts, held_out, metadata_name, write_card, write_split
from lary_data.pool import run_tasks
from lary_data.progress import progress, say

HEADER = ("dataset", "robot_type", "episode_id", "task", "src_img", "tgt_img", "action")
SETTINGS = "manifest.json"
"""What the files in the folder were made from: others are not mixed in."""


@dataclass(frozen=True)
class Pairs:
    """Which pairs are taken, and how."""

    stride: int
    """Steps between the two frames, and of an action chunk."""
    every: int
    """Steps between the first frames of two pairs."""
    workers: int
    timeout_s: float

    def starts(self, episode: Episode) -> range:
        """First frames of the episode's pairs; the second one lies in the episode too."""
        return range(0, episode.length - self.stride, self.every)


def write_pair_manifest(out: Path, dataset: LeRobot, facts: SetFacts, pairs: Pairs) -> tuple[Path, int, int]:
    """Frames, chunks, CSVs and card in `out`; the card, how many episodes there are and how many failed.

    An episode that fails is left out and named on stderr. What is there already is kept. Raises ContractError where
    `out` was made from something else, and where a split would be empty.
    """
    _claim(out, dataset, pairs)
    faults: Faults = {}
    for what, function, tasks in (
        ("actions", write_data_rows, _data_tasks(out, dataset, pairs)),
        ("frames", write_video_frames, _video_tasks(out, dataset, pairs)),
    ):
        _do(f"writing {what}", function, tasks, pairs, faults)
    for episode, why in sorted(faults.items()):
        say(f"episode {episode} is left out: {why}")
    used = [episode for episode in dataset.episodes if pairs.starts(episode)]
    if len(used) < len(dataset.episodes):
        say(f"{len(dataset.episodes) - len(used)} episodes are not longer than the stride and give no pair")
    val = held_out([episode.number for episode in used], facts.val, facts.seed)
    for split in (TRAIN, VAL):
        episodes = [e for e in used if (e.number in val) == (split == VAL) and e.number not in faults]
        write_split(
            out, facts.key, split, HEADER, [row for e in episodes for row in _rows(facts.key, dataset, e, pairs)]
        )
    return write_card(out, _card(dataset, facts, pairs)), len(dataset.episodes), len(faults)


def _claim(out: Path, dataset: LeRobot, pairs: Pairs) -> None:
    made_from = {
        "dataset": str(dataset.root.resolve()), "info_sha256": file_sha256(dataset.root / "meta" / "info.json"),
        "camera": dataset.camera, "action": dataset.action, "stride": pairs.stride,
    }  # fmt: skip
    if out.resolve() == dataset.root.resolve():
        raise ContractError(f"{out}: is the LeRobot dataset itself; choose another --out")
    path, text = out / SETTINGS, canonical_json(made_from).decode() + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise ContractError(f"{path}: the folder holds files made from other data or settings; choose another --out")
    publish_text(path, text)
    for folder in ("images", "actions"):
        for left_behind in (out / folder).rglob(f"*{PARTIAL_SUFFIX}"):
            left_behind.unlink(missing_ok=True)


def _do(
    title: str,
    function: Callable[[Any], Faults],
    tasks: Sequence[tuple[Any, Iterable[int]]],
    pairs: Pairs,
    faults: Faults,
) -> None:
    """Do the tasks; a task that fails as a whole is a fault of all its episodes."""
    episodes_of = {id(task): set(episodes) for task, episodes in tasks}
    with progress(title, len(tasks), "files") as tick:
        for done in run_tasks(function, [task for task, _ in tasks], pairs.workers, pairs.timeout_s):
            found = done.answer
            if found is None:
                found = dict.fromkeys(episodes_of[id(done.task)], done.fault)
            faults |= found
            tick(len(faults))


def _data_tasks(out: Path, dataset: LeRobot, pairs: Pairs) -> list[tuple[DataRows, list[int]]]:
    by_file: dict[str, list[Episode]] = defaultdict(list)
    for episode in dataset.episodes:
        by_file[episode.data].append(episode)
    tasks = []
    for file, episodes in by_file.items():
        chunks = absent([
            Chunk(e.number, start, str(out / action_name(e.number, start, pairs.stride)))
            for e in episodes for start in pairs.starts(e)
        ])  # fmt: skip
        images = absent([frame for e in episodes if e.video is None for frame in _frames(out, dataset, e, pairs)])
        camera = dataset.camera if images else None
        if chunks or images:
            lengths = {e.number: e.length for e in episodes}
            task = DataRows(file, dataset.action, camera, pairs.stride, len(dataset.names), lengths, chunks, images)
            tasks.append((task, list(lengths)))
    return tasks


def _video_tasks(out: Path, dataset: LeRobot, pairs: Pairs) -> list[tuple[VideoFrames, set[int]]]:
    by_file: dict[str, list[Frame]] = defaultdict(list)
    for episode in dataset.episodes:
        if episode.video is not None:
            by_file[episode.video] += _frames(out, dataset, episode, pairs)
    missing = {video: absent(frames) for video, frames in by_file.items()}
    return [
        (VideoFrames(video, 0.5 / dataset.fps, frames), {frame.episode for frame in frames})
        for video, frames in missing.items() if frames
    ]  # fmt: skip


def _frames(out: Path, dataset: LeRobot, episode: Episode, pairs: Pairs) -> list[Frame]:
    """The frames of an episode's pairs, each once."""
    numbers = sorted({frame for start in pairs.starts(episode) for frame in (start, start + pairs.stride)})
    return [
        Frame(episode.start_s + n / dataset.fps, episode.number, n, str(out / image_name(episode.number, n)))
        for n in numbers
    ]


def _rows(key: str, dataset: LeRobot, episode: Episode, pairs: Pairs) -> list[list[str]]:
    head = [key, dataset.robot_type, str(episode.number), episode.task]
    return [
        [*head, image_name(episode.number, start), image_name(episode.number, start + pairs.stride),
         action_name(episode.number, start, pairs.stride)]
        for start in pairs.starts(episode)
    ]  # fmt: skip


def _card(dataset: LeRobot, facts: SetFacts, pairs: Pairs) -> DatasetCard:
    actions = Actions(
        folder=".", stride=pairs.stride, dim=len(dataset.names), names=dataset.names,
        normalisation=Normalisation(kind="train"),
    )  # fmt: skip
    return DatasetCard(
        key=facts.key, title=facts.title, task="regression", columns=PairColumns(),
        metadata=(metadata_name(facts.key),), actions=actions, license=facts.license,
        source=f"the LeRobot dataset {dataset.root.name}",
    )  # fmt: skip
