"""A Python for tests that has imported torch: its commands are forks of one process that is kept.

    python scripts/warm_python.py FOLDER        serves until its stdin ends

FOLDER/python then runs `-m MODULE ...` as Python does. An import of torch costs seconds of processor time, and tests
run hundreds of commands of images. FOLDER/python is a small client: it hands over its arguments, its environment and
its open files, waits, and ends as the fork ended. It passes SIGTERM and SIGINT on; when it is killed, so are the fork
and what the fork started. Anything but `-m lary_...` runs in Python itself.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

MODULES = (
    *("numpy", "cv2", "av", "zarr", "safetensors.torch", "torch", "torch.distributed"),
    *("lary_trainer.training", "lary_trainer.train", "lary_worker.extract", "lary_worker.decode", "lary_worker.slots"),
    *("lary_probe.run", "lary_probe.plots", "lary_orch.cli.run"),
    "torch._dynamo",  # by the first optimiser: a second of processor time
)
MOST_FILES = 64
CLIENT = """#!{python} -IS
import json, os, signal, socket, struct, sys
if sys.argv[1:2] != ["-m"] or not sys.argv[2].startswith("lary_"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
files = []
for name in os.listdir("/proc/self/fd"):
    try:
        os.fstat(int(name))
        files.append(int(name))
    except OSError:
        pass
server = socket.socket(socket.AF_UNIX)
folder = os.open({folder!r}, os.O_PATH)
server.connect(f"/proc/self/fd/{{folder}}/socket")  # a socket's name has 107 bytes at most
os.close(folder)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: server.sendall(bytes([number])))
text = json.dumps([sys.argv[2:], dict(os.environ), os.getcwd(), files]).encode()
socket.send_fds(server, [struct.pack("<I", len(text))], files)
server.sendall(text)
for file in files:
    os.close(file)
code, = struct.unpack("<i", server.recv(4, socket.MSG_WAITALL) or struct.pack("<i", 1))
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def make_client(folder: Path) -> Path:
    """Write FOLDER/python."""
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, folder=str(folder)), encoding="utf-8")
    client.chmod(0o755)
    return client


class Server:
    """Forks. `serve` returns the arguments of its command in a fork, and None in the server at the end."""

    def __init__(self, folder: Path) -> None:
        self._client = folder / "python"
        self._listener = socket.socket(socket.AF_UNIX)
        os.chdir(folder)  # a socket's name has 107 bytes at most
        self._listener.bind("socket")
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)

    def serve(self) -> list[str] | None:
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() < 0:
                    continue  # A client that was killed, and its fork's end a moment before: that closed it.
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is self._listener:
                    if (arguments := self._begin(self._listener.accept()[0])) is not None:
                        return arguments
                elif isinstance(key.fileobj, socket.socket):
                    self._from_client(key.fileobj, key.data)
                else:
                    self._ended(key.fd, *key.data)

    def _begin(self, client: socket.socket) -> list[str] | None:
        head, files, _, _ = socket.recv_fds(client, 4, MOST_FILES)
        if len(head) < 4:
            client.close()
            return None
        (size,) = struct.unpack("<I", head)
        text = client.recv(size, socket.MSG_WAITALL)
        pid = os.fork() if len(text) == size else 0
        if len(text) < size or pid:
            for file in files:
                os.close(file)
        if len(text) < size:
            client.close()
        elif pid == 0:
            # Objects whose files are closed below: their end must not close what has these numbers then.
            for one in (*self._selector.get_map().values(), client):
                if isinstance(held := getattr(one, "fileobj", one), socket.socket):
                    held.close()
            self._selector.close()
            return _become(*json.loads(text), files, self._client)
        else:
            end = os.pidfd_open(pid)
            self._selector.register(client, selectors.EVENT_READ, pid)
            self._selector.register(end, selectors.EVENT_READ, (pid, client))
        return None

    def _from_client(self, client: socket.socket, pid: int) -> None:
        """A signal to pass on, or the end of a client that was killed."""
        numbers = b""
        with suppress(ConnectionError):
            numbers = client.recv(16)
        for number in numbers or [signal.SIGKILL]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            # The group is the fork's own, once it has made it.
            with suppress(ProcessLookupError):
                os.killpg(pid, number)
        if not numbers:
            self._selector.unregister(client)

    def _ended(self, end: int, pid: int, client: socket.socket) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._selector.unregister(end)
        os.close(end)
        with suppress(KeyError):
            self._selector.unregister(client)
        with suppress(OSError):
            client.sendall(struct.pack("<i", code))
        client.close()


def _become(
    arguments: list[str], environ: dict[str, str], folder: str, numbers: list[int], files: list[int], client: Path
) -> list[str]:
    """Take on what a client has: files, environment, folder."""
    os.setsid()
    base = 1000
    high = [fcntl.fcntl(file, fcntl.F_DUPFD, base) for file in files]
    os.closerange(3, base)
    for number, file in zip(numbers, high, strict=True):
        os.dup2(file, number, inheritable=True)
    os.closerange(base, base + 2 * MOST_FILES)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    unbuffered = "PYTHONUNBUFFERED" in environ
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False, buffering=1 if unbuffered else -1)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
    sys.path[:0] = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.executable = str(client)
    importlib.invalidate_caches()
    return arguments


def main() -> None:
    folder = Path(sys.argv[1])
    for name in MODULES:
        importlib.import_module(name)
    server = Server(folder)
    make_client(folder)
    gc.freeze()
    print("ready", flush=True)
    arguments = server.serve()
    if arguments is not None:
        os._exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    """Do a command; its exit code. What Python does at its end but for taking itself apart, which takes longest."""
    sys.argv, code = arguments, 0
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - as Python ends with whatever was not caught
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
