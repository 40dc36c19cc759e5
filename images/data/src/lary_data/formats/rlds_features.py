"""What the steps of an RLDS dataset hold, from `features.json` of TensorFlow Datasets (4.3 and later)."""

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from lary_schema.base import ContractError

STEPS = "steps"
UNKNOWN = -1
"""A size that varies."""


class Feature(NamedTuple):
    """A leaf of a step."""

    name: str
    """As the records have it: `steps/observation/image`."""
    kind: str
    """`image` (of colours), `numbers`, `text`, or what else it is."""
    size: int
    """Numbers of one step; 0 where that varies."""


def read_features(path: Path) -> dict[str, Feature]:
    """The leaves of a step by name. Raises ContractError for a file that does not describe steps."""
    try:
        top = json.loads(path.read_text(encoding="utf-8"))
        inside = top["featuresDict"]["features"][STEPS]["sequence"]["feature"]
        return {leaf.name: leaf for leaf in _leaves(inside, STEPS)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"{path}: does not say what the steps hold ({error!r}); features.json of TFDS 4.3 or later expected"
        ) from None


def _leaves(feature: Mapping[str, Any], name: str) -> Iterator[Feature]:
    if "featuresDict" in feature:
        for key, inside in feature["featuresDict"]["features"].items():
            yield from _leaves(inside, f"{name}/{key}")
    elif "image" in feature:
        yield Feature(name, _kind_of_image(feature["image"]), 0)
    elif "text" in feature:
        yield Feature(name, "text", 0)
    elif "tensor" in feature:
        yield _tensor(feature["tensor"], name)
    else:
        yield Feature(name, str(feature.get("pythonClassName", "unknown")).rpartition(".")[2], 0)


def _kind_of_image(image: Mapping[str, Any]) -> str:
    """`image` for eight bits of three colours, which is what a sparse description means; depth is none of it."""
    *_, channels = image.get("shape", {}).get("dimensions", [3])
    dtype = image.get("dtype", "uint8")
    colours = dtype == "uint8" and int(channels) in (3, UNKNOWN)
    return "image" if colours else f"{dtype} image of {channels} channels"


def _tensor(tensor: Mapping[str, Any], name: str) -> Feature:
    if tensor.get("dtype") in ("string", "object"):
        return Feature(name, "text", 0)
    if tensor.get("encoding", "none") != "none":
        return Feature(name, f"tensor encoded as {tensor['encoding']}", 0)
    dimensions = [int(size) for size in tensor.get("shape", {}).get("dimensions", [])]
    return Feature(name, "numbers", prod(dimensions) if all(size > 0 for size in dimensions) else 0)
