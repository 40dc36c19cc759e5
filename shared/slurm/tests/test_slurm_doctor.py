"""What `doctor --runtime slurm` finds, on clusters played by scripts."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import lary_doctor as doctor
import lary_slurm.checks as checks
import pytest
from lary_doctor.check import Context, Finding
from lary_orch.catalog.cards import Catalog
from lary_orch.workspace import Workspace
from lary_slurm.checks import client, job, memory, partition
from lary_slurm.plugin import PLUGIN

CONFIG = """\
MaxArraySize            = 1001
SelectTypeParameters    = CR_CORE_MEMORY
TaskPlugin              = task/cgroup,task/affinity
ConstrainRAMSpace       = yes
"""
RUNS_IT = 'while [[ $1 == --* ]]; do shift; done; SLURMD_NODENAME=n7 exec "$@"'
"""An srun that runs its command here."""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`commands(sinfo="echo x")`: Slurm's commands, all others of them succeeding without a word."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(**bodies: str) -> None:
        for name in client.COMMANDS:
            (folder / name).write_text(f"#!/bin/bash\n{bodies.get(name, ':')}\n")
            (folder / name).chmod(0o755)

    make()
    return make


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """`context("partition: debug")`: with that profile."""

    def make(profile: str = "") -> Context:
        path = tmp_path / "profile.yaml"
        path.write_text(profile)
        return Context(
            Workspace.locate(tmp_path / "w", env={}), Catalog.load(env={}), runtime="slurm", own={"profile": path}
        )

    return make


Commands, Contexts = Callable[..., None], Callable[..., Context]


def _said(finding: Finding) -> tuple[str, str]:
    return finding.status, finding.message


def test_client(commands: Commands, context: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(sinfo="echo slurm 23.11.4", scontrol=f"cat <<END\n{CONFIG}END")
    assert _said(client.run(context())) == ("ok", "slurm 23.11.4, launcher process, arrays of up to 1001 tasks")
    bad = client.run(context("tasks: many"))
    assert (bad.status, "tasks" in bad.message) == ("fail", True)
    commands(scontrol="echo Unable to contact slurm controller >&2; exit 1")
    assert client.run(context()).message.startswith("the controller does not respond: scontrol: Unable to contact")
    monkeypatch.setenv("PATH", "/nowhere")
    gone = client.run(context())
    assert gone.status == "fail"
    assert gone.message.startswith("not found: sbatch, squeue")


def test_partition(commands: Commands, context: Contexts) -> None:
    commands(sinfo="printf 'gpu|up|3|1-00:00:00|mix\\ngpu|up|1|1-00:00:00|down*\\nold|down|2|infinite|idle\\n'")
    good = partition.run(context("partition: gpu"))
    assert _said(good) == ("ok", "gpu: 3 of 4 nodes up, time limit 1-00:00:00")
    assert _said(partition.run(context("partition: old"))) == ("fail", "partition old is not up")
    unknown = partition.run(context("{partition: gpu, probe: {partition: cpu}}"))
    assert _said(unknown) == ("fail", "no partition cpu; there are gpu, old")


@pytest.mark.parametrize(
    ("was", "becomes", "status", "says"),
    [
        ("", "", "ok", "4G per extraction, 8G per probe, and kept"),
        ("CR_CORE_MEMORY", "CR_CORE", "warn", "--mem is ignored"),
        ("task/cgroup,", "", "warn", "TaskPlugin is not task/cgroup"),
        ("ConstrainRAMSpace       = yes", "ConstrainRAMSpace       = no", "warn", "ConstrainRAMSpace is off"),
    ],
)
def test_memory(commands: Commands, context: Contexts, was: str, becomes: str, status: str, says: str) -> None:
    commands(scontrol=f"cat <<END\n{CONFIG.replace(was, becomes) if was else CONFIG}END")
    finding = memory.run(context("{memory: 4G, probe: {memory: 8G}}"))
    assert (finding.status, says in finding.message) == (status, True)
    assert memory.run(context()).status == "warn"


def test_job(commands: Commands, context: Contexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "LITTLE", 0)
    commands(srun=RUNS_IT)
    good = job.run(context())
    assert good.status == "ok"
    assert "node n7 shares" in good.message
    assert "launcher process works" in good.message
    assert _said(job.run(context("gpus: 1")))[0] == "fail"
    missing = job.run(context(f"{{launcher: apptainer, images: {tmp_path}}}"))
    assert missing.status == "fail"
    assert "launcher apptainer does not work on node n7" in missing.message
    assert not list(tmp_path.glob("lary-doctor-*"))


def test_job_on_a_node_that_has_another_volume(commands: Commands, context: Contexts) -> None:
    commands(srun="echo node=n7; echo folder=missing")
    assert job.run(context()).message.startswith("node n7 does not see")
    commands(srun="echo node=n7; echo folder=there; echo seen=other")
    assert job.run(context()).message.startswith("node n7 does not see")
    # It sees our file, and says that it wrote one, which never comes.
    commands(
        srun='f=$(grep -o "cd [^ ]*" <<<"${@: -1}" | cut -c4-); echo node=n7; echo folder=there; '
        "echo seen=$(cat $f/here); echo renamed=yes"
    )
    assert "was not seen here after 1 s" in job.run(context("settle_s: 1")).message
    commands(srun="echo Invalid account >&2; exit 1")
    assert _said(job.run(context())) == ("fail", "a job fails: Invalid account")


def test_the_cluster_is_looked_at_for_slurm_alone(context: Contexts) -> None:
    names = {check.NAME for check in map(importlib.import_module, PLUGIN.checks)}
    assert not names & {check.NAME for check in doctor.CHECKS}


def test_every_file_of_checks_is_run() -> None:
    names = {p.stem for p in Path(checks.__file__).parent.glob("*.py")} - {"__init__"}
    assert {check.NAME for check in map(importlib.import_module, PLUGIN.checks)} == {f"slurm_{name}" for name in names}
