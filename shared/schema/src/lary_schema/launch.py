"""One job by several processes of this machine: started, listened to and ended together. Imports no torch."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from lary_schema.base import ContractError, ExitCode
from lary_schema.events import Emit, Failed, from_line

JOINED_BY = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torch reads to find the other processes; whoever starts them sets all of it."""
LAUNCHED = "LARY_LAUNCHED"
"""Set for our own children: their stdin is a pipe that ends with us."""
POLL_SECONDS = 0.05


class ProcessFailedError(ContractError):
    """One of the processes failed by its own decision; its message and its exit code."""

    def __init__(self, event: Failed) -> None:
        super().__init__(event.message)
        self.exit_code = ExitCode(event.code)


def is_joined(env: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody (`launch`, srun, torchrun) started this process as one of several.

    Raises ContractError where the variables that say so are incomplete.
    """
    if "RANK" not in env and "WORLD_SIZE" not in env:
        return False
    missing = [name for name in JOINED_BY if not env.get(name)]
    if missing:
        raise ContractError(
            f"RANK or WORLD_SIZE is set and {', '.join(missing)} is not; set {', '.join(JOINED_BY)} for each process, "
            "or none of them"
        )
    return True


def local_processes(env: Mapping[str, str] = os.environ) -> int:
    """How many processes of the job share this machine's memory and cores, as far as the environment says."""
    return int(env.get("LOCAL_WORLD_SIZE") or 1)


def launch(command: Sequence[str], processes: int, emit: Emit) -> None:
    """Run `command` once per process, with torch's variables set, until all have ended well.

    Events of the first process are passed on to `emit`. As soon as one process fails all others are
    ended. Raises ProcessFailedError with the first failure that a process reported, or SystemExit
    with the exit code of one that said nothing (128 + n for signal n).
    """
    failures: list[Failed] = []
    with _reserved_port() as port:
        children = [_start(command, rank, processes, port) for rank in range(processes)]
        listeners = [
            threading.Thread(target=_listen, args=(child.stdout, rank == 0, emit, failures))
            for rank, child in enumerate(children)
        ]
        try:
            for listener in listeners:
                listener.start()
            codes = _wait(children)
        finally:
            for child in children:
                child.kill()
                child.wait()
                if child.stdin is not None:
                    child.stdin.close()
        for listener in listeners:
            listener.join()
    if failures:
        raise ProcessFailedError(failures[0])
    if any(codes):
        raise SystemExit(_exit_code(codes))


def end_with_launcher() -> None:
    """In a process that `launch` started: end when it does, however it ends."""
    if LAUNCHED in os.environ:
        threading.Thread(target=_wait_for_end_of_stdin, name="launcher", daemon=True).start()


def _start(command: Sequence[str], rank: int, processes: int, port: int) -> subprocess.Popen[str]:
    env = _loopback_alone() | os.environ
    env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    env |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), LAUNCHED: "1"}
    return subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    )


def _loopback_alone() -> dict[str, str]:
    """Without these, gloo looks up the host's name, which a container without network does not have."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {f"{library}_SOCKET_IFNAME": name for library in ("GLOO", "NCCL") for name in names[:1]}


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that nobody else is given while the block runs.

    Bound here and not listened on, so the first process may still bind it and listen.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


def _listen(stdout: IO[str], main: bool, emit: Emit, failures: list[Failed]) -> None:
    with stdout:
        for line in stdout:
            event = from_line(line)
            if isinstance(event, Failed):
                failures.append(event)
            elif main and event is not None:
                emit(event)


def _wait(children: Sequence[subprocess.Popen[str]]) -> list[int]:
    """Exit codes when all have ended or one has failed; 0 for those still running then."""
    while True:
        codes = [child.poll() for child in children]
        if any(codes) or None not in codes:
            return [code or 0 for code in codes]
        time.sleep(POLL_SECONDS)


def _exit_code(codes: Sequence[int]) -> int:
    """A signal before anything else: the others may have failed only because that one was gone."""
    signals = [-code for code in codes if code < 0]
    return 128 + signals[0] if signals else max(codes)


def _wait_for_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    # At once: what hangs would hang an orderly end too, and everything on disk is whole or absent.
    os._exit(1)
