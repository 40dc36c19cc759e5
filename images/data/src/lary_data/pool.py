"""Tasks of data tools in child processes, each with a limit of wall-clock time (`lary_worker.processes`).

The processes are forks of one that has imported what they need (`lary_worker.forks`).
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
from lary_schema.events import TRANSIENT
from lary_worker.faults import RowFaultError, detail_of, from_os_error
from lary_worker.forks import fork_server
from lary_worker.processes import Child, End, Processes, Reply

Task = TypeVar("Task")
Result = TypeVar("Result")


class TaskFaultError(Exception):
    """A task failed for the reason that the message gives. The others go on."""


class Done(NamedTuple, Generic[Task, Result]):
    """How a task ended: with a result, or with the reason why there is none."""

    task: Task
    result: Result | None
    fault: str = ""
    timed_out: bool = False


def run_tasks(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, timeout_s: float
) -> Iterator[Done[Task, Result]]:
    """Do `function(task)` for every task in `workers` processes; the ends come in the order in which they happen.

    `function` is of a module's top level, not of a script's, tasks and results can be pickled, and no result is None.
    `tasks` is read as processes become free. A task that takes longer than `timeout_s` is killed with its process;
    TaskFaultError, RowFaultError, any other exception and the process's own death are its fault alone. What need not be
    its fault (its process was killed, memory ran out, the volume failed, it took too long) is tried again before. The
    processes end with the iterator and with this process.
    """
    waiting = iter(tasks)
    first = list(islice(waiting, 1))
    if not first:
        return
    rest = chain(first, waiting)
    more = True

    def following() -> list[Task] | None:
        """In a list, since a task may be None."""
        nonlocal more
        found = list(islice(rest, 1))
        more = bool(found)
        return found or None

    pool: Processes[list[Task]] = Processes(lambda: _start(function), _send, _receive, workers, timeout_s)
    try:
        while more or pool.busy:
            pool.feed(following)
            if more or pool.busy:
                yield from map(_done, pool.collect()[0])
    finally:
        pool.close()


def _done(end: End[list[Task]]) -> Done[Task, Any]:
    (task,), result = end.task, end.reply
    if result.cause in ("killed", "crashed"):
        return Done(task, None, "the process that read it died")
    return Done(task, result.value, result.detail, result.cause == "timeout")


def _start(function: Callable[[Any], Any]) -> Child[list[Any]]:
    ours, theirs = Pipe()
    with theirs:
        fork = fork_server(__name__, function.__module__).start([theirs.fileno()], {"path": sys.path})
    # By its name; a process that has gone already is found so by `Processes`.
    with suppress(OSError):
        ours.send(function)
    return Child(ours, fork, fork.ended)


def _send(pipe: Connection, tasks: list[list[Any]]) -> None:
    """One task, in a list as above: none is given in advance."""
    ((task,),) = tasks
    pipe.send(task)


def _receive(pipe: Connection) -> list[Reply]:
    return [Reply(*pipe.recv())]


def main(arguments: list[str]) -> int:
    """In a process: do tasks until the pipe ends. Arguments: the pipe's descriptor, settings (JSON)."""
    sys.path[:] = json.loads(arguments[1])["path"]
    # Parallelism is by process: a thread per core in each would only get in its way.
    cv2.setNumThreads(1)
    with Connection(int(arguments[0])) as pipe:
        function = pipe.recv()
        pipe.send((None,))
        while True:
            try:
                task = pipe.recv()
            except EOFError:
                return 0
            pipe.send(_attempt(function, task))


def _attempt(function: Callable[[Any], Any], task: object) -> tuple[Any, str | None, str]:
    """Value, cause and detail; causes other than the transient ones are final."""
    try:
        return function(task), None, ""
    except RowFaultError as fault:
        return None, fault.reason if fault.reason in TRANSIENT else "fault", str(fault)
    except TaskFaultError as fault:
        return None, "fault", str(fault)
    except MemoryError:
        return None, "out_of_memory", "out of memory"
    except OSError as error:
        reason = from_os_error(error, "").reason
        return None, reason if reason in TRANSIENT else "fault", detail_of(error)
    except Exception as error:  # noqa: BLE001 - libraries raise anything on broken files, and it costs the file alone
        return None, "fault", detail_of(error)
