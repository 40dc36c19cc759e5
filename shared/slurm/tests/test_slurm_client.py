"""The commands of Slurm, played by scripts: their arguments, and what is made of their output."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from lary_slurm.client import Pace, QueueEntry, Slurm, SlurmAwayError, SlurmError, client_env, parse_entry

Fake = Callable[..., Slurm]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """`fake(sbatch="echo 7")`: a client of commands that keep their arguments in NAME.args."""

    def make(**commands: str) -> Slurm:
        for name, body in commands.items():
            path = tmp_path / name
            path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >"{tmp_path}/{name}.args"\n{body}\n')
            path.chmod(0o755)
        return Slurm({"PATH": f"{tmp_path}:{os.environ['PATH']}"})

    return make


def _arguments(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.args").read_text().splitlines()


def test_submit(fake: Fake, tmp_path: Path) -> None:
    assert fake(sbatch="echo '4711;bench'").submit(Path("/v/0001.sh"), ["--dependency=afterok:1"]) == 4711
    assert _arguments(tmp_path, "sbatch") == ["--parsable", "--dependency=afterok:1", "/v/0001.sh"]
    with pytest.raises(SlurmError, match="no job id in its output 'well'"):
        fake(sbatch="printf well").submit(Path("x"), [])


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True),
        ("sbatch: error: Batch job submission failed: Job dependency problem", True),
        ("sbatch: error: AssocMaxSubmitJobLimit", True),
        ("sbatch: error: invalid partition specified: gpuu", False),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination", False),
        ("sbatch: error: Memory specification can not be satisfied", False),
    ],
)
def test_what_passes_and_what_does_not(fake: Fake, said: str, passes: bool) -> None:
    with pytest.raises(SlurmError) as raised:
        fake(sbatch=f"echo '{said}' >&2; exit 1").submit(Path("x"), [])
    assert isinstance(raised.value, SlurmAwayError) is passes
    assert said in str(raised.value)


def test_a_command_that_was_killed_may_have_done_its_work(fake: Fake) -> None:
    with pytest.raises(SlurmAwayError, match="exit -9"):
        fake(sbatch="kill -KILL $$").submit(Path("x"), [])


def test_a_ctrl_c_does_not_reach_sbatch(fake: Fake) -> None:
    """A terminal sends it to the group of processes in front."""
    assert fake(sbatch='cut -d" " -f5 /proc/$$/stat').submit(Path("x"), []) != os.getpgid(0)


def test_the_queue_is_one_question_about_ones_own_jobs(fake: Fake, tmp_path: Path) -> None:
    lines = "12|10|3|RUNNING|None|n1|0001-0001\\n13|13|N/A|PENDING|Dependency||0001-0002\\nnonsense\\n"
    assert fake(squeue=f"printf '{lines}'").queue("lary-r-1") == [
        QueueEntry(10, 3, "RUNNING", "None", "n1", "0001-0001"),
        QueueEntry(13, 0, "PENDING", "Dependency", "", "0001-0002"),
    ]
    queried = _arguments(tmp_path, "squeue")
    assert {"--me", "--array", "--states=all", "--name=lary-r-1"} < set(queried)


def test_cancel_names_the_run_and_the_user(fake: Fake, tmp_path: Path) -> None:
    fake(scancel="true").cancel("lary-r-1")
    assert _arguments(tmp_path, "scancel") == ["--name=lary-r-1", f"--user={os.getuid()}"]


def test_no_client_no_reply_and_no_setting(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match=r"sbatch: not found; --runtime slurm needs .* \(a login node\)"):
        Slurm({"PATH": str(tmp_path)}).submit(Path("x"), [])
    with pytest.raises(SlurmAwayError, match="timed out after 0 s"):
        fake(sinfo="exec sleep 5").run("sinfo", timeout_s=0.1)
    assert fake(scontrol="echo 'MaxArraySize            = 8'").max_array() == 8
    assert fake(scontrol="echo nothing").max_array() == 1001


def test_jobs_see_nothing_of_the_users_shell() -> None:
    environ = {
        "PATH": "/bin",
        "SBATCH_PARTITION": "x",
        "SLURM_JOB_ID": "1",
        "SLURM_CONF": "/c",
        "SECRET": "s",
        "TMPDIR": "/t",
    }
    assert client_env(environ) == {"PATH": "/bin", "SLURM_CONF": "/c"}


def test_a_comment_may_hold_anything() -> None:
    assert parse_entry("1|1|N/A|FAILED|NonZeroExitCode|n1|a|b|c") == QueueEntry(
        1, 0, "FAILED", "NonZeroExitCode", "n1", "a|b|c"
    )
    assert not QueueEntry(1, 0, "NODE_FAIL", "", "", "").live
    assert QueueEntry(1, 0, "REQUEUE_HOLD", "", "", "").live


def test_pace() -> None:
    now = 0.0
    pace = Pace(10, 35, clock=lambda: now)
    queried = []
    for second in range(200):
        now = second
        if pace.due:
            queried.append(second)
            pace.queried(changed=False)
    assert queried == [0, 20, 55, 90, 125, 160, 195]
    now = 196
    pace.hurry()
    assert not pace.due
    now = 205
    assert pace.due
