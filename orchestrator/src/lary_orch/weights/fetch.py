"""Fetching weights from the hub, at one commit, whole or not at all.

huggingface_hub is an optional extra (`lary-orch[hub]`). HF_ENDPOINT and HF_TOKEN mean what they mean there.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lary_schema import commands
from lary_schema.atomic import PARTIAL_SUFFIX, sync_dir, sync_file
from lary_schema.base import ContractError, WeightsError, file_sha256, path_sha256
from lary_schema.cards import WeightSpec
from lary_schema.files import damage, visible_files
from lary_terminal.tables import size_text

Notify = Callable[[str], None]
DEFAULT_ENDPOINT = "https://huggingface.co"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Remote:
    """What will be fetched: files of one repository at one commit."""

    repo: str
    commit: str
    files: tuple[str, ...]
    size: int
    """Bytes of all files, as the hub reports them."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """sha256 of those files of which the hub reports it (the large ones)."""


def fetch(spec: WeightSpec, path: Path, notify: Notify, revision: str | None = None) -> str:
    """Put a weight at `path`; the commit it came from.

    Downloads go on where they were interrupted: they lie in `NAME.COMMIT.partial` next to `path` until
    they are whole and verified. `revision` overrides the card's; without either, the hub's newest
    commit is taken and said. Raises WeightsError (exit 4) that says what to do where it cannot be had.
    """
    hub = _hub()
    endpoint = require_https(os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/"))
    with _explained(spec, endpoint):
        remote = _find(hub, endpoint, spec, path, revision)
        draft = path.with_name(f"{path.name}.{remote.commit[:12]}{PARTIAL_SUFFIX}")
        draft.mkdir(parents=True, exist_ok=True)
        check_space(path, remote.repo, remote.size, draft)
        notify(f"fetching {remote.repo}@{remote.commit}: {len(remote.files)} files, {size_text(remote.size)}")
        for name in remote.files:
            hub.hf_hub_download(remote.repo, name, revision=remote.commit, local_dir=draft, endpoint=endpoint)
        _compare(remote, draft)
    notify(_publish(spec, remote, draft, path))
    return remote.commit


def require_https(url: str) -> str:
    """`url`, if nobody between here and there can change what comes. Raises ContractError.

    A server on this machine may do without.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return url
    raise ContractError(f"{url}: weights are fetched by https alone; give an address that begins with https://")


def is_single_file(spec: WeightSpec) -> bool:
    """Whether the weight's path names a file; else it is a folder of files."""
    return PurePosixPath(spec.path).suffix in {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ContractError(
            "fetching weights needs huggingface_hub: pip install 'lary-orch[hub]' (or put the files there by hand; "
            f"`{commands.command('weights', 'ls')}` says where)"
        ) from None
    return huggingface_hub


def _find(hub: Any, endpoint: str, spec: WeightSpec, path: Path, revision: str | None) -> Remote:
    assert spec.repo is not None
    info = hub.HfApi(endpoint=endpoint).model_info(spec.repo, revision=revision or spec.revision, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings}
    files = _wanted(spec, path, tuple(sizes))
    hashes = {sibling.rfilename: sibling.lfs.sha256 for sibling in info.siblings if sibling.lfs}
    hashes_of_hub = {name: hashes[name] for name in files if name in hashes}
    return Remote(spec.repo, info.sha, files, sum(sizes[name] for name in files), hashes_of_hub)


def _compare(remote: Remote, draft: Path) -> None:
    """Refuse a file that is not the one of which the hub gave the hash."""
    for name, expected in remote.hashes.items():
        if (found := file_sha256(draft / name)) != expected:
            (draft / name).unlink()
            raise WeightsError(
                f"{remote.repo}: {name} has sha256 {found}, the hub says {expected}; it was removed. Try again, or "
                "another mirror"
            )


def _wanted(spec: WeightSpec, path: Path, there: tuple[str, ...]) -> tuple[str, ...]:
    """The files to fetch: those that the card names; else the one of the path's kind, or all."""
    inside = f"{spec.subfolder}/" if spec.subfolder else ""
    if spec.files:
        files = tuple(inside + name for name in spec.files)
        missing = sorted(set(files) - set(there))
        if missing:
            raise WeightsError(f"{spec.repo} has no {', '.join(missing)}; it has {', '.join(sorted(there))}")
        return files
    there = tuple(name for name in there if name.startswith(inside))
    if not is_single_file(spec):
        return tuple(name for name in there if not name.startswith("."))
    fitting = tuple(name for name in there if PurePosixPath(name).suffix == PurePosixPath(spec.path).suffix)
    if len(fitting) != 1:
        raise WeightsError(
            f"{spec.repo}: which file is {spec.name!r} of the card? It has {', '.join(sorted(there))}; "
            f"fetch it by hand to {path}, or name it under files: in the card"
        )
    return fitting


def check_space(path: Path, source: str, size: int, draft: Path) -> None:
    """Refuse before the first byte what cannot end well. Parts of an earlier attempt count."""
    have = sum(file.stat().st_size for file in draft.rglob("*") if file.is_file())
    free = shutil.disk_usage(draft).free
    if size - have > free:
        raise WeightsError(
            f"{path}: {source} needs {size_text(size - have)} more, {size_text(free)} are free; "
            "free the disk, or choose another root by --weights-dir or MODEL_DIR"
        )


def _publish(spec: WeightSpec, remote: Remote, draft: Path, path: Path) -> str:
    # The hub's own notes on a resumed download.
    shutil.rmtree(draft / ".cache", ignore_errors=True)
    whole = draft / (remote.files[0] if is_single_file(spec) else spec.subfolder or "")
    return publish(spec, f"{remote.repo}@{remote.commit}", whole, draft, path)


def publish(spec: WeightSpec, source: str, whole: Path, draft: Path, path: Path) -> str:
    """Verify what `draft` holds, bring it to the disk, rename `whole` of it into place; a line on what is there now.

    Raises WeightsError.
    """
    problem = next((f"{f.name}: {found}" for f in visible_files(whole) if (found := damage(f))), None)
    sha256 = path_sha256(whole)
    if problem is None and spec.sha256 is not None and sha256 != spec.sha256:
        problem = f"sha256 {sha256}, {spec.sha256} expected by the card"
    if problem is not None:
        shutil.rmtree(draft)
        raise WeightsError(f"{source}: {problem}; nothing was kept. Try again, or another mirror")
    for file in visible_files(whole):
        sync_file(file)
    size = sum(file.stat().st_size for file in visible_files(whole))
    whole.rename(path)
    sync_dir(path.parent)
    shutil.rmtree(draft, ignore_errors=True)
    compared = "as the card says" if spec.sha256 else "no published hash to compare with"
    return f"{path}: {size_text(size)} ({size} bytes), sha256 {sha256} ({compared}): fetched, {spec.license}"


@contextmanager
def _explained(spec: WeightSpec, endpoint: str) -> Iterator[None]:
    """Turn what the hub responds into what to do."""
    from huggingface_hub import errors

    page = f"{endpoint}/{spec.repo}"
    try:
        yield
    except errors.GatedRepoError:
        raise WeightsError(
            f"{spec.repo} is gated ({spec.license}): accept its terms at {page} with your account, then set HF_TOKEN "
            "to a read token of it (or log in by `hf auth login`) and fetch again"
        ) from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(
            f"{page}: no such repository, or a private one; set HF_TOKEN if it needs an account, and HF_ENDPOINT "
            "if you use a mirror"
        ) from None
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{page}: the revision is not there; choose another by --revision") from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HTTPError) as error:
        raise WeightsError(
            f"{page}: {_first_line(error)}. What came is kept; the same command goes on. Without a network, fetch "
            "on another machine and copy the folder"
        ) from None
    except OSError as error:
        raise WeightsError(f"{spec.repo}: cannot be written: {error.strerror}; choose another --weights-dir") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
