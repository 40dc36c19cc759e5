"""A container in a job: what it sees, that the job's memory limit is its own, and that it ends with the job."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lary_schema.mounts import Mounts
from lary_slurm.launchers import Launch, command, podman_lines
from lary_slurm.profile import Profile
from lary_slurm.script import Batch, script

pytestmark = [pytest.mark.slurm, pytest.mark.images]

FACTS = """
import json, os, socket
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
def attempt(path):
    try:
        Path(path, "x").touch()
    except OSError as error:
        return type(error).__name__
    return "allowed"
print(json.dumps({
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "write": {path: attempt(path) for path in ("/", "/data", "/job", "/latents", "/tmp")},
}))
"""
DEAF = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('asleep', flush=True); time.sleep(600)"


@pytest.fixture
def run(cluster: Any, podman: str, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """`run("print(1)")`: a Python text in a container of a job with 300 MB; the Slurm job's id."""
    profile = Profile.parse(yaml.safe_load(podman), "the tests' profile")
    assert profile.images is not None
    image = json.loads((profile.images / "baseline.json").read_text())["id"].removeprefix("sha256:")
    folders = {name: tmp_path / name for name in (*Mounts.model_fields, "logs", "tasks", "output")}
    for folder in folders.values():
        folder.mkdir()
    launch = Launch(
        module="lary_worker",
        arguments=("-c", ""),
        image="baseline",
        program=image,
        mounts=Mounts(**{name: folders[name] for name in Mounts.model_fields}),
        before=profile.launcher_before,
        options=("--entrypoint=python",),
    )
    lines = podman_lines(image, profile.images / "baseline.tar", profile.launcher_before, named=True)

    def submit(text: str) -> str:
        batch = Batch(
            name="lary-container",
            title="a test",
            jobs=("job",),
            firsts=(1,),
            options=("--mem=300M",),
            command=tuple(command("podman", replace(launch, arguments=("-c", text)))),
            limit=1,
            logs=folders["logs"],
            state=folders["tasks"],
            output=folders["output"],
            is_array=False,
            setup=lines,
        )
        (tmp_path / "batch.sh").write_text(script(batch))
        return str(cluster("sbatch", "--parsable", str(tmp_path / "batch.sh"))).strip()

    yield submit
    left = cluster("podman", *profile.launcher_before, "ps", "--all", "--quiet")
    assert not left.split(), "containers are left"


def _end(folder: Path) -> int:
    return int(json.loads((folder / "tasks" / "job.1.end").read_text())["code"])


def test_a_container_is_cut_off(run: Any, fakes: Any, tmp_path: Path) -> None:
    run(FACTS)
    fakes.until((tmp_path / "tasks" / "job.1.end").exists, "it ends")
    assert _end(tmp_path) == 0, (tmp_path / "logs" / "job.1.stderr.log").read_text()
    assert json.loads((tmp_path / "logs" / "job.1.events.jsonl").read_text()) == {
        "capabilities": 0,
        "no_new_privileges": "1",
        "interfaces": ["lo"],
        "write": {"/": "OSError", "/data": "OSError", "/job": "OSError", "/latents": "allowed", "/tmp": "allowed"},
    }


def test_the_jobs_memory_is_the_containers(run: Any, fakes: Any, tmp_path: Path) -> None:
    run("data = bytearray(900 << 20); print(len(data))")
    fakes.until((tmp_path / "tasks" / "job.1.end").exists, "it ends")
    assert _end(tmp_path) == 137
    assert (tmp_path / "logs" / "job.1.events.jsonl").read_text() == ""


def test_a_container_that_does_not_listen_ends_with_its_job(run: Any, fakes: Any, cluster: Any, tmp_path: Path) -> None:
    slurm = run(DEAF)
    log = tmp_path / "logs" / "job.1.events.jsonl"
    fakes.until(lambda: log.exists() and "asleep" in log.read_text(), "it sleeps")
    cluster("scancel", slurm)
    fakes.until(lambda: not cluster.ours(), "it is off the cluster", within_s=300)
