"""Processes as forks of one process that has imported what they need (`forkserver`): for decoding, and of data tools.

A Python with OpenCV, PyAV and pydantic takes 0.4 s of processor time to start; a fork of it takes hundredths. The
server belongs to the process that starts it, serves all its jobs, and ends with it. It never imports torch or a
model and has one thread, so forking it is safe, whatever its owner does meanwhile on threads or a GPU.
"""

import atexit
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

CODE = struct.Struct("<i")
"""The server's last word on a fork: its return code, negative for a signal."""
LENGTH = struct.Struct("<I")
"""Of a request, which is JSON; the first byte of this comes with the fork's files."""
KILL = b"k"
ONE_THREAD = {
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    # Of the allocator in Arrow's wheels, whose thread would start with the import.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""Parallelism is by process: a thread per core would only get in its way, and what is forked must have none but one."""
_PATIENCE_S = 5.0
_STDERR = 2


class Fork:
    """A started process; a `ChildProcess`."""

    def __init__(self, life: socket.socket, server: "ForkServer") -> None:
        self._life, self._server = life, server
        self._code: int | None = None

    def kill(self) -> None:
        """At once. The server does it, which knows whether the process's number is still its own."""
        with suppress(OSError):
            self._life.send(KILL)

    def ended(self, seconds: float) -> int | None:
        """Wait at most so long for its end; the return code, or None. With the server, its forks end as it did."""
        if self._code is None:
            self._life.settimeout(seconds)
            try:
                said = self._life.recv(CODE.size, socket.MSG_WAITALL)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError:
                said = b""
            self._code = CODE.unpack(said)[0] if len(said) == CODE.size else self._server.ended()
            self._life.close()
        return self._code


class ForkServer:
    """Starts processes that run `main` of a module. Any thread may call it."""

    def __init__(self, module: str, *also: str) -> None:
        """`also`: further modules that the processes need, and that are imported once for all of them."""
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            command = [sys.executable, "-m", "lary_worker.forkserver", module, str(theirs.fileno()), *also]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=os.environ | ONE_THREAD
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ended(self) -> int | None:
        """The server's own return code, once it has gone."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_PATIENCE_S)
        return None

    def start(self, files: Sequence[int], settings: Mapping[str, Any]) -> Fork:
        """A process that does `main([number of each file, settings as JSON])`.

        It has this process's environment, folder and stderr. What it cannot be started for shows as its end.
        """
        ours, theirs = socket.socketpair()
        request = json.dumps({"settings": settings, "environ": os.environ | ONE_THREAD, "folder": _folder()}).encode()
        with theirs, self._lock, suppress(OSError):
            socket.send_fds(self._control, [LENGTH.pack(len(request))], [theirs.fileno(), _STDERR, *files])
            self._control.sendall(request)
        return Fork(ours, self)

    def close(self) -> None:
        """End it, and all that it started."""
        self._control.close()
        self.ended()


def _folder() -> str:
    """The working directory; the root where that is gone."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "/"


_SERVERS: dict[tuple[str, ...], tuple[tuple[int, str, str], ForkServer]] = {}
"""By modules: by which process, under which interpreter and path it was started, and the server."""
_LOCK = threading.Lock()


def fork_server(*modules: str) -> ForkServer:
    """This process's server of modules (`ForkServer`), made at the first call, and anew where it has gone."""
    key = os.getpid(), sys.executable, os.environ.get("PYTHONPATH", "")
    with _LOCK:
        known, server = _SERVERS.get(modules, (None, None))
        if server is not None and known == key and server.is_alive:
            return server
        if server is not None:
            server.close()
        _SERVERS[modules] = key, ForkServer(*modules)
        return _SERVERS[modules][1]


@atexit.register
def _close_all() -> None:
    for _, server in _SERVERS.values():
        server.close()
