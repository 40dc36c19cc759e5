"""Tasks in child processes, one after the other in each: what hangs, dies or fails costs its own task alone.

A cause that need not be the task's own (its process was killed, memory ran out, the volume failed, it took too long) is
tried again in a fresh process, a few times. What a task does by itself again and again is final.

A process whose tasks are short is given several in advance, since a message costs more than such a task. Where it dies,
those it had not begun are nobody's fault and go to another.

Whoever owns the processes says how they are started and what they send (`Child`); the worker's decode processes and
those of the data tools are both of this kind.
"""

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
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
"""How often, in a row and for each worker, a process may be killed while it starts, until that is the machine's fault.

For each worker, since all that are starting may end by one kill: of the process that they are forks of.
"""
_PAUSE_S = 0.2
"""Before a task is tried again whose process did not die: a full memory or a lost server needs a moment."""
_PATIENCE_S = 5.0
IN_ADVANCE_S = 0.02
"""How much work a process is given in advance, by what its last tasks took; it may keep replies back as long."""
_KILLS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU})


class ChildProcess(Protocol):
    """What `subprocess` and `multiprocessing` have in common."""

    def kill(self) -> None: ...


class Stage(NamedTuple):
    """What a process does with a task that is not done yet."""

    name: str


class Reply(NamedTuple):
    """The end of a task: `cause` is why there is no value, in the words of `TRIES` or others."""

    value: Any
    cause: str | None = None
    detail: str = ""


@dataclass
class Attempt(Generic[Task]):
    """A task, and for which causes it failed before."""

    task: Task
    failed: Counter[str] = field(default_factory=Counter)


@dataclass
class Child(Generic[Task]):
    """One process. It sends first, once, when it is ready; then replies to its tasks, in their order.

    It may keep replies back (`IN_ADVANCE_S`) where `look` sees the tasks that are done; a failure it sends at once.
    """

    pipe: Connection
    process: ChildProcess
    ended: Callable[[float], int | None]
    """Wait at most so many seconds for the end; the return code, negative for a signal, or None."""
    look: Callable[[Task], Stage | Reply | None] = lambda _task: None
    """What can be seen of a task without a message from the process, which may be dead."""
    ready: bool = False
    attempts: deque[Attempt[Task]] = field(default_factory=deque)
    """What it was given; it is at the first."""
    since: float = 0.0
    """When it was heard of, or got the first of its tasks."""
    task_s: float = float("inf")
    """How long its last tasks took, each."""
    deadline: float = float("inf")

    def kill(self) -> int | None:
        """End it at once. One that waits for a dead file server cannot be killed: it is left behind."""
        self.process.kill()
        code = self.ended(_PATIENCE_S)
        self.pipe.close()
        return code


class End(NamedTuple, Generic[Task]):
    """How a task ended at last."""

    task: Task
    reply: Reply
    stage: str
    """Where its process died or was killed, what it did with the task then, if that is known."""


class StartError(RuntimeError):
    """A process cannot start; what it had to say is on stderr."""


class Processes(Generic[Task]):
    """`workers` children. Not for several threads."""

    def __init__(
        self,
        start: Callable[[], Child[Task]],
        send: Callable[[Connection, list[Task]], None],
        receive: Callable[[Connection], list[Reply]],
        workers: int,
        timeout_s: float,
        in_advance: int = 1,
    ) -> None:
        """`in_advance`: tasks that a process has at a time, at most."""
        self._start = start
        self._send = send
        self._receive = receive
        self._timeout_s = timeout_s
        self._in_advance = in_advance
        self._most_killed_starts = _STARTS * workers
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
        return bool(self._again) or any(child.attempts for child in self._children)

    def feed(self, more: Callable[[], Task | None]) -> None:
        """Give tasks to processes: those to be tried again first, then what `more` gives until it gives None."""
        for child in self._children:
            attempts = list(islice(self._following(more), self._wanted(child)))
            if attempts:
                self._give(child, attempts)

    def collect(self, wake: Iterable[Any] = ()) -> tuple[list[End[Task]], list[Any]]:
        """Wait until something happens; the tasks that are at their end, and which of `wake` can be read.

        Raises StartError.
        """
        by_pipe: dict[Any, Child[Task]] = {child.pipe: child for child in self._children}
        ready = wait([*by_pipe, *wake], self._until_due())
        ends = [end for pipe in ready if pipe in by_pipe for end in self._hear(by_pipe[pipe])]
        now = time.monotonic()
        for child in [c for c in self._children if c.deadline <= now and not c.pipe.poll()]:
            ends += self._replace(child, Reply(None, "timeout", f"not done within {self._timeout_s:g} s"))
        return ends, [item for item in ready if item not in by_pipe]

    def _until_due(self) -> float | None:
        """Seconds until a process is late or a task is to be tried again; None: nothing is due."""
        due = min(child.deadline for child in self._children)
        if self._again and any(self._wanted(child) for child in self._children):
            due = min(due, self._again[0][0])
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _wanted(self, child: Child[Task]) -> int:
        """How many tasks it should be given now: none before half of what it may have is done."""
        if not child.ready:
            return 0
        at_most = max(1, min(self._in_advance, int(IN_ADVANCE_S / child.task_s)))
        return at_most - len(child.attempts) if len(child.attempts) <= at_most // 2 else 0

    def _following(self, more: Callable[[], Task | None]) -> Iterator[Attempt[Task]]:
        while self._again and self._again[0][0] <= time.monotonic():
            yield self._again.popleft()[1]
        while (task := more()) is not None:
            yield Attempt(task)

    def _give(self, child: Child[Task], attempts: list[Attempt[Task]]) -> None:
        if not child.attempts:
            child.since = time.monotonic()
            child.deadline = self._deadline(child.since)
        child.attempts.extend(attempts)
        # A process that has just died is found so by `collect`.
        with suppress(OSError):
            self._send(child.pipe, [attempt.task for attempt in attempts])

    def _deadline(self, now: float) -> float:
        """Of the task that a process begins now, or when it next sends the replies that it keeps back."""
        return now + self._timeout_s + (IN_ADVANCE_S if self._in_advance > 1 else 0)

    def _hear(self, child: Child[Task]) -> list[End[Task]]:
        try:
            replies = self._receive(child.pipe)
        except (EOFError, OSError):
            return self._replace(child, None)
        now = time.monotonic()
        if not child.ready:
            child.ready, self._killed_starts = True, 0
            return []
        child.task_s, child.since = max(now - child.since, 1e-6) / max(1, len(replies)), now
        ends = [end for reply in replies for end in self._settle(child.attempts.popleft(), reply, _PAUSE_S)]
        child.deadline = self._deadline(now) if child.attempts else float("inf")
        return ends

    def _settle(self, attempt: Attempt[Task], reply: Reply, pause_s: float, stage: str = "") -> list[End[Task]]:
        """The end of a task, or nothing yet where it is tried again."""
        if reply.cause is not None:
            attempt.failed[reply.cause] += 1
            if attempt.failed[reply.cause] < TRIES.get(reply.cause, 1):
                self._again.append((time.monotonic() + pause_s, attempt))
                return []
        return [End(attempt.task, reply, stage)]

    def _replace(self, child: Child[Task], reply: Reply | None) -> list[End[Task]]:
        """A fresh process for one that hangs, or that died (`reply` is None)."""
        died = reply is None
        code = child.ended(_PATIENCE_S) if died else None
        child.kill()
        self._children.remove(child)
        if not child.ready:
            self._count_start(code)
        self._children.append(self._start())
        return self._leave(child, reply or _death(code))

    def _leave(self, child: Child[Task], reply: Reply) -> list[End[Task]]:
        """What becomes of a lost process's tasks: some are done, one was its end, the others were not begun."""
        ends, left = [], child.attempts
        while left and isinstance(done := child.look(left[0].task), Reply):
            ends += self._settle(left.popleft(), done, 0)
        if left:
            seen = child.look(left[0].task)
            ends += self._settle(left.popleft(), reply, 0, seen.name if isinstance(seen, Stage) else "")
        self._again.extendleft((0.0, attempt) for attempt in reversed(left))
        return ends

    def _count_start(self, code: int | None) -> None:
        self._killed_starts += 1
        if not _was_killed(code) or self._killed_starts >= self._most_killed_starts:
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
