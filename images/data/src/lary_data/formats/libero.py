"""LIBERO (Liu et al. 2023) and robomimic: `data/demo_N` of .hdf5 files, each with `actions` and `obs/CAMERA`.

Pictures of the simulator were kept as OpenGL draws them, bottom row first; they are turned upright here.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_data.hdf5 import array, opened, text
from lary_data.pool import TaskFaultError
from lary_data.trajectories import ARM, ARM_GROUPS, Cut, Source, Steps, Trajectory, chosen, where

CAMERAS = ("agentview_rgb", "agentview_image")


def find(root: Path, camera: str | None, action: str | None) -> Source:
    """Every demonstration of every .hdf5 file below `root`."""
    files = sorted(path for path in root.rglob("*") if path.suffix in (".hdf5", ".h5") and path.is_file())
    trajectories, notes = list[Trajectory](), list[str]()
    facts: tuple[str, str, int] | None = None
    for path in files:
        try:
            with opened(path) as file:
                found = _demos(root, path, file)
                facts = facts or (_facts(root, file, camera, action) if found else None)
        except TaskFaultError as fault:
            # One that cannot be opened is an episode that fails, so that it is counted.
            notes.append(str(fault))
            found = [Trajectory(path.relative_to(root).with_suffix("").as_posix(), (str(path),), (), "")]
        trajectories += found
    if facts is None:
        raise ContractError(f"{root}: no .hdf5 file with data/demo_N in it" + "".join(f"\n{note}" for note in notes))
    chosen_camera, chosen_action, dim = facts
    arm = dim == len(ARM)
    return Source(
        "libero", "demonstrations of LIBERO's form in", root, chosen_camera, chosen_action,
        ARM if arm else tuple(map(str, range(dim))), tuple(trajectories), groups=ARM_GROUPS if arm else (),
        notes=("frames are turned upright: the files hold the bottom row first",),
    )  # fmt: skip


def _demos(root: Path, path: Path, file: "h5py.File") -> list[Trajectory]:
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        raise TaskFaultError(f"{path}: no group data; there: {', '.join(file) or 'nothing'}")
    name, task = path.relative_to(root).with_suffix("").as_posix(), _task(data)
    demos = sorted(data, key=lambda demo: (len(demo), demo))
    return [Trajectory(f"{name}/{demo}", (str(path),), (demo,), task) for demo in demos]


def _task(data: "h5py.Group") -> str:
    """The language instruction; empty where the file has none."""
    try:
        said = json.loads(text(data.attrs.get("problem_info", "{}")))["language_instruction"]
    except (ValueError, KeyError, TypeError):
        return ""
    return "".join(said).strip(' "') if isinstance(said, str | list) else ""


def _facts(root: Path, file: "h5py.File", camera: str | None, action: str | None) -> tuple[str, str, int]:
    demo = next(iter(file["data"].values()))
    cameras = [name for name, item in demo.get("obs", {}).items() if _is(item, 4)]
    actions = [name for name, item in demo.items() if _is(item, 2) and name != "states"]
    name = chosen(action, actions, ("actions",), "action", root)
    return chosen(camera, cameras, CAMERAS, "camera", root), name, int(demo[name].shape[1])


def _is(item: Any, dimensions: int) -> bool:
    return isinstance(item, h5py.Dataset) and len(item.shape) == dimensions


def read(task: Cut) -> Steps:
    """One demonstration."""
    trajectory, camera, action = task.trajectory, task.camera, task.action
    path, at = Path(trajectory.files[0]), where(trajectory)
    with opened(path) as file:
        if not trajectory.part:
            raise TaskFaultError(f"{path}: no group data")
        demo = file["data"][trajectory.part[0]]
        actions, pictures = array(demo, action, at), array(demo, f"obs/{camera}", at)
        said = demo.attrs.get("num_samples", len(actions))
    if not len(actions) == len(pictures) == said:
        raise TaskFaultError(f"{at}: {len(actions)} actions, {len(pictures)} pictures, and num_samples says {said}")

    def frames(wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for step in wanted:
            yield pictures[step][::-1]

    return Steps(actions, frames)
