"""Episodes of robot datasets of any format: a frame and an action per step, cut into image pairs and action chunks."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_data.pair_files import write_npy, write_png
from lary_data.pool import TaskFaultError
from lary_data.resuming import file_identity


class Trajectory(NamedTuple):
    """One episode, and where its steps are."""

    name: str
    """Unlike all others of the source: the group of its rows, and the folder of its files."""
    files: tuple[str, ...]
    part: tuple[str | int, ...]
    """Which part of the files, as the format has it."""
    task: str
    """What is done, in words; empty where the source does not say it."""
    split: str | None = None
    """`train` or `val`, where the source says it."""


class Steps(NamedTuple):
    """The steps of a trajectory."""

    actions: NDArray[Any]
    """(T, dim) numbers."""
    frames: Callable[[Sequence[int]], Iterator[NDArray[np.uint8]]]
    """Frames (H, W, 3) RGB of steps that are named in ascending order. Raises TaskFaultError where there are not T."""
    task: str | None = None
    """What is done, where the steps say it."""


@dataclass(frozen=True)
class Source:
    """A dataset on disk: its episodes, one of its cameras, and its actions."""

    format: str
    title: str
    root: Path
    camera: str
    action: str
    names: tuple[str, ...]
    """Of the action's dimensions."""
    trajectories: tuple[Trajectory, ...]
    robot: str = ""
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Dimensions that are reported together."""
    notes: tuple[str, ...] = ()
    """What a reader should know and is no error."""


class Cut(NamedTuple):
    """Everything that is to be made of one trajectory."""

    format: str
    trajectory: Trajectory
    camera: str
    action: str
    dim: int
    stride: int
    every: int
    out: str


ARM = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
"""Seven numbers of an arm's end, as LIBERO, CALVIN and most of Open X have them."""
ARM_GROUPS = (("position", (0, 1, 2)), ("orientation", (3, 4, 5)), ("gripper", (6,)))


def starts(length: int, stride: int, every: int) -> range:
    """First frames of the pairs of a trajectory; the second one lies in it too."""
    return range(0, length - stride, every)


def image_name(trajectory: str, step: int) -> str:
    """Below the manifest's folder."""
    return f"images/{folder_name(trajectory)}/frame_{step:06d}.png"


def action_name(trajectory: str, start: int, stride: int) -> str:
    """Below the manifest's folder; first and last step are in the name."""
    return f"actions/{folder_name(trajectory)}/action_{start:06d}to{start + stride - 1:06d}.npy"


def folder_name(trajectory: str) -> str:
    return "/".join(re.sub(r"[^\w.-]|^\.+$", "_", part) for part in trajectory.split("/"))


def names_of(trajectory: str, length: int, stride: int, every: int) -> list[str]:
    """All files that `cut` makes of a trajectory."""
    first = starts(length, stride, every)
    images = sorted({step for start in first for step in (start, start + stride)})
    return [image_name(trajectory, step) for step in images] + [action_name(trajectory, s, stride) for s in first]


def cut(task: Cut) -> tuple[int, str]:
    """Write frames and chunks of a trajectory; how many steps it has, and what is done. In a process of its own.

    Raises TaskFaultError with file and reason for one whose steps are not all there, or no numbers and pictures.
    """
    trajectory, out = task.trajectory, Path(task.out)
    steps = module_of(task.format).read(task)
    actions = _checked(trajectory, steps.actions, task.dim, task.action)
    first = starts(len(actions), task.stride, task.every)
    wanted = sorted({step for start in first for step in (start, start + task.stride)})
    shape = None
    for step, frame in zip(wanted, steps.frames(wanted), strict=True):
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != shape or shape[2] != 3:
            raise TaskFaultError(
                f"{where(trajectory, step)}: frame {step} is {frame.dtype} {frame.shape}, no RGB frame"
            )
        write_png(out / image_name(trajectory.name, step), np.ascontiguousarray(frame))
    for start in first:
        write_npy(out / action_name(trajectory.name, start, task.stride), actions[start : start + task.stride])
    return len(actions), trajectory.task if steps.task is None else steps.task


def _checked(trajectory: Trajectory, actions: NDArray[Any], dim: int, name: str) -> NDArray[np.float32]:
    if actions.ndim != 2 or actions.shape[1] != dim or actions.dtype.kind not in "fiub":
        raise TaskFaultError(f"{where(trajectory)}: {name} is {actions.dtype} {actions.shape}, (steps, {dim}) expected")
    with np.errstate(over="ignore"):
        numbers = actions.astype(np.float32)
    if not np.isfinite(numbers).all():
        step = int(np.flatnonzero(~np.isfinite(numbers).all(1))[0])
        raise TaskFaultError(f"{where(trajectory, step)}: {name} holds a value that is not finite at step {step}")
    return numbers


def where(trajectory: Trajectory, step: int = 0) -> str:
    """How messages name a trajectory: its file (the step's own, where each step has one) and its part."""
    part, own = " ".join(map(str, trajectory.part)), len(trajectory.files) > 2
    file = trajectory.files[step if own else 0]
    return f"{file}: {part}" if part else file


def module_of(format_name: str) -> Any:
    return import_module(f"lary_data.formats.{format_name}")


def find(format_name: str, root: Path, camera: str | None, action: str | None) -> Source:
    """The episodes of a dataset. Raises ContractError for a folder that holds none of this format."""
    if not root.is_dir():
        raise ContractError(f"{root}: no such folder")
    source: Source = module_of(format_name).find(root, camera, action)
    if not source.trajectories:
        raise ContractError(f"{root}: no episode of {format_name} in it")
    folders: dict[str, str] = {}
    for trajectory in source.trajectories:
        other = folders.setdefault(folder_name(trajectory.name).casefold(), trajectory.name)
        if other != trajectory.name:
            raise ContractError(f"{root}: episodes {other!r} and {trajectory.name!r} have one folder; rename a file")
    return source


def chosen(given: str | None, there: Sequence[str], preferred: Sequence[str], what: str, root: Path) -> str:
    """The one that was asked for, else the first preferred one, else the only one. Raises ContractError otherwise."""
    for name in (given,) if given is not None else preferred:
        if name in there:
            return name
    if given is None and len(there) == 1:
        return there[0]
    found = ", ".join(there) or "none"
    raise ContractError(
        f"{root}: {f'no {what} {given!r}' if given else f'name the {what}'} by --{what}; there: {found}"
    )


def identities(trajectory: Trajectory) -> list[Any] | None:
    """Of all files as they are; None where one is missing."""
    found = [file_identity(Path(file)) for file in trajectory.files]
    return None if any(identity is None for identity in found) else found
