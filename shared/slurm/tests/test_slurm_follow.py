"""What the follower makes of files and of the queue, on a clock of its own."""

import json
import shutil
from typing import Any

import pytest
from lary_schema.base import ContractError
from lary_slurm.client import SlurmError
from lary_slurm.follow import join
from lary_slurm.stop import cancel


def _whole(rig: Any) -> None:
    """All that is in the queue begins and ends well."""
    for job in rig.jobs:
        rig.begin(job)
        rig.end(job, 0)


def test_the_way_of_a_run_that_nothing_disturbs(rig: Any) -> None:
    rig.follower.step()
    assert rig.queue.arrays == {100: ("extract.p0", "extract.p1"), 101: ("probe",)}
    assert rig.queue.options[100] == ("--comment=0001-0001",)
    assert rig.queue.options[101] == ("--dependency=afterok:100", "--kill-on-invalid-dep=yes", "--comment=0001-0002")
    _whole(rig)
    assert rig.follower.follow()
    assert set(rig.ends().values()) == {("done", 0, 1)}
    assert rig.seen.reported == [
        *("extract.p0 1", "extract.p0 done", "extract.p1 1", "extract.p1 done", "probe 1", "probe done"),
    ]
    assert rig.paths.closed.exists()
    assert join(rig.queue, rig.run) is None


def test_events_are_read_as_they_come(rig: Any) -> None:
    rig.follower.step()
    rig.begin("extract.p0")
    log = rig.run.events("extract.p0", 1)
    rig.follower.step()
    event = {"event": "progress", "job": "extract.p0", "time": 0, "done": 1, "total": 2, "per_second": 1}
    line = json.dumps(event) + "\n"
    log.write_text("a library says hello\n" + line + line[:20])
    rig.follower.step()
    assert [e.done for e in rig.seen.events] == [1]
    with log.open("a") as file:
        file.write(line[20:])
    rig.follower.step()
    assert [e.done for e in rig.seen.events] == [1, 1]


def test_the_controller_is_queried_seldom_and_less_while_nothing_changes(rig: Any) -> None:
    rig.pass_time(400)
    gaps = [b - a for a, b in zip(rig.queue.queried, rig.queue.queried[1:], strict=False)]
    assert min(gaps) >= 10
    assert gaps[-3:] == [60, 60, 60]
    rig.begin("extract.p0")
    rig.end("extract.p0", 137)
    before = len(rig.queue.queried)
    rig.pass_time(100)
    assert len(rig.queue.queried) - before <= 10
    assert "extract.p0 again: killed (SIGKILL); often by the kernel for want of memory" in rig.seen.reported


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("OUT_OF_MEMORY", "out of memory"),
        ("TIMEOUT", "out of time"),
        ("NODE_FAIL", "its node failed"),
        ("FAILED", "exit 1"),
    ],
)
def test_each_fault_is_tried_again_and_named(make_rig: Any, state: str, says: str) -> None:
    rig = make_rig(attempts=2)
    rig.follower.step()
    for attempt in (1, 2):
        rig.begin("extract.p0", attempt)
        rig.follower.step()
        rig.end("extract.p0", 1, attempt, state)
        rig.pass_time(30)
    assert rig.ends()["extract.p0"] == ("failed", 1, 2)
    assert says in rig.follower.outcomes[0].message
    assert rig.ends()["probe"] == ("skipped", 0, 0)
    assert rig.queue.arrays[102] == ("extract.p0",)
    assert 103 not in rig.queue.arrays


@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_final_codes_are_final_without_asking_the_queue(rig: Any, code: int) -> None:
    rig.follower.step()
    rig.begin("extract.p0")
    rig.end("extract.p0", code, state="RUNNING")
    rig.follower.step()
    assert rig.ends()["extract.p0"] == ("failed", code, 1)


def test_no_second_launch_of_what_slurm_starts_again_itself(rig: Any) -> None:
    """A preempted task left its code, and is in the queue again."""
    rig.follower.step()
    rig.begin("extract.p0")
    rig.end("extract.p0", 143, state="PENDING")
    rig.pass_time(120)
    rig.begin("extract.p0", 2)
    rig.end("extract.p0", 0, 2)
    rig.follower.step()
    assert rig.ends()["extract.p0"] == ("done", 0, 2)
    assert len(rig.queue.arrays) == 2


def test_a_mark_that_is_seen_late(rig: Any) -> None:
    """The queue says that it ended; the volume shows its mark 20 s later, and its shards 10 s after that."""
    rig.follower.step()
    rig.begin("extract.p0")
    rig.follower.step()
    rig.queue.states["extract.p0"] = "COMPLETED"
    rig.absent["extract.p0"] = "shards 0 are missing"
    rig.pass_time(20)
    rig.end("extract.p0", 0)
    rig.pass_time(5)
    assert rig.ends()["extract.p0"][0] == "stopped"
    del rig.absent["extract.p0"]
    rig.follower.step()
    assert rig.ends()["extract.p0"] == ("done", 0, 1)


def test_waiting_for_a_mark_is_bounded(rig: Any) -> None:
    rig.follower.step()
    rig.begin("extract.p0")
    rig.follower.step()
    rig.queue.states["extract.p0"] = "FAILED"
    rig.pass_time(25)
    assert len(rig.queue.arrays) == 2
    rig.pass_time(60)
    assert rig.queue.arrays[102] == ("extract.p0",)
    assert json.loads(rig.paths.submission(3).read_text())["firsts"] == [2]


def test_what_is_said_to_be_done_and_is_not_runs_again(rig: Any) -> None:
    rig.absent["extract.p0"] = "shards 0, 1 are missing"
    rig.follower.step()
    rig.begin("extract.p0")
    rig.end("extract.p0", 0)
    rig.pass_time(29)
    assert len(rig.queue.arrays) == 2
    rig.pass_time(12)
    assert "extract.p0 again: shards 0, 1 are missing" in rig.seen.reported
    assert rig.queue.arrays[102] == ("extract.p0",)


def test_a_dropped_probe_has_used_no_attempt_and_waits_for_the_new_array(make_rig: Any) -> None:
    rig = make_rig(attempts=2)
    rig.follower.step()
    rig.begin("extract.p0")
    rig.end("extract.p0", 1)
    rig.queue.states["probe"] = "CANCELLED"
    rig.pass_time(40)
    assert rig.queue.arrays[102] == ("extract.p0",)
    assert rig.queue.arrays[103] == ("probe",)
    # Of the first array only the task that did not fail: the whole of it can never end well.
    assert "--dependency=afterok:100_1:102" in rig.queue.options[103]
    assert json.loads(rig.paths.submission(4).read_text())["firsts"] == [1]


def test_a_task_that_never_begins_is_given_up(make_rig: Any) -> None:
    rig = make_rig(attempts=2)
    rig.follower.step()
    rig.queue.states["extract.p1"] = "FAILED"
    rig.pass_time(60)
    assert rig.queue.arrays[102] == ("extract.p1",)
    rig.queue.states["extract.p1"] = "FAILED"
    rig.pass_time(60)
    assert rig.ends()["extract.p1"][0] == "failed"
    assert "could not be started" in rig.follower.outcomes[1].message


def test_a_reply_that_got_lost_is_found_by_its_comment(rig: Any) -> None:
    rig.queue.lost_replies = 1
    rig.pass_time(30)
    assert rig.queue.arrays == {100: ("extract.p0", "extract.p1"), 101: ("probe",)}
    assert rig.queue.options[101][0] == "--dependency=afterok:100"


def test_a_submission_that_never_was_is_made_again(rig: Any) -> None:
    rig.queue.away = "slurm_load_jobs error: Unable to contact slurm controller"
    rig.pass_time(30)
    assert rig.queue.arrays == {}
    rig.queue.away = ""
    rig.pass_time(120)
    assert sorted(rig.queue.arrays.values()) == [("extract.p0", "extract.p1"), ("probe",)]
    assert any("Unable to contact" in note for note in rig.seen.notes)
    _whole(rig)
    assert rig.follower.follow()
    assert set(rig.ends().values()) == {("done", 0, 1)}


def test_another_follower_goes_on_where_the_first_left(rig: Any) -> None:
    rig.follower.step()
    rig.begin("extract.p0")
    rig.end("extract.p0", 1)
    rig.begin("extract.p1")
    rig.queue.states["probe"] = "CANCELLED"
    found = join(rig.queue, rig.run)
    assert found is not None
    assert (found[0].to_json(), found[1]) == (rig.session.to_json(), rig.paths)
    rig.follower = rig.follow()
    rig.pass_time(40)
    assert rig.queue.arrays[102] == ("extract.p0",)
    rig.begin("extract.p0", 2)
    rig.end("extract.p0", 0, 2)
    rig.end("extract.p1", 0)
    rig.begin("probe")
    rig.end("probe", 0)
    assert rig.follower.follow()
    assert rig.ends() == {"extract.p0": ("done", 0, 2), "extract.p1": ("done", 0, 1), "probe": ("done", 0, 1)}


def test_a_session_with_nothing_in_the_queue_is_not_joined(rig: Any) -> None:
    rig.follower.step()
    rig.queue.states.clear()
    assert join(rig.queue, rig.run) is None


def test_cancel_is_seen_by_whoever_follows(rig: Any) -> None:
    rig.follower.step()
    cancel(rig.queue, rig.session, rig.paths, rig.seen.note, clock=rig.clock, wait=rig.clock.wait)
    assert rig.queue.cancelled == ["lary-r-1"]
    assert rig.follower.follow()
    assert {state for state, _, _ in rig.ends().values()} == {"stopped"}
    assert len(rig.queue.arrays) == 2
    assert join(rig.queue, rig.run) is None


def test_cancel_gives_up_where_nobody_responds(rig: Any) -> None:
    rig.queue.away = "nobody"
    with pytest.raises(ContractError, match="does not respond; try `lary-orch cancel r` again"):
        cancel(rig.queue, rig.session, rig.paths, rig.seen.note, clock=rig.clock, wait=rig.clock.wait)
    assert rig.paths.cancelled.exists()


def test_detach_submits_all_and_leaves(rig: Any) -> None:
    assert not rig.follower.detach()
    assert len(rig.queue.arrays) == 2
    assert {state for state, _, _ in rig.ends().values()} == {"stopped"}
    assert not rig.paths.closed.exists()


def test_what_slurm_refuses_for_good_ends_the_run(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(script: object, options: object) -> int:
        raise SlurmError("sbatch: error: invalid partition specified: gpuu")

    monkeypatch.setattr(rig.queue, "submit", refuse)
    with pytest.raises(ContractError, match="invalid partition"):
        rig.follower.step()


def test_marks_of_a_volume_in_trouble_are_no_end_of_the_follower(rig: Any) -> None:
    rig.follower.step()
    rig.begin("extract.p0")
    rig.paths.task("extract.p0", 1, "end").mkdir()  # listed, and not to be read
    rig.pass_time(5)
    assert rig.ends()["extract.p0"][0] == "stopped"
    shutil.rmtree(rig.paths.task("extract.p0", 1, "end"))
    rig.end("extract.p0", 0)
    rig.pass_time(2)
    assert rig.ends()["extract.p0"] == ("done", 0, 1)
