import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lary_orch.runtimes.base import Observer, Outcome
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job
from lary_schema.events import Alive, BatchHalved, Failed, Finished, Progress, Split, Started, Warned
from lary_terminal import progress
from lary_terminal.progress import LiveBars, PlainLines, amounts, watching
from rich.console import Console

MakeWork = Callable[..., Job]


def _play(watch: Observer, work: Job, slot: Slot) -> None:
    """A job that dies once, then does its work; a second one that is skipped."""
    watch.launched(work, slot, 1)
    watch.event(work, Started(job="a", total=900, skipped=100, device="cpu", pid=1))
    watch.relaunch(work, 137, "killed")
    watch.launched(work, slot, 2)
    watch.event(work, Started(job="a", total=900, device="cpu", pid=1))
    seconds = Split(decode=6, encode=3, write=1)
    watch.event(work, Progress(job="a", done=450, total=900, failed=2, per_second=1234.5, seconds=seconds))
    watch.event(work, BatchHalved(job="a", batch_size=16))
    watch.event(work, Warned(job="a", message="clips are short"))
    watch.event(work, Finished(job="a", done=900, failed=2, per_second=1234.5, seconds=seconds))
    watch.ended(Outcome(work, "done", attempts=2))
    watch.ended(Outcome(work, "failed", 4, "no weights\nsecond line", attempts=1))
    watch.note("stopping")


@pytest.fixture
def work(make_work: MakeWork) -> Job:
    return make_work("a")


def test_what_a_rate_looks_like() -> None:
    event = Progress(job="a", done=1, total=2, failed=3, per_second=0.517, seconds=Split(decode=1, encode=3))
    assert amounts(event, "rows") == "0.517 rows/s, 3 failed (decode 25 %, encode 75 %, write 0 %)"
    assert amounts(Finished(job="a", done=1, per_second=12345), "steps") == "12,345 steps/s"


def test_plain_lines(work: Job, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0)
    out = io.StringIO()
    _play(PlainLines(out), work, slot)
    said = [line.partition("a: ")[2] or line for line in out.getvalue().splitlines()]
    assert said == [
        "started on cpu",
        "killed; starting it again",
        "started on cpu, attempt 2",
        "450/900 rows, 1,234 rows/s, 2 failed (decode 60 %, encode 30 %, write 10 %)",
        "out of memory; going on with batches of 16",
        "clips are short",
        "done: 900 rows, 1,234 rows/s, 2 failed (decode 60 %, encode 30 %, write 10 %)",
        "FAILED: no weights",
        "stopping",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "checking weights m"), (9.9, "checking weights m"), (90, "checking weights m, for 90 s so far")],
)
def test_long_work_without_events_is_shown(
    work: Job, slot: Slot, monkeypatch: pytest.MonkeyPatch, seconds: float, said: str
) -> None:
    alive, lines, bars = Alive(job="a", doing="checking weights m", seconds=seconds), io.StringIO(), io.StringIO()
    with LiveBars(Console(file=bars, force_terminal=True, width=160, height=24), 1) as live:
        live.launched(work, slot, 1)
        live.event(work, alive)
    assert said in bars.getvalue()
    watch = PlainLines(lines)
    watch.launched(work, slot, 1)
    watch.event(work, alive)
    # Not before a while.
    assert "weights" not in lines.getvalue()
    watch._last["a"] -= progress.PLAIN_EVERY_S
    watch.event(work, alive)
    assert lines.getvalue().endswith(f"a: {said}\n")


def test_plain_lines_are_few(work: Job, slot: Slot) -> None:
    out = io.StringIO()
    watch = PlainLines(out)
    watch.launched(work, slot, 1)
    for done in range(100):
        watch.event(work, Progress(job="a", done=done, total=100, per_second=1))
    assert len(out.getvalue().splitlines()) == 1


def test_json_lines(work: Job, slot: Slot) -> None:
    out = io.StringIO()
    with watching(2, out, as_json=True) as watch:
        _play(watch, work, slot)
        watch.event(work, Failed(job="a", code=4, message="told once, by the end"))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    kinds = ["started", "warning", "started", "progress", "batch_halved", "warning", "finished", "error", "note"]
    assert [line["event"] for line in lines] == kinds
    assert (lines[1]["message"], lines[7]["code"]) == ("killed; relaunched", 4)


@pytest.mark.parametrize("width", [80, 160])
def test_bars(work: Job, slot: Slot, width: int) -> None:
    out = io.StringIO()
    with LiveBars(Console(file=out, force_terminal=True, width=width, height=24), 2) as watch:
        _play(watch, work, slot)
    said = out.getvalue()
    assert "all jobs" in said
    for text in ("again", "killed", "FAILED", "no weights", "900 rows, 1,234 rows/s", "stopping"):
        assert text in said
    assert "second line" not in said
    # The cursor is visible again.
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


def test_a_file_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as out, watching(1, out, as_json=False) as watch:
        assert isinstance(watch, PlainLines)
