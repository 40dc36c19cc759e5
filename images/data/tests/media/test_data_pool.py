"""A task that hangs, dies or raises costs itself alone; what was done is not done again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path

import lary_data
import pytest
from lary_data.pool import Done, TaskFaultError, run_tasks
from lary_data.resuming import ResultLog, file_identity, result_key, run_resumed
from lary_schema.base import ContractError
from lary_worker.forks import ForkServer

BUSY = """
import os, time
from pathlib import Path

def work(task):
    Path(task).write_text(f"{os.getpid()} {os.getppid()}\\n")
    time.sleep(600)
"""
FORMATS = [f"formats.{path.stem}" for path in Path(lary_data.__file__).parent.glob("formats/[a-z]*.py")]
TOOL = "import busy, sys; from lary_data.pool import run_tasks; list(run_tasks(busy.work, sys.argv[1:], 2, 600))"


def work(task: str) -> str:
    if task == "hang":
        time.sleep(600)
    if task == "die":
        os.abort()
    if task == "fault":
        raise TaskFaultError("it is blue")
    if task == "raise":
        raise KeyError("colour")
    return task.upper()


def test_every_task_ends_and_faults_cost_themselves_alone(patience: Callable[[int], float]) -> None:
    tasks = ["a", "hang", "b", "die", "c", "fault", "raise", "d"]
    ends = {done.task: done for done in run_tasks(work, tasks, workers=2, timeout_s=patience(7))}
    assert sorted(ends) == sorted(tasks)
    assert {task: done.result for task, done in ends.items() if done.result} == {t: t.upper() for t in "abcd"}
    assert ends["hang"] == Done("hang", None, "not done within 10000 s", timed_out=True)
    assert ends["die"] == Done("die", None, "the process that read it died")
    assert ends["fault"].fault == "it is blue"
    assert ends["raise"].fault == "KeyError: 'colour'"


def kill_once(task: str) -> str:
    """Killed from outside while it does its first task."""
    mark = Path(task)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def test_killed_processes_lose_no_task(tmp_path: Path) -> None:
    tasks = [str(tmp_path / str(number)) for number in range(6)]
    ends = list(run_tasks(kill_once, tasks, workers=2, timeout_s=600))
    assert sorted((done.result, done.fault) for done in ends) == [(str(number), "") for number in range(6)]


def where(_task: int) -> tuple[int, int, str]:
    """What a process is a fork of, that one's threads, and the working directory."""
    return os.getppid(), len(list(Path(f"/proc/{os.getppid()}/task").iterdir())), str(Path.cwd())


def test_processes_are_forks_of_one_that_stays_and_work_where_the_tool_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        monkeypatch.chdir(folder)
        found += [(done.result, str(folder)) for done in run_tasks(where, range(3), workers=2, timeout_s=600)]
    assert {result[2] == folder for result, folder in found if result} == {True}
    assert len({result[0] for result, _ in found if result}) == 1


def test_forking_is_safe_with_all_that_tools_import() -> None:
    """A process with threads, such as a library starts when it is imported, must not be forked."""
    modules = ("checking", "cutting", "sample_frames", "trajectories", "lerobot_pairs", *FORMATS)
    server = ForkServer("lary_data.pool", *(f"lary_data.{name}" for name in modules))
    ours, theirs = Pipe()
    with ours:
        with theirs:
            fork = server.start([theirs.fileno()], {"path": sys.path})
        ours.send(where)
        assert ours.recv() == (None,)
        ours.send(0)
        (_, threads, _), cause, _ = ours.recv()
    assert (threads, cause) == (1, None)
    assert fork.ended(600) == 0
    server.close()


def test_no_task_starts_no_process() -> None:
    assert list(run_tasks(work, [], workers=2, timeout_s=1)) == []


def test_the_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    marks = [tmp_path / "1", tmp_path / "2"]
    parent = subprocess.Popen([sys.executable, "-c", TOOL, *map(str, marks)], cwd=tmp_path)
    found = [wait_for(mark).split() for mark in marks]
    # And what they are forks of.
    assert found[0][1] == found[1][1]
    pids = {int(pid) for pids in found for pid in pids}
    assert len(pids) == 3
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(map(is_running, pids)):  # else the test's time limit ends this
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(path: Path) -> str:
    while not (path.exists() and path.read_text().endswith("\n")):  # else the test's time limit ends this
        time.sleep(0.05)
    return path.read_text()


def test_results_are_kept_and_faults_are_not(tmp_path: Path) -> None:
    def run(tasks: list[str]) -> dict[str, str | None]:
        with ResultLog(tmp_path / "log") as log:
            ends = run_resumed(work, tasks, lambda task: f"key {task}", log, 1, 60, keep=lambda result: result != "B")
            return {done.task: done.result for done in ends}

    assert run(["a", "b", "fault"]) == {"a": "A", "b": "B", "fault": None}
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [["key a", "A"]]
    (tmp_path / "log").write_text('["key a", "as it was"]\n')
    assert run(["a", "b", "c"]) == {"a": "as it was", "b": "B", "c": "C"}


def test_an_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'["k1", 1]\n["k2", 2]\n["k3", [1, 2')
    with ResultLog(path) as log:
        assert (log.get("k1"), log.get("k2"), log.get("k3")) == (1, 2, None)
        log.put("k3", [3])
    assert path.read_bytes() == b'["k1", 1]\n["k2", 2]\n["k3", [3]]\n'


def test_two_runs_do_not_write_one_log(tmp_path: Path) -> None:
    with ResultLog(tmp_path / "log"), pytest.raises(ContractError, match="in use by another run"):
        ResultLog(tmp_path / "log").__enter__()


def test_another_content_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    os.utime(path, ns=(0, 1))
    before = file_identity(path)
    assert before == [str(path), 1, 1, path.stat().st_ctime_ns]
    assert result_key(before, [9]) != result_key(before, [8])
    os.utime(path, ns=(0, 2))
    assert file_identity(path) == [str(path), 1, 2, path.stat().st_ctime_ns]
    path.write_text("2")
    os.utime(path, ns=(0, 1))
    while path.stat().st_ctime_ns == before[-1]:  # Some file systems' clock ticks every few milliseconds.
        os.utime(path, ns=(0, 1))
    assert file_identity(path) != before
    assert file_identity(tmp_path / "b") is None
