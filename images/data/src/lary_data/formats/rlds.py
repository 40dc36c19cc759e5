"""RLDS datasets as TensorFlow Datasets writes them (Open X-Embodiment): one folder of a version, with `features.json`,
`dataset_info.json` and TFRecord shards, an episode a record. TensorFlow is not needed.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lary_schema.base import ContractError
from lary_worker.media.binary import DamagedError
from lary_worker.media.still import check_image
from numpy.typing import NDArray

from lary_data.formats.rlds_features import STEPS, Feature, read_features
from lary_data.pool import TaskFaultError
from lary_data.tfrecords import feature_entries, read_values, record_at, record_offsets
from lary_data.trajectories import ARM, ARM_GROUPS, Cut, Source, Steps, Trajectory, chosen, where

SHARD = re.compile(r"(?P<set>.+)-(?P<split>[^-]+)\.tfrecord-(?P<at>\d{5})-of-(?P<of>\d{5})")
VALIDATION = ("val", "validation", "test")
INSTRUCTIONS = ("language_instruction", "natural_language_instruction", "instruction")
"""Ends of the names of features that say what is done."""


def find(root: Path, camera: str | None, action: str | None) -> Source:
    """The records of every shard. `action` may be several features, joined in this order by commas."""
    features = read_features(root / "features.json")
    action, dim = _action(root, features, action)
    shards = _shards(root)
    held = next((split for split in VALIDATION if split in shards), None)
    known = {"train": "train", held: "val"} if held and "train" in shards else {}
    used = [split for split in shards if not known or split in known]
    trajectories = [one for split in used for shard in shards[split] for one in _records(shard, split, known)]
    _check_count(root, used, trajectories)
    left_out = sorted(set(shards) - set(used))
    arm = dim == len(ARM)
    return Source(
        "rlds", "RLDS data in", root, _camera(root, features, camera), action,
        ARM if arm else tuple(map(str, range(dim))), tuple(trajectories), groups=ARM_GROUPS if arm else (),
        notes=tuple(f"split {split} is not used" for split in left_out)
        + (("seven numbers are taken for x, y, z, roll, pitch, yaw, gripper; correct the card if they are not",) * arm),
    )  # fmt: skip


def _short(name: str) -> str:
    return name.removeprefix(f"{STEPS}/")


def _camera(root: Path, features: Mapping[str, Feature], camera: str | None) -> str:
    there = [_short(name) for name, feature in features.items() if feature.kind == "image"]
    preferred = ("observation/image", "observation/image_0")
    return chosen(None if camera is None else _short(camera), there, preferred, "camera", root)


def _action(root: Path, features: Mapping[str, Feature], action: str | None) -> tuple[str, int]:
    """The names of the action's features and how many numbers they are."""
    numbers = {_short(name): leaf.size for name, leaf in features.items() if leaf.kind == "numbers" and leaf.size}
    names = [_short(name.strip()) for name in (action or "action").split(",")]
    if missing := [name for name in names if name not in numbers]:
        there = ", ".join(name for name in numbers if "action" in name) or ", ".join(numbers)
        raise ContractError(
            f"{root}: {missing[0]} is no feature of numbers; name them by --action A,B in the order that you"
            f" want; there: {there}"
        )
    return ",".join(names), sum(numbers[name] for name in names)


def _shards(root: Path) -> dict[str, list[Path]]:
    """The shards of every split, complete. Raises ContractError where one is missing."""
    found: dict[tuple[str, int], dict[int, Path]] = defaultdict(dict)
    for path in sorted(root.iterdir()):
        if match := SHARD.fullmatch(path.name):
            found[match["split"], int(match["of"])][int(match["at"])] = path
    for (split, total), there in found.items():
        if missing := sorted(set(range(total)) - set(there)):
            raise ContractError(f"{root}: shard {missing[0]:05d} of {total:05d} of split {split} is missing; copy it")
    if len({split for split, _ in found}) != len(found):
        raise ContractError(f"{root}: a split has shards of two countings; remove those that are left over")
    return {split: [there[at] for at in sorted(there)] for (split, _), there in found.items()}


def _records(shard: Path, split: str, known: Mapping[str, str]) -> Iterator[Trajectory]:
    match = SHARD.fullmatch(shard.name)
    assert match is not None
    for number, offset in enumerate(record_offsets(shard)):
        name = f"{split}/{match['at']}_{number:05d}"
        yield Trajectory(name, (str(shard),), (f"record {number}", offset), "", known.get(split))


def _task(entries: Mapping[str, bytes], at: str) -> str:
    """The first step's instruction; empty where the record has none."""
    for name, entry in entries.items():
        if name.endswith(INSTRUCTIONS):
            values = read_values(entry, f"{at}: {name}")
            if isinstance(values, list) and values:
                return values[0].decode("utf-8", "replace").strip()
    return ""


def _check_count(root: Path, splits: Sequence[str], trajectories: Sequence[Trajectory]) -> None:
    """As many records as `dataset_info.json` says."""
    path = root / "dataset_info.json"
    if not path.is_file():
        return
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["splits"]
        said = {one["name"]: sum(map(int, one["shardLengths"])) for one in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path}: does not say how many records a split has: {error!r}; copy it again") from None
    for split in splits:
        found = sum(trajectory.name.startswith(f"{split}/") for trajectory in trajectories)
        if said.get(split, found) != found:
            raise ContractError(
                f"{path}: says {said[split]} records of {split}, the shards have {found}; copy them again"
            )


# --- one record ---------------------------------------------------------------------------------


def read(task: Cut) -> Steps:
    """One episode."""
    trajectory, camera, action = task.trajectory, task.camera, task.action
    shard, (number, offset), at = Path(trajectory.files[0]), trajectory.part, where(trajectory)
    try:
        content = record_at(shard, int(offset), int(str(number).split()[-1]))
        entries = feature_entries(content, at)
        pictures = _values(entries, camera, at)
        parts = [_values(entries, name, at) for name in action.split(",")]
        said = _task(entries, at)
    except ContractError as error:
        raise TaskFaultError(str(error)) from None
    length = len(pictures)
    if not isinstance(pictures, list) or not length:
        raise TaskFaultError(f"{at}: {camera} holds no pictures")
    for name, part in zip(action.split(","), parts, strict=True):
        if isinstance(part, list) or len(part) % length:
            raise TaskFaultError(f"{at}: {name} is {len(part)} values for {length} pictures")
    actions = np.concatenate([np.asarray(part).reshape(length, -1) for part in parts], axis=1)

    def frames(wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for step in wanted:
            yield _picture(pictures[step], f"{at}: {camera} of step {step}")

    return Steps(actions, frames, said)


def _values(entries: Mapping[str, bytes], name: str, at: str) -> list[bytes] | NDArray[Any]:
    entry = entries.get(f"{STEPS}/{name}")
    if entry is None:
        raise TaskFaultError(f"{at}: no {name} in the record")
    return read_values(entry, f"{at}: {name}")


def _picture(data: bytes, at: str) -> NDArray[np.uint8]:
    """A JPEG or PNG as RGB. Raises TaskFaultError where it is empty, cut or damaged."""
    if not data:
        raise TaskFaultError(f"{at}: the picture is empty")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        check_image(data)
    except (DamagedError, cv2.error) as error:
        raise TaskFaultError(f"{at}: a picture that {error}") from None
    if image is None:
        raise TaskFaultError(f"{at}: not a picture")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
