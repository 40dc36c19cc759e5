"""A job ends soon after its orchestrator was killed, with all that it started; nothing else ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from lary_schema import orphans
from lary_schema.evaluation import ActJob

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")

ORCHESTRATOR = """
import os, subprocess, sys, time
from pathlib import Path
from lary_schema import child_process, orphans
env = dict(os.environ) | orphans.labels("me", "r")
task = child_process.spawn([sys.executable, "-c", sys.argv[2]], env, Path(sys.argv[1]), subprocess.DEVNULL)
for line in task.lines():
    print(line, end="", flush=True)
"""
JOB = """
import os, signal, subprocess, sys, time
from pathlib import Path
from lary_schema.command import run_job
from lary_schema.evaluation import ActJob
from lary_schema import orphans
orphans.WATCH_S = 0.02
def work(job, emit):
    # As a decode process that does not listen to polite requests.
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    child.stdout.readline()
    if DEAF:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(3, f"{os.getpid()} {child.pid}\\n".encode())
    time.sleep(600)
os.dup2(1, 3)
run_job(Path(FILE), ActJob, work)
"""


def wait_until_gone(pids: list[int]) -> bool:
    """A zombie is gone. As long as it takes, but not for ever."""
    deadline = time.monotonic() + 280
    while any(map(orphans._alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(orphans._alive, pids))


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.json"
    path.write_text(ActJob(id="a", image="i", policy="zero").to_json(), encoding="utf-8")
    return path


@pytest.mark.parametrize("deaf", [False, True])
def test_a_job_and_what_it_started_end(tmp_path: Path, job_file: Path, deaf: bool) -> None:
    """Also where they do not listen to SIGTERM, and before anybody has waited for the orchestrator's end."""
    code = JOB.replace("FILE", repr(str(job_file))).replace("DEAF", str(deaf))
    command = [sys.executable, "-c", ORCHESTRATOR, str(tmp_path / "log"), code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as orchestrator:
        assert orchestrator.stdout is not None
        pids = [int(word) for word in orchestrator.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(5 * 0.02)
        assert all(map(orphans._alive, pids)), "they ended although the orchestrator was there"
        orchestrator.kill()
        try:
            assert wait_until_gone(pids)
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `end_with_orchestrator` begins to watch in this process, which is to be the leader of its group."""
    found: list[str] = []
    monkeypatch.setattr(orphans, "_end_after", found.append)
    monkeypatch.setattr(os, "getpgrp", os.getpid)
    return found


def labelled(monkeypatch: pytest.MonkeyPatch, label: str | None) -> None:
    if label is None:
        monkeypatch.delenv(orphans.ORCHESTRATOR, raising=False)
    else:
        monkeypatch.setenv(orphans.ORCHESTRATOR, label)
    orphans.end_with_orchestrator()


def test_what_nobody_of_this_machine_started_is_left_alone(watched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = orphans.labels("me", "r")[orphans.ORCHESTRATOR]
    for label in (None, "", "x", "/", f"pid:[1]/{os.getpid()}/5", own.replace(f"/{os.getpid()}/", "//")):
        labelled(monkeypatch, label)
    assert watched == []
    labelled(monkeypatch, own)
    assert watched == [own]
    # A further process of a job leads no group: it ends with the first one.
    monkeypatch.setattr(os, "getpgrp", lambda: os.getpid() + 1)
    labelled(monkeypatch, own)
    assert watched == [own]


def test_a_number_that_another_process_got_is_not_the_orchestrator() -> None:
    own = orphans.labels("me", "r")[orphans.ORCHESTRATOR]
    namespace, pid, start = own.split("/")
    assert orphans._is_there(own)
    assert not orphans._is_there(f"{namespace}/{pid}/{int(start) - 1}")
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        # Dead, and not yet waited for: its number and its start time are still there.
        assert orphans._identity(child.pid).endswith(tuple("0123456789"))
        assert not orphans._is_there(orphans._identity(child.pid))
