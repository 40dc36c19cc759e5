"""Tasks in child processes, one at a time in each: what hangs, dies or fails costs its own task alone.

A cause that need not be the task's own (its process was killed, memory ran out, the volume failed, it took too long) is
tried again in a fresh process, a few times. What a task does by itself again and again is final.

Whoever owns the processes says how they are started and what they send (`Child`); the worker's decode processes and
those of the data tools are both of this kind.
"""

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

Task = TypeVar("Task")

TRIES: dict[str, int] = {
    # Each costs a whole time-out.
    "timeout": 2,
    # Whoever kills processes (the kernel's memory killer, a person) kills several.
    "killed": 8,
    "out_of_memory": 3,
    "io_error": 3,
    # Of the task's own doing, if it happens twice.
    "crashed": 2,
    "decode_error": 2,
    "preprocess_error": 2,
}
"""How often a task is tried, all in all, until it has failed for a cause; what is not listed fails at once."""
_STARTS = 20
"""Processes that may be killed while they start, one after the other, until that counts as a fault of the machine."""
_PAUSE_S = 0.2
"""Before a task is tried again whose process did not die: a full memory or a lost server needs a moment."""
_PATIENCE_S = 5.0
_KILLS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU})


class ChildProcess(Protocol):
    """What `subprocess` and `multiprocessing` have in common."""

    def kill(self) -> None: ...


@dataclass
class Child(Generic[Task]):
    """One process. It sends first, once, when it is ready; then it gives one reply to each task."""

    pipe: Connection
    process: ChildProcess
    ended: Callable[[float], int | None]
    """Wait at most so many seconds for the end; the return code, negative for a signal, or None."""
    ready: bool = False
    attempt: "Attempt[Task] | None" = None
    stage: str = ""
    """What it said that it does with the task."""
    deadline: float = field(default=float("inf"))

    def kill(self) -> int | None:
        """End it at once. One that waits for a dead file server cannot be killed: it is left behind."""
        self.process.kill()
        code = self.ended(_PATIENCE_S)
        self.pipe.close()
        return code


class Stage(NamedTuple):
    """A message between: the task goes on, and this is what is done now."""

    name: str


class Reply(NamedTuple):
    """A message that ends a task: `cause` is why there is no value, in the words of `TRIES` or others."""

    value: Any
    cause: str | None = None
    detail: str = ""


@dataclass
class Attempt(Generic[Task]):
    """A task, and for which causes it failed before."""

    task: Task
    failed: Counter[str] = field(default_factory=Counter)


class End(NamedTuple, Generic[Task]):
    """How a task ended at last."""

    task: Task
    reply: Reply
    stage: str


class StartError(RuntimeError):
    """A process cannot start; what it had to say is on stderr."""


class Processes(Generic[Task]):
    """`workers` children. Not for several threads."""

    def __init__(
        self,
        start: Callable[[], Child[Task]],
        send: Callable[[Connection, Task], None],
        receive: Callable[[Connection], Stage | Reply],
        workers: int,
        timeout_s: float,
    ) -> None:
        self._start = start
        self._send = send
        self._receive = receive
        self._timeout_s = timeout_s
        self._children: list[Child[Task]] = []
        self._again: deque[tuple[float, Attempt[Task]]] = deque()
        """Tasks to be tried again, and not before when."""
        self._killed_starts = 0
        try:
            for _ in range(workers):
                self._children.append(start())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes at once."""
        for child in self._children:
            child.process.kill()
        for child in self._children:
            child.kill()

    @property
    def busy(self) -> bool:
        """Whether a task is not at its end."""
        return bool(self._again) or any(child.attempt for child in self._children)

    def feed(self, more: Callable[[], Task | None]) -> None:
        """Give tasks to idle processes: those to be tried again first, then what `more` gives until it gives None."""
        idle = [child for child in self._children if child.ready and child.attempt is None]
        while idle and self._again and self._again[0][0] <= time.monotonic():
            self._give(idle.pop(), self._again.popleft()[1])
        while idle and (task := more()) is not None:
            self._give(idle.pop(), Attempt(task))

    def collect(self, wake: Iterable[Any] = ()) -> tuple[list[End[Task]], list[Any]]:
        """Wait until something happens; the tasks that are at their end, and which of `wake` can be read.

        Raises StartError.
        """
        by_pipe: dict[Any, Child[Task]] = {child.pipe: child for child in self._children}
        due = min(child.deadline for child in self._children)
        if self._again and any(child.ready and child.attempt is None for child in self._children):
            due = min(due, self._again[0][0])
        timeout = None if due == float("inf") else max(0.0, due - time.monotonic())
        ready = wait([*by_pipe, *wake], timeout)
        ends = [end for pipe in ready if pipe in by_pipe for end in self._hear(by_pipe[pipe])]
        now = time.monotonic()
        for child in [c for c in self._children if c.deadline <= now and not c.pipe.poll()]:
            ends += self._replace(child, Reply(None, "timeout", f"not done within {self._timeout_s:g} s"))
        return ends, [item for item in ready if item not in by_pipe]

    def _give(self, child: Child[Task], attempt: Attempt[Task]) -> None:
        child.attempt, child.stage = attempt, ""
        child.deadline = time.monotonic() + self._timeout_s
        # A process that has just died is found so by `collect`.
        with suppress(OSError):
            self._send(child.pipe, attempt.task)

    def _hear(self, child: Child[Task]) -> list[End[Task]]:
        try:
            message = self._receive(child.pipe)
        except (EOFError, OSError):
            return self._replace(child, None)
        if isinstance(message, Stage):
            child.stage = message.name
            return []
        if not child.ready:
            child.ready, self._killed_starts = True, 0
            return []
        child.deadline = float("inf")
        return self._settle(child, message, _PAUSE_S)

    def _settle(self, child: Child[Task], reply: Reply, pause_s: float) -> list[End[Task]]:
        """The end of the child's task, or nothing yet where it is tried again."""
        attempt, child.attempt = child.attempt, None
        if attempt is None:
            return []
        if reply.cause is not None:
            attempt.failed[reply.cause] += 1
            if attempt.failed[reply.cause] < TRIES.get(reply.cause, 1):
                self._again.append((time.monotonic() + pause_s, attempt))
                return []
        return [End(attempt.task, reply, child.stage)]

    def _replace(self, child: Child[Task], reply: Reply | None) -> list[End[Task]]:
        """A fresh process for one that hangs, or that died (`reply` is None)."""
        died = reply is None
        code = child.ended(_PATIENCE_S) if died else None
        child.kill()
        self._children.remove(child)
        if not child.ready:
            self._count_start(code)
        self._children.append(self._start())
        return self._settle(child, reply or _death(code), 0)

    def _count_start(self, code: int | None) -> None:
        self._killed_starts += 1
        if not _was_killed(code) or self._killed_starts >= _STARTS:
            raise StartError(f"a process ended while it started, with code {code}; its message is above")


def _was_killed(code: int | None) -> bool:
    return code is not None and -code in _KILLS


def _death(code: int | None) -> Reply:
    if _was_killed(code):
        return Reply(None, "killed", "its process was killed")
    name = f"code {code}"
    if code is not None and code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
    return Reply(None, "crashed", f"its process died of {name}")
