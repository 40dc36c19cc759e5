"""Can the folders be read and written as the bench does it?"""

import os
import tempfile
from pathlib import Path

from lary_schema.atomic import PARTIAL_SUFFIX, sync_dir, sync_file
from lary_schema.base import ContractError
from lary_schema.locks import rehearse

from lary_doctor.check import Context, Finding, worst
from lary_doctor.disk import nearest_existing

NAME = "mounts"


def run(context: Context) -> Finding:
    workspace = context.workspace
    chosen = [context.catalog.dataset(key) for key in context.datasets]
    needs_data = any(card.generator is None for card in chosen)
    # Weights may be named one by one by variables: the check of weights says what is missing.
    return worst(
        [
            _readable("data", workspace.data, "--data-dir or DATA_DIR", needed=needs_data),
            _readable("weights", workspace.weights, "--weights-dir or MODEL_DIR", needed=False),
            _writable("latents", workspace.latents, "--latents or LARY_LA_DIR"),
            _writable("workspace", workspace.root, "--workspace or LARY_HOME"),
        ]
    )


def _readable(what: str, folder: Path, option: str, *, needed: bool) -> Finding:
    if not folder.is_dir():
        missing = f"{what}: {folder} does not exist"
        return Finding("fail", missing, f"name it by {option}") if needed else Finding("skip", missing)
    if not os.access(folder, os.R_OK | os.X_OK):
        remedy = f"chmod it, or name another by {option}"
        return Finding("fail", f"{what}: {folder} may not be read by this user", remedy)
    return Finding("ok", f"{what} {folder}")


def _writable(what: str, folder: Path, option: str) -> Finding:
    """Do once what the bench does all the time: write, sync, lock, rename."""
    there = nearest_existing(folder)
    try:
        with tempfile.TemporaryDirectory(prefix="lary-doctor-", suffix=PARTIAL_SUFFIX, dir=there) as scratch:
            _rehearse(Path(scratch))
    except OSError as error:
        remedy = f"choose a folder on a file system that can do this by {option}"
        return Finding("fail", f"{what}: {there}: write, sync or rename fails: {error.strerror}", remedy)
    except ContractError as error:
        return Finding("fail", f"{what}: {error}", f"or choose another folder by {option}")
    return Finding("ok", f"{what} {folder}" + ("" if there == folder else " (will be made)"))


def _rehearse(folder: Path) -> None:
    file = folder / "draft"
    file.write_bytes(b"lary")
    sync_file(file)
    rehearse(folder)
    file.rename(folder / "final")
    sync_dir(folder)
