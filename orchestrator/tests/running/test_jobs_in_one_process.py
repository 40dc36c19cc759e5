"""Extractions of one model, and probes, follow each other in a process; each keeps its own end, log and variables."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from lary_orch.runtimes.base import Opening, Running
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.process import ProcessRuntime
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.runs import RunPaths

KNOWING = """
import json, os, signal, sys
from pathlib import Path
from lary_schema.command import claim_stdout
from lary_schema.events import Warned
from lary_schema.more_jobs import next_job
emit, path = claim_stdout(), Path(sys.argv[-1])
while path is not None:
    job = json.loads(path.read_text())
    emit(Warned(job=job["id"], message=str(os.getpid())))
    sys.stderr.write(f"of {job['id']} in {os.environ['LARY_MOUNT_OUT']}\\n" * 3000)
    sys.stderr.flush()
    for step in job["attempts"][0]:
        if step == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif step.startswith("exit"):
            sys.exit(int(step.split()[1]))
    path = next_job(job["id"], emit)
"""


class Ended(NamedTuple):
    code: int
    pid: int
    stderr: str


class Jobs(NamedTuple):
    """Extractions one after the other, as the scheduler starts them."""

    start: Callable[[Job, Slot, Path], Running]
    rest: Callable[[], None]
    make: Callable[..., Job]
    folder: Path

    def begin(
        self,
        name: str,
        *steps: str,
        model: str = "m",
        probe: dict[str, Any] | None = None,
        slot: Slot = Slot(),  # noqa: B008
        **fields: Any,
    ) -> Running:
        document: Any = ExtractJob.model_construct(values=SimpleNamespace(model=model))
        if probe is not None:
            own = {"processes": 1, "trackers": (), "device": "cpu", "threads": 1}
            document = ProbeJob.model_construct(**own | probe)
        job = self.make(name, list(steps) or ["start"], document=document, **fields)
        return self.start(job, slot, self.folder / f"{name}.log")

    def do(self, name: str, *steps: str, **fields: Any) -> Ended:
        return self.end(name, self.begin(name, *steps, **fields))

    def end(self, name: str, running: Running) -> Ended:
        (line,) = list(running.lines())
        event = json.loads(line)
        assert event["job"] == name
        code = running.wait()
        # The scheduler does so after every job.
        running.stop(grace_s=0)
        return Ended(code, int(event["message"]), (self.folder / f"{name}.log").read_text())


@pytest.fixture
def jobs(
    runtime: ProcessRuntime, make_work: Callable[..., Job], paths: RunPaths, tmp_path: Path, fake_module: str
) -> Iterator[Jobs]:
    (tmp_path / "modules" / "fake_image.py").write_text(KNOWING)
    got: list[Any] = []
    opening = Opening(paths, 3, [Slot(), Slot()], list, lambda _: None, lambda *given: got.extend(given))
    runtime.open(opening)
    jobs = Jobs(got[1], got[2], make_work, tmp_path)
    yield jobs
    jobs.rest()


def gone(pid: int) -> bool:
    """Whether a child of ours has ended; it is given time."""
    for _ in range(3000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_jobs_of_one_model_share_a_process(jobs: Jobs) -> None:
    found = [jobs.do(name) for name in "abc"]
    assert len({one.pid for one in found}) == 1
    for name, one in zip("abc", found, strict=True):
        assert one.code == 0
        assert one.stderr == f"of {name} in {jobs.folder / 'out' / name}\n" * 3000
    jobs.rest()
    assert gone(found[0].pid)


def test_jobs_side_by_side_do_not(jobs: Jobs) -> None:
    running = {name: jobs.begin(name) for name in "ab"}
    first, second = (jobs.end(name, one) for name, one in running.items())
    assert first.pid != second.pid
    assert jobs.do("c").pid in (first.pid, second.pid)
    jobs.rest()
    assert gone(first.pid)
    assert gone(second.pid)


@pytest.mark.parametrize(("step", "code"), [("exit 3", 3), ("exit 5", 5), ("kill", 128 + signal.SIGKILL)])
def test_a_job_that_fails_does_not_take_the_next_with_it(jobs: Jobs, step: str, code: int) -> None:
    first, failed, third = jobs.do("a"), jobs.do("b", step), jobs.do("c")
    assert (first.pid, failed.code, third.code) == (failed.pid, code, 0)
    assert third.pid != failed.pid
    assert "of b" in failed.stderr
    assert "of c" not in failed.stderr


def test_a_process_that_dies_while_it_waits(jobs: Jobs) -> None:
    first = jobs.do("a")
    os.kill(first.pid, signal.SIGKILL)
    assert gone(first.pid)
    second = jobs.do("b")
    assert second.code == 0
    assert second.pid != first.pid


def test_what_waits_makes_room(jobs: Jobs) -> None:
    """Never more processes than slots; on one device never two."""
    first, second, third = (jobs.do(name, model=name) for name in "abc")
    assert gone(first.pid)
    assert jobs.do("d", model="c").pid == third.pid
    gpu = Slot(Device("cuda", ("GPU-1",), "H100"))
    on_gpu = jobs.do("e", model="m", slot=gpu)
    assert gone(second.pid)
    assert jobs.do("f", model="other", slot=gpu).code == 0
    assert gone(on_gpu.pid)
    assert jobs.do("g", model="other", env={"EXTRA": "1"}).code == 0


def test_a_job_that_is_stopped_is_over(jobs: Jobs) -> None:
    running = jobs.begin("a")
    running.stop(grace_s=0)
    list(running.lines())
    assert running.wait() != 0 or jobs.do("b").code == 0


def test_a_command_that_knows_nothing_of_it(jobs: Jobs, fake_module: str) -> None:
    (jobs.folder / "modules" / "fake_image.py").write_text(KNOWING.replace('next_job(job["id"], emit)', "None"))
    first, second = jobs.do("a"), jobs.do("b")
    assert (first.code, second.code) == (0, 0)
    assert first.pid != second.pid


def test_probes_share_a_process_and_wait_beside_extractions(jobs: Jobs) -> None:
    """They hold no model. Where threads differ, or a launcher or trackers are wanted, a process is its own."""
    first = jobs.do("a", probe={})
    side_by_side = [jobs.begin(name, model=name) for name in "bc"]
    extractions = [jobs.end(name, one) for name, one in zip("bc", side_by_side, strict=True)]
    assert jobs.do("d", probe={"kind": "regress"}).pid == first.pid
    assert jobs.do("e", probe={"processes": 2}).pid != first.pid
    assert jobs.do("f", probe={"trackers": ("wandb",)}).pid != first.pid
    assert jobs.do("g", probe={}).pid == first.pid
    others = [jobs.do(name, probe={"threads": number}) for number, name in enumerate("hi", 2)]
    assert len({first.pid, *(one.pid for one in others)}) == 3
    # As many as there are slots.
    assert gone(first.pid)
    assert jobs.do("j", probe={"threads": 3}).pid == others[1].pid
    jobs.rest()
    assert all(gone(one.pid) for one in (*extractions, *others))


def test_a_probe_that_waits_leaves_its_gpu(jobs: Jobs) -> None:
    gpu = Slot(Device("cuda", ("GPU-1",), "H100"))
    first = jobs.do("a", probe={"device": "cuda"}, slot=gpu)
    assert jobs.do("b", probe={"device": "cuda"}, slot=gpu).pid == first.pid
    extraction = jobs.do("c", slot=gpu)
    assert gone(first.pid)
    assert jobs.do("d", probe={"device": "cuda"}, slot=gpu).code == 0
    assert gone(extraction.pid)
