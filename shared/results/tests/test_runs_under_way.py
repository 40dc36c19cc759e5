"""What runs just now, whoever started it: from the run's lock and the events that jobs left."""

import os
import time
from pathlib import Path

import pytest
from lary_results.run_list import run_records, run_table
from lary_results.running import QUIET_S, duration, running_jobs, running_table
from lary_schema.atomic import publish_text
from lary_schema.events import Alive, Failed, Finished, Progress, Started, to_line
from lary_schema.locks import exclusive
from lary_schema.runs import PlanFile, RunPaths, RunProbe
from lary_terminal.tables import plain

BEGUN = Started(job="a", total=900, device="cpu", pid=1)
GOING = Progress(job="a", done=300, total=900, failed=2, per_second=10)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "runs/r", tmp_path / "results/r")
    paths.logs.mkdir(parents=True)
    return paths


def log(run: RunPaths, job: str, *events: Started | Progress | Alive | Finished | Failed, attempt: int = 1) -> Path:
    path = run.events(job, attempt)
    path.write_text("chatter\n" + "".join(map(to_line, events)), encoding="utf-8")
    return path


def test_rate_and_time_left(run: RunPaths) -> None:
    log(run, "a.p0", BEGUN, GOING)
    log(run, "a.p1", BEGUN)
    log(run, "a.p2")
    log(run, "ended", BEGUN, GOING, Finished(job="a", done=900, per_second=1))
    log(run, "failed", BEGUN, Failed(job="a", code=4, message="no"))
    found = {job["job"]: job for job in running_jobs(run)}
    assert list(found) == ["a.p0", "a.p1", "a.p2"]
    assert (found["a.p0"]["done"], found["a.p0"]["total"], found["a.p0"]["failed"]) == (300, 900, 2)
    assert found["a.p0"]["seconds_left"] == 60
    assert (found["a.p1"]["done"], found["a.p1"]["total"], found["a.p1"]["seconds_left"]) == (0, 900, None)
    text = plain(running_table(list(found.values())))
    assert "10/s" in text
    assert "1 min" in text


def test_what_a_job_without_other_events_does_is_its_note(run: RunPaths) -> None:
    first, second = (Alive(job="a", doing=doing, seconds=30) for doing in ("evaluating", "writing the checkpoint"))
    log(run, "a.p0", BEGUN, GOING, first, second)
    log(run, "a.p1", BEGUN, first)
    log(run, "a.p2", first)
    log(run, "a.p3", BEGUN, first, GOING)
    log(run, "ended", BEGUN, first, Finished(job="a", done=900, per_second=1))
    found = {job["job"]: (job["done"], job["note"]) for job in running_jobs(run)}
    said, earlier = second.doing, first.doing
    assert found == {"a.p0": (300, said), "a.p1": (0, earlier), "a.p2": (0, earlier), "a.p3": (300, "")}


def test_the_newest_attempt_counts(run: RunPaths) -> None:
    log(run, "a", BEGUN, Failed(job="a", code=1, message="died"), attempt=9)
    log(run, "a", BEGUN, GOING, attempt=10)
    assert [job["done"] for job in running_jobs(run)] == [300]
    log(run, "a", BEGUN, Finished(job="a", done=900, per_second=1), attempt=11)
    assert running_jobs(run) == []


def test_what_died_with_its_run_does_not_run(run: RunPaths) -> None:
    path = log(run, "a", BEGUN, GOING)
    old = time.time() - QUIET_S - 60
    os.utime(path, (old, old))
    assert running_jobs(run) == []
    with exclusive(run.lock, "busy"):
        (job,) = running_jobs(run)
    assert job["heard"] > QUIET_S


def test_a_long_log_is_read_from_its_end(run: RunPaths) -> None:
    steps = [Progress(job="a", done=i, total=5000, per_second=10) for i in range(1000)]
    path = log(run, "a", BEGUN, *steps)
    with path.open("a") as file:
        file.write('{"event": "progress", "job": "a", "do')
    assert [job["done"] for job in running_jobs(run)] == [999]


def test_runs_are_listed(run: RunPaths, tmp_path: Path) -> None:
    probe = RunProbe(
        id="p", model="m", variant="v", dataset="d", control="none", fingerprint="f", result=str(tmp_path / "none")
    )
    plan = PlanFile(run="r", protocol="smoke", latents=str(tmp_path), stores=(), probes=(probe,), problems=())
    publish_text(run.plan, plan.to_json())
    publish_text(tmp_path / "runs/broken/plan.json", "{}")
    by_name = {record["run"]: record for record in run_records(tmp_path / "runs", tmp_path / "results")}
    assert (by_name["r"]["state"], by_name["r"]["done"], by_name["r"]["parts"]) == ("not complete", 0, 1)
    assert "not a valid PlanFile" in by_name["broken"]["error"]
    with exclusive(run.lock, "busy"):
        (record,) = [r for r in run_records(tmp_path / "runs", tmp_path / "results") if r["run"] == "r"]
    assert record["state"] == "running"
    text = plain(run_table(list(by_name.values()), tmp_path / "runs"))
    assert "0/1" in text
    assert "broken: " in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3700, "1 h 01 min"), (200_000, "2 d 7 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_folder_of_runs_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object = ".") -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refused)
    (record,) = run_records(tmp_path, tmp_path)
    assert record["error"] == f"{tmp_path}: cannot be read: Permission denied"
    assert run_table([record], tmp_path).notes == (record["error"],)
