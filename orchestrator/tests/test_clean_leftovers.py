"""`clean`: leftovers go, work and data stay, and what is in use is spared."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lary_orch.cli.clean import command
from lary_orch.run.cleaning import IDLE_S, leftovers, tree_size
from lary_orch.runtimes.environments import MARKER
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.locate(tmp_path / "bench", env={})


def put(path: Path, *, old: bool = True, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    if old:
        for entry in (path, path.parent):
            os.utime(entry, (time.time() - IDLE_S - 60,) * 2)
    return path


def put_store(workspace: Workspace, dataset: str = "calvin", model: str = "vjepa2") -> Path:
    store = workspace.latents / dataset / "train" / model / "image-corrected-0123.zarr"
    for name in ("zarr.json", "claims", "done/00000.json", "tokens/c/0/0/0/0"):
        put(store / name)
    return store


def clean(workspace: Workspace, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(
        command, ["--workspace", str(workspace.root), *arguments], input=answer, catch_exceptions=False
    )


def found(workspace: Workspace) -> set[Path]:
    return {target.path for target in leftovers(workspace)}


@contextmanager
def held(path: Path, lock: str) -> Iterator[None]:
    """Another process holds a lock on the file; a POSIX lock of our own would be no obstacle to us."""
    script = f"import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.{lock}(f, 2); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        yield
    finally:
        child.communicate("")


def test_nothing_there_is_nothing_to_remove(workspace: Workspace) -> None:
    assert clean(workspace).output.endswith("nothing to remove\n")


def test_unfinished_files_go_and_finished_ones_stay(workspace: Workspace) -> None:
    gone = {
        put(workspace.cache / "weights" / "a.json.12ab.partial"),
        put(workspace.generated / "demo_arm.12ab.partial" / "x.png").parent,
        put(workspace.runs / "r" / "plan.json.12ab.partial"),
        put(workspace.root / "report.html.12ab.partial"),
        put(workspace.results / "imported-1.12ab.partial" / "import.json").parent,
    }
    kept = [
        put(workspace.cache / "weights" / "a.json"),
        put(workspace.results / "r" / "m" / "d" / "p" / "result.json"),
        put(workspace.data / "set" / "clip.mp4.partial"),
        put(workspace.weights / "net.pt.0123456789ab.partial" / "net.pt"),
    ]
    assert found(workspace) == gone
    done = clean(workspace)
    assert "5 in all, 50 B" in done.output
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_what_somebody_writes_to_is_spared(workspace: Workspace) -> None:
    fresh = put(workspace.generated / "demo_arm.12ab.partial" / "x.png", old=False)
    draft = put(workspace.latents / "d" / "train" / "m" / ".s.zarr.12ab.partial" / "zarr.json", old=False)
    assert found(workspace) == set()
    for path in (fresh, draft):
        put(path)
    assert found(workspace) == {fresh.parent, draft.parent}


def test_half_made_environments_go_unless_somebody_makes_them(workspace: Workspace) -> None:
    half, whole = workspace.envs / "lapa-1234", workspace.envs / "probe-1234"
    put(half / "pyvenv.cfg", old=False)
    put(whole / MARKER, old=False)
    put(workspace.envs / "lapa-1234.lock", old=False)
    with held(workspace.envs / "lapa-1234.lock", "lockf"):
        assert found(workspace) == set()
    assert found(workspace) == {half}


def test_a_dead_writers_shards_go_and_a_living_ones_stay(workspace: Workspace) -> None:
    store = put_store(workspace)
    half = put(store / "tokens" / "c" / "1" / "0" / "0" / "0.12ab.partial", old=False)
    with held(store / "claims", "lockf"):
        assert found(workspace) == set()
    assert found(workspace) == {half}
    clean(workspace)
    assert not half.exists()
    assert (store / "tokens/c/0/0/0/0").exists()


def test_a_store_without_its_group_is_half_made(workspace: Workspace) -> None:
    store = put_store(workspace)
    (store / "zarr.json").unlink()
    for path in (store, *store.rglob("*")):
        os.utime(path, (0, 0))
    assert found(workspace) == {store}


def test_dry_run_removes_nothing(workspace: Workspace) -> None:
    path = put(workspace.cache / "a.12ab.partial", size=2048)
    done = clean(workspace, "--dry-run", "--all")
    assert f"would remove {workspace.cache / 'a.12ab.partial'} (2.0 KiB)" in done.output
    assert "1 in all, 2.0 KiB" in done.output
    assert path.exists()


def test_envs_and_cache_go_on_request(workspace: Workspace) -> None:
    env, cached = put(workspace.envs / "lapa-1" / MARKER), put(workspace.cache / "weights" / "a.json")
    clean(workspace, "--envs")
    assert not env.parent.exists()
    assert cached.exists()
    clean(workspace, "--cache")
    assert not cached.exists()


def test_an_environment_in_the_making_is_spared(workspace: Workspace) -> None:
    env, lock = put(workspace.envs / "lapa-1" / MARKER), put(workspace.envs / "lapa-1.lock")
    with held(lock, "lockf"):
        assert clean(workspace, "--envs").output.endswith("nothing to remove\n")
    clean(workspace, "--envs")
    assert not env.exists()
    assert not lock.exists()


def test_results_need_confirmation(workspace: Workspace) -> None:
    result = put(workspace.results / "r1" / "m" / "d" / "p" / "result.json")
    plan = put(workspace.runs / "r1" / "plan.json")
    refused = clean(workspace, "--runs", answer="n\n")
    assert refused.exit_code == 1
    assert str(workspace.results / "r1") in refused.output
    assert clean(workspace, "--runs").exit_code == 1
    assert result.exists()
    assert clean(workspace, "--runs", "--yes").exit_code == 0
    assert not result.exists()
    assert not plan.exists()


def test_latents_go_by_dataset_or_model(workspace: Workspace) -> None:
    stores = {(d, m): put_store(workspace, d, m) for d in ("calvin", "libero") for m in ("lapa", "vjepa2")}
    clean(workspace, "--stores", "calvin", answer="y\n")
    assert {key for key, store in stores.items() if store.exists()} == {("libero", "lapa"), ("libero", "vjepa2")}
    clean(workspace, "--stores", "lapa", "--yes")
    assert {key for key, store in stores.items() if store.exists()} == {("libero", "vjepa2")}
    with pytest.raises(ContractError, match="no stores of calvni; there is libero, vjepa2"):
        clean(workspace, "--stores", "calvni")


def test_a_store_in_use_is_not_removed(workspace: Workspace) -> None:
    store = put_store(workspace)
    with held(store / "claims", "lockf"), pytest.raises(ContractError, match="is being written"):
        clean(workspace, "--stores", "calvin", "--yes")
    assert (store / "zarr.json").exists()


def test_all_leaves_data_and_weights(workspace: Workspace) -> None:
    kept = [put(workspace.data / "a.mp4"), put(workspace.weights / "net.pt"), put(workspace.latents / "notes.txt")]
    put(workspace.generated / "demo_arm" / "demo.json")
    put(workspace.envs / "a" / MARKER)
    put(workspace.cache / "b.json")
    put(workspace.runs / "r" / "plan.json")
    store = put_store(workspace)
    assert clean(workspace, "--all", "--yes").exit_code == 0
    assert not store.exists()
    left = {path for path in workspace.root.rglob("*") if path.is_file()}
    assert left == set(kept)


def test_links_are_not_followed(workspace: Workspace, tmp_path: Path) -> None:
    mine = put(tmp_path / "mine" / "file", size=5000)
    workspace.cache.mkdir(parents=True)
    (workspace.cache / "linked").symlink_to(mine.parent)
    assert tree_size(workspace.cache) < 1000
    clean(workspace, "--cache")
    assert mine.exists()
    assert not (workspace.cache / "linked").is_symlink()


def test_what_cannot_be_removed_is_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(workspace.cache / "a.12ab.partial")

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ContractError, match=f"{path}: cannot be removed: Permission denied"):
        clean(workspace)
