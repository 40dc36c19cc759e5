"""A LeRobot dataset (format v3.0, huggingface/lerobot 0.4) of episodes that are recorded: tables and `meta/`.

One table of all rows, one video file per episode and camera.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from lary_schema.atomic import publish_text, replacing
from numpy.typing import NDArray

from lary_libero.layout import CHUNK, Layout, video_key
from lary_libero.scripted import PHASES
from lary_libero.simulator import ACTION_DIM, FPS, STATE_DIM

ACTION_NAMES = ("x", "y", "z", "rotation_x", "rotation_y", "rotation_z", "gripper")
STATE_NAMES = (*ACTION_NAMES[:-1], "finger_1", "finger_2")
NUISANCE = "observation.nuisance"
_HF_TYPES = {"float32": "float32", "int64": "int64", "bool": "bool"}


class Episode(NamedTuple):
    """What the marker of an episode says, and its arrays."""

    number: int
    task: str
    length: int
    first: int
    """Place of its first row among all rows."""
    arrays: dict[str, NDArray[Any]]
    images: dict[str, dict[str, list[float]]]
    success: bool


def write_dataset(layout: Layout, episodes: Sequence[Episode], size: int, nuisance: Sequence[str]) -> None:
    """Tables and `meta/` of a dataset whose videos are there; `info.json` is written last."""
    cameras = tuple(episodes[0].images)
    features = _features(cameras, size, nuisance)
    tasks = sorted({episode.task for episode in episodes})
    columns = _columns(episodes, tasks)
    if nuisance:
        columns[NUISANCE] = np.concatenate([episode.arrays["nuisance"] for episode in episodes])
    root = layout.lerobot
    _write_table(root / "data" / "chunk-000" / "file-000.parquet", _table(columns, features))
    _write_tasks(root / "meta" / "tasks.parquet", tasks)
    rows = [_episode_row(episode, cameras) for episode in episodes]
    episode_table = pyarrow.Table.from_pylist(rows)
    _write_table(root / "meta" / "episodes" / "chunk-000" / "file-000.parquet", episode_table)
    statistics = {name: _statistics(values) for name, values in columns.items()}
    statistics |= {video_key(camera): _image_statistics(episodes, camera) for camera in cameras}
    _write_json(root / "meta" / "stats.json", statistics)
    total = sum(episode.length for episode in episodes)
    _write_json(root / "meta" / "info.json", _info(features, len(episodes), total, len(tasks)))


def _columns(episodes: Sequence[Episode], tasks: Sequence[str]) -> dict[str, NDArray[Any]]:
    steps = [np.arange(episode.length) for episode in episodes]
    return {
        "observation.state": np.concatenate([episode.arrays["states"] for episode in episodes]),
        "action": np.concatenate([episode.arrays["actions"] for episode in episodes]),
        "phase": np.concatenate([episode.arrays["phases"] for episode in episodes]).astype(np.int64),
        "success": np.concatenate([np.full(e.length, e.success) for e in episodes]),
        "timestamp": (np.concatenate(steps) / FPS).astype(np.float32),
        "frame_index": np.concatenate(steps).astype(np.int64),
        "episode_index": np.concatenate([np.full(e.length, e.number, np.int64) for e in episodes]),
        "index": np.arange(sum(episode.length for episode in episodes), dtype=np.int64),
        "task_index": np.concatenate([np.full(e.length, tasks.index(e.task), np.int64) for e in episodes]),
    }


def _features(cameras: Sequence[str], size: int, nuisance: Sequence[str]) -> dict[str, Any]:
    def one(dtype: str, *shape: int, names: Sequence[str] | None = None) -> dict[str, Any]:
        return {"dtype": dtype, "shape": list(shape or (1,)), "names": None if names is None else list(names)}

    video = {
        "video.height": size, "video.width": size, "video.codec": "h264", "video.pix_fmt": "gbrp",
        "video.is_depth_map": False, "video.fps": FPS, "video.channels": 3, "has_audio": False,
    }  # fmt: skip
    picture = one("video", size, size, 3, names=("height", "width", "channels")) | {"info": video}
    return {
        **{video_key(camera): picture for camera in cameras},
        "observation.state": one("float32", STATE_DIM, names=STATE_NAMES),
        "action": one("float32", ACTION_DIM, names=ACTION_NAMES),
        **({NUISANCE: one("float32", len(nuisance), names=nuisance)} if nuisance else {}),
        "phase": one("int64", names=None) | {"meaning": dict(enumerate(PHASES))},
        "success": one("bool"),
        "timestamp": one("float32"),
        **{name: one("int64") for name in ("frame_index", "episode_index", "index", "task_index")},
    }


def _table(columns: dict[str, NDArray[Any]], features: dict[str, Any]) -> pyarrow.Table:
    """With the types in the schema's metadata where the `datasets` package looks for them."""
    arrays, kinds = {}, {}
    for name, values in columns.items():
        dtype = features[name]["dtype"]
        kind: dict[str, Any] = {"dtype": _HF_TYPES[dtype], "_type": "Value"}
        if values.ndim == 2:
            flat = pyarrow.array(values.reshape(-1))
            arrays[name] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
            kinds[name] = {"feature": kind, "length": values.shape[1], "_type": "List"}
        else:
            arrays[name], kinds[name] = pyarrow.array(values), kind
    table = pyarrow.table(arrays)
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})})


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """As pandas writes a table whose index is the task's text: so LeRobot finds a task's number."""
    table = pyarrow.table({"task_index": pyarrow.array(range(len(tasks)), pyarrow.int64()), "task": list(tasks)})
    column = {"field_name": "task_index", "name": "task_index", "numpy_type": "int64", "pandas_type": "int64"}
    index = {"field_name": "task", "name": "task", "numpy_type": "object", "pandas_type": "unicode"}
    pandas = {
        "index_columns": ["task"], "columns": [column | {"metadata": None}, index | {"metadata": None}],
        "column_indexes": [], "pandas_version": "2.0.0",
    }  # fmt: skip
    _write_table(path, table.replace_schema_metadata({"pandas": json.dumps(pandas)}))


def _episode_row(episode: Episode, cameras: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode_index": episode.number,
        "tasks": [episode.task],
        "length": episode.length,
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": episode.first,
        "dataset_to_index": episode.first + episode.length,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for camera in cameras:
        prefix = f"videos/{video_key(camera)}"
        row |= {
            f"{prefix}/chunk_index": episode.number // CHUNK,
            f"{prefix}/file_index": episode.number % CHUNK,
            f"{prefix}/from_timestamp": 0.0,
            f"{prefix}/to_timestamp": episode.length / FPS,
        }
    return row


def _statistics(values: NDArray[Any]) -> dict[str, list[float]]:
    numbers = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": numbers.min(0).tolist(), "max": numbers.max(0).tolist(), "mean": numbers.mean(0).tolist(),
        "std": numbers.std(0).tolist(), "count": [len(numbers)],
    }  # fmt: skip


def _image_statistics(episodes: Sequence[Episode], camera: str) -> dict[str, Any]:
    """By channel, (3, 1, 1) each, of all frames that the episodes' own are of."""
    found = [episode.images[camera] for episode in episodes]
    counts = np.array([said["count"][0] for said in found], np.float64)
    means, stds = np.array([s["mean"] for s in found]), np.array([s["std"] for s in found])
    mean = counts @ means / counts.sum()
    std = np.sqrt(counts @ (stds**2 + (means - mean) ** 2) / counts.sum())
    ends = {"min": np.min([s["min"] for s in found], 0), "max": np.max([s["max"] for s in found], 0)}
    values = {**ends, "mean": mean, "std": std}
    return {name: value.reshape(3, 1, 1).tolist() for name, value in values.items()} | {"count": [int(counts.sum())]}


def _info(features: dict[str, Any], episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": "panda",
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FPS,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }


def _write_table(path: Path, table: pyarrow.Table) -> None:
    with replacing(path) as draft:
        pyarrow.parquet.write_table(table, draft)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    publish_text(path, json.dumps(content, indent=4, ensure_ascii=False) + "\n")
