"""`meta/info.json` and the other JSON of a LeRobot dataset, checked where it is read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lary_schema.base import ContractError
from lary_schema.files import is_lfs_pointer, pointer_fault

_CAMERA_TYPES = {"video", "image"}
"""How a camera's frames are kept: in video files, or encoded in the parquet rows."""
CHANNELS, UNKNOWN = ("channel", "channels"), -1


class Info:
    """`meta/info.json`, checked on access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.parents[1]
        self.content = _parsed(path, _read(path), "not JSON")
        if not isinstance(self.content, dict):
            raise ContractError(f"{path}: not a LeRobot info.json")

    def __getitem__(self, key: str) -> Any:
        if key not in self.content:
            raise ContractError(f"{self.path}: no {key!r}; is this a LeRobot dataset?")
        return self.content[key]

    def count(self, key: str) -> int | None:
        """A number of things, or None where it is not given."""
        value = self.content.get(key)
        try:
            return None if value is None else whole_number(value)
        except ValueError as error:
            raise ContractError(f"{self.path}: {key}: {error}") from None

    def fps(self) -> float:
        """Rows of an episode in a second."""
        fps = self["fps"]
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < float("inf"):
            raise ContractError(f"{self.path}: fps is {fps!r}, a number above 0 is expected")
        return float(fps)

    def features(self) -> dict[str, dict[str, Any]]:
        """What a row holds."""
        features = self["features"]
        if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
            raise ContractError(f"{self.path}: features: is not a table of features")
        return features

    def file(self, key: str, **values: object) -> str:
        """The file that a path template (`data_path`, `video_path`) names."""
        template = self[key]
        try:
            name = PurePosixPath(template.format(**values))
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise ContractError(f"{self.path}: {key} {template!r} cannot be filled in: {error}") from None
        if name.is_absolute() or ".." in name.parts:
            raise ContractError(
                f"{self.path}: {key} {template!r} leads out of the dataset; write it without '..' or '/'"
            )
        return str(self.root / name)

    def choose_camera(self, camera: str | None) -> str:
        """The camera that is meant. Raises ContractError where there is no such one, or no only one."""
        found = {name: one for name, one in self.features().items() if one.get("dtype") in _CAMERA_TYPES}
        cameras = [name for name, feature in found.items() if not _is_depth(feature)]
        if camera is None and len(cameras) == 1:
            return cameras[0]
        if camera not in cameras:
            reason = "choose one by --camera" if camera is None else f"{camera!r} is none of them"
            depth = "".join(f"; {name} is of depth, which is not read" for name in found if name not in cameras)
            raise ContractError(f"{self.path}: cameras are {', '.join(cameras) or 'missing'}; {reason}{depth}")
        return camera

    def in_video(self, camera: str) -> bool:
        """Whether a camera's frames are in video files."""
        return bool(self.features()[camera]["dtype"] == "video")

    def action_names(self, action: str) -> tuple[tuple[str, ...], list[str]]:
        """The names of the dimensions of a feature, and notes on them. Raises ContractError for no such feature."""
        dims = {
            name: _size(feature.get("shape"))
            for name, feature in self.features().items() if feature.get("dtype") not in {*_CAMERA_TYPES, "string"}
        }  # fmt: skip
        if not dims.get(action):
            fitting = ", ".join(name for name, dim in dims.items() if dim)
            raise ContractError(f"{self.path}: {action!r} is no vector of it; choose by --action: {fitting}")
        dim, given = dims[action], [str(name) for name in _flat(self.features()[action].get("names"))]
        if len(given) == dim and len(set(given)) == dim:
            return tuple(given), []
        note = f"{self.path}: the names of {action} are not {dim} different ones; they are not used"
        return tuple(f"{action}_{i}" for i in range(dim)), [note] if given else []


def whole_number(value: Any) -> int:
    """A count or an index. Raises ValueError for anything else, also for a number with a fraction."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        raise ValueError(f"{value!r} is no whole number from 0 on")
    return int(value)


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The lines of a JSONL file with their numbers; empty ones are left out.

    Lines end by a newline alone: JSON strings may hold other characters that `str.splitlines` ends a line at.
    """
    for number, line in enumerate(_read(path).split("\n"), 1):
        if line.strip():
            yield number, _parsed(path, line, f"line {number}: not an episode")


def _read(path: Path) -> str:
    """Text in UTF-8, with or without a byte order mark."""
    try:
        if is_lfs_pointer(path):
            raise ContractError(pointer_fault(path))
        if path.exists() and not path.is_file():
            raise ContractError(f"{path}: is no file")
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not UTF-8: {error}") from None


def _parsed(path: Path, text: str, fault: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: {fault}: {error}") from None


def _size(shape: Any) -> int:
    """Numbers in an array of a shape; 0 for what is no shape."""
    if not isinstance(shape, list | tuple) or not shape:
        return 0
    size = 1
    for side in shape:
        if isinstance(side, bool) or not isinstance(side, int):
            return 0
        size *= side
    return max(size, 0)


def _flat(names: Any) -> Iterator[Any]:
    """Names as they are found: a list, lists in a dict, or a dict of each name's index."""
    if isinstance(names, dict):
        if names and sorted(names.values(), key=repr) == sorted(range(len(names)), key=repr):
            yield from sorted(names, key=lambda name: names[name])
        else:
            for value in names.values():
                yield from _flat(value)
    elif isinstance(names, list | tuple):
        for value in names:
            yield from _flat(value)
    elif names is not None:
        yield names


def _is_depth(feature: Mapping[str, Any]) -> bool:
    """LeRobot's mark of a depth map, or another number of channels than a colour picture's where axes are named."""
    details = [found for key in ("info", "video_info") if isinstance(found := feature.get(key), dict)]
    if any(found.get(mark) is True for found in details for mark in ("is_depth_map", "video.is_depth_map")):
        return True
    names, shape = feature.get("names"), feature.get("shape")
    if not (isinstance(names, list) and isinstance(shape, list) and len(names) == len(shape)):
        return False
    return any(size not in (3, UNKNOWN) for name, size in zip(names, shape, strict=True) if name in CHANNELS)
