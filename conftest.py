"""What all tests share: which of them may run side by side, and things that are made once per test run."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/docker/", "tests/slurm/")
"""Folders whose tests share one thing, an engine or a cluster: they run in one process, in their order."""
LONG = (
    *("tests/test_larybench_run.py", "orchestrator/tests/running/test_run_whole.py"),
    *("shared/worker/tests/test_processes.py", "shared/conformance/tests/test_conformance_trains.py"),
    *("shared/conformance/tests/test_conformance_checks.py", "shared/trainer/tests/test_resume.py"),
)
"""Files of half a minute or so: they begin first, so that at the end no core waits for one of them on the other."""
TESTS = Path(__file__).parent / "tests"
WITH_ENGINE = (TESTS, TESTS / "docker", TESTS / "slurm")
WARM = Path(__file__).parent / "scripts" / "warm_python.py"

# Tests start hundreds of Python processes. Where nothing compiled may be kept, each of them compiles what it imports:
# importing torch takes 5.3 s of processor time instead of 1.7.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell's background job ignores Ctrl-C, and so does all that it starts; commands under test have to hear it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests have servers on loopback, which no proxy reaches.
if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))

# The same examples every time, however slow the machine, and nothing written to the checkout. Others are looked for by
# `--hypothesis-profile default`.
settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

Once = Callable[[str, Callable[[Path], object]], Path]


class ByFile(LoadScopeScheduling):
    """A file's tests stay in one process, so that its module fixtures are made once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """In place of `--dist loadgroup`, which pytest-xdist 3.8 with pytest 9.2 ignores without a word."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of an engine or a cluster stand where .ci/run looks for them; long files begin first."""
    for item in items:
        if item.path.parent not in WITH_ENGINE and any(map(item.get_closest_marker, ("docker", "slurm"))):
            folders = ", ".join(map(str, WITH_ENGINE))
            raise pytest.UsageError(f"{item.nodeid}: needs an engine or a cluster; such tests stand in {folders}")
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONG)


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


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Path]:
    """A Python for commands of images (`-m lary_...`): each is a fork of one process that has imported torch.

    As `sys.executable` it stands in for Python wherever our code starts a process. See scripts/warm_python.py.
    """
    if not hasattr(os, "pidfd_open"):
        yield Path(sys.executable)
        return
    folder = Path(tempfile.mkdtemp(prefix="lary-"))
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(WARM), str(folder)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == b"ready\n"
        yield folder / "python"
        server.stdin.close()
    shutil.rmtree(folder)


# --- machines that stop ------------------------------------------------------------------------

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
"""What Python's audit calls the changes of a file system; to open a file for writing is one too."""


class MachineStopped(BaseException):
    """As if the power had gone: after it no change reaches the disk, so that nothing is cleaned up either."""


class Stopping:
    """Counts what code changes on the disk, and from one change on lets no more of them pass."""

    def __init__(self) -> None:
        self._left: float | None = None
        """Changes that may still pass; None: they are not counted."""
        self._asked = False

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._left is None or not (event in CHANGES or (event == "open" and self._writes(arguments))):
            return
        self._left -= 1
        if self._left < 0:
            raise MachineStopped
        if event == "open":
            self._left -= 1
            if self._left < 0:
                self._leave_empty(arguments[0])
                raise MachineStopped

    @staticmethod
    def _writes(arguments: tuple[Any, ...]) -> bool:
        path, _, flags = arguments
        return not isinstance(path, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def _leave_empty(self, path: Any) -> None:
        """The file is there by then, and nothing is in it."""
        left, self._left = self._left, None
        with suppress(OSError):
            Path(os.fsdecode(path)).open("xb").close()
        self._left = left

    def at_every_change(self, act: Callable[[], object]) -> Iterator[int]:
        """Do it again and again, stopped at the first change, the second, ... until it ends; yields after each stop.

        A file that is opened for writing is two changes: it is not there yet, and it is empty.
        """
        if not self._asked:
            sys.addaudithook(self._look)
            self._asked = True
        for passed in count():
            self._left = passed
            try:
                act()
            except MachineStopped:
                self._left = None
                yield passed
            else:
                return
            finally:
                self._left = None


STOPPING = Stopping()


@pytest.fixture
def stopped_at_every_change() -> Callable[[Callable[[], object]], Iterator[int]]:
    """`for _ in stopped_at_every_change(act):` goes through all that a machine that stops may leave on the disk."""
    return STOPPING.at_every_change
