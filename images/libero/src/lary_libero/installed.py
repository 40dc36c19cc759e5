"""Whether a package's data files are those that it was installed with."""

import base64
import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from lary_schema.base import ContractError


def verify(distribution: str, inside: Iterable[str]) -> None:
    """Compare files with the hashes in the distribution's RECORD: those whose path below its folder begins by one of
    `inside`. A package that was installed without such a list is not looked at.

    Raises ContractError naming the file.
    """
    try:
        recorded = files(distribution) or []
    except PackageNotFoundError:
        return
    wanted = tuple(inside)
    for file in recorded:
        if not file.as_posix().startswith(wanted) or file.hash is None:
            continue
        path = Path(file.locate())
        try:
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
        except OSError as error:
            found = f"cannot be read: {error.strerror}"
        else:
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") == file.hash.value:
                continue
            found = "is not the file that was installed"
        raise ContractError(f"{path}: {found}; install {distribution} anew, episodes would be others")
