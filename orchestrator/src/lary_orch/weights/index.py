"""Weights on this disk: where each file of a model is, its hash, and the one folder that is mounted.

A job names its weights below one mount. That mount is the weights root where all files of the model
lie below it; where the variables of LARYBench (`DINO_V2_PATH`, ...) lead elsewhere, it is the nearest
folder that holds all of them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lary_schema.base import WeightsError, path_sha256
from lary_schema.cards import ModelCard, WeightSpec
from lary_schema.files import visible_files
from lary_schema.jobs import WeightFile

from lary_orch.cache import file_state, remembered
from lary_orch.runtimes.jobs import Job


@dataclass(frozen=True)
class WeightSet:
    """The weights of one model, as a job has them."""

    root: Path
    """Host folder of the weights mount."""
    files: tuple[WeightFile, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 by name, as a store's values have them."""
        return {file.name: file.sha256 for file in self.files}


def weights_of(job: Job, name: str) -> WeightSet:
    """The checkpoint that a job will write, as the weights of another: by the job's fingerprint, known before it
    exists, in the file's hash's stead. Raises ValueError for a job that does not write one file.
    """
    if len(job.outputs) != 1 or job.outputs[0].shards:
        raise ValueError(f"job {job.id} writes {len(job.outputs)} files; weights of a job are the one file it writes")
    output = job.outputs[0]
    root: Path = getattr(job.mounts, output.mount)
    return WeightSet(root, (WeightFile(name=name, path=output.path, sha256=output.fingerprint),))


def place(spec: WeightSpec, root: Path, env: Mapping[str, str] = os.environ) -> Path:
    """Where a weight is looked for: its variable's path where that is set, else below the root."""
    given = env.get(spec.env) if spec.env else None
    return Path(given).absolute() if given else root / spec.path


def is_needed(spec: WeightSpec, env: Mapping[str, str] = os.environ) -> bool:
    """Whether its absence is a fault: an optional weight's is one where its variable says that it is there."""
    return not spec.optional or bool(spec.env and env.get(spec.env))


def expected_sha256(spec: WeightSpec, path: Path) -> str | None:
    """The published hash that `path` has to have; None: none is known, or it is another form of these weights.

    A hash belongs to one file: a conversion to safetensors, or a hub folder, has another.
    """
    same_form = path.is_file() and path.suffix == PurePosixPath(spec.path).suffix
    return spec.sha256 if same_form else None


def how_to_get(spec: WeightSpec, path: Path) -> str:
    """A line for people about a weight that is not there."""
    variable = f", or name its place by {spec.env}" if spec.env else ""
    if spec.url is not None:
        return f"`lary-orch weights fetch` gets it from {spec.url}{variable}"
    if spec.repo is None:
        return f"{spec.note or 'put it there'}; it belongs at {path}{variable}"
    gated = " (gated: ask for access there first)" if spec.gated else ""
    return f"`lary-orch weights fetch` gets it from {spec.repo}{gated}{variable}"


def find_weights(card: ModelCard, root: Path, cache: Path, env: Mapping[str, str] = os.environ) -> WeightSet:
    """All weights of a model, hashed. Raises WeightsError naming the first that is missing or unexpected."""
    if not card.weights:
        return WeightSet(root)
    places = [(spec, place(spec, root, env)) for spec in card.weights]
    found = [(spec, _existing(card, spec, path)) for spec, path in places if path.exists() or is_needed(spec, env)]
    mount = mount_root([path for _, path in found], root)
    return WeightSet(mount, tuple(_weight_file(card, spec, path, mount, cache) for spec, path in found))


def _existing(card: ModelCard, spec: WeightSpec, path: Path) -> Path:
    if not path.exists():
        raise WeightsError(f"{path}: missing (weight {spec.name!r} of {card.key}); {how_to_get(spec, path)}")
    if not os.access(path, os.R_OK):
        raise WeightsError(f"{path}: may not be read by this user (weight {spec.name!r} of {card.key})")
    return path.resolve()


def _weight_file(card: ModelCard, spec: WeightSpec, path: Path, mount: Path, cache: Path) -> WeightFile:
    sha256 = weight_sha256(path, cache)
    expected = expected_sha256(spec, path)
    if expected is not None and sha256 != expected:
        raise WeightsError(
            f"{path}: not the expected file of {card.key}: sha256 {sha256}, {expected} expected; "
            f"{how_to_get(spec, path)}"
        )
    return WeightFile(name=spec.name, path=path.relative_to(mount).as_posix(), sha256=sha256)


def weight_sha256(path: Path, cache: Path) -> str:
    """`path_sha256` of a file or folder, remembered by the sizes and times of its files."""
    state = [file_state(file) for file in visible_files(path)]
    return str(remembered(cache, "weights", [str(path), *state], lambda: path_sha256(path)))


def mount_root(paths: Sequence[Path], root: Path) -> Path:
    """The folder to mount for these (resolved) files and folders, and for what links in them lead to.

    Raises WeightsError where nothing but the file system's root holds them all.
    """
    reached = [*paths, *(file.resolve() for path in paths for file in visible_files(path))]
    home = root.resolve()
    if all(path.is_relative_to(home) for path in reached):
        return home
    common = Path(os.path.commonpath([path.parent if path in paths else path for path in reached]))
    if common == Path(common.anchor):
        places = ", ".join(str(path) for path in paths)
        raise WeightsError(f"the weights {places} share no folder, and a job mounts one; put them under one root")
    return common
