"""The docker runtime on a real engine, with an image that follows its job document."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.docker import JOB, ORCHESTRATOR, OWNER, RUN, UNKNOWN_EXIT, DockerRuntime
from lary_orch.runtimes.jobs import Job, Output, Prepared
from lary_schema.base import ContractError, ExitCode
from lary_schema.cards import ImageCard
from lary_schema.events import Failed, Warned, from_line

pytestmark = pytest.mark.docker

MakeTask = Callable[..., Job]
MEMORY = 96 << 20


def _containers(client: Any, owner: Path) -> list[Any]:
    found: list[Any] = client.containers.list(all=True, filters={"label": f"{OWNER}={owner}"})
    return found


def _run(runtime: DockerRuntime, task: Job, tmp_path: Path) -> tuple[int, list[str], str]:
    running = runtime.start(task, Slot(), tmp_path / "logs" / "stderr.log")
    lines = list(running.lines())
    code = running.wait()
    return code, lines, (tmp_path / "logs" / "stderr.log").read_text()


def test_stdout_stderr_and_the_exit_code(runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(["say grüß dich", "complain oh no", "say again", "exit 3"])
    assert _run(runtime, task, tmp_path) == (3, ["grüß dich\n", "again\n"], "oh no\n")


@pytest.mark.parametrize(("verb", "writable"), [("extract", {"/latents"}), ("classify", {"/out"})])
def test_what_a_container_can_reach(
    runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path, verb: str, writable: set[str]
) -> None:
    code, lines, _ = _run(runtime.as_user(4321, 4322), _open(make_task(["facts"], verb)), tmp_path)
    facts = json.loads(lines[0])
    assert code == 0
    assert (facts["uid"], facts["gid"]) == (4321, 4322)
    assert facts["capabilities"] == 0
    assert facts["no_new_privileges"] == "1"
    assert facts["interfaces"] == ["lo"]
    assert facts["connect"] == "OSError"
    assert {path for path, result in facts["write"].items() if result == "allowed"} == writable | {"/tmp"}
    assert facts["run in tmp"] == "PermissionError"
    assert facts["environ"]["HOME"] == "/tmp"


def test_of_the_latents_volume_a_container_sees_its_store_alone(
    runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path
) -> None:
    (tmp_path / "latents" / "other.zarr").mkdir(parents=True)
    task = make_task(["facts"], outputs=(Output("latents", "demo/train/own.zarr", "f0"),))
    code, lines, _ = _run(runtime, task, tmp_path)
    assert code == 0
    facts = json.loads(lines[0])
    assert {place for place, result in facts["write"].items() if result == "allowed"} == {"/tmp"}
    assert (tmp_path / "latents" / "demo/train/own.zarr").is_dir()


def _open(task: Job) -> Job:
    """Let any user write where the mounts do."""
    for folder in (task.mounts.latents, task.mounts.out, task.mounts.data):
        folder.chmod(0o777)
    return task


def test_what_the_engine_says_of_a_container(
    client: Any, runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path
) -> None:
    running = runtime.start(make_task(["sleep"], memory_bytes=MEMORY), Slot(cpus=1), tmp_path / "stderr.log")
    lines = running.lines()
    assert next(lines) == "asleep\n"
    [container] = _containers(client, tmp_path)
    config = container.attrs["HostConfig"]
    running.stop(grace_s=0)
    assert list(lines) == []
    assert running.wait() == 137
    assert config["NetworkMode"] == "none"
    assert config["ReadonlyRootfs"] is True
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert (config["Memory"], config["MemorySwap"], config["NanoCpus"]) == (MEMORY, MEMORY, 10**9)
    assert config["PidsLimit"] > 0
    assert config["Init"] is True
    assert container.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    assert (container.labels[RUN], container.labels[JOB]) == ("test-run", "fake-job")


@pytest.mark.parametrize(("steps", "grace_s", "code"), [(["sleep"], 280, 143), (["deaf", "sleep"], 1, 137)])
def test_stop_is_polite_first(
    runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path, steps: list[str], grace_s: float, code: int
) -> None:
    running = runtime.start(make_task(steps), Slot(), tmp_path / "stderr.log")
    lines = running.lines()
    next(lines)
    running.stop(grace_s=grace_s)
    running.stop(grace_s=grace_s)
    assert list(lines) == []
    assert running.wait() == code
    assert running.wait() == code


def test_the_memory_limit_ends_the_job_and_says_so(runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path) -> None:
    code, lines, log = _run(runtime, make_task(["eat"], memory_bytes=MEMORY), tmp_path)
    event = from_line(lines[-1])
    assert code == ExitCode.OUT_OF_MEMORY
    assert isinstance(event, Failed)
    assert event.code == ExitCode.OUT_OF_MEMORY
    assert "memory limit of 96.0 MiB" in event.message
    assert event.message in log


def test_a_child_killed_for_memory_is_told_and_the_jobs_own_end_counts(
    runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path
) -> None:
    code, lines, _ = _run(runtime, make_task(["child-eats", "exit 7"], memory_bytes=MEMORY), tmp_path)
    assert code == 7
    assert isinstance(from_line(lines[-1]), Warned)


def test_a_container_that_somebody_removed(
    client: Any, runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path
) -> None:
    running = runtime.start(make_task(["sleep"]), Slot(), tmp_path / "stderr.log")
    lines = running.lines()
    next(lines)
    [container] = _containers(client, tmp_path)
    container.remove(force=True)
    list(lines)
    assert running.wait() in (UNKNOWN_EXIT, 137)


def test_sweep_takes_the_orphans_and_spares_the_living(
    client: Any, runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path
) -> None:
    living = runtime.start(make_task(["sleep"]), Slot(), tmp_path / "stderr.log")
    lines = living.lines()
    next(lines)
    [container] = _containers(client, tmp_path)
    namespace = container.labels[ORCHESTRATOR].partition("/")[0]
    dead = dict(container.labels) | {ORCHESTRATOR: f"{namespace}/{os.getpid()}/1", RUN: "a-dead-run"}
    orphan = client.containers.create(container.attrs["Image"], ["sleep"], labels=dead)
    unrelated = client.containers.create(container.attrs["Image"], ["sleep"], labels=dead | {OWNER: "/elsewhere"})
    try:
        assert runtime.sweep() == [f"removed container {orphan.short_id} of run a-dead-run"]
        assert [c.id for c in _containers(client, tmp_path)] == [container.id]
    finally:
        unrelated.remove(force=True)
        living.stop(grace_s=0)
        list(lines)
        living.wait()


def test_an_image_that_replies_badly(runtime: DockerRuntime, fake: Prepared) -> None:
    with pytest.raises(ContractError, match=r"describe: exit 3\nno model here"):
        runtime.query(fake, "describe")


def test_a_missing_image_names_the_command_that_makes_it(runtime: DockerRuntime) -> None:
    built = ImageSource(ImageCard(name="no-such", kind="model", module="x"), Path("/somewhere/no-such"))
    with pytest.raises(ContractError, match=r"lary-orch images build --catalog /somewhere/no-such no-such"):
        runtime.prepare(built, print)
    fetched = ImageSource(ImageCard(name="no-such", kind="model", module="x", ref="nobody/nothing:1"), None)
    with pytest.raises(ContractError, match=r"docker pull nobody/nothing:1"):
        runtime.prepare(fetched, print)


def test_a_missing_folder_is_told_and_leaves_no_container(
    runtime: DockerRuntime, make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(["exit 0"])
    task.mounts.latents.rmdir()
    with pytest.raises(ContractError, match="bind source path does not exist"):
        runtime.start(task, Slot(), tmp_path / "stderr.log")
