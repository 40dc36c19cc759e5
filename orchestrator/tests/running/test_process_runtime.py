import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.jobs import Job, Prepared
from lary_orch.runtimes.process import ProcessRuntime, base_env, task_env
from lary_orch.runtimes.refusals import TRIES, KilledError, tried_again
from lary_schema import child_process, orphans
from lary_schema.base import ContractError
from lary_schema.child_process import ProcessTask
from lary_schema.output import BoundedLog

MakeWork = Callable[..., Job]
Alive = Callable[[int], bool]
NO_SHARE = Slot()


def _start(runtime: ProcessRuntime, work: Job, tmp_path: Path, slot: Slot = NO_SHARE) -> ProcessTask:
    return runtime.start(work, slot, tmp_path / "logs" / "stderr.log")


def _wait_for(path: Path) -> Path:
    while not path.exists() or not (path.name == "sleeping" or path.read_text()):
        time.sleep(0.01)
    return path


def test_a_job_runs_to_its_end(runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path) -> None:
    task = _start(runtime, make_work("a", ["start", "chatter"]), tmp_path)
    lines = list(task.lines())
    assert [line.strip() for line in lines][1] == "a library says hello"
    assert task.wait() == 0


@pytest.mark.parametrize(("step", "code"), [("exit 3", 3), ("kill", 128 + signal.SIGKILL)])
def test_exit_codes_and_signals(
    runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path, step: str, code: int
) -> None:
    task = _start(runtime, make_work("a", [step]), tmp_path)
    assert list(task.lines()) == []
    assert task.wait() == code


def test_a_killed_job_leaves_no_child_that_holds_stdout(
    runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path, alive: Alive
) -> None:
    work = make_work("a", ["child", "kill"])
    task = _start(runtime, work, tmp_path)
    list(task.lines())
    assert task.wait() == 128 + signal.SIGKILL
    assert not alive(int((work.mounts.out / "child").read_text()))


def test_stop_ends_the_deaf_and_their_children(
    runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path, alive: Alive
) -> None:
    work = make_work("a", ["deaf", "child", "sleep"])
    task = _start(runtime, work, tmp_path)
    _wait_for(work.mounts.out / "sleeping")
    task.stop(grace_s=0.1)
    task.stop()
    assert list(task.lines())
    assert task.wait() == 128 + signal.SIGKILL
    assert not alive(int((work.mounts.out / "child").read_text()))


def test_stop_is_polite_first(runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path) -> None:
    work = make_work("a", ["sleep"])
    task = _start(runtime, work, tmp_path)
    _wait_for(work.mounts.out / "sleeping")
    task.stop()
    assert list(task.lines())
    assert task.wait() == 128 + signal.SIGTERM


def test_the_environment_of_a_task(
    runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    work = make_work("a", ["start"], env={"EXTRA": "1"})
    task = _start(runtime, work, tmp_path, Slot(Device("cuda", ("GPU-1", "GPU-2"), "H100"), 3))
    list(task.lines())
    assert task.wait() == 0
    env = json.loads((work.mounts.out / "attempt-0").read_text())
    assert "SECRET_TOKEN" not in env
    assert env["LARY_IMAGE"] == "fake"
    assert env["LARY_MOUNT_JOB"] == str(work.mounts.job)
    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"], env["EXTRA"]) == ("3", "3", "1")
    assert env["LARY_OWNER"] == str(tmp_path)
    assert env["LARY_RUN"] == "smoke-1"


def test_a_cpu_task_sees_no_gpu_and_the_network_is_off(make_work: MakeWork) -> None:
    env = task_env(base_env({"HOME": "/h", "CUDA_VISIBLE_DEVICES": "0"}), make_work("a"), NO_SHARE, "owner")
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["HOME"] == "/h"
    assert "OMP_NUM_THREADS" not in env


def test_stderr_goes_to_the_file(runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path) -> None:
    work = make_work("a")
    (work.mounts.job / "job.json").write_text("not json")
    task = _start(runtime, work, tmp_path)
    list(task.lines())
    assert task.wait() == 1
    assert "JSONDecodeError" in (tmp_path / "logs" / "stderr.log").read_text()


def test_stderr_is_bounded(
    runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of what a job says is kept, which shows what it died of."""
    monkeypatch.setattr(child_process, "BoundedLog", partial(BoundedLog, limit=5_000))
    work = make_work("a", ["complain 100000", "exit 3"])
    task = _start(runtime, work, tmp_path)
    list(task.lines())
    assert task.wait() == 3
    kept = [tmp_path / "logs" / name for name in ("stderr.log.1", "stderr.log")]
    assert sum(path.stat().st_size for path in kept) <= 2 * child_process.PIECE_BYTES + 10_000
    assert b"".join(path.read_bytes() for path in kept).endswith(b"99999\n")


def test_an_interpreter_that_is_gone(
    runtime: ProcessRuntime, make_work: MakeWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(ContractError, match=r"gone: cannot be started.*install it"):
        _start(runtime, make_work("a"), tmp_path)


def test_query_works_without_a_gpu(runtime: ProcessRuntime, prepared: Prepared) -> None:
    assert json.loads(runtime.query(prepared, "describe")) == {"image": "fake", "gpu": ""}


def test_ask_says_what_the_image_said_and_what_to_do(runtime: ProcessRuntime, prepared: Prepared) -> None:
    card = prepared.source.card.model_copy(update={"name": "broken"})
    broken = replace(prepared, source=replace(prepared.source, card=card))
    with pytest.raises(ContractError, match=r"(?s)exit 1.*no such image here.*install it"):
        runtime.query(broken, "describe")


def test_a_killed_query_is_tried_again_and_is_no_fault_of_the_image(
    runtime: ProcessRuntime, prepared: Prepared, tmp_path: Path
) -> None:
    fatal = tmp_path / "modules/fatal"
    fatal.write_text(str(TRIES - 1))
    assert json.loads(tried_again(lambda: runtime.query(prepared, "describe")))["image"] == "fake"
    fatal.write_text(str(TRIES))
    with pytest.raises(KilledError, match=r"describe: killed \(SIGKILL\).*run the same command again$"):
        tried_again(lambda: runtime.query(prepared, "describe"))
    assert not fatal.exists()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="orphans are found through /proc")
class TestSweep:
    """Processes whose orchestrator died are found by their environment, and only those."""

    def _sleeper(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
            env={"PATH": os.environ["PATH"]} | env,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        # The environment of a process that has not reached exec yet is still its parent's.
        assert child.stdout.readline() == b"up\n"
        return child

    def _labels_of_the_dead(self, owner: str) -> dict[str, str]:
        program = f"import json; from lary_schema import orphans; print(json.dumps(orphans.labels({owner!r}, 'r')))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    def test_ends_the_orphans_of_this_workspace_alone(self, tmp_path: Path) -> None:
        mine, other = str(tmp_path / "mine"), str(tmp_path / "other")
        orphan = self._sleeper(self._labels_of_the_dead(mine))
        unrelated = self._sleeper(self._labels_of_the_dead(other))
        attended = self._sleeper(orphans.labels(mine, "r"))
        try:
            said = orphans.sweep(mine)
            assert said == [f"ended process {orphan.pid} of run r"]
            assert orphan.wait() == -signal.SIGTERM
            assert unrelated.poll() is None
            assert attended.poll() is None
        finally:
            for child in (orphan, unrelated, attended):
                child.kill()
                child.wait()
                assert child.stdout is not None
                child.stdout.close()

    def test_nothing_to_sweep(self, tmp_path: Path) -> None:
        assert orphans.sweep(str(tmp_path / "nobody")) == []


@pytest.mark.parametrize("where", [".", "", "HERE"])
def test_the_current_folder_is_no_input(
    runtime: ProcessRuntime, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Neither by itself, nor by PYTHONPATH, nor a user's own site-packages; the modules that are named still are."""
    here, home = tmp_path / "here", tmp_path / "home"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (here, home / ".local" / "lib" / version / "site-packages"):
        folder.mkdir(parents=True)
        for name in ("json", "random", "usercustomize", "sitecustomize"):
            (folder / f"{name}.py").write_text("raise SystemExit('ran a file of the user')\n")
    modules = os.environ["PYTHONPATH"]
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here) if where == "HERE" else where, modules]))
    monkeypatch.setenv("PYTHONSTARTUP", str(here / "json.py"))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert json.loads(runtime.query(prepared, "describe")) == {"image": "fake", "gpu": ""}


def test_no_python_variable_of_the_caller_reaches_a_job() -> None:
    caller = {"PATH": "/bin", "PYTHONPATH": "/a", "PYTHONHOME": "/b", "PYTHONINSPECT": "1", "PYTHONSAFEPATH": ""}
    own = {name: value for name, value in base_env(caller).items() if name.startswith("PYTHON")}
    assert own == {
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
    }
