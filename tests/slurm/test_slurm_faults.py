"""Faults on a real cluster, with tasks that follow a script: who is started again, how often, and who is not."""

import json
import os
from typing import Any

import pytest
from lary_schema.base import ExitCode
from lary_slurm.stop import cancel

pytestmark = pytest.mark.slurm


def _follow(fakes: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    seen = fakes.watch()
    session, paths = fakes.session(**options)
    follower = fakes.follower(session, paths, seen)
    assert follower.follow()
    return seen, {outcome.task.id: outcome for outcome in follower.outcomes}


def test_arrays_are_cut_and_probes_wait_for_all_of_them(fakes: Any, cluster: Any) -> None:
    for number in range(10):
        fakes.job(f"extract.p{number}", ["environ"])
    fakes.job("probe", [], verb="classify", needs=[f"extract.p{n}" for n in range(10)])
    seen, outcomes = _follow(fakes)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    assert [fakes.ran(job) for job in outcomes] == [1] * 11
    assert seen.launches[-1] == ("probe", 1)
    paths = fakes.run.root / "slurm" / "0001"
    sizes = [len(json.loads(p.read_text())["tasks"]) for p in sorted((paths / "submissions").glob("*.json"))]
    assert sizes == [8, 2, 1]
    # Nothing of the user's shell but what every runtime hands on.
    environ = json.loads((fakes.run.job("extract.p0") / "environ.json").read_text())
    assert "PYTEST_CURRENT_TEST" not in environ
    assert environ["PATH"] == os.environ["PATH"]


def test_killed_tasks_run_again_and_final_codes_do_not(fakes: Any, cluster: Any) -> None:
    fakes.job("extract.p0", ["exit 1"], [])
    fakes.job("extract.p1", ["error no weights here", "exit 4"], [])
    fakes.job("extract.p2", ["exit 137"])
    fakes.job("other.p0", ["sleep"], [])
    fakes.job("probe", [], verb="classify", needs=["other.p0"])
    fakes.job("hopeless", [], verb="classify", needs=["extract.p1"])
    seen = fakes.watch()
    session, paths = fakes.session()
    follower = fakes.follower(session, paths, seen)
    fakes.until(lambda: fakes.ran("other.p0"), "a task runs", look=follower.step)
    # The script dies with the task: no mark records the end.
    key = follower._tasks["other.p0"].key
    assert key is not None
    cluster("scancel", "--signal=KILL", "--full", f"{key[0]}_{key[1]}")
    assert follower.follow()
    ends = {outcome.task.id: (outcome.state, outcome.code, outcome.attempts) for outcome in follower.outcomes}
    assert ends == {
        "extract.p0": ("done", 0, 2),
        "extract.p1": ("failed", ExitCode.WEIGHTS, 1),
        "extract.p2": ("failed", 137, 3),
        "other.p0": ("done", 0, 2),
        "probe": ("done", 0, 1),
        "hopeless": ("skipped", 0, 0),
    }
    assert {job: fakes.ran(job) for job in ends} == {job: attempts for job, (_, _, attempts) in ends.items()}
    said = next(outcome.message for outcome in follower.outcomes if outcome.task.id == "extract.p1")
    assert said == "no weights here"


def test_a_task_out_of_memory_says_so(fakes: Any) -> None:
    fakes.attempts = 2
    fakes.job("extract.p0", ["eat 900"])
    _, outcomes = _follow(fakes)
    end = outcomes["extract.p0"]
    assert (end.state, end.attempts, fakes.ran("extract.p0")) == ("failed", 2, 2)
    assert "out of memory" in end.message


def test_a_task_out_of_time_says_so(fakes: Any) -> None:
    """A minute is the least that Slurm knows."""
    fakes.attempts = 1
    fakes.profile = fakes.profile.model_copy(update={"time": "1"})
    fakes.job("extract.p0", ["sleep"])
    _, outcomes = _follow(fakes)
    end = outcomes["extract.p0"]
    assert (end.state, end.attempts) == ("failed", 1)
    assert "out of time" in end.message


def test_a_dead_nodes_task_is_slurms_to_start_again(fakes: Any, cluster: Any) -> None:
    fakes.job("extract.p0", ["sleep"], [])
    seen = fakes.watch()
    session, paths = fakes.session()
    follower = fakes.follower(session, paths, seen)
    fakes.until(lambda: fakes.ran("extract.p0"), "a task runs", look=follower.step)
    node = paths.node("extract.p0", 1)
    cluster.kill(f"slurmd_{node}")
    try:
        # What the controller would find out by itself after SlurmdTimeout.
        cluster("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        _hurry(fakes, cluster, follower)
        assert follower.follow()
    finally:
        cluster.start(f"slurmd_{node}", "slurmd", "-D", "-N", node)
        cluster.resume(node)
    assert [(end.state, end.attempts) for end in follower.outcomes] == [("done", 2)]
    assert fakes.ran("extract.p0") == 2
    assert len(list(paths.submissions.glob("*.json"))) == 1
    assert [job for job, _ in seen.relaunches] == ["extract.p0"]


def test_a_preempted_task_runs_again(fakes: Any, cluster: Any) -> None:
    fakes.job("extract.p0", ["sleep"], [])
    seen = fakes.watch()
    session, paths = fakes.session()
    follower = fakes.follower(session, paths, seen)
    fakes.until(lambda: fakes.ran("extract.p0"), "a task runs", look=follower.step)
    cluster("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    _hurry(fakes, cluster, follower)
    assert follower.follow()
    assert [(end.state, end.attempts) for end in follower.outcomes] == [("done", 2)]
    assert len(list(paths.submissions.glob("*.json"))) == 1


def _hurry(fakes: Any, cluster: Any, follower: Any) -> None:
    """Slurm waits two minutes before it starts a requeued task; it need not."""
    slurm, index = follower._tasks["extract.p0"].key
    mine = f"{slurm}_{index} PENDING"
    requeued = lambda: any(line.startswith(mine) for line in cluster.queue())  # noqa: E731
    fakes.until(requeued, "it is in the queue again", look=follower.step)
    cluster("scontrol", "update", f"JobId={slurm}_{index}", "StartTime=now")


def test_the_controller_is_restarted(fakes: Any, cluster: Any) -> None:
    fakes.job("extract.p0", ["sleep 15"])
    fakes.job("probe", ["exit 1"], [], verb="classify", needs=["extract.p0"])
    seen = fakes.watch()
    session, paths = fakes.session()
    follower = fakes.follower(session, paths, seen)
    fakes.until(lambda: fakes.ran("extract.p0"), "a task runs", look=follower.step)
    cluster.end("slurmctld")
    fakes.until(lambda: any("querying again" in note for note in seen.notes), "nobody answers", look=follower.step)
    cluster.start("slurmctld", "slurmctld", "-D")
    assert follower.follow()
    assert [(end.state, end.attempts) for end in follower.outcomes] == [("done", 1), ("done", 2)]
    assert [fakes.ran(job) for job in ("extract.p0", "probe")] == [1, 2]


def test_left_then_joined_by_another_then_cancelled(fakes: Any, cluster: Any) -> None:
    fakes.job("extract.p0", ["exit 1"], ["sleep"], [])
    fakes.job("extract.p1", ["sleep"])
    fakes.job("probe", [], verb="classify", needs=["extract.p0", "extract.p1"])
    session, paths = fakes.session()
    first = fakes.follower(session, paths, fakes.watch())
    assert not first.detach()
    fakes.until(lambda: fakes.ran("extract.p0") and fakes.ran("extract.p1"), "both run")
    fakes.until(
        lambda: not any("probe" in line or "Dependency" in line for line in cluster.queue()), "the probe is dropped"
    )
    # Another host knows nothing but the files.
    seen = fakes.watch()
    second = fakes.follower(session, paths, seen)
    fakes.until(lambda: fakes.ran("extract.p0") == 2, "what failed meanwhile runs again", look=second.step)
    assert second._tasks["extract.p1"].seen == 1
    cancel(fakes.client, session, paths, print)
    assert not cluster.queue()
    assert second.follow()
    assert [(end.state, end.message) for end in second.outcomes] == [("stopped", "cancelled")] * 3
    assert [fakes.ran(job) for job in ("extract.p0", "extract.p1", "probe")] == [2, 1, 0]
