"""How far a run is on the cluster: from its files and one look at the queue, without following it."""

from collections import Counter
from typing import Any

from lary_orch.run.attempts import FINAL
from lary_schema import commands
from lary_schema.base import ContractError, ExitCode, explain
from lary_schema.runs import RunPaths
from lary_terminal.tables import Table

from lary_slurm.client import RUNNING, Client, QueueEntry
from lary_slurm.state import Marks, Session, SessionPaths, Submission

STATES = ("done", "running", "queued", "failed", "stopped")
"""`stopped`: ended without being done, and nobody has submitted it again."""


def cluster_state(run: RunPaths, client: Client) -> dict[str, Any] | None:
    """The newest session as JSON values; None for a run that was never on a cluster."""
    paths = SessionPaths.newest(run)
    if paths is None:
        return None
    session = Session.read(paths.document)
    entries, trouble = _queue(client, session, paths)
    marks = paths.marks()
    newest: dict[str, tuple[Submission, int]] = {}
    for submission in paths.read_submissions():
        newest |= {job: (submission, index) for index, job in enumerate(submission.tasks)}
    tasks = [
        {"id": task.id, "group": task.group}
        | _task(paths, task.id, newest.get(task.id), marks.get(task.id, Marks()), entries, unknown=bool(trouble))
        for task in session.tasks
    ]
    return {
        "session": paths.root.name,
        "name": session.name,
        "state": _session_state(paths),
        "queue": trouble or "ok",
        "tasks": tasks,
    }


def _session_state(paths: SessionPaths) -> str:
    if paths.cancelled.exists():
        return "cancelled"
    return "ended" if paths.closed.exists() else "open"


def _queue(client: Client, session: Session, paths: SessionPaths) -> tuple[dict[tuple[int, int], QueueEntry], str]:
    """What is in the queue, and why that is not known; a session that ended has nothing there."""
    if paths.closed.exists():
        return {}, ""
    try:
        return {(entry.slurm, entry.index): entry for entry in client.queue(session.name)}, ""
    except ContractError as error:
        return {}, str(error)


def _task(
    paths: SessionPaths,
    job: str,
    submitted: tuple[Submission, int] | None,
    marks: Marks,
    entries: dict[tuple[int, int], QueueEntry],
    *,
    unknown: bool,
) -> dict[str, Any]:
    slurm, entry = _in_queue(submitted, entries)
    code = paths.code(job, marks.ended) if marks.ended == marks.started > 0 else None
    state, note = _state(code, entry, begun=marks.started > 0, unknown=unknown)
    node = paths.node(job, marks.started) if marks.started else None
    return {"attempt": marks.started, "slurm": slurm, "node": node, "note": note, "state": state}


def _in_queue(
    submitted: tuple[Submission, int] | None, entries: dict[tuple[int, int], QueueEntry]
) -> tuple[str | None, QueueEntry | None]:
    """How the queue calls a task, and what it says of it."""
    if submitted is None or submitted[0].slurm is None:
        return None, None
    slurm, index = submitted[0].slurm, submitted[1]
    return f"{slurm}_{index}", entries.get((slurm, index))


def _state(code: int | None, entry: QueueEntry | None, *, begun: bool, unknown: bool) -> tuple[str, str]:
    """One of STATES, and why: by the exit code that the task left, else by the queue, else by its files."""
    if code == ExitCode.DONE:
        return "done", ""
    if code in FINAL:
        return "failed", explain(code or 0)
    if entry is not None and entry.live:
        return ("running", "") if entry.state in RUNNING else ("queued", entry.reason)
    if code is None and unknown:
        return "running" if begun else "queued", "as its files say"
    if entry is not None:
        return "stopped", entry.state.lower()
    return "stopped", "" if code is None else explain(code)


def cluster_table(state: dict[str, Any]) -> Table:
    """A line per array job of `cluster_state`."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for task in state["tasks"]:
        groups.setdefault(task["group"], []).append(task)
    notes = []
    if state["queue"] != "ok":
        notes.append(f"the queue cannot be queried: {state['queue']}")
    if any(task["state"] == "stopped" for task in state["tasks"]):
        notes.append(f"stopped tasks are submitted again by the same `{commands.program()} run`.")
    return Table(
        f"on the cluster: session {state['session']}, {state['state']} (squeue --name={state['name']})",
        ("array job", "tasks", *STATES, "why"),
        [_cells(name, tasks) for name, tasks in groups.items()],
        right=frozenset(range(1, 2 + len(STATES))),
        notes=tuple(notes),
    )


def _cells(name: str, tasks: list[dict[str, Any]]) -> tuple[str, ...]:
    counts = Counter(task["state"] for task in tasks)
    why = Counter(task["note"] for task in tasks if task["note"])
    reasons = ", ".join(f"{reason} {count}" for reason, count in why.most_common())
    return (name, str(len(tasks)), *(str(counts[state]) for state in STATES), reasons or "-")
