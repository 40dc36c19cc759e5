"""What a LeRobot dataset on disk holds (huggingface/lerobot, formats v2.0, v2.1 and v3.0).

v2 keeps an episode in one parquet file and one video per camera, v3 many episodes in each; `meta/` says where.
Nothing of the frames is read here.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from lary_schema.base import ContractError, read_json

_CAMERA_TYPES = {"video", "image"}
"""How a camera's frames are kept: in video files, or encoded in the parquet rows."""


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
    start_s: float
    """When its first frame is shown in the video."""


@dataclass(frozen=True)
class LeRobot:
    """A dataset, one of its cameras and its actions."""

    root: Path
    fps: float
    robot_type: str
    camera: str
    action: str
    names: tuple[str, ...]
    """Of the action's dimensions."""
    episodes: tuple[Episode, ...]


def read_lerobot(root: Path, camera: str | None, action: str) -> LeRobot:
    """Raises ContractError for a folder that is no such dataset, and where a camera must be chosen."""
    info = _Info(root / "meta" / "info.json")
    camera = _choose_camera(info, camera)
    version = str(info["codebase_version"])
    if version.startswith("v2."):
        episodes = _episodes_v2(info, camera)
    elif version.startswith("v3."):
        episodes = _episodes_v3(info, camera)
    else:
        raise ContractError(f"{info.path}: codebase_version {version!r}; v2 and v3 are read. Convert it with lerobot")
    found = tuple(sorted(episodes))
    if not found:
        raise ContractError(f"{root}: the dataset has no episode")
    robot, fps = str(info.content.get("robot_type") or ""), info["fps"]
    if not isinstance(fps, int | float) or fps <= 0:
        raise ContractError(f"{info.path}: fps is {fps!r}, a number above 0 is expected")
    return LeRobot(root, float(fps), robot, camera, action, _action_names(info, action), found)


class _Info:
    """`meta/info.json`, checked on access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.parents[1]
        self.content = read_json(path)
        if not isinstance(self.content, dict):
            raise ContractError(f"{path}: not a LeRobot info.json")

    def __getitem__(self, key: str) -> Any:
        if key not in self.content:
            raise ContractError(f"{self.path}: no {key!r}; is this a LeRobot dataset?")
        return self.content[key]

    def features(self) -> dict[str, dict[str, Any]]:
        features = self["features"]
        if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
            raise ContractError(f"{self.path}: features: is not a table of features")
        return features

    def vectors(self) -> dict[str, int]:
        """Features of one axis -> their length."""
        shapes = {name: feature.get("shape") for name, feature in self.features().items()}
        return {name: int(s[0]) for name, s in shapes.items() if isinstance(s, list | tuple) and len(s) == 1}

    def file(self, key: str, **values: object) -> str:
        """The file that a path template (`data_path`, `video_path`) names."""
        template = self[key]
        try:
            return str(self.root / template.format(**values))
        except (LookupError, ValueError, AttributeError) as error:
            raise ContractError(f"{self.path}: {key} {template!r} cannot be filled in: {error}") from None


def _choose_camera(info: _Info, camera: str | None) -> str:
    cameras = [name for name, feature in info.features().items() if feature.get("dtype") in _CAMERA_TYPES]
    if camera is None and len(cameras) == 1:
        return cameras[0]
    if camera not in cameras:
        asked = "choose one by --camera" if camera is None else f"{camera!r} is none of them"
        raise ContractError(f"{info.path}: cameras are {', '.join(cameras) or 'missing'}; {asked}")
    return camera


def _in_video(info: _Info, camera: str) -> bool:
    return bool(info.features()[camera]["dtype"] == "video")


def _action_names(info: _Info, action: str) -> tuple[str, ...]:
    vectors = info.vectors()
    if action not in vectors:
        raise ContractError(f"{info.path}: {action!r} is no vector of it; choose by --action: {', '.join(vectors)}")
    names, dim = [str(name) for name in _flat(info.features()[action].get("names"))], vectors[action]
    fitting = len(names) == dim and len(set(names)) == dim
    return tuple(names) if fitting else tuple(f"{action}_{i}" for i in range(dim))


def _flat(names: Any) -> Iterator[Any]:
    """Names as they are found: a list, or lists in a dict."""
    if isinstance(names, dict):
        for value in names.values():
            yield from _flat(value)
    elif isinstance(names, list):
        for value in names:
            yield from _flat(value)
    elif names is not None:
        yield names


def _task(tasks: Any) -> str:
    return str(tasks[0]) if isinstance(tasks, list) and tasks else str(tasks or "")


def _episodes_v2(info: _Info, camera: str) -> Iterator[Episode]:
    path = info.root / "meta" / "episodes.jsonl"
    for number, line in enumerate(_lines(path), 1):
        try:
            said = json.loads(line)
            index, length, tasks = int(said["episode_index"]), int(said["length"]), said.get("tasks")
        except (ValueError, LookupError, TypeError) as error:
            raise ContractError(f"{path}: line {number}: not an episode: {error!r}") from None
        values = {"episode_index": index, "episode_chunk": index // int(info.content.get("chunks_size") or 1000)}
        values["total_episodes"] = int(info.content.get("total_episodes") or 0)
        video = info.file("video_path", video_key=camera, **values) if _in_video(info, camera) else None
        yield Episode(index, length, _task(tasks), info.file("data_path", **values), video, 0.0)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from None


def _episodes_v3(info: _Info, camera: str) -> Iterator[Episode]:
    base = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    prefix = f"videos/{camera}/" if _in_video(info, camera) else None
    further = [f"{prefix}{name}" for name in ("chunk_index", "file_index", "from_timestamp")] if prefix else []
    for row in _rows(info.root / "meta" / "episodes", [*base, *further]):
        if lacking := [name for name, value in row.items() if value is None and name != "tasks"]:
            raise ContractError(f"{info.root / 'meta' / 'episodes'}: an episode without {', '.join(lacking)}")
        data = info.file("data_path", chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        video, start = None, 0.0
        if prefix:
            chunk, file = row[f"{prefix}chunk_index"], row[f"{prefix}file_index"]
            video = info.file("video_path", video_key=camera, chunk_index=chunk, file_index=file)
            start = float(row[f"{prefix}from_timestamp"])
        yield Episode(int(row["episode_index"]), int(row["length"]), _task(row["tasks"]), data, video, start)


def _rows(folder: Path, columns: list[str]) -> Iterable[dict[str, Any]]:
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise ContractError(f"{folder}: no parquet file; a v3 dataset keeps its episodes there")
    for file in files:
        try:
            yield from pyarrow.parquet.read_table(file, columns=columns).select(columns).to_pylist()
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise ContractError(f"{file}: no table of episodes with {', '.join(columns)}: {error}") from None
