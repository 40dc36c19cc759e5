"""What a run does just now, from its lock and the newest event of each job; whoever started it, wherever."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lary_schema.events import Alive, Failed, Finished, Progress, Started, from_line
from lary_schema.locks import is_locked
from lary_schema.runs import RunPaths
from lary_terminal.tables import Table

TAIL_BYTES = 1 << 16
"""Of an event log, what is read of its end."""
QUIET_S = 300.0
"""A job without an event for longer is not called running where nobody holds the run's lock (a cluster's jobs)."""
_BEGINNING = {"done": 0, "total": None, "failed": 0, "per_second": None, "seconds_left": None, "note": ""}
_LOG = re.compile(r"(?P<job>.+)\.(?P<attempt>\d+)\.events\.jsonl")


def is_worked_on(run: RunPaths) -> bool:
    """Whether a `lary-orch run` holds the run's lock, on this host or, where the volume keeps locks, on another."""
    try:
        return is_locked(run.lock)
    except OSError:
        return False


def running_jobs(run: RunPaths, now: float | None = None) -> list[dict[str, Any]]:
    """The jobs that have begun and not ended: `done` of `total` rows or steps, `per_second`, `seconds_left`, and
    `heard`, the seconds since the last event. A job that died with its run is not among them.
    """
    now, held = time.time() if now is None else now, is_worked_on(run)
    found = []
    for job, log in _newest_logs(run.logs):
        heard = max(0.0, now - log.stat().st_mtime)
        if (held or heard < QUIET_S) and (state := _state(log)) is not None:
            found.append({"job": job, **state, "heard": heard})
    return found


def _newest_logs(logs: Path) -> Iterator[tuple[str, Path]]:
    newest: dict[str, tuple[int, Path]] = {}
    for path in sorted(logs.glob("*.events.jsonl")):
        if name := _LOG.fullmatch(path.name):
            attempt = int(name["attempt"])
            if attempt > newest.get(name["job"], (0, path))[0]:
                newest[name["job"]] = (attempt, path)
    yield from ((job, path) for job, (_, path) in newest.items())


def _state(log: Path) -> dict[str, Any] | None:
    """What the last events say; None for a job that ended."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    doing = ""
    for event in map(from_line, reversed(lines)):
        match event:
            case Finished() | Failed():
                return None
            case Alive():
                doing = doing or event.doing
            case Progress():
                rate = event.per_second
                left = (event.total - event.done) / rate if rate > 0 else None
                amounts = {"done": event.done, "total": event.total, "failed": event.failed}
                return {**amounts, "per_second": rate, "seconds_left": left, "note": doing or event.note}
            case Started():
                return {**_BEGINNING, "total": event.total, "note": doing}
    return {**_BEGINNING, "note": doing}


# --- for people -------------------------------------------------------------------------------


def running_table(jobs: list[dict[str, Any]]) -> Table:
    """`running_jobs`, a line each."""
    return Table(
        f"running: {len(jobs)} jobs",
        ("job", "done", "of", "rate", "time left", "failed", "last heard"),
        [_cells(job) for job in jobs],
        right=frozenset(range(1, 7)),
    )


def _cells(job: dict[str, Any]) -> tuple[str, ...]:
    total = "-" if job["total"] is None else f"{job['total']:,}"
    rate = "-" if job["per_second"] is None else f"{job['per_second']:.3g}/s"
    left = "-" if job["seconds_left"] is None else duration(job["seconds_left"])
    return (job["job"], f"{job['done']:,}", total, rate, left, f"{job['failed']:,}", f"{duration(job['heard'])} ago")


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
