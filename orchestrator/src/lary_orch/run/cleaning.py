"""What the bench left on the disk, and its removal. Data, weights and finished work are nobody's leftovers."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lary_schema.atomic import PARTIAL_SUFFIX
from lary_schema.base import ContractError
from lary_schema.locks import LEASE_SUFFIX, if_free, is_locked
from lary_schema.store.layout import Store

from lary_orch.runtimes.environments import MARKER
from lary_orch.workspace import Workspace

IDLE_S = 600
"""A draft that no lock holds counts as left behind when nobody has written to it for so long."""
STORES = "*/*/*/*.zarr"
"""Below the latents volume: dataset, split, model, store."""
DRAFT_STORES = f"*/*/*/.*.zarr.*{PARTIAL_SUFFIX}"


@dataclass(frozen=True)
class Target:
    """Something to remove."""

    path: Path
    why: str
    expensive: bool = False
    """Expensive to compute: the user confirms first."""

    @property
    def size(self) -> int:
        """Bytes of all files in it."""
        return tree_size(self.path)


def tree_size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; links are counted and not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def leftovers(workspace: Workspace) -> Iterator[Target]:
    """What dead processes of the bench left unfinished. Whatever somebody still works on is spared."""
    for folder in (workspace.generated, workspace.runs, workspace.results, workspace.cache, workspace.trained):
        yield from (Target(path, "unfinished file or folder") for path in _drafts(folder))
    for path in filter(_is_idle, workspace.root.glob(f"*{PARTIAL_SUFFIX}")):
        yield Target(path, "unfinished file or folder")
    for path in _unfinished_environments(workspace.envs):
        yield Target(path, "half-made environment")
    for path in filter(_is_idle, workspace.latents.glob(DRAFT_STORES)):
        yield Target(path, "half-made store")
    for store in workspace.latents.glob(STORES):
        yield from _store_leftovers(store)


def _drafts(folder: Path) -> Iterator[Path]:
    """The outermost `*.partial` of a tree to which nobody writes."""
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if name.endswith(PARTIAL_SUFFIX) and _is_idle(Path(root, name)):
                yield Path(root, name)
        folders[:] = [name for name in folders if not name.endswith(PARTIAL_SUFFIX)]


def _is_idle(path: Path) -> bool:
    inside = path.rglob("*") if path.is_dir() else ()
    newest: float = max(p.lstat().st_mtime for p in (path, *inside))
    return newest < time.time() - IDLE_S


def _unfinished_environments(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for env in sorted(p for p in folder.iterdir() if p.is_dir() and not (p / MARKER).is_file()):
        with if_free(folder / f"{env.name}.lock") as free:
            if free:
                yield env


def _store_leftovers(store: Path) -> Iterator[Target]:
    paths = Store(store)
    if not paths.group.is_file():
        if _is_idle(store):
            yield Target(store, "half-made store")
        return
    partial = sorted(store.rglob(f"*{PARTIAL_SUFFIX}"))
    # Listed before the lock is looked at: what a writer begins after that has another name.
    if partial and is_idle(store):
        yield from (Target(path, "shard that was never finished") for path in partial)


def is_idle(store: Path) -> bool:
    """Whether nobody is writing a shard of this store (see `LatentWriter.claim`)."""
    return not is_locked(Store(store).claims)


# --- by request -------------------------------------------------------------------------------


def environments(workspace: Workspace) -> Iterator[Target]:
    """All environments and their lock files but those that somebody is making."""
    for target in _entries(workspace.envs, "environment; made again at the next use"):
        with if_free(workspace.envs / f"{target.path.name.removesuffix('.lock')}.lock") as free:
            if free and target.path.suffix != LEASE_SUFFIX:
                yield target


def cache(workspace: Workspace) -> Iterator[Target]:
    yield from _entries(workspace.cache, "cache; computed again at the next use")


def demo_sets(workspace: Workspace) -> Iterator[Target]:
    yield from _entries(workspace.generated, "demo set; made again at the next use")


def runs(workspace: Workspace) -> Iterator[Target]:
    """Jobs and logs, and the results next to them."""
    yield from _entries(workspace.runs, "jobs and logs of a run", expensive=True)
    yield from _entries(workspace.results, "results of a run", expensive=True)


def results(workspace: Workspace, names: Sequence[str]) -> Iterator[Target]:
    """Results of these models or runs. Raises ContractError for a name without results."""
    found = {path: {path.name, path.parent.name} for path in sorted(workspace.results.glob("*/*")) if path.is_dir()}
    runs = {path.parent.name for path in found}
    unknown = [name for name in names if not any(name in known for known in found.values())]
    if unknown:
        there = ", ".join(sorted(set().union(*found.values()))) or "nothing"
        raise ContractError(f"{workspace.results}: no results of {', '.join(unknown)}; there is {there}")
    for name in names:
        if name in runs:
            yield Target(workspace.results / name, "results of a run; probed again at the next use", expensive=True)
    for path in found:
        if path.name in names and path.parent.name not in names:
            yield Target(path, f"results of {path.name} in {path.parent.name}; probed again", expensive=True)


def _entries(folder: Path, why: str, *, expensive: bool = False) -> Iterator[Target]:
    if folder.is_dir():
        yield from (Target(path, why, expensive) for path in sorted(folder.iterdir()))


def latents(workspace: Workspace, keys: Sequence[str] | None) -> Iterator[Target]:
    """Latent stores of these datasets or models; None means all.

    Raises ContractError for a key without stores, and for a store that is being written.
    """
    stores = sorted(workspace.latents.glob(STORES))
    named = {store: {store.parts[-4], store.parts[-2]} for store in stores}
    unknown = [key for key in keys or () if not any(key in names for names in named.values())]
    if unknown:
        there = ", ".join(sorted(set().union(*named.values()))) or "nothing"
        raise ContractError(f"{workspace.latents}: no stores of {', '.join(unknown)}; there is {there}")
    for store in stores:
        if keys is None or named[store] & set(keys):
            if not is_idle(store):
                raise ContractError(f"{store}: is being written; end that run first")
            yield Target(store, "latents; extracted again at the next use", expensive=True)


def trained_models(workspace: Workspace, names: Sequence[str] | None) -> Iterator[Target]:
    """Models that were trained here: of these recipes, or by their keys; None means all.

    Raises ContractError for a name without models.
    """
    found = {path: {path.name, path.name.rpartition("-")[0]} for path in sorted(workspace.trained.glob("*"))}
    unknown = [name for name in names or () if not any(name in known for known in found.values())]
    if unknown:
        there = ", ".join(sorted(set().union(*found.values()))) or "nothing"
        raise ContractError(f"{workspace.trained}: no models of {', '.join(unknown)}; there is {there}")
    for path, known in found.items():
        if names is None or known & set(names):
            yield Target(path, "a trained model; trained again at the next use", expensive=True)


def remove(target: Target) -> int:
    """Delete it; the bytes that were freed. Raises ContractError where that is not allowed."""
    size = target.size
    try:
        if target.path.is_dir() and not target.path.is_symlink():
            shutil.rmtree(target.path)
        else:
            target.path.unlink()
    except OSError as error:
        raise ContractError(f"{error.filename or target.path}: cannot be removed: {error.strerror}") from None
    return size
