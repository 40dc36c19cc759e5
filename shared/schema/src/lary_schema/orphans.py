"""The processes of an orchestrator that died: they end by themselves, or are found by labels in their environment."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")
OWNER, RUN, ORCHESTRATOR = "LARY_OWNER", "LARY_RUN", "LARY_ORCHESTRATOR"
STATE_FIELD, GROUP_FIELD, START_TIME_FIELD = 0, 2, 19
"""Of /proc/PID/stat after the command's closing bracket (proc(5): fields 3, 5 and 22, clock ticks since boot)."""
ZOMBIE = "Z"
GRACE_S = 5.0
WATCH_S = 1.0
"""How often a job looks whether its orchestrator is there."""


def labels(owner: str, run: str) -> dict[str, str]:
    """The variables that mark a task: whose it is, and which living process looks after it."""
    return {OWNER: owner, RUN: run, ORCHESTRATOR: _identity(os.getpid())}


def end_with_orchestrator() -> None:
    """From now on this process is killed, and its group with it, soon after its orchestrator died (Linux).

    For the first process of a job, which leads its group: what it started ends with it. Without labels, in a container
    and in a task of a cluster, nothing happens. What is on the disk is whole or absent, as after any kill.
    """
    if PROC.is_dir() and os.getpgrp() == os.getpid() and _is_of_this_machine(label := os.environ.get(ORCHESTRATOR, "")):
        threading.Thread(target=_end_after, args=(label,), name="orchestrator", daemon=True).start()


def _end_after(orchestrator: str) -> None:
    while _is_there(orchestrator):
        time.sleep(WATCH_S)
    # By force: a polite request would end this process first, and what does not listen to it would stay.
    os.killpg(0, signal.SIGKILL)


def sweep(owner: str) -> list[str]:
    """End this workspace's tasks whose orchestrator is gone; a line for each, for people."""
    if not PROC.is_dir():
        return ["processes of a dead orchestrator cannot be found on this system (no /proc); look for lary_worker"]
    found = {pid: env for pid in _pids() if is_orphan(env := _environ(pid), owner)}
    for pid in found:
        _kill(pid, signal.SIGTERM)
    _wait_until(lambda: not any(map(_alive, found)))
    for pid in filter(_alive, found):
        _kill(pid, signal.SIGKILL)
    return [f"ended process {pid} of run {env.get(RUN, '?')}" for pid, env in found.items()]


def wait_for_group(group: int) -> None:
    """Return when no process of a killed group runs any more (Linux; elsewhere at once).

    A kill returns before its target has let go of files and locks.
    """
    if PROC.is_dir():
        _wait_until(lambda: not any(_in_group(pid, group) for pid in _pids()))


def _in_group(pid: int, group: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[GROUP_FIELD] == str(group) and stat[STATE_FIELD] != ZOMBIE


def _wait_until(reached: Callable[[], bool]) -> None:
    """Wait for the effect of a signal, but not for ever: a process can hang in the kernel."""
    deadline = time.monotonic() + GRACE_S
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.02)


def is_orphan(env: dict[str, str], owner: str) -> bool:
    """Ours, of this pid namespace (in another the number means another process), and unattended."""
    label = env.get(ORCHESTRATOR, "")
    return env.get(OWNER) == owner and _is_of_this_machine(label) and not _is_there(label)


def _is_of_this_machine(label: str) -> bool:
    """Whether a label names a process of this pid namespace: in another the number means another process."""
    namespace, _, rest = label.partition("/")
    return namespace == _namespace() and rest.partition("/")[0].isdigit()


def _is_there(label: str) -> bool:
    """Whether the process that a label names runs; where there is no /proc, nobody knows, and it does."""
    pid = int(label.split("/")[1])
    return _identity(pid) == label and (_alive(pid) or not PROC.is_dir())


def _identity(pid: int) -> str:
    """Namespace, number and start time: a number alone is given to another process some day."""
    stat = _stat(pid)
    return f"{_namespace()}/{pid}/{stat[START_TIME_FIELD] if stat else ''}"


def _namespace() -> str:
    link = PROC / "self/ns/pid"
    return link.readlink().name if link.is_symlink() else ""


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, which may itself hold spaces; none for a dead process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _alive(pid: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[STATE_FIELD] != ZOMBIE


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()]


def _environ(pid: int) -> dict[str, str]:
    """A process's environment; empty for those of other users and those that just ended."""
    try:
        data = (PROC / str(pid) / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(part.split("=", 1) for part in data.split("\0") if "=" in part)


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
