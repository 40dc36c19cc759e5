"""Processes that are given several tasks in advance: whichever of them ends its process, the others lose nothing."""

import mmap
import multiprocessing
import os
import random
import signal
from collections import Counter
from contextlib import nullcontext
from multiprocessing.connection import Connection

import pytest
from lary_worker import processes
from lary_worker.processes import Child, End, Processes, Reply, StartError

FORK = multiprocessing.get_context("fork")
TASKS = 60
DONE = b"\1"


def serve(pipe: Connection, tricks: dict[int, str], seen: mmap.mmap) -> None:
    """Does what a task's trick says. Replies are kept back as long as they may be."""
    pipe.send([])
    while True:
        tasks = pipe.recv()
        replies = []
        for task in tasks:
            trick = tricks.get(task, "")
            if trick == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if trick == "exits":
                os._exit(3)
            if trick == "fails":
                pipe.send([*replies, Reply(None, "bad_row", f"task {task}")])
                replies = []
                continue
            seen[task : task + 1] = DONE
            replies.append(Reply(task))
        if replies:
            pipe.send(replies)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_each_task_ends_once_and_by_its_own_fault_alone(
    workers: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(processes.TRIES, "killed", 2)
    # However slow the machine, processes are given all that they may have.
    monkeypatch.setattr(processes, "IN_ADVANCE_S", 1e6)
    chance = random.Random(seed)
    tricks = {task: chance.choice(["killed", "exits", "fails"]) for task in chance.sample(range(TASKS), 9)}
    seen, given = mmap.mmap(-1, TASKS), []

    def start() -> Child[int]:
        ours, theirs = FORK.Pipe()
        with theirs:
            process = FORK.Process(target=serve, args=(theirs, tricks, seen), daemon=True)
            process.start()

        def ended(seconds: float) -> int | None:
            process.join(seconds)
            return process.exitcode

        return Child(ours, process, ended, lambda task: Reply(task) if seen[task : task + 1] == DONE else None)

    def send(pipe: Connection, tasks: list[int]) -> None:
        given.append(tasks)
        pipe.send(tasks)

    waiting, ends = iter(range(TASKS)), list[End[int]]()
    pool = Processes(start, send, lambda pipe: pipe.recv(), workers, 600, in_advance=8)
    try:
        while len(ends) < TASKS:
            pool.feed(lambda: next(waiting, None))
            ends += pool.collect()[0]
        assert not pool.busy
    finally:
        pool.close()
    assert sorted(end.task for end in ends) == list(range(TASKS))
    causes = {"killed": "killed", "exits": "crashed", "fails": "bad_row", "": None}
    for end in ends:
        assert end.reply.cause == causes[tricks.get(end.task, "")], end
        assert end.reply.value == (None if end.reply.cause else end.task)
    # Several were given at a time, and what was begun was not done again, but for what ended its process.
    assert max(map(len, given)) > 1
    tries = Counter(task for tasks in given for task in tasks)
    assert all(tries[task] >= 2 for task, trick in tricks.items() if trick != "fails")


def test_a_slow_task_is_given_alone() -> None:
    """What waits behind it could be done by another process."""
    given = list[list[int]]()

    def start() -> Child[int]:
        ours, theirs = FORK.Pipe()
        with theirs:
            process = FORK.Process(target=serve, args=(theirs, {}, mmap.mmap(-1, TASKS)), daemon=True)
            process.start()
        return Child(ours, process, lambda seconds: process.join(seconds) or process.exitcode)

    def send(pipe: Connection, tasks: list[int]) -> None:
        given.append(tasks)
        pipe.send(tasks)

    waiting, ends = iter(range(4)), list[End[int]]()
    pool = Processes(start, send, lambda pipe: pipe.recv(), 1, 600, in_advance=8)
    try:
        while len(ends) < 4:
            # As if each had taken a second.
            for child in pool._children:
                child.task_s = 1.0
            pool.feed(lambda: next(waiting, None))
            ends += pool.collect()[0]
    finally:
        pool.close()
    assert given == [[0], [1], [2], [3]]


class _Gone:
    """A process that nobody has to kill."""

    def kill(self) -> None:
        pass


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("lost", [processes._STARTS - 1, processes._STARTS])
def test_one_kill_that_ends_all_starts_counts_once(workers: int, lost: int) -> None:
    """They are forks of one process: each of its deaths, `lost` in all, takes every one that is starting with it."""
    others = dict[Connection, Connection]()

    def start() -> Child[int]:
        ours, theirs = multiprocessing.Pipe()
        others[ours] = theirs
        if len(others) > lost * workers:
            theirs.send([])
        else:
            theirs.close()
        return Child(ours, _Gone(), lambda _: -signal.SIGKILL)

    def send(pipe: Connection, tasks: list[int]) -> None:
        others[pipe].send([Reply(task) for task in tasks])

    waiting, ends = iter(range(3)), list[End[int]]()
    pool = Processes(start, send, lambda pipe: pipe.recv(), workers, 600)
    with pytest.raises(StartError) if lost == processes._STARTS else nullcontext():
        while len(ends) < 3:
            pool.feed(lambda: next(waiting, None))
            ends += pool.collect()[0]
    assert len(ends) == (0 if lost == processes._STARTS else 3)
    pool.close()
    for theirs in others.values():
        theirs.close()
