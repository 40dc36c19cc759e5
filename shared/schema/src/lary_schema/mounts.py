"""Where a job finds its files: five roots, the same names in a container and in a plain process.

A job names files relative to these roots, so the same JSON runs under every runtime. In a container
the roots are /data, /weights, /latents, /job and /out; the other runtimes set the variables.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator

from lary_schema.base import ContractError, Document


def _relative(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not value:
        raise ValueError(f"{value!r} must be relative to its mount, without '..'")
    return value


MountPath = Annotated[str, AfterValidator(_relative)]
"""A POSIX path below one mount: not absolute, no `..`."""


class Mounts(Document):
    """The five roots of a job on this machine."""

    data: Path
    weights: Path
    latents: Path
    job: Path
    out: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Roots from LARY_MOUNT_DATA, _WEIGHTS, _LATENTS, _JOB and _OUT; unset ones are /data and so on."""
        names = ("data", "weights", "latents", "job", "out")
        return cls(**{name: Path(env.get(f"LARY_MOUNT_{name.upper()}") or f"/{name}") for name in names})

    def to_env(self) -> dict[str, str]:
        """The variables that `from_env` reads back."""
        return {f"LARY_MOUNT_{name.upper()}": str(getattr(self, name)) for name in type(self).model_fields}


def resolve_media(value: str, root: Path, data: Path, host_data: str | None, implied_folder: str | None = None) -> Path:
    """The file that a CSV cell means.

    A relative path is joined to the dataset's media root `root`. With an `implied_folder`, a path none of whose
    parts has that name is joined to the folder below the root instead: some of LARYBench's CSVs leave it out.
    An absolute one is taken as it is, as LARYBench does; where it lies below `host_data` (the data folder's name
    outside the container) it is re-rooted at `data`. Raises ContractError for an empty cell and for `..`, which
    could leave the data folder.
    """
    if not value.strip():
        raise ContractError("the path is empty")
    path = PurePosixPath(value)
    if ".." in path.parts:
        raise ContractError(f"{value!r} contains '..'; write the path without it")
    if not path.is_absolute():
        implied = implied_folder if implied_folder is not None and implied_folder not in path.parts else "."
        return root / implied / path
    if host_data and path.is_relative_to(host_data):
        return data / path.relative_to(host_data)
    return Path(path)
