"""A real cluster of two nodes on this host, fake tasks for it, and commands of ours that use it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
from lary_orch.runtimes.base import Outcome
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Output, Task
from lary_schema.events import Event
from lary_schema.mounts import Mounts
from lary_schema.runs import RunPaths
from lary_slurm.client import Slurm
from lary_slurm.follow import Follower
from lary_slurm.profile import Profile
from lary_slurm.state import GroupEntry, Session, SessionPaths

CLUSTER = "LARY_SLURM_CLUSTER"
COMMAND = Path(sys.executable).with_name("lary-orch")
MEMORY_MIB = 200
DAEMONS: list["subprocess.Popen[bytes]"] = []
"""Started by tests and ended by cluster-down: an object that is dropped before would warn."""
HANGS_S = 600
"""Longer than anything takes while the gate's other lanes run."""

FAKE = """
import json, os, subprocess, sys, time
from pathlib import Path

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
attempt = len(list(folder.glob("ran-*")))
(folder / f"ran-{attempt}").touch()
print(json.dumps({"event": "started", "job": job["id"], "time": 0, "total": 1, "device": "cpu", "pid": os.getpid()}),
      flush=True)
for step in job["attempts"][min(attempt, len(job["attempts"]) - 1)]:
    name, _, value = step.partition(" ")
    if name == "sleep":
        time.sleep(float(value or 600))
    elif name == "eat":
        data = bytearray(int(value) << 20)
    elif name == "environ":
        (folder / "environ.json").write_text(json.dumps(dict(os.environ)))
    elif name == "error":
        print(json.dumps({"event": "error", "job": job["id"], "time": 0, "code": 4, "message": value}), flush=True)
    elif name == "exit":
        sys.exit(int(value))
(folder / "done").touch()
"""


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("LARY_REQUIRE_SLURM") == "1":
        pytest.fail(f"LARY_REQUIRE_SLURM=1, and {reason}")
    pytest.skip(reason)


@dataclass(frozen=True)
class Cluster:
    """What cluster-up started."""

    folder: Path

    def __call__(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def kill(self, daemon: str) -> None:
        """By force, with what it started: a machine that lost its power."""
        pid = int((self.folder / "pids" / daemon).read_text())
        for stepd in _stepds(daemon.removeprefix("slurmd_")):
            _kill_tree(stepd)
        _kill_tree(pid)

    def end(self, daemon: str) -> None:
        """Politely: it saves what it knows."""
        pid = int((self.folder / "pids" / daemon).read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not _alive(pid), f"{daemon} ends")

    def start(self, daemon: str, *command: str) -> None:
        with (self.folder / "log" / f"{daemon}.out").open("ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        DAEMONS.append(child)
        (self.folder / "pids" / daemon).write_text(f"{child.pid}\n")

    def resume(self, node: str) -> None:
        """Take a node up again, where it has not come back by itself (ReturnToService)."""
        command = ("scontrol", "update", f"NodeName={node}", "State=RESUME")
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0 or "Invalid node state" in done.stderr, done.stderr

    def queue(self) -> list[str]:
        """Our user's jobs that are not over."""
        return self("squeue", "--me", "--noheader", "--array", "--format=%i %T %j").splitlines()

    def ours(self) -> list[str]:
        return [line for line in self.queue() if " lary-" in line]

    def is_idle(self) -> bool:
        states = self("sinfo", "--noheader", "--partition=debug", "--Node", "--format=%t").split()
        return set(states) == {"idle"} and not self.queue()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _stepds(node: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
            if text.startswith("slurmstepd: [") and f"slurm_{node}/" in (path.parent / "cgroup").read_text():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _kill_tree(pid: int) -> None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        _kill_tree(int(child))


def until(reached: Callable[[], Any], what: str, within_s: float = 600, look: Callable[[], Any] = lambda: None) -> None:
    """Wait for a state of the cluster; the test fails where it does not come."""
    end = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < end, f"after {within_s} s still not: {what}"
        look()
        time.sleep(0.2)


@pytest.fixture(scope="session")
def cluster_of_all_tests() -> Cluster:
    """The cluster that LARY_SLURM_CLUSTER names, with its configuration in the environment."""
    folder = os.environ.get(CLUSTER)
    if not folder:
        _unavailable(f"no test cluster: `tests/slurm/cluster-up DIR MaxArraySize=8`, then {CLUSTER}=DIR")
    os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
    return Cluster(Path(folder))


@pytest.fixture
def cluster(cluster_of_all_tests: Cluster) -> Iterator[Cluster]:
    """Idle before a test, and with nothing of the test's in its queue after it."""
    cluster = cluster_of_all_tests
    until(cluster.is_idle, "an idle cluster")
    yield cluster
    try:
        # The end of a task is seen by its files before the controller has heard of it.
        until(lambda: not cluster.ours(), "an empty queue", within_s=280)
    finally:
        if cluster.ours():
            cluster("scancel", f"--user={os.getuid()}")


@pytest.fixture(scope="session")
def bench(cluster_of_all_tests: Cluster, tmp_path_factory: pytest.TempPathFactory, seed_workspace: Any) -> "Bench":
    """One workspace for all tests of whole runs: its demo sets are made once."""
    return Bench(seed_workspace(tmp_path_factory.mktemp("slurm") / "workspace"))


IMAGES = "LARY_SLURM_IMAGES"


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lines of a profile that starts containers by Podman, with a storage of the tests' own."""
    folder = os.environ.get(IMAGES)
    if not folder or not (Path(folder) / "baseline.json").is_file():
        _unavailable(f"no exported images: `lary-orch images export --to DIR baseline probe`, then {IMAGES}=DIR")
    if shutil.which("podman") is None:
        _unavailable("no podman on this machine")
    # Not in pytest's folder, which is kept: images are large.
    storage = Path(folder) / "podman"
    before = ["--root", f"{storage}/root", "--runroot", f"{storage}/run", "--cgroup-manager", "cgroupfs"]
    before += ["--events-backend", "file", "--runtime", "runc"]
    return f"launcher: podman\nimages: {folder}\nlauncher_before: {json.dumps(before)}\n"


@dataclass(frozen=True)
class Bench:
    """`lary-orch` in a workspace of its own."""

    workspace: Path
    command: Path = COMMAND

    @property
    def environ(self) -> dict[str, str]:
        return os.environ | {"LARY_HOME": str(self.workspace)}

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [COMMAND, *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Its stdout; the test fails, showing stderr, on another exit code than `code`."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=HANGS_S)
        assert process.returncode == code, f"{arguments}: exit {process.returncode}\n{out}\n{err}"
        return out + err if code else out


@dataclass
class Seen:
    """A watch that keeps what is reported to it."""

    launches: list[tuple[str, int]] = field(default_factory=list)
    relaunches: list[tuple[str, str]] = field(default_factory=list)
    ends: list[Outcome] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def launched(self, task: Task, slot: Slot, attempt: int) -> None:
        self.launches.append((task.id, attempt))

    def event(self, task: Task, event: Event) -> None:
        self.events.append(event)

    def relaunch(self, task: Task, code: int, message: str) -> None:
        self.relaunches.append((task.id, message))

    def ended(self, outcome: Outcome) -> None:
        self.ends.append(outcome)

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class FakeTask(Task):
    """A task whose output is a file of its job's folder."""

    fakes: Any = None

    def missing(self) -> str | None:
        return self.fakes.absent(self.id)  # type: ignore[no-any-return]


class Driven(Follower):
    """A follower that a test drives."""

    def follow(self) -> bool:
        while not self.poll():
            pass
        return True

    def detach(self) -> bool:
        """Until all that can be submitted is; whether the run is over."""
        over = False
        while not (over or self.handed_over()):
            over = self.poll()
        return over


@dataclass
class Fakes:
    """A session of fake tasks: what each attempt of a job does is a list of steps."""

    root: Path
    client: Any
    profile: Profile
    attempts: int = 3
    jobs: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)

    def job(self, job: str, *attempts: list[str], verb: str = "extract", needs: Sequence[str] = ()) -> None:
        folder = self.run.job(job)
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps({"id": job, "attempts": attempts or [[]]}))
        self.jobs.append((job, verb, tuple(needs)))

    def watch(self) -> Seen:
        return Seen()

    def until(self, *arguments: Any, **options: Any) -> None:
        until(*arguments, **options)

    @property
    def run(self) -> RunPaths:
        return RunPaths(self.root / "runs" / "fake-1", self.root / "results" / "fake-1")

    def session(self, max_array: int = 8) -> tuple[Session, SessionPaths]:
        name = f"lary-fake-{self.root.parent.name}"
        script = self.root / "fake.py"
        script.write_text(FAKE)
        command = (sys.executable, str(script), str(self.run.root / "jobs" / "@JOB@"))
        groups = {_group(job): None for job, _, _ in self.jobs}
        session = Session(
            run="fake-1",
            name=name,
            attempts=self.attempts,
            max_array=max_array,
            profile=self.profile,
            groups=tuple(GroupEntry(name=name, command=command, options=self.profile.options()) for name in groups),
            tasks=tuple(
                FakeTask(
                    id=job,
                    verb=verb,
                    title=job,
                    mounts=self.mounts(job),
                    group=_group(job),
                    needs=tuple(needs),
                    outputs=(Output("out", "nothing", job),),
                    fakes=self,
                )
                for job, verb, needs in self.jobs
            ),
        )
        return session, SessionPaths.make(self.run, session)

    def mounts(self, job: str) -> Mounts:
        folder = self.run.job(job)
        return Mounts(data=folder, weights=folder, latents=folder, job=folder, out=folder)

    def follower(self, session: Session, paths: SessionPaths, seen: Seen, **options: Any) -> "Driven":
        follower = Driven(self.client, session, paths, self.run, **options)
        follower.submit(seen)
        return follower

    def absent(self, job: str) -> str | None:
        return None if (self.run.job(job) / "done").exists() else f"{job} left nothing"

    def ran(self, job: str) -> int:
        """How many attempts really ran."""
        return len(list(self.run.job(job).glob("ran-*")))


def _group(job: str) -> str:
    return job.rpartition(".p")[0] or job


@pytest.fixture
def fakes(cluster: Cluster, tmp_path: Path) -> Fakes:
    """Fake tasks for the real cluster."""
    profile = Profile(partition="debug", time="5", cpus=1, memory=f"{MEMORY_MIB}M", settle_s=3)
    return Fakes(tmp_path / "user's 100% volume", Slurm(), profile)
