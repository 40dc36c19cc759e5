"""AgiBot World (2025): `task_info/task_T.json`, `observations/T/EPISODE/videos/CAMERA.mp4` and
`proprio_stats/T/EPISODE/proprio_stats.h5`, whose `action/...` and `state/...` have one row per frame.
"""

import json
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_data.formats.videos import video_frames
from lary_data.hdf5 import array, dataset, opened
from lary_data.pool import TaskFaultError
from lary_data.trajectories import Cut, Source, Steps, Trajectory, chosen, where

ACTIONS = "action/end/position,action/end/orientation,action/effector/position"
GROUPS = (("position", tuple(range(6))), ("orientation", tuple(range(6, 14))), ("gripper", (14, 15)))
"""Of these 16 numbers: two hands' positions, quaternions and grippers, as LARYBench has them."""
STATS = "proprio_stats"


def find(root: Path, camera: str | None, action: str | None) -> Source:
    """Every episode that has a table; `action` names datasets of it, joined by commas."""
    tables = sorted((root / STATS).glob(f"*/*/{STATS}.h5"))
    if not tables:
        raise ContractError(f"{root}: no {STATS}/TASK/EPISODE/{STATS}.h5 in it; unpack AgiBot's archives first")
    there = {path.stem for path in (root / "observations").glob("*/*/videos/*.mp4")}
    camera = chosen(camera, sorted(there), ("head_color",), "camera", root)
    names = [name.strip() for name in (action or ACTIONS).split(",")]
    tasks = _tasks(root)
    trajectories = tuple(_trajectory(root, table, camera, tasks) for table in tables)
    return Source(
        "agibot", "AgiBot World data in", root, camera, ",".join(names), _dimensions(root, tables, names), trajectories,
        robot="agibot", groups=GROUPS if ",".join(names) == ACTIONS else (),
    )  # fmt: skip


def _trajectory(root: Path, table: Path, camera: str, tasks: dict[str, str]) -> Trajectory:
    task, episode = table.parts[-3:-1]
    video = root / "observations" / task / episode / "videos" / f"{camera}.mp4"
    return Trajectory(f"{task}/{episode}", (str(table), str(video)), (), tasks.get(f"{task}/{episode}", ""))


def _tasks(root: Path) -> dict[str, str]:
    """Task and episode -> what is done."""
    found = {}
    for path in sorted((root / "task_info").glob("task_*.json")):
        try:
            for episode in json.loads(path.read_text(encoding="utf-8")):
                found[f"{path.stem.removeprefix('task_')}/{episode['episode_id']}"] = str(episode["task_name"])
        except (ValueError, KeyError, TypeError) as error:
            raise ContractError(f"{path}: not AgiBot's list of episodes: {error!r}; copy it again") from None
    return found


def _dimensions(root: Path, tables: Sequence[Path], names: Sequence[str]) -> tuple[str, ...]:
    """From the first table that can be read."""
    faults = []
    for table in tables:
        try:
            with opened(table) as file:
                sizes = {name: prod(dataset(file, name, str(table)).shape[1:]) for name in names}
        except TaskFaultError as fault:
            faults.append(str(fault))
            continue
        return tuple(f"{name}/{at}" for name in names for at in range(sizes[name]))
    raise ContractError(f"{root}: no table has {', '.join(names)}; name others by --action A,B. {faults[0]}")


def read(task: Cut) -> Steps:
    """One episode."""
    trajectory, action = task.trajectory, task.action
    table, video = map(Path, trajectory.files)
    with opened(table) as file:
        length = len(array(file, "timestamp", where(trajectory)))
        parts = [array(file, name, where(trajectory)) for name in action.split(",")]
    for name, part in zip(action.split(","), parts, strict=True):
        if len(part) != length:
            raise TaskFaultError(f"{table}: {name} has {len(part)} rows, timestamp has {length}; name another --action")

    def frames(wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return video_frames(video, length, wanted)

    return Steps(np.concatenate([part.reshape(length, -1) for part in parts], axis=1), frames)
