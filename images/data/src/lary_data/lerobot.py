"""What a LeRobot dataset on disk holds (huggingface/lerobot, formats v2.0, v2.1 and v3.0).

v2 keeps an episode in one parquet file and one video per camera, v3 many episodes in each; `meta/` says where.
Nothing of the tables and frames is read here: `meta/` alone, which must not contradict itself.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from lary_schema.base import ContractError
from lary_schema.files import is_lfs_pointer, pointer_fault

from lary_data.lerobot_info import Info, json_lines, whole_number


class Window(NamedTuple):
    """The part of a video file that is an episode, in seconds of the video."""

    start_s: float
    end_s: float | None
    """None for an episode that has a file of its own: the file's end."""


class Episode(NamedTuple):
    """One episode, and where its frames are."""

    number: int
    length: int
    """Frames, which are also steps."""
    task: str
    data: str
    """Parquet file."""
    video: str | None
    """None where the parquet rows hold the images."""
    window: Window


@dataclass(frozen=True)
class LeRobot:
    """A dataset, one of its cameras and its actions."""

    root: Path
    fps: float
    robot_type: str
    camera: str
    action: str
    names: tuple[str, ...]
    """Of the action's dimensions, flattened where it has several axes."""
    episodes: tuple[Episode, ...]
    total_frames: int | None
    """Of all episodes, as `meta/info.json` says."""
    notes: tuple[str, ...]
    """What a reader should know of this dataset and is no error."""


def read_lerobot(root: Path, camera: str | None, action: str) -> LeRobot:
    """Raises ContractError for a folder that is no such dataset, for one whose `meta/` contradicts itself, and where
    a camera must be chosen."""
    info = Info(root / "meta" / "info.json")
    camera = info.choose_camera(camera)
    version = str(info["codebase_version"])
    if version.startswith("v2."):
        episodes = tuple(sorted(_episodes_v2(info, camera)))
    elif version.startswith("v3."):
        episodes = tuple(sorted(_episodes_v3(info, camera)))
    else:
        raise ContractError(f"{info.path}: codebase_version {version!r}; v2 and v3 are read. Convert it with lerobot")
    if not episodes:
        raise ContractError(f"{root}: the dataset has no episode")
    names, notes = info.action_names(action)
    _check_numbers(info, episodes)
    _check_own_videos(episodes)
    _check_windows(episodes, info.fps())
    robot = str(info.content.get("robot_type") or "")
    total = info.count("total_frames")
    return LeRobot(root, info.fps(), robot, camera, action, names, episodes, total, tuple(notes))


def _check_numbers(info: Info, episodes: Sequence[Episode]) -> None:
    """Every episode once, and as many as `info.json` says."""
    counts = Counter(episode.number for episode in episodes)
    repeated = sorted(number for number, count in counts.items() if count > 1)
    if repeated:
        raise ContractError(
            f"{info.root / 'meta'}: episode_index {', '.join(map(str, repeated[:10]))} is there more than once; "
            "keep one of each, or convert the dataset again"
        )
    total = info.count("total_episodes")
    if total is not None and total != len(episodes):
        raise ContractError(
            f"{info.path}: total_episodes is {total}, meta/ lists {len(episodes)} episodes; "
            "complete the dataset, or correct the number"
        )


def _check_own_videos(episodes: Iterable[Episode]) -> None:
    """Of v2, where every episode has a video of its own: of equal length, another one's would fit."""
    owner: dict[str, int] = {}
    for episode in episodes:
        if episode.video is None or episode.window.end_s is not None:
            continue
        if owner.setdefault(episode.video, episode.number) != episode.number:
            raise ContractError(
                f"{episode.video}: is the video of episodes {owner[episode.video]} and {episode.number}, which have "
                "one each; correct video_path in meta/info.json"
            )


def _check_windows(episodes: Iterable[Episode], fps: float) -> None:
    """The windows of one video file follow each other: no frame belongs to two episodes, and none to no episode.

    Where they do not, it cannot be known which of them are displaced.
    """
    by_video: dict[str, list[tuple[float, float, int]]] = {}
    for episode in episodes:
        start, end = episode.window
        if episode.video is not None and end is not None:
            by_video.setdefault(episode.video, []).append((start, end, episode.number))
    for video, windows in by_video.items():
        before, expected = "the file's begin", 0.0
        for start, end, number in sorted(windows):
            distance = start - expected
            if abs(distance) > 0.5 / fps:
                fault = "overlap" if distance < 0 else "leave frames between them that belong to no episode"
                raise ContractError(
                    f"{video}: {before} and episode {number} {fault}: from_timestamp is {start:g} s, "
                    f"{expected:g} s expected. Correct meta/episodes, or convert the dataset again"
                )
            before, expected = f"episode {number}", end


# --- v2 -----------------------------------------------------------------------------------------


def _episodes_v2(info: Info, camera: str) -> Iterator[Episode]:
    path = info.root / "meta" / "episodes.jsonl"
    chunk, total = info.count("chunks_size") or 1000, info.count("total_episodes") or 0
    for number, said in json_lines(path):
        try:
            index, length = whole_number(said["episode_index"]), whole_number(said["length"])
            tasks = said.get("tasks")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ContractError(f"{path}: line {number}: not an episode: {error!r}") from None
        values = {"episode_index": index, "episode_chunk": index // chunk, "total_episodes": total}
        video = info.file("video_path", video_key=camera, **values) if info.in_video(camera) else None
        yield Episode(index, length, _task(tasks), info.file("data_path", **values), video, Window(0.0, None))


def _task(tasks: object) -> str:
    return str(tasks[0]) if isinstance(tasks, list) and tasks else str(tasks or "")


# --- v3 -----------------------------------------------------------------------------------------


def _episodes_v3(info: Info, camera: str) -> Iterator[Episode]:
    folder = info.root / "meta" / "episodes"
    needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    prefix = f"videos/{camera}/" if info.in_video(camera) else None
    further = [f"{prefix}{name}" for name in ("chunk_index", "file_index", "from_timestamp")] if prefix else []
    optional = ["tasks", "dataset_from_index", "dataset_to_index", *([f"{prefix}to_timestamp"] if prefix else [])]
    for row in _rows(folder, [*needed, *further], optional):
        try:
            yield _episode_v3(info, camera, prefix, row)
        except (ValueError, TypeError) as error:
            raise ContractError(f"{folder}: episode {row['episode_index']}: {error}") from None


def _episode_v3(info: Info, camera: str, prefix: str | None, row: dict[str, Any]) -> Episode:
    index, length = whole_number(row["episode_index"]), whole_number(row["length"])
    first, end = row.get("dataset_from_index"), row.get("dataset_to_index")
    if first is not None and end is not None and whole_number(end) - whole_number(first) != length:
        raise ValueError(f"length is {length}, dataset_from_index {first} and dataset_to_index {end} say otherwise")
    data = info.file("data_path", chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
    if prefix is None:
        return Episode(index, length, _task(row.get("tasks")), data, None, Window(0.0, None))
    chunk, file = row[f"{prefix}chunk_index"], row[f"{prefix}file_index"]
    video = info.file("video_path", video_key=camera, chunk_index=chunk, file_index=file)
    start, to = _seconds(row[f"{prefix}from_timestamp"]), row.get(f"{prefix}to_timestamp")
    window = Window(start, start + length / info.fps() if to is None else _seconds(to))
    return Episode(index, length, _task(row.get("tasks")), data, video, window)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{value!r} is no time in a video")
    return float(value)


def _rows(folder: Path, needed: list[str], optional: list[str]) -> Iterator[dict[str, Any]]:
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise ContractError(f"{folder}: no parquet file; a v3 dataset keeps its episodes there")
    for file in files:
        try:
            if is_lfs_pointer(file):
                raise ContractError(pointer_fault(file))
            if not file.is_file():
                raise ContractError(f"{file}: is no file")
            there = set(pyarrow.parquet.read_schema(file).names)
            columns = [*needed, *(name for name in optional if name in there)]
            rows = pyarrow.parquet.read_table(file, columns=columns).select(columns).to_pylist()
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise ContractError(f"{file}: no table of episodes with {', '.join(needed)}: {error}") from None
        for row in rows:
            if empty := [name for name in needed if row[name] is None]:
                raise ContractError(f"{folder}: an episode without {', '.join(empty)}")
            yield row
