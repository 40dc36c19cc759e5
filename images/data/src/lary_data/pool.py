"""Tasks in child processes, each with a limit of wall-clock time: what hangs or crashes costs its own task alone."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
from lary_worker.faults import RowFaultError, detail_of
from lary_worker.parent import die_with_parent

Task = TypeVar("Task")
Answer = TypeVar("Answer")
_PATIENCE_S = 5.0
_SPAWN = multiprocessing.get_context("spawn")


class TaskFaultError(Exception):
    """A task failed for the reason that the message gives. The others go on."""


class Done(NamedTuple, Generic[Task, Answer]):
    """How a task ended: with an answer, or with the reason why there is none."""

    task: Task
    answer: Answer | None
    fault: str = ""
    timed_out: bool = False


@dataclass
class _Child(Generic[Task]):
    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    task: list[Task] = field(default_factory=list)
    """The task at hand, or empty."""
    deadline: float = float("inf")

    @property
    def idle(self) -> bool:
        return self.ready and not self.task

    def kill(self) -> None:
        self.process.kill()
        # One that waits for a dead file server cannot be killed; it is left behind.
        self.process.join(_PATIENCE_S)
        self.pipe.close()


class _Pool(Generic[Task, Answer]):
    def __init__(self, function: Callable[[Task], Answer], tasks: Iterator[Task], timeout_s: float) -> None:
        self._function = function
        self._tasks = tasks
        self._timeout_s = timeout_s
        self.children: list[_Child[Task]] = []
        self.more = True

    def start(self) -> None:
        ours, theirs = _SPAWN.Pipe()
        with theirs:
            process = _SPAWN.Process(target=_serve, args=(theirs, self._function, os.getpid()), daemon=True)
            process.start()
        self.children.append(_Child(process, ours))

    def feed(self) -> None:
        for child in [child for child in self.children if child.idle]:
            for task in self._tasks:
                child.task = [task]
                child.deadline = time.monotonic() + self._timeout_s
                # A process that has just died is found so by `collect`.
                with suppress(OSError):
                    child.pipe.send(task)
                break
            else:
                self.more = False
                return

    def collect(self) -> Iterator[Done[Task, Answer]]:
        by_pipe = {child.pipe: child for child in self.children}
        timeout = min(child.deadline for child in self.children) - time.monotonic()
        for pipe in wait(list(by_pipe), None if timeout == float("inf") else max(0, timeout)):
            assert isinstance(pipe, Connection)
            yield from self._receive(by_pipe[pipe])
        now = time.monotonic()
        for child in [child for child in self.children if child.deadline <= now and not child.pipe.poll()]:
            yield from self._replace(child, f"not done within {self._timeout_s:g} s", timed_out=True)

    def _receive(self, child: _Child[Task]) -> Iterator[Done[Task, Answer]]:
        try:
            answer, fault = child.pipe.recv()
        except (EOFError, OSError):
            yield from self._replace(child, "the process that read it died")
            return
        if child.ready:
            yield Done(child.task.pop(), answer, fault)
            child.deadline = float("inf")
        child.ready = True

    def _replace(self, child: _Child[Task], fault: str, timed_out: bool = False) -> Iterator[Done[Task, Answer]]:
        child.kill()
        self.children.remove(child)
        if not child.ready:
            raise RuntimeError("a process of the pool ended while it started; its message is above")
        self.start()
        yield from (Done(task, None, fault, timed_out) for task in child.task)


def run_tasks(
    function: Callable[[Task], Answer], tasks: Iterable[Task], workers: int, timeout_s: float
) -> Iterator[Done[Task, Answer]]:
    """Do `function(task)` for every task in `workers` processes; the ends come in the order in which they happen.

    `function` is of a module's top level, tasks and answers can be pickled, and no answer is None. `tasks` is read as
    processes become free. A task that takes longer than `timeout_s` is killed with its process; TaskFaultError,
    RowFaultError, any other exception and the process's own death are its fault alone. The processes end with the
    iterator and with this process.
    """
    waiting = iter(tasks)
    first = list(islice(waiting, 1))
    if not first:
        return
    pool = _Pool(function, chain(first, waiting), timeout_s)
    try:
        for _ in range(workers):
            pool.start()
        while True:
            pool.feed()
            if not pool.more and not any(child.task for child in pool.children):
                return
            yield from pool.collect()
    finally:
        for child in pool.children:
            child.kill()


def _serve(pipe: Connection, function: Callable[[Any], Any], parent: int) -> None:
    die_with_parent(parent)
    # Parallelism is by process: a thread per core in each would only get in its way.
    cv2.setNumThreads(1)
    pipe.send((None, ""))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_attempt(function, task))


def _attempt(function: Callable[[Any], Any], task: object) -> tuple[Any, str]:
    try:
        return function(task), ""
    except (TaskFaultError, RowFaultError) as fault:
        return None, str(fault)
    except Exception as error:  # noqa: BLE001 - libraries raise anything on broken files, and it costs the file alone
        return None, detail_of(error)
