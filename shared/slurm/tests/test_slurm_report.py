"""What `status` shows of a session, without following it."""

from typing import Any

from lary_slurm.report import cluster_state, cluster_table


def _states(rig: Any) -> dict[str, tuple[str, str]]:
    state = cluster_state(rig.run, rig.queue)
    assert state is not None
    return {task["id"]: (task["state"], task["note"]) for task in state["tasks"]}


def test_tasks_by_files_and_queue(rig: Any) -> None:
    rig.follower.step()
    rig.begin("extract.p0")
    assert _states(rig) == {
        "extract.p0": ("running", ""),
        "extract.p1": ("queued", "Resources"),
        "probe": ("queued", "Resources"),
    }
    rig.end("extract.p0", 0)
    rig.begin("extract.p1")
    rig.end("extract.p1", 137)
    rig.queue.states["probe"] = "CANCELLED"
    assert _states(rig) == {
        "extract.p0": ("done", ""),
        "extract.p1": ("stopped", "failed"),
        "probe": ("stopped", "cancelled"),
    }
    rig.end("extract.p1", 4)
    assert _states(rig)["extract.p1"] == ("failed", "exit 4")
    table = cluster_table(cluster_state(rig.run, rig.queue) or {})
    assert table.rows[0] == ("extract", "2", "1", "0", "0", "1", "0", "exit 4 1")
    assert "open (squeue --name=lary-r-1)" in table.title


def test_without_a_reply_the_files_count(rig: Any) -> None:
    rig.follower.step()
    rig.begin("extract.p0")
    rig.queue.away = "squeue: Unable to contact slurm controller"
    assert _states(rig)["extract.p0"] == ("running", "as its files say")
    notes = cluster_table(cluster_state(rig.run, rig.queue) or {}).notes
    assert notes == ("the queue cannot be queried: squeue: Unable to contact slurm controller",)


def test_an_ended_session_asks_nobody(rig: Any) -> None:
    rig.follower.step()
    for job in rig.jobs:
        rig.begin(job)
        rig.end(job, 0)
    assert rig.follower.follow()
    rig.queue.queried.clear()
    assert {state for state, _ in _states(rig).values()} == {"done"}
    assert not rig.queue.queried
