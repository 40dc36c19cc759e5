"""What all tests share: which of them may run side by side, and things that are made once per test run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

GROUPS = {"docker": "engine", "slurm": "cluster"}
"""Marker -> the one thing that its tests share; they run in one process, in their order."""
TESTS = Path(__file__).parent / "tests"

Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: a file's tests stay together, so that its module fixtures are made once."""
    for item in items:
        shared = [group for marker, group in GROUPS.items() if item.get_closest_marker(marker)]
        if shared and TESTS not in item.path.parents:
            raise pytest.UsageError(f"{item.nodeid}: needs the {shared[0]}; .ci/run looks for such tests in {TESTS}")
        item.add_marker(pytest.mark.xdist_group(shared[0] if shared else str(item.path)))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once("demo", make)`: a folder that `make(folder)` filled, by one process for all of a test run.

    All processes of one pytest share it; LARY_TEST_SHARED names a folder that several runs of pytest share.
    """
    base = tmp_path_factory.getbasetemp()
    own = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root = Path(os.environ.get("LARY_TEST_SHARED") or own / "shared")

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def seed_workspace(once: Once) -> Callable[[Path], Path]:
    """`seed_workspace(folder)`: a workspace that shares what images say of themselves (`describe`) with all tests.

    Replies are kept by the state of an image's sources; other sources are queried anew.
    """

    def seed(workspace: Path) -> Path:
        workspace.mkdir(parents=True)
        (workspace / "cache").symlink_to(once("cache", Path.exists))
        return workspace

    return seed
