"""Puts tasks into the queue: the session's groups cut into arrays, each written down before and after its sbatch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lary_schema.atomic import publish_text

from lary_slurm.client import Client
from lary_slurm.script import Batch
from lary_slurm.state import GroupEntry, Session, SessionPaths, Submission


def cut(session: Session, group: GroupEntry, firsts: dict[str, int], number: int) -> list[Submission]:
    """Submissions for some tasks of a group, none larger than the cluster's arrays, numbered from `number`."""
    jobs = [task.id for task in session.tasks if task.group == group.name and task.id in firsts]
    pieces = [jobs[start : start + session.max_array] for start in range(0, len(jobs), session.max_array)]
    return [
        Submission(
            number=number + nth, group=group.name, tasks=tuple(piece), firsts=tuple(firsts[job] for job in piece)
        )
        for nth, piece in enumerate(pieces)
    ]


def batch(session: Session, group: GroupEntry, submission: Submission, paths: SessionPaths, logs: Path) -> Batch:
    """What the script of a submission is made from."""
    is_array = any(task.in_parts for task in session.tasks if task.group == group.name)
    return Batch(
        name=session.name,
        title=f"run {session.run}, {group.name}: {len(submission.tasks)} tasks",
        jobs=submission.tasks,
        firsts=submission.firsts,
        options=group.options,
        command=group.command,
        limit=session.attempts,
        logs=logs,
        state=paths.tasks,
        output=paths.output,
        is_array=is_array,
        at_once=session.profile.at_once if is_array else None,
        spread=group.spread,
        modules=session.profile.modules,
        setup=(*session.profile.setup, *group.setup),
    )


def dependency(ids: Iterable[str]) -> list[str]:
    """Options of a probe that waits for its stores, and is taken off the queue where one of them fails."""
    found = ":".join(sorted(set(ids)))
    return [f"--dependency=afterok:{found}", "--kill-on-invalid-dep=yes"] if found else []


def submit(client: Client, paths: SessionPaths, submission: Submission, text: str, needs: Sequence[str]) -> Submission:
    """Write it down, submit it, write its id down. Raises what `Client.submit` does.

    A host that dies in between leaves a submission without an id: the queue knows it by its comment.
    """
    publish_text(paths.script(submission.number), text)
    publish_text(paths.submission(submission.number), submission.to_json())
    options = [*dependency(needs), f"--comment={comment(paths, submission.number)}"]
    submitted = submission.model_copy(update={"slurm": client.submit(paths.script(submission.number), options)})
    publish_text(paths.submission(submission.number), submitted.to_json())
    return submitted


def comment(paths: SessionPaths, number: int) -> str:
    """Distinguishes a submission in the queue from all others of the run."""
    return f"{paths.root.name}-{number:04}"
