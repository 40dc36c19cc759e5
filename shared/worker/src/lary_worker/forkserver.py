"""What others are forks of: `python -m lary_worker.forkserver MODULE FILE [MODULE ...]`, started by `forks`.

It imports the modules, then does what its owner says over the socket FILE: fork, and kill a fork. A fork does `main` of
the first module. It has a socket of its own to the owner, over which its end is told. When the owner ends in any way,
FILE closes, this process ends, and so do its forks.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from lary_worker.forks import CODE, LENGTH
from lary_worker.parent import die_with_parent

Main = Callable[[list[str]], int]
_MOST_FILES = 16


def main(arguments: list[str]) -> int:
    """Serve until the owner has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run: Main = importlib.import_module(arguments[0]).main
    for name in arguments[2:]:
        # What is not to be found here, a fork finds for itself, or says why not.
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    # What is there now is never collected: a collection in a fork would copy the memory that they all share.
    gc.freeze()
    with socket.socket(fileno=int(arguments[1])) as control:
        _Server(control, run).serve()
    return 0


class _Server:
    def __init__(self, control: socket.socket, run: Main) -> None:
        self._control, self._run = control, run
        self._ends, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        self._told = told
        self._lives: dict[int, socket.socket] = {}
        """Process id of every living fork -> the socket to the owner."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        self._selector.register(self._ends, selectors.EVENT_READ, None)

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    if not self._begin():
                        return
                elif key.fd == self._ends:
                    self._reap()
                elif key.data in self._lives:
                    self._kill(key.data)

    def _begin(self) -> bool:
        """Fork; False where the owner has gone."""
        head, files, _, _ = socket.recv_fds(self._control, LENGTH.size, _MOST_FILES, socket.MSG_WAITALL)
        if len(head) < LENGTH.size:
            return False
        (size,) = LENGTH.unpack(head)
        text = self._control.recv(size, socket.MSG_WAITALL)
        if len(text) < size:
            return False
        life = socket.socket(fileno=files[0])
        self._fork(life, files[1:], text)
        for file in files[1:]:
            os.close(file)
        return True

    def _fork(self, life: socket.socket, files: list[int], text: bytes) -> None:
        own = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"a process cannot be started: {error}\n")
            _tell(life, 1)
            return
        if pid == 0:
            life.close()
            self._become(own, files, text)
        self._lives[pid] = life
        self._selector.register(life.fileno(), selectors.EVENT_READ, pid)

    def _kill(self, pid: int) -> None:
        """The owner wants a fork's end, or has dropped it. It is not reaped yet, so the number is its own."""
        with suppress(OSError):
            if not self._lives[pid].recv(16):
                self._selector.unregister(self._lives[pid].fileno())
        os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._ends, 4096)
        for pid, life in list(self._lives.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._lives[pid]
            with suppress(KeyError):
                self._selector.unregister(life.fileno())
            _tell(life, os.waitstatus_to_exitcode(status))

    def _become(self, parent: int, files: list[int], text: bytes) -> NoReturn:
        """In a fork: do the command, and never return."""
        code = 1
        try:
            self._forget()
            os.dup2(files[0], 2)
            os.close(files[0])
            die_with_parent(parent)
            request = json.loads(text)
            os.environ.clear()
            os.environ.update(request["environ"])
            os.chdir(request["folder"])
            # Modules may have come since the server began, and what draws at random draws for itself.
            importlib.invalidate_caches()
            if "numpy.random" in sys.modules:
                sys.modules["numpy.random"].seed()
            code = self._run([*map(str, files[1:]), json.dumps(request["settings"])])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001 - as Python ends with whatever was not caught
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _forget(self) -> None:
        """Leave the server's files and signals to it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for life in self._lives.values():
            life.close()
        for file in (self._ends, self._told):
            os.close(file)
        self._control.close()


def _tell(life: socket.socket, code: int) -> None:
    with suppress(OSError):
        life.send(CODE.pack(code))
    life.close()


if __name__ == "__main__":
    # Python would take itself apart first, module by module.
    os._exit(main(sys.argv[1:]))
