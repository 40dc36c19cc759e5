"""Weights on this disk: where each file of a model is, its hash, and what is mounted of it.

A job names its weights below one mount. That mount holds the files that the model's card declares, wherever the
variables of LARYBench (`DINO_V2_PATH`, ...) lead, and nothing of the folders around them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lary_schema import commands
from lary_schema.base import WeightsError, path_sha256
from lary_schema.cards import ModelCard, PolicyCard, WeightSpec
from lary_schema.files import file_state, visible_files
from lary_schema.jobs import WeightFile
from lary_schema.linked import linked_folder

from lary_orch.cache import remembered

AT_KEY = "{key}"
"""In the path of a family's weight: the key of the model."""


@dataclass(frozen=True)
class WeightSet:
    """The weights of one model, as a job has them."""

    root: Path
    """Host folder of the weights mount: links to the declared files alone."""
    files: tuple[WeightFile, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 by name, as a store's values have them."""
        return {file.name: file.sha256 for file in self.files}


class Trained(NamedTuple):
    """A checkpoint's folder, there or planned, as a weight: by its training's fingerprint, known before it exists."""

    name: str
    folder: Path
    fingerprint: str


def weight_path(spec: WeightSpec, root: Path, env: Mapping[str, str] = os.environ) -> Path:
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


def how_to_get(spec: WeightSpec, path: Path, key: str) -> str:
    """A line for people about a weight of model `key` that is not there."""
    fetching = commands.command("weights", "fetch", key)
    variable = f", or name its path by {spec.env}" if spec.env else ""
    if spec.url is not None:
        return f"`{fetching}` gets it from {spec.url}{variable}"
    if spec.repo is None:
        note = commands.in_note(spec.note or "put it there")
        return f"{note}; it belongs at {path}{variable}"
    gated = " (gated: request access there first)" if spec.gated else ""
    return f"`{fetching}` gets it from {spec.repo}{gated}{variable}"


def find_weights(
    card: ModelCard | PolicyCard,
    root: Path,
    cache: Path,
    env: Mapping[str, str] = os.environ,
    trained: Trained | None = None,
) -> WeightSet:
    """All weights of a model, hashed. Raises WeightsError naming the first that is missing or unexpected."""
    located = [(spec, weight_path(spec, root, env)) for spec in card.weights]
    found = [(spec, path) for spec, path in located if path.exists() or is_needed(spec, env)]
    files = tuple(_weight_file(card, spec, path, cache) for spec, path in found)
    linked: dict[str, Path] = {}
    for file, (_, path) in zip(files, found, strict=True):
        inside = {_below(file.path, path, one): one for one in visible_files(path)}
        if twice := linked.keys() & inside.keys():
            raise WeightsError(f"{path}: two weights of {card.key} would lie at {min(twice)}; rename one of them")
        linked |= inside
    if trained is not None:
        linked[trained.name] = trained.folder
        files += (WeightFile(name=trained.name, path=trained.name, sha256=trained.fingerprint, trained=True),)
    return WeightSet(linked_folder(linked, cache), files)


def weights_at(card: ModelCard, key: str) -> tuple[WeightSpec, ...]:
    """The weights of one key as its card alone knows them: of a family, those whose path has the key in it."""
    if card.pattern is None:
        return card.weights
    own = [spec for spec in card.weights if AT_KEY in spec.path]
    return tuple(spec.model_copy(update={"path": spec.path.replace(AT_KEY, key)}) for spec in own)


def without_own(card: ModelCard) -> ModelCard:
    """The card without weights that each key of its family has for itself."""
    return card.model_copy(update={"weights": tuple(spec for spec in card.weights if AT_KEY not in spec.path)})


def keys_found(card: ModelCard, root: Path) -> list[str]:
    """The keys of a family that have a folder below the weights root."""
    if not any(spec.path == AT_KEY for spec in card.weights) or not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and card.serves(path.name))


def check_present(card: ModelCard, key: str, root: Path, env: Mapping[str, str] = os.environ) -> None:
    """Raises WeightsError for the first needed weight that is missing, as far as the card alone knows."""
    for spec in weights_at(card, key):
        if is_needed(spec, env):
            _existing(card, spec, weight_path(spec, root, env))


def _below(name: str, path: Path, file: Path) -> str:
    """Where a file of the weight at `path` lies in the mount."""
    return name if file == path else f"{name}/{file.relative_to(path).as_posix()}"


def _existing(card: ModelCard | PolicyCard, spec: WeightSpec, path: Path) -> Path:
    what = f"weight {spec.name!r} of {card.key}"
    if not path.exists():
        raise WeightsError(f"{path}: missing ({what}); {how_to_get(spec, path, card.key)}")
    if not os.access(path, os.R_OK):
        raise WeightsError(f"{path}: may not be read by this user ({what})")
    # A variable that names some folder must not mount it, nor hash all that is in it.
    wanted = spec.files if not PurePosixPath(spec.path).suffix else ("config.json",)
    missing = [name for name in wanted if not (path / name).is_file()] if path.is_dir() else []
    if missing:
        raise WeightsError(
            f"{path}: is a folder without {', '.join(missing)} ({what}); {how_to_get(spec, path, card.key)}"
        )
    return path


def _weight_file(card: ModelCard | PolicyCard, spec: WeightSpec, path: Path, cache: Path) -> WeightFile:
    sha256 = weight_sha256(_existing(card, spec, path).resolve(), cache)
    expected = expected_sha256(spec, path)
    if expected is not None and sha256 != expected:
        raise WeightsError(
            f"{path}: not the expected file of {card.key}: sha256 {sha256}, {expected} expected; "
            f"{how_to_get(spec, path, card.key)}"
        )
    # Under the name that it has, because a suffix may mean something.
    inside = PurePosixPath(spec.path).with_name(path.name).as_posix()
    return WeightFile(name=spec.name, path=inside, sha256=sha256)


def weight_sha256(path: Path, cache: Path) -> str:
    """`path_sha256` of a file or folder, remembered by the state of its files."""
    state = [file_state(file) for file in visible_files(path)]
    return str(remembered(cache, "weights", [str(path), *state], lambda: path_sha256(path)))
