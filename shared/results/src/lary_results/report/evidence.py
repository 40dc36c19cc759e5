"""What a report shows, read from the workspace. What cannot be read is named: nothing here raises for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lary_schema.base import ContractError
from lary_schema.events import Failed, Finished, from_line
from lary_schema.locks import is_locked
from lary_schema.results import ProbeResult
from lary_schema.runs import PlanFile, RunPaths

from lary_results.board import MAX_FAILED, NO_TITLES, Board, Titles, boards
from lary_results.files import one_folder, read_results
from lary_results.run_state import DiskState, failed_rows, is_complete, run_state
from lary_results.scores import collect

TAIL_BYTES = 1 << 16
LOG_LINES = 12


@dataclass(frozen=True)
class FailedJob:
    """How the last attempt at a job ended, where it did not end well."""

    run: str
    job: str
    code: int | None
    """Its exit code, where it said one."""
    message: str
    log: tuple[str, ...]
    """The last lines of its stderr."""
    stderr: Path


@dataclass(frozen=True)
class Run:
    """One run's state: stores, probes and problems of `run_state`, and how jobs ended."""

    name: str
    state: dict[str, Any]
    failures: tuple[dict[str, Any], ...]
    """Failed rows, as `run_state.failed_rows` has them."""
    failed_jobs: tuple[FailedJob, ...]
    under_way: bool


@dataclass(frozen=True)
class Evidence:
    folder: Path
    """Where results are looked for."""
    results: dict[str, ProbeResult]
    """By file; the newest first."""
    boards: tuple[Board, ...]
    runs: tuple[Run, ...]
    unreadable: tuple[str, ...]
    """What is wrong with files that could not be read."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show: no result, no run."""
        return not (self.boards or self.runs or self.unreadable)


def gather(
    results_folder: Path,
    runs_folder: Path,
    run: str = "*",
    protocol: str | None = None,
    titles: Titles = NO_TITLES,
    max_failed: float = MAX_FAILED,
) -> Evidence:
    """All of a workspace, or of one run, or of one protocol. `titles` are those of protocols, by key."""
    unreadable: list[str] = []
    found = read_results(results_folder, run, unreadable)
    results = {str(path): result for path, result in found if protocol in (None, result.protocol)}
    scores = collect((Path(path), result) for path, result in results.items())
    runs = tuple(_runs(results_folder, runs_folder, run, protocol, unreadable))
    return Evidence(results_folder, results, tuple(boards(scores, titles, max_failed)), runs, tuple(unreadable))


def _runs(
    results_folder: Path, runs_folder: Path, run: str, protocol: str | None, unreadable: list[str]
) -> Iterator[Run]:
    disk = DiskState()
    for path in sorted(runs_folder.glob(f"{one_folder(run)}/plan.json")):
        try:
            plan = PlanFile.read(path)
            if protocol not in (None, plan.protocol):
                continue
            state = run_state(plan, disk)
        except ContractError as error:
            unreadable.append(str(error))
            continue
        paths = RunPaths(path.parent, results_folder / path.parent.name)
        # A finished run keeps the logs of jobs that a later call did in other partitions.
        failed_jobs = () if is_complete(state) else tuple(_failed_jobs(paths))
        yield Run(plan.run, state, _failures(plan, disk, unreadable), failed_jobs, is_under_way(paths))


def _failures(plan: PlanFile, disk: DiskState, unreadable: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(failed_rows(plan, disk))
    except (ContractError, OSError) as error:  # the CSV that names the files is gone, say
        unreadable.append(f"failed rows of run {plan.run}: {error}")
        return ()


# --- jobs -------------------------------------------------------------------------------------


def _failed_jobs(paths: RunPaths) -> Iterator[FailedJob]:
    """Jobs whose last attempt did not end well."""
    latest: dict[str, Path] = {}
    for events in sorted(paths.logs.glob("*.events.jsonl"), key=lambda p: p.stat().st_mtime_ns):
        latest[events.name.rsplit(".", 3)[0]] = events
    for job, events in sorted(latest.items()):
        last = _last_event(events)
        if isinstance(last, Finished):
            continue
        stderr = events.with_name(events.name.replace(".events.jsonl", ".stderr.log"))
        code, message = (last.code, last.message) if isinstance(last, Failed) else (None, "")
        yield FailedJob(paths.root.name, job, code, message, tuple(_tail(stderr)[-LOG_LINES:]), stderr)


def _last_event(path: Path) -> Any | None:
    """The event of the last line that is one."""
    events = (from_line(line) for line in reversed(_tail(path)))
    return next((event for event in events if event is not None), None)


def _tail(path: Path) -> list[str]:
    """The last lines of a file that may be large; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def is_under_way(paths: RunPaths) -> bool:
    """Whether somebody works on a run now, by the run's lock."""
    try:
        return is_locked(paths.lock)
    except (OSError, ContractError):
        return False
