"""A manifest of image pairs with action chunks from a LeRobot dataset, split by episode."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import NamedTuple

from lary_schema.base import ContractError
from lary_schema.cards import Actions, DatasetCard, Normalisation, PairColumns

from lary_data.lerobot import Episode, LeRobot
from lary_data.lerobot_files import (
    Chunk,
    DataRows,
    Frame,
    Span,
    VideoFrames,
    absent,
    action_name,
    image_name,
    write_data_rows,
    write_video_frames,
)
from lary_data.lerobot_latents import STEP, annotated, write_latents
from lary_data.lerobot_steps import Faults, Steps, read_steps
from lary_data.manifest import (
    NAMED,
    TRAIN,
    VAL,
    SetFacts,
    grouping,
    held_out_episodes,
    metadata_name,
    retract,
    write_splits,
)
from lary_data.owned_cards import write_card
from lary_data.pool import run_tasks
from lary_data.progress import notify, progress
from lary_data.resuming import ResultLog, claim_folder, file_identity, result_key

HEADER = ("dataset", "robot_type", "episode_id", "task", "src_img", "tgt_img", "action")
SETTINGS, LOG = "manifest.json", "manifest.answers"
"""What the files in the folder were made from (others are not mixed in), and which sources are done, as they were."""
_REVISION = 2
"""Bump when the same sources could give other files, or an episode that was good could be a fault."""


@dataclass(frozen=True)
class Pairs:
    """Which pairs are taken, and how."""

    stride: int
    """Steps between the two frames, and of an action chunk."""
    every: int
    """Steps between the first frames of two pairs."""
    tolerance_s: float
    """How far from a row's time its frame may be shown."""
    workers: int
    timeout_s: float

    def starts(self, episode: Episode) -> range:
        """First frames of the episode's pairs; the second one lies in the episode too."""
        return range(0, episode.length - self.stride, self.every)


class _Work(NamedTuple):
    """One source file to read."""

    key: str | None
    """Of the source as it is and of all that is made from it; None where it cannot be looked at."""
    task: DataRows | VideoFrames
    episodes: frozenset[int]
    known: bool
    """An earlier call has read the same source and found nothing wrong."""


def write_pair_manifest(out: Path, dataset: LeRobot, facts: SetFacts, pairs: Pairs) -> tuple[Path, int, int]:
    """Frames, chunks, CSVs and card in `out`; the card, how many episodes there are and how many failed.

    An episode that fails is left out and named on stderr. What is there already is kept where its sources are as they
    were. Raises ContractError where `out` was made from something else, where the sources contradict each other as a
    whole, and where a split would be empty.
    """
    if pairs.tolerance_s >= 0.5 / dataset.fps:
        raise ContractError(f"--tolerance {pairs.tolerance_s:g} s is half a step or more ({dataset.fps:g} fps)")
    _claim(out, dataset, pairs)
    steps = read_steps(dataset, pairs.tolerance_s)
    _say_notes(dataset, steps)
    faults = dict(steps.faults)
    with ResultLog(out / LOG) as log:
        _write_files(out, dataset, facts.key, pairs, steps, log, faults)
    for number, why in sorted(faults.items()):
        notify(f"episode {number} is left out: {why}")
    used = [episode for episode in dataset.episodes if pairs.starts(episode)]
    if len(used) < len(dataset.episodes):
        notify(f"{len(dataset.episodes) - len(used)} episodes are not longer than the stride and give no pair")
    val = held_out_episodes({episode.number: episode.task for episode in used}, facts)
    rows: dict[str, list[list[str]]] = {TRAIN: [], VAL: []}
    good = [episode for episode in used if episode.number not in faults]
    latents = annotated(dataset, pairs.stride)
    if latents is not None:
        write_latents(out, latents, good)
    for episode in good:
        rows[VAL if episode.number in val else TRAIN] += _rows(facts.key, dataset, episode, pairs, latents is not None)
    write_splits(out, facts.key, HEADER if latents is None else (*HEADER, STEP), rows)
    card = _card(dataset, facts, pairs, _has_texts(good)).model_copy(update={"latents": latents})
    return write_card(out, card), len(dataset.episodes), len(faults)


def _has_texts(episodes: Sequence[Episode]) -> bool:
    """Whether every episode says what is done in it; that some do not is said."""
    without = [str(episode.number) for episode in episodes if not episode.task.strip()]
    if 0 < len(without) < len(episodes):
        named = ", ".join(without[:NAMED]) + (", ..." if len(without) > NAMED else "")
        notify(f"{len(without)} episodes have no task, so the card names no instruction: {named}")
    return not without


def _say_notes(dataset: LeRobot, steps: Steps) -> None:
    for note in dataset.notes:
        notify(note)
    if steps.untimed:
        notify(f"{steps.untimed[0]}: no column timestamp ({len(steps.untimed)} tables); frame_index / fps is taken")
    named = {normpath(file) for e in dataset.episodes for file in (e.data, e.video) if file is not None}
    folders = [dataset.root / "data", *(path for path in (dataset.root / "videos").rglob(dataset.camera))]
    there = sorted(str(path) for folder in folders for path in folder.rglob("*") if not path.is_dir())
    if unnamed := [path for path in there if normpath(path) not in named]:
        more = ", ..." if len(unnamed) > NAMED else ""
        notify(f"{len(unnamed)} files belong to no episode and are not read: {', '.join(unnamed[:NAMED])}{more}")


def _claim(out: Path, dataset: LeRobot, pairs: Pairs) -> None:
    made_from = {
        "dataset": str(dataset.root.resolve()), "camera": dataset.camera, "action": dataset.action,
        "stride": pairs.stride, "tolerance_s": pairs.tolerance_s,
    }  # fmt: skip
    if out.resolve() == dataset.root.resolve():
        raise ContractError(f"{out}: is the LeRobot dataset itself; choose another --out")
    claim_folder(out / SETTINGS, made_from, ("images", "actions"))


def _write_files(
    out: Path, dataset: LeRobot, key: str, pairs: Pairs, steps: Steps, log: ResultLog, faults: Faults
) -> None:
    """Actions and frames of the episodes whose rows are all there."""
    episodes = [episode for episode in dataset.episodes if episode.number in steps.times]
    works = [_work(task, found, log) for task, found in _tasks(out, dataset, episodes, pairs, steps)]
    waiting = [work for work in works if not work.known or _is_wanted(work.task)]
    if waiting or faults:
        # What an earlier call wrote of these sources is not true any more, or not whole.
        retract(out, key)
    for what, kind in (("actions", DataRows), ("frames", VideoFrames)):
        _do(f"writing {what}", [work for work in waiting if isinstance(work.task, kind)], pairs, log, faults)


def _is_wanted(task: DataRows | VideoFrames) -> bool:
    return bool(task.frames if isinstance(task, VideoFrames) else task.chunks or task.images)


def _work(task: DataRows | VideoFrames, episodes: frozenset[int], log: ResultLog) -> _Work:
    """All that is to be made of a source; where it was read before, what is not there alone."""
    identity = file_identity(Path(task.video if isinstance(task, VideoFrames) else task.file))
    key = None if identity is None else result_key(identity, [_REVISION, task])
    if key is None or log.get(key) is None:
        return _Work(key, task, episodes, known=False)
    if isinstance(task, VideoFrames):
        return _Work(key, task._replace(frames=absent(task.frames)), episodes, known=True)
    rest = task._replace(chunks=absent(task.chunks), images=absent(task.images))
    return _Work(key, rest, episodes, known=True)


def _write(task: DataRows | VideoFrames) -> Faults:
    return write_video_frames(task) if isinstance(task, VideoFrames) else write_data_rows(task)


def _do(title: str, works: Sequence[_Work], pairs: Pairs, log: ResultLog, faults: Faults) -> None:
    """Do the tasks; one that fails as a whole is a fault of all its episodes. Only what is good is remembered."""
    by_task = {id(work.task): work for work in works}
    with progress(title, len(works), "files") as tick:
        for done in run_tasks(_write, [work.task for work in works], pairs.workers, pairs.timeout_s):
            work, found = by_task[id(done.task)], done.result
            if found is None:
                found = dict.fromkeys(work.episodes, done.fault)
            elif not found and work.key is not None and not work.known:
                log.put(work.key, True)
            for episode, why in found.items():
                faults.setdefault(episode, why)
            tick(len(faults))


def _tasks(
    out: Path, dataset: LeRobot, episodes: Sequence[Episode], pairs: Pairs, steps: Steps
) -> Iterator[tuple[DataRows | VideoFrames, frozenset[int]]]:
    """Every source file with what is to be made of it, and its episodes."""
    yield from _data_tasks(out, dataset, episodes, pairs, steps)
    ends = _video_ends(dataset)
    for video, inside in _by(episodes, lambda episode: episode.video).items():
        spans = tuple(
            Span(e.number, e.window, tuple((e.window.start_s + steps.times[e.number]).tolist()))
            for e in inside if e.length
        )  # fmt: skip
        frames = tuple(frame for e in inside for frame in _frames(out, e, pairs, steps))
        task = VideoFrames(video, pairs.tolerance_s, 1 / dataset.fps, ends.get(video), spans, frames)
        yield task, frozenset(span.episode for span in spans)


def _data_tasks(
    out: Path, dataset: LeRobot, episodes: Sequence[Episode], pairs: Pairs, steps: Steps
) -> Iterator[tuple[DataRows, frozenset[int]]]:
    for file, inside in _by(episodes, lambda episode: episode.data).items():
        chunks = [
            Chunk(e.number, start, str(out / action_name(e.number, start, pairs.stride)))
            for e in inside for start in pairs.starts(e)
        ]  # fmt: skip
        images = [frame for e in inside if e.video is None for frame in _frames(out, e, pairs, steps)]
        lengths = {e.number: e.length for e in inside}
        yield DataRows(
            file, dataset.action, dataset.camera if images else None, pairs.stride, len(dataset.names), lengths,
            tuple(chunks), tuple(images),
        ), frozenset(lengths)  # fmt: skip


def _video_ends(dataset: LeRobot) -> dict[str | None, float]:
    """Video -> the end of its last episode in seconds, of all episodes, chosen or not."""
    ends: dict[str | None, float] = {}
    for e in dataset.episodes:
        if e.window.end_s is not None:
            ends[e.video] = max(e.window.end_s, ends.get(e.video, 0.0))
    return ends


def _by(episodes: Iterable[Episode], file: Callable[[Episode], str | None]) -> dict[str, list[Episode]]:
    found: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        if (name := file(episode)) is not None:
            found[name].append(episode)
    return found


def _frames(out: Path, episode: Episode, pairs: Pairs, steps: Steps) -> list[Frame]:
    """The frames of an episode's pairs, each once."""
    numbers = sorted({frame for start in pairs.starts(episode) for frame in (start, start + pairs.stride)})
    times = episode.window.start_s + steps.times[episode.number]
    return [Frame(float(times[n]), episode.number, n, str(out / image_name(episode.number, n))) for n in numbers]


def _rows(key: str, dataset: LeRobot, episode: Episode, pairs: Pairs, steps: bool) -> list[list[str]]:
    """`steps`: whether a row says at which step it begins."""
    facts = [key, dataset.robot_type, str(episode.number), episode.task]
    return [
        [*facts, image_name(episode.number, start), image_name(episode.number, start + pairs.stride),
         action_name(episode.number, start, pairs.stride), *([str(start)] if steps else [])]
        for start in pairs.starts(episode)
    ]  # fmt: skip


def _card(dataset: LeRobot, facts: SetFacts, pairs: Pairs, has_texts: bool) -> DatasetCard:
    actions = Actions(
        folder=".", stride=pairs.stride, dim=len(dataset.names), names=dataset.names,
        normalisation=Normalisation(kind="train"),
    )  # fmt: skip
    return DatasetCard(
        key=facts.key, title=facts.title, task="regression", columns=PairColumns(),
        metadata=(metadata_name(facts.key),), root=".", actions=actions, group=grouping(facts),
        instruction="task" if has_texts else None,
        license=facts.license,
        source=f"the LeRobot dataset {dataset.root.name}",
    )  # fmt: skip
