"""EgoDex (Hoque et al. 2025): `TASK/N.mp4` with `TASK/N.hdf5`, whose `transforms/JOINT` are (T, 4, 4) poses.

There are no actions of a robot. Each step's numbers are the positions of the named joints (two hands) in the world
frame of the recording, in metres.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_data.formats.videos import video_frames
from lary_data.hdf5 import array, opened, text
from lary_data.pool import TaskFaultError
from lary_data.trajectories import Cut, Source, Steps, Trajectory, where

JOINTS = ("leftHand", "rightHand")
_CAMERA = "video"


def find(root: Path, camera: str | None, action: str | None) -> Source:
    """Every .hdf5 below `root`; `action` names joints, joined by commas. A part `test` next to others is val."""
    files = sorted(path for path in root.rglob("*.hdf5") if path.is_file())
    if not files:
        raise ContractError(f"{root}: no .hdf5 file in it; EgoDex keeps TASK/N.hdf5 next to TASK/N.mp4")
    if camera not in (None, _CAMERA):
        raise ContractError(f"{root}: EgoDex has one camera, {_CAMERA!r}; leave --camera out")
    joints = tuple(name.strip() for name in action.split(",")) if action else JOINTS
    tops = {path.relative_to(root).parts[0] for path in files}
    trajectories = [_trajectory(root, path, "test" in tops and len(tops) > 1) for path in files]
    return Source(
        "egodex", "EgoDex data in", root, _CAMERA, ",".join(joints),
        tuple(f"{joint}_{axis}" for joint in joints for axis in "xyz"), tuple(trajectories), robot="human",
        groups=tuple((joint, tuple(range(3 * at, 3 * at + 3))) for at, joint in enumerate(joints)),
        notes=("the numbers of a step are positions of joints in the world frame, in metres; no robot's actions",),
    )  # fmt: skip


def _trajectory(root: Path, path: Path, split: bool) -> Trajectory:
    inside = path.relative_to(root)
    part = ("val" if inside.parts[0] == "test" else "train") if split else None
    return Trajectory(inside.with_suffix("").as_posix(), (str(path), str(path.with_suffix(".mp4"))), (), "", part)


def read(task: Cut) -> Steps:
    """One recording."""
    trajectory, action = task.trajectory, task.action
    path, video = map(Path, trajectory.files)
    with opened(path) as file:
        poses = [array(file, f"transforms/{joint}", where(trajectory)) for joint in action.split(",")]
        said = _task(file)
    if any(pose.shape != (len(poses[0]), 4, 4) for pose in poses):
        shapes = ", ".join(str(pose.shape) for pose in poses)
        raise TaskFaultError(f"{path}: transforms of {action} are {shapes}; (steps, 4, 4) expected of each")

    def frames(wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return video_frames(video, len(poses[0]), wanted)

    return Steps(np.concatenate([pose[:, :3, 3] for pose in poses], axis=1), frames, said)


def _task(file: "h5py.File") -> str:
    """The description; of two directions of one task, the one that `which_llm_description` says."""
    second = text(file.attrs.get("which_llm_description", "1")) == "2"
    names = ("llm_description2", "llm_description") if second else ("llm_description",)
    return next((text(file.attrs[name]).strip() for name in names if name in file.attrs), "")
