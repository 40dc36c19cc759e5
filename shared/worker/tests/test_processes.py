"""The worker seen from outside: exit codes, stdout, signals, kills, and two at once."""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ExitCode


def children(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += map(int, file.read_text().split())
    return found


def wait_until_gone(pids: list[int]) -> None:
    """Fails by the test's own time limit."""
    while any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in pids):
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def wait_for(process: Any, kind: str) -> None:
    """Read events up to the next of a kind."""
    for line in process.stdout:
        if json.loads(line)["event"] == kind:
            return
    raise AssertionError(process.stderr.read())


EVERY = 99
"""More batches than there are."""


@pytest.fixture
def undisturbed(bench: Any, gate: Any) -> Callable[[Any], dict[str, bytes]]:
    """`undisturbed(job)`: the files of its store when nothing happens; the store is put away."""

    def tree(job: Any) -> dict[str, bytes]:
        gate.open(EVERY)
        assert bench.extract(job).code == 0
        found: dict[str, bytes] = bench.tree()
        (bench.root / "latents" / "latents.zarr").rename(bench.root / "latents" / "undisturbed.zarr")
        return found

    return tree


@pytest.fixture(scope="module", autouse=True)
def stalled(tmp_path_factory: pytest.TempPathFactory, stalling: Any) -> Iterator[Any]:
    """A worker that stalls, its bench and its children: begun first and looked at last, since it takes a while."""
    bench, process = stalling(tmp_path_factory.mktemp("stalled"))
    wait_for(process, "started")
    yield bench, process, children(process.pid)
    process.kill()
    process.communicate()


def test_stdout_is_events_alone(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    done = bench.run(bench.job("noisy"))
    assert done.code == 0, done.stderr
    assert done.events[-1].event == "finished"
    assert "library chatter" in done.stderr
    assert "c chatter" in done.stderr


def test_refusals_are_exit_codes(bench: Any, media: Any) -> None:
    bench.clips([media.red])
    done = bench.run(bench.job("nan", max_failed=0), warm=True)
    assert done.code == ExitCode.TOO_MANY_FAILED
    assert done.message in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_it_in_the_middle_of_a_computation(bench: Any, media: Any, number: int, code: int) -> None:
    bench.clips(media.colours)
    process = bench.start(bench.job("stalls"))
    wait_for(process, "started")
    while not children(process.pid):
        time.sleep(0.05)
    started = children(process.pid)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == code
    wait_until_gone(started)


def test_killed_workers_leave_a_store_that_goes_on_to_the_same_bytes(
    bench: Any, media: Any, gate: Any, undisturbed: Any
) -> None:
    bench.clips([*media.colours, media.red, *media.colours] * 3)
    job = bench.job("slow", shard_rows=2, workers=2)
    whole = undisturbed(job)
    chance, left = random.Random(0), []
    for _ in range(3):
        shards = chance.randint(1, 3)
        gate.open(shards + 2)  # Of 17: something is left, however late the kill comes.
        process = bench.start(job)
        for _ in range(shards):
            wait_for(process, "shard_done")
        time.sleep(chance.uniform(0, 0.1))
        left += children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    wait_until_gone(left)
    gate.open(EVERY)
    done = bench.extract(job)
    assert done.code == 0
    assert done.events[0].skipped > 0
    assert done.events[0].total > 0
    assert bench.tree() == whole


def test_two_workers_at_once(bench: Any, media: Any, gate: Any, undisturbed: Any) -> None:
    """Neither ends before the other has begun."""
    bench.clips(media.colours * 4)
    alone = undisturbed(bench.job("slow"))
    gate.open(0)
    halves = [bench.job("slow", shards=shards) for shards in ([0, 2, 4], [1, 3])]
    both = [bench.start(half, f"{half.shards[0]}.json", warm=True) for half in halves]
    for process in both:
        wait_for(process, "started")
    gate.open(EVERY)
    assert [bench.finish(process).code for process in both] == [0, 0]
    assert bench.tree() == alone


@pytest.mark.parametrize("locks", ["kernel", "lease"])
def test_the_second_of_two_runs_waits_and_takes_what_the_first_did(
    bench: Any, media: Any, gate: Any, locks: str
) -> None:
    bench.clips(media.colours * 2)
    job = bench.job("slow", locks=locks)
    first = bench.start(job, "first.json", warm=True)
    wait_for(first, "started")
    done = bench.extract(job, heard=lambda event: event.event == "warning" and gate.open(EVERY))
    assert bench.finish(first).code == 0
    assert done.code == 0
    assert [(event.total, event.skipped) for event in done.of("started")] == [(0, 10)]
    (warning,) = done.of("warning")
    assert "waiting for another run that is writing shard" in warning.message
    assert done.of("shard_done") == []
    assert [record.ok for record in bench.records()] == [4, 4, 2]
    assert not list((bench.root / "latents" / "latents.zarr").glob("*.lease"))


@pytest.mark.parametrize("locks", ["kernel", "lease"])
def test_what_a_killed_run_leaves_is_done_by_the_one_that_waited(
    bench: Any, media: Any, gate: Any, undisturbed: Any, locks: str
) -> None:
    bench.clips(media.colours * 2)
    job = bench.job("slow", locks=locks)
    alone = undisturbed(job)
    gate.open(1)
    first = bench.start(job, "first.json")
    wait_for(first, "started")
    first.send_signal(signal.SIGSTOP)
    second = bench.start(job, "second.json", warm=True)
    wait_for(second, "warning")
    gate.open(EVERY)
    first.kill()
    first.communicate()
    done = bench.finish(second)
    assert done.code == 0
    assert bench.tree() == alone


def test_a_stall_ends_the_process_and_its_children(stalled: Any) -> None:
    bench, process, started = stalled
    done = bench.finish(process)
    assert done.code == ExitCode.STALLED
    assert "no progress for 30 s while encoding" in done.message
    assert "encode" in done.stderr
    wait_until_gone(started)
