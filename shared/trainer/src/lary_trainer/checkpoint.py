"""The folder that a training ends in. Imports no torch before there is something to write."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lary_schema.atomic import publish_bytes, publish_text
from lary_schema.base import ContractError, file_sha256, fingerprint, read_json
from lary_schema.events import Emit, Finished, Started
from lary_schema.training import (
    CARD_FILE,
    CONFIG_FILE,
    MODEL_FILE,
    PICTURE_FILE,
    ROWS_FILE,
    STATE_FOLDER,
    TRAINING_FILE,
    TrainedCard,
    TrainJob,
    TrainResult,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

LOCK_FILE = ".lock"


def is_finished(job: TrainJob, out: Path, warn: Callable[[str], None]) -> bool:
    """Whether the folder holds this training's whole checkpoint; a damaged one is made again, and `warn` is told.

    Raises ContractError where it holds another training's: nothing of that is overwritten.
    """
    path = out / TRAINING_FILE
    if not path.exists():
        return False
    try:
        document = read_json(path)
        result = TrainResult.parse(document, str(path))
    except ContractError as error:
        warn(f"{error}; the training is done again")
        return False
    if result.fingerprint != job.fingerprint:
        raise ContractError(
            f"{out}: holds training {result.fingerprint[:16]}, not {job.fingerprint[:16]}; give this one a folder of "
            "its own"
        )
    damaged = [name for name, sha256 in result.files.items() if _sha256(out / name) != sha256]
    if damaged or fingerprint(document["values"]) != result.fingerprint:
        warn(f"{out / (damaged or [TRAINING_FILE])[0]}: is not what was written; the training is done again")
        return False
    return True


def nothing_to_do(job: TrainJob, emit: Emit) -> None:
    """The events of a training that was done before."""
    steps = job.values.recipe.steps
    emit(Started(job=job.id, total=0, skipped=steps, unit="steps", device=job.device, pid=os.getpid()))
    emit(Finished(job=job.id, done=0, per_second=0))


def _sha256(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def publish(
    out: Path,
    tensors: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    card: TrainedCard,
    result: Callable[[dict[str, str]], TrainResult],
    picture: NDArray[np.uint8] | None = None,
    by_row: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write the checkpoint's files, `training.json` last; `result` makes it of the hashes of the others.

    `picture` (RGB) is for people, `by_row` (see `row_arrays`) for studies: their files may be gone later.
    """
    from safetensors.torch import save

    contents = {
        MODEL_FILE: save({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}),
        CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode(),
        CARD_FILE: card.to_json().encode(),
    }
    try:
        (out / TRAINING_FILE).unlink(missing_ok=True)
        for name, content in contents.items():
            publish_bytes(out / name, content)
        if picture is not None:
            publish_bytes(out / PICTURE_FILE, _png(picture))
        if by_row:
            publish_bytes(out / ROWS_FILE, _npz(by_row))
        publish_text(out / TRAINING_FILE, result({name: file_sha256(out / name) for name in contents}).to_json())
    except OSError as error:
        raise cannot_write(out, error, "the last state is kept") from error


def row_arrays(
    rows: NDArray[np.int64], groups: Sequence[str], measured: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[Any]]:
    """The arrays of `ROWS_FILE`: of (n,) rows, the groups of all rows of the CSV (empty: each row is one), measures."""
    import numpy as np

    names, codes = np.unique([groups[row] for row in rows] if groups else np.empty(0, np.str_), return_inverse=True)
    group = codes.astype(np.int64) if groups else rows
    return {"row": rows, "group": group, "group_names": names.astype(np.str_), **measured}


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Equal arrays give equal bytes."""
    import numpy as np

    file = io.BytesIO()
    np.savez(file, **arrays, allow_pickle=False)
    return file.getvalue()


def _png(picture: NDArray[np.uint8]) -> bytes:
    import cv2

    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    assert done
    return encoded.tobytes()


def remove_states(out: Path) -> None:
    shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)


def cannot_write(path: Path, error: OSError, kept: str) -> ContractError:
    """The error for a volume that does not take a file, which belongs at or below `path`."""
    remedy = {
        errno.ENOSPC: "free space on that volume",
        errno.EDQUOT: "raise the quota or free space",
        errno.EROFS: "mount it writable",
        errno.EACCES: "make it writable for this user",
        errno.EPERM: "make it writable for this user",
        errno.EISDIR: "remove that folder",
        errno.ENOTDIR: "remove the file that stands for a folder",
        errno.EEXIST: "remove what stands there",
    }.get(error.errno or 0, "check that volume")
    # Other faults name a draft, which is gone.
    name = (error.filename2 or error.filename or path) if error.errno == errno.EISDIR else path
    return ContractError(
        f"{name}: cannot be written: {error.strerror or error}; {remedy}, then run the same command: {kept}"
    )
