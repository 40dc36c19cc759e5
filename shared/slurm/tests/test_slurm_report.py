"""What `status` shows of a session, without following it."""

import io
import json
import unicodedata
from typing import Any

import pytest
from lary_orch.run.failures import report_failures
from lary_schema.events import Failed, Started, Warned, to_line
from lary_schema.runs import PlanFile
from lary_slurm.report import cluster_state, cluster_table
from lary_terminal.progress import JsonLines, PlainLines
from lary_terminal.tables import plain


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


HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x9b31m \u202egnp.exe\u2066 \r\x08\x7f"
"""Escape sequences of 7 and 8 bits, bidirectional controls, what moves a cursor."""


@pytest.mark.parametrize("watch", [PlainLines, JsonLines])
def test_what_files_and_queue_say_is_shown_escaped(rig: Any, watch: Any) -> None:
    """Events, stderr, node names and replies of Slurm are read from files that others write."""
    said = HOSTILE
    out = io.StringIO()
    rig.seen = watch(out)
    rig.follower = rig.follow()
    rig.follower.step()
    rig.begin("extract.p0")
    rig.paths.task("extract.p0", 1, "start").write_text(json.dumps({"node": said}))
    events, stderr = rig.follower.logs("extract.p0", 1)
    events.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        Started(job="extract.p0", total=1, unit="rows", device=said, pid=1), Warned(job="extract.p0", message=said),
        Failed(job="extract.p0", code=4, message=said),
    ]  # fmt: skip
    events.write_text("".join(map(to_line, lines)) + f"{said}\n", encoding="utf-8")
    stderr.write_bytes(said.encode() + b"\xff\xfe\n")
    rig.pass_time(2)
    rig.end("extract.p0", 4)
    rig.queue.away = said
    rig.pass_time(120)
    plan = PlanFile(run="r", protocol="smoke", latents=str(rig.root), stores=(), probes=(), problems=())
    report_failures(plan, (), rig.follower.outcomes, out)
    out.write(plain(cluster_table(cluster_state(rig.run, rig.queue) or {})))
    shown = out.getvalue()
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"}
    assert not hidden
    assert shown.count("gnp.exe") >= 5
    if watch is JsonLines:
        found = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
        assert said in {event.get("message") for event in found}
