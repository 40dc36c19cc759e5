"""Decode processes are forks of one server: how they end, what they see, and what becomes of them without it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
from lary_worker import forks
from lary_worker.forks import Fork, ForkServer

TRICKS = """
import json, os, signal, sys, time
import numpy.random
from multiprocessing.connection import Connection

def main(arguments):
    settings = json.loads(arguments[1])
    pipe = Connection(int(arguments[0]))
    threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
    pipe.send([os.getpid(), os.getppid(), threads, os.environ.get("A_TRICK"), numpy.random.randint(1 << 30)])
    trick = settings["trick"]
    if trick == "raise":
        raise ValueError("of its own doing")
    if trick == "leave":
        sys.exit(3)
    if trick == "abort":
        os.abort()
    if trick == "wait":
        time.sleep(3600)
    return 0
"""
OWNER = """
import time
from multiprocessing import Pipe
from lary_worker.forks import fork_server
ours, theirs = Pipe()
fork = fork_server("tricks").start([theirs.fileno()], {"trick": "wait"})
print(*ours.recv()[:2], flush=True)
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def tricks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module to run; in the path of what is started."""
    folder = tmp_path_factory.mktemp("tricks")
    (folder / "tricks.py").write_text(TRICKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield folder


@pytest.fixture(scope="module")
def server(tricks: Path) -> Iterator[ForkServer]:
    server = ForkServer("tricks")
    yield server
    server.close()


def started(server: ForkServer, trick: str = "") -> tuple[Fork, list[Any]]:
    """A fork, and what it said of itself."""
    ours, theirs = Pipe()
    with theirs:
        fork = server.start([theirs.fileno()], {"trick": trick})
    with ours:
        return fork, ours.recv()


def wait_until_gone(pid: int) -> None:
    """Fails by the test's own time limit. One look at a time: between two the process may go."""
    with suppress(FileNotFoundError, ProcessLookupError):
        while " Z " not in Path(f"/proc/{pid}/stat").read_text():
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("trick", "code"), [("", 0), ("leave", 3), ("raise", 1), ("abort", -signal.SIGABRT), ("wait", -signal.SIGKILL)]
)
def test_the_code_of_every_end_is_told(
    server: ForkServer, trick: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    fork, (pid, *_) = started(server, trick)
    if trick == "wait":
        assert fork.ended(0) is None
        fork.kill()
    assert fork.ended(280) == code
    # Again, and a kill of what has gone, change nothing.
    fork.kill()
    assert fork.ended(0) == code
    wait_until_gone(pid)
    assert server.is_alive
    if trick == "raise":
        assert "of its own doing" in capfd.readouterr().err


def test_forks_have_the_environment_of_their_start_and_draw_each_for_itself(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for value in ("one", "two"):
        monkeypatch.setenv("A_TRICK", value)
        found.append(started(server)[1])
    assert [one[3] for one in found] == ["one", "two"]
    assert found[0][1] == found[1][1] == server._process.pid
    # Forking is safe where nothing else runs in the process.
    assert [one[2] for one in found] == [1, 1]
    assert found[0][4] != found[1][4]


def test_a_dropped_fork_is_ended(server: ForkServer) -> None:
    fork, (pid, *_) = started(server, "wait")
    fork._life.close()
    del fork
    wait_until_gone(pid)
    assert server.is_alive


def test_forks_end_with_their_server_and_a_new_one_takes_over(tricks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_SERVERS", {})
    server = forks.fork_server("tricks")
    assert forks.fork_server("tricks") is server
    fork, (pid, *_) = started(server, "wait")
    os.kill(server._process.pid, signal.SIGKILL)
    assert fork.ended(280) == -signal.SIGKILL
    wait_until_gone(pid)
    # What is wanted of one that has gone ends as it did.
    ours, theirs = Pipe()
    with ours, theirs:
        assert server.start([theirs.fileno()], {}).ended(280) == -signal.SIGKILL
    successor = forks.fork_server("tricks")
    assert successor is not server
    assert started(successor)[0].ended(280) == 0
    successor.close()


def test_a_module_that_cannot_be_imported_is_no_kill(tricks: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server = ForkServer("lary_nothing")
    ours, theirs = Pipe()
    with ours, theirs:
        assert server.start([theirs.fileno()], {}).ended(280) == 1
    assert "lary_nothing" in capfd.readouterr().err
    server.close()


def test_server_and_forks_end_with_a_killed_owner(tricks: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = list(map(int, owner.stdout.readline().split()))
        owner.kill()
    for pid in pids:
        wait_until_gone(pid)


def test_decode_processes_of_all_jobs_have_one_parent(bench: Any, media: Any) -> None:
    bench.clips([media.red, *media.colours[:2]])
    bench.extract(bench.job(store="one.zarr"))
    server = forks.fork_server("lary_worker.child")
    bench.extract(bench.job(store="two.zarr"))
    assert forks.fork_server("lary_worker.child") is server
    assert bench.tree("one.zarr").keys() == bench.tree("two.zarr").keys()
    assert (bench.tokens("one.zarr") == bench.tokens("two.zarr")).all()


def test_pipe_is_the_only_file_that_a_fork_keeps(server: ForkServer) -> None:
    """A file of another fork would keep that one's owner from seeing its end."""
    first, (pid, *_) = started(server, "wait")
    second, (other, *_) = started(server, "wait")
    for fork, number in ((first, pid), (second, other)):
        held = [str(file.readlink()) for file in Path(f"/proc/{number}/fd").iterdir()]
        assert sum(name.startswith("socket:") for name in held) == 1
        fork.kill()
        assert fork.ended(280) == -signal.SIGKILL
