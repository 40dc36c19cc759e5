"""CALVIN (Mees et al. 2022): `training/` and `validation/`, each with `episode_NNNNNNN.npz` per step and
`ep_start_end_ids.npy`, whose rows are the first and the last step of an episode.

The language annotations are a pickle, which is not loaded: the card names no instruction.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from lary_schema.damage import DAMAGED_ARCHIVE
from numpy.typing import NDArray

from lary_data.pool import TaskFaultError
from lary_data.trajectories import ARM, ARM_GROUPS, Cut, Source, Steps, Trajectory, chosen

SPLITS = {"training": "train", "validation": "val"}
ENDS = "ep_start_end_ids.npy"
_ACTIONS = ("rel_actions", "actions")


def find(root: Path, camera: str | None, action: str | None) -> Source:
    """The episodes of both splits, or of a folder that is one of them."""
    folders = {folder: split for folder, split in SPLITS.items() if (root / folder / ENDS).is_file()}
    where: dict[Path, str | None] = {root / folder: split for folder, split in folders.items()}
    if not where and (root / ENDS).is_file():
        where = {root: None}
    if not where:
        raise ContractError(f"{root}: no {ENDS} in it, in training/ or in validation/")
    trajectories = [trajectory for folder, split in where.items() for trajectory in _episodes(folder, split, root)]
    camera, action, dim = _facts(root, trajectories, camera, action)
    arm = dim == len(ARM)
    notes = ["the language annotations are a pickle, which is not loaded: the card names no instruction"]
    return Source(
        "calvin", "CALVIN data in", root, camera, action, ARM if arm else tuple(map(str, range(dim))),
        tuple(trajectories), robot="panda", groups=ARM_GROUPS if arm else (), notes=tuple(notes),
    )  # fmt: skip


def _episodes(folder: Path, split: str | None, root: Path) -> Iterator[Trajectory]:
    path = folder / ENDS
    try:
        ends = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ContractError(f"{path}: not an array of numbers: {error}") from None
    if ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype.kind not in "iu" or (ends[:, 0] > ends[:, 1]).any():
        raise ContractError(f"{path}: {ends.dtype} {ends.shape}; rows of first and last step expected")
    order = ends[np.argsort(ends[:, 0])]
    if (order[1:, 0] <= order[:-1, 1]).any():
        raise ContractError(f"{path}: two episodes overlap; a step belongs to one. Correct it, or copy it again")
    for first, last in order.tolist():
        files = tuple(str(folder / _name(step)) for step in range(first, last + 1))
        name = f"{first:07d}" if folder == root else f"{folder.name}/{first:07d}"
        yield Trajectory(name, files, (f"steps {first} to {last}",), "", split)


def _name(step: int) -> str:
    return f"episode_{step:07d}.npz"


def _facts(
    root: Path, trajectories: Sequence[Trajectory], camera: str | None, action: str | None
) -> tuple[str, str, int]:
    """From the first step that can be read."""
    for trajectory in trajectories:
        try:
            step = _step(trajectory.files[0])
        except TaskFaultError:
            continue
        cameras = [name for name, value in step.items() if re.match("rgb_", name) and value.ndim == 3]
        actions = [name for name, value in step.items() if value.ndim == 1 and "action" in name]
        name = chosen(action, actions, _ACTIONS, "action", root)
        return chosen(camera, cameras, ("rgb_static",), "camera", root), name, len(step[name])
    raise ContractError(f"{root}: no first step of an episode can be read")


def _step(file: str, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Arrays of a step. Raises TaskFaultError for a missing or damaged file; errors of the volume stay OSError."""
    try:
        with Path(file).open("rb") as raw, np.load(raw, allow_pickle=False) as step:
            return {name: step[name] for name in names or step.files}
    except FileNotFoundError:
        raise TaskFaultError(f"{file}: no such file") from None
    except KeyError as error:
        raise TaskFaultError(f"{file}: no {error.args[0]}") from None
    except DAMAGED_ARCHIVE as error:
        raise TaskFaultError(f"{file}: not the arrays of a step: {error}") from None


def read(task: Cut) -> Steps:
    """One episode; every step's file is there, whether its frame is wanted or not."""
    trajectory, camera, action = task.trajectory, task.camera, task.action
    found = [_step(file, [action])[action] for file in trajectory.files]
    for file, value in zip(trajectory.files, found, strict=True):
        if value.shape != found[0].shape:
            raise TaskFaultError(f"{file}: {action} changes its shape: {value.shape}, before {found[0].shape}")

    def frames(wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for step in wanted:
            yield _step(trajectory.files[step], [camera])[camera]

    return Steps(np.stack(found), frames)
