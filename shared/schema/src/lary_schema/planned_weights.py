"""The checkpoints of a job: the very bytes that were planned, or a WeightsError."""

from collections.abc import Callable, Iterable
from pathlib import Path

from lary_schema import commands
from lary_schema.base import ContractError, WeightsError, file_sha256, fingerprint, path_sha256, read_json
from lary_schema.files import is_lfs_pointer, pointer_fault
from lary_schema.jobs import WeightFile
from lary_schema.training import CARD_FILE, CONFIG_FILE, MODEL_FILE, TRAINING_FILE, TrainResult


def verified_files(files: Iterable[WeightFile], root: Path, beat: Callable[[str], object]) -> dict[str, Path]:
    """Where a job's files and folders are, by name, all of them as planned. Raises WeightsError naming the file."""
    found = {}
    for file in files:
        beat(f"checking weights {file.name}")
        verify = _verified_training if file.trained else _verified
        found[file.name] = verify(file, root / file.path)
    return found


def _verified_training(file: WeightFile, path: Path) -> Path:
    """A checkpoint's folder: `training.json` has the planned fingerprint, and the others are the files it names."""
    remedy = "train it (again) with the command that planned this job"
    if not (path / TRAINING_FILE).is_file():
        raise WeightsError(
            f"{path}: trained weights {file.name!r}: no {TRAINING_FILE}, so it is not finished; {remedy}"
        )
    try:
        document = read_json(path / TRAINING_FILE)
        training = TrainResult.parse(document, str(path / TRAINING_FILE))
    except ContractError as error:
        raise WeightsError(f"trained weights {file.name!r}: {error}") from None
    if training.fingerprint != file.sha256 or fingerprint(document["values"]) != training.fingerprint:
        raise WeightsError(
            f"{path}: trained weights {file.name!r} come from training {training.fingerprint[:16]}, planned was "
            f"{file.sha256[:16]}; {remedy}"
        )
    for name, sha256 in (dict.fromkeys((MODEL_FILE, CONFIG_FILE, CARD_FILE), "") | training.files).items():
        if _sha256_of(path / name) != sha256:
            raise WeightsError(
                f"{path / name}: trained weights {file.name!r}: not the file that {TRAINING_FILE} names; remove the "
                f"folder and {remedy}"
            )
    return path


def _sha256_of(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return file_sha256(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None


def _verified(file: WeightFile, path: Path) -> Path:
    if not path.exists():
        listing = commands.command("weights", "ls")
        raise WeightsError(f"{path}: weights {file.name!r} are missing; `{listing}` says where they come from")
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
