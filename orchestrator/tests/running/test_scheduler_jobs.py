import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lary_orch.run.drive import drive
from lary_orch.run.scheduler import Scheduler, one_at_a_time
from lary_orch.runtimes.base import Outcome, Running
from lary_orch.runtimes.devices import Device, Slot, joined
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.process import ProcessRuntime
from lary_schema.base import ContractError, WeightsError, explain
from lary_schema.events import Event
from lary_schema.runs import RunPaths

MakeWork = Callable[..., Job]


class Recorder:
    """A watch that remembers what was reported to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def launched(self, work: Job, slot: Slot, attempt: int) -> None:
        self.calls.append(("launched", work.id))

    def event(self, work: Job, event: Event) -> None:
        self.calls.append((event.event, work.id))

    def relaunch(self, work: Job, code: int, message: str) -> None:
        self.calls.append(("relaunch", message))

    def ended(self, outcome: Outcome) -> None:
        self.calls.append((outcome.state, outcome.task.id))

    def note(self, text: str) -> None:
        self.calls.append(("note", text))

    def order(self, name: str) -> list[str]:
        return [about for call, about in self.calls if call == name]


@pytest.fixture
def watch() -> Recorder:
    return Recorder()


class Driven:
    """A scheduler that is driven to its end."""

    def __init__(self, runtime: Any, slots: list[Slot], paths: RunPaths, watch: Recorder, **options: Any) -> None:
        self._make = partial(Scheduler, runtime.start, slots, paths, **options)
        self._run = paths.root.name
        self._watch = watch
        self.interrupted: signal.Signals | None = None

    def run(self, work: list[Job]) -> list[Outcome]:
        outcomes, self.interrupted = drive(self._make(work), self._run, lambda jobs: nullcontext(self._watch), print)
        return outcomes


@pytest.fixture
def scheduler(runtime: ProcessRuntime, slot: Slot, paths: RunPaths, watch: Recorder) -> Driven:
    return Driven(runtime, [slot], paths, watch)


def test_a_job_that_dies_is_started_again(
    scheduler: Driven, make_work: MakeWork, watch: Recorder, paths: RunPaths
) -> None:
    work = make_work("a", ["start", "kill"], ["start", "exit 1"], ["start"])
    (outcome,) = scheduler.run([work])
    assert (outcome.state, outcome.attempts, outcome.code) == ("done", 3, 0)
    assert watch.order("relaunch") == ["killed (SIGKILL); often by the kernel for want of memory", "exit 1"]
    assert '"event": "finished"' in paths.events("a", 3).read_text()
    assert "finished" not in paths.events("a", 1).read_text()


def test_attempts_are_limited(scheduler: Driven, make_work: MakeWork) -> None:
    (outcome,) = scheduler.run([make_work("a", ["kill"])])
    assert (outcome.state, outcome.attempts, outcome.code) == ("failed", 3, 137)


@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_a_decided_end_is_final(scheduler: Driven, make_work: MakeWork, code: int) -> None:
    (outcome,) = scheduler.run([make_work("a", ["row 7", "error the disk is no disk", f"exit {code}"])])
    assert (outcome.state, outcome.attempts, outcome.code) == ("failed", 1, code)
    assert outcome.message == "the disk is no disk"


def test_dependents_of_a_failure_are_skipped_and_the_others_finish(scheduler: Driven, make_work: MakeWork) -> None:
    bad, good = make_work("bad", ["exit 4"]), make_work("good")
    after_bad, after_good = make_work("pb", needs=("bad", "good")), make_work("pg", needs=("good",))
    last = make_work("last", needs=("pb",))
    outcomes = scheduler.run([bad, good, after_bad, after_good, last])
    assert [o.state for o in outcomes] == ["failed", "done", "skipped", "done", "skipped"]
    assert outcomes[2].message == "needs bad"


def test_a_probe_starts_as_soon_as_its_stores_are_complete(
    scheduler: Driven, make_work: MakeWork, watch: Recorder
) -> None:
    work = [make_work("e1"), make_work("e2"), make_work("p1", verb="classify", needs=("e1",))]
    scheduler.run(work)
    assert watch.order("launched") == ["e1", "p1", "e2"]


def test_a_wide_job_waits_for_its_slots_and_is_not_overtaken(
    runtime: ProcessRuntime, paths: RunPaths, watch: Recorder, make_work: MakeWork
) -> None:
    slots = [Slot(Device("cpu", (name,)), 2) for name in ("A", "B")]
    # One slot is free while `first` runs: `wide` waits for the other one, and `last` must not take it meanwhile.
    work = [make_work("first"), make_work("wide", slots=2), make_work("last")]
    outcomes = Driven(runtime, slots, paths, watch).run(work)
    assert [o.state for o in outcomes] == ["done"] * 3
    assert watch.order("launched") == ["first", "wide", "last"]
    assert joined(slots) == Slot(Device("cpu", ("A", "B"), "2 x cpu"), 4)


def test_a_job_wider_than_the_machine_is_refused(scheduler: Driven, make_work: MakeWork) -> None:
    with pytest.raises(ValueError, match=r"\['p'\] take more slots than the 1 there are"):
        scheduler.run([make_work("p", slots=2)])


def test_an_image_that_says_done_and_is_not(scheduler: Driven, make_work: MakeWork) -> None:
    (outcome,) = scheduler.run([make_work("a", absent=lambda: "shards 3 and 4 are missing")])
    assert (outcome.state, outcome.attempts, outcome.message) == ("failed", 3, "shards 3 and 4 are missing")


def test_a_silent_job_is_stopped_and_started_again(
    runtime: ProcessRuntime,
    slot: Slot,
    paths: RunPaths,
    watch: Recorder,
    make_work: MakeWork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, jumps = make_work("a", ["sleep"], ["exit 4"], stall_timeout_s=1e4), itertools.count(1)

    def monotonic() -> float:
        """Time flies while the first attempt sleeps, so that the second one may take as long as it takes."""
        is_asleep = (work.mounts.out / "sleeping").exists() and not watch.order("relaunch")
        return time.monotonic() + (1e5 * next(jumps) if is_asleep else 0)

    monkeypatch.setattr("lary_orch.run.scheduler.time", SimpleNamespace(monotonic=monotonic))
    scheduler = Driven(runtime, [slot], paths, watch, stall_margin_s=0)
    (outcome,) = scheduler.run([work])
    assert watch.order("relaunch") == ["stalled: no progress for too long"]
    assert (outcome.attempts, outcome.code) == (2, 4)


class _NoRuntime:
    """A runtime whose every start fails, by a contract error or without a word."""

    name = "none"

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def start(self, job: Job, slot: Slot, stderr: Path) -> Running:
        if self._error is not None:
            raise self._error
        return _Broken()


class _Broken:
    stopped = False

    def lines(self) -> Iterator[str]:
        raise OSError("the log's disk is full")

    def wait(self) -> int:
        return 0

    def stop(self, grace_s: float = 10) -> None:
        self.stopped = True


def test_a_start_that_fails_is_the_jobs_failure(
    slot: Slot, paths: RunPaths, watch: Recorder, make_work: MakeWork
) -> None:
    scheduler = Driven(_NoRuntime(WeightsError("no weights")), [slot], paths, watch)
    outcomes = scheduler.run([make_work("a"), make_work("b")])
    assert [(o.state, o.code, o.message) for o in outcomes] == [("failed", 4, "no weights")] * 2


def test_a_broken_runtime_hangs_nothing(slot: Slot, paths: RunPaths, watch: Recorder, make_work: MakeWork) -> None:
    scheduler = Driven(_NoRuntime(None), [slot], paths, watch, attempts=1)
    (outcome,) = scheduler.run([make_work("a")])
    assert (outcome.state, outcome.code) == ("failed", 1)
    assert outcome.message == "its output cannot be followed: the log's disk is full"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_where_a_jobs_output_cannot_be_kept_no_other_attempt_is_made(
    slot: Slot, paths: RunPaths, watch: Recorder, make_work: MakeWork, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It would find no more room: bad usage, with the file and what to do."""

    def full(_: _Broken) -> Iterator[str]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_Broken, "lines", full)
    (outcome,) = Driven(_NoRuntime(None), [slot], paths, watch).run([make_work("a")])
    assert (outcome.state, outcome.code, outcome.attempts) == ("failed", 2, 1)
    said = f"{paths.events('a', 1)}: {os.strerror(number)}; make room, and run the same command again"
    assert outcome.message == f"its output cannot be kept: {said}"


def test_a_need_that_nobody_meets_is_refused(scheduler: Driven, make_work: MakeWork) -> None:
    with pytest.raises(ValueError, match=r"\['x'\]"):
        scheduler.run([make_work("a", needs=("x",))])


def test_two_slots_run_two_jobs_at_once(
    runtime: ProcessRuntime, slot: Slot, paths: RunPaths, watch: Recorder, make_work: MakeWork
) -> None:
    Driven(runtime, [slot, slot], paths, watch).run([make_work("a"), make_work("b")])
    assert [call for call, _ in watch.calls][:2] == ["launched", "launched"]


def test_codes_in_words() -> None:
    assert explain(128 + signal.SIGTERM) == "ended by SIGTERM"
    assert explain(124).startswith("stalled")
    assert explain(77) == "exit 77"
    assert explain(255) == "exit 255"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_everything(
    scheduler: Driven, make_work: MakeWork, watch: Recorder, number: signal.Signals, alive: Callable[[int], bool]
) -> None:
    first, second = make_work("a", ["start", "child", "sleep"]), make_work("b")
    sleeping = first.mounts.out / "sleeping"

    def interrupt() -> None:
        while not sleeping.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    outcomes = scheduler.run([first, second])
    assert [o.state for o in outcomes] == ["stopped", "stopped"]
    assert scheduler.interrupted == number
    assert not alive(int((first.mounts.out / "child").read_text()))
    assert watch.order("launched") == ["a"]


def test_a_second_interrupt_forces(scheduler: Driven, make_work: MakeWork, watch: Recorder) -> None:
    work = make_work("a", ["deaf", "sleep"])

    def interrupt() -> None:
        while not (work.mounts.out / "sleeping").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        while not watch.order("note"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    (outcome,) = scheduler.run([work])
    assert outcome.state == "stopped"
    assert watch.order("note") == ["stopping; once more to force it", "stopping by force"]
    assert scheduler.interrupted == signal.SIGINT


class _Unread(Recorder):
    """Its reader went away."""

    def event(self, work: Job, event: Event) -> None:
        raise BrokenPipeError


def test_nothing_is_left_running_when_the_run_breaks(
    runtime: ProcessRuntime, slot: Slot, paths: RunPaths, make_work: MakeWork, alive: Callable[[int], bool]
) -> None:
    work = make_work("a", ["deaf", "child", "start", "sleep"])
    with pytest.raises(BrokenPipeError):
        Driven(runtime, [slot], paths, _Unread()).run([work])
    assert not alive(int((work.mounts.out / "child").read_text()))


def test_one_orchestrator_per_run(paths: RunPaths) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom lary_orch.run.scheduler import one_at_a_time\n"
        "from lary_schema.runs import RunPaths\n"
        f"with one_at_a_time(RunPaths(Path({str(paths.root)!r}), Path('.'))):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ContractError, match="another `lary-orch run`"), one_at_a_time(paths):
            pass
        other.kill()
    with one_at_a_time(paths):
        assert (paths.root / "lock").exists()
