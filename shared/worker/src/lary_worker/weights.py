"""The checkpoints of a job: the very bytes that were planned, or a WeightsError."""

from collections.abc import Callable
from pathlib import Path

from lary_schema.base import WeightsError, path_sha256
from lary_schema.cards import ModelCard
from lary_schema.files import is_lfs_pointer, pointer_fault
from lary_schema.jobs import ExtractJob, WeightFile

from lary_worker.model import Weights


def find_weights(job: ExtractJob, card: ModelCard, root: Path, beat: Callable[[str], None]) -> Weights:
    """Files and folders by name, verified; `beat` is called for each. Raises WeightsError naming the file."""
    planned = {file.name for file in job.weights}
    needed = {spec.name for spec in card.weights if not spec.optional}
    if not needed <= planned <= {spec.name for spec in card.weights}:
        raise WeightsError(
            f"model {card.key} needs weights {sorted(needed)}, the job names {sorted(planned)}; plan the job again"
        )
    found = {}
    for file in job.weights:
        beat(f"checking weights {file.name}")
        found[file.name] = _verified(file, root / file.path)
    return found


def _verified(file: WeightFile, path: Path) -> Path:
    if not path.exists():
        raise WeightsError(
            f"{path}: weights {file.name!r} are missing; `lary-orch weights ls` says where they come from"
        )
    _refuse_pointers(path)
    try:
        found = path_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    if found != file.sha256:
        raise WeightsError(
            f"{path}: weights {file.name!r} have sha256 {found[:16]}, planned was {file.sha256[:16]}; "
            "put the planned file back, or plan again to extract with this one"
        )
    return path


def _refuse_pointers(path: Path) -> None:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        try:
            pointer = is_lfs_pointer(file)
        except OSError as error:
            raise WeightsError(f"{file}: cannot be read: {error.strerror}") from None
        if pointer:
            raise WeightsError(pointer_fault(file))
