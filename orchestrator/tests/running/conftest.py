"""A fake image: a module that does, attempt by attempt, what its job document lists."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.verbs import VERBS
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.jobs import Job, Prepared
from lary_orch.runtimes.process import ProcessRuntime
from lary_schema.cards import ImageCard
from lary_schema.mounts import Mounts
from lary_schema.runs import RunPaths

FAKE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

if sys.argv[1] == "describe":
    if os.environ["LARY_IMAGE"] == "broken":
        sys.exit("no such image here")
    fatal = Path(__file__).with_name("fatal")
    if fatal.exists():
        left = int(fatal.read_text()) - 1
        fatal.unlink() if left == 0 else fatal.write_text(str(left))
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"image": os.environ["LARY_IMAGE"], "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}))
    sys.exit(0)

job = json.loads(Path(sys.argv[sys.argv.index("--job") + 1]).read_text())
out = Path(os.environ["LARY_MOUNT_OUT"])
attempt = len(list(out.glob("attempt-*")))
(out / f"attempt-{attempt}").write_text(json.dumps(dict(os.environ)))

def emit(**fields):
    print(json.dumps({"job": job["id"], "time": 0} | fields), flush=True)

for step in job["attempts"][min(attempt, len(job["attempts"]) - 1)]:
    name, _, value = step.partition(" ")
    if name == "start":
        emit(event="started", total=10, device="cpu", pid=os.getpid())
    elif name == "row":
        emit(event="row_failed", row=int(value), reason="missing_file", detail=f"clip {value}.mp4")
    elif name == "error":
        emit(event="error", code=2, message=value)
    elif name == "complain":
        sys.stderr.writelines(f"{i}{chr(10)}" for i in range(int(value)))
    elif name == "chatter":
        print("a library says hello", flush=True)
    elif name == "child":
        # Holds stdout, and ignores polite requests, as a stuck decode process may.
        child = subprocess.Popen([sys.executable, "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
        (out / "child").write_text(str(child.pid))
    elif name == "sleep":
        emit(event="progress", done=1, total=10, per_second=1)
        (out / "sleeping").touch()
        time.sleep(600)
    elif name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "exit":
        sys.exit(int(value))
emit(event="finished", done=10, per_second=5)
"""


class HereInterpreter:
    """The running interpreter, with the fake module on its path."""

    inherited = ("PYTHONPATH",)

    def prepare(self, image: ImageSource, notify: Callable[[str], None]) -> Prepared:
        return Prepared(image, "here", None, "identity")

    def python(self, prepared: Prepared) -> Path:
        return Path(sys.executable)

    def hint(self, prepared: Prepared) -> str:
        return "install it"


@pytest.fixture
def fake_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "fake_image.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "fake_image"


@pytest.fixture
def prepared(fake_module: str) -> Prepared:
    card = ImageCard(name="fake", kind="model", module=fake_module)
    return Prepared(ImageSource(card, None), "here", None, "identity")


@pytest.fixture
def runtime(tmp_path: Path) -> ProcessRuntime:
    return ProcessRuntime(HereInterpreter(), owner=str(tmp_path))


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "runs" / "smoke-1", tmp_path / "results" / "smoke-1")


@pytest.fixture
def slot() -> Slot:
    return Slot(Device(), 1)


@dataclass(frozen=True, kw_only=True)
class FakeJob(Job):
    """A job whose outputs are missing as a test says."""

    absent: Callable[[], str | None] = lambda: None

    def missing(self) -> str | None:
        return self.absent()


@pytest.fixture
def make_work(tmp_path: Path, prepared: Prepared, paths: RunPaths) -> Callable[..., Job]:
    """`make_work("a", ["start", "exit 1"], ["start"], needs=("b",))`: a list of steps per attempt."""

    def make(job_id: str, *attempts: list[str], **fields: Any) -> Job:
        out = tmp_path / "out" / job_id
        out.mkdir(parents=True)
        job = paths.job(job_id)
        job.mkdir(parents=True)
        (job / "job.json").write_text(json.dumps({"id": job_id, "attempts": attempts or [["start"]]}))
        mounts = Mounts(data=tmp_path, weights=tmp_path, latents=tmp_path, job=job, out=out)
        verb = VERBS[fields.pop("verb", "extract")]
        return FakeJob(
            id=job_id,
            verb=verb.name,
            title=job_id,
            mounts=mounts,
            image=prepared,
            run="smoke-1",
            reads=verb.reads,
            writes=verb.writes,
            **fields,
        )

    return make


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process lives (a zombie does not)."""
    return _alive
