"""What would be submitted, for people to read before it is."""

from pathlib import Path
from typing import Any

from lary_schema.runs import RunPaths

from lary_slurm.script import script
from lary_slurm.state import GroupEntry, Session, SessionPaths
from lary_slurm.submit import batch, cut

NEXT = "NEXT"
"""Stands for the number of the session's folder."""


def preview(session: Session, paths: RunPaths) -> list[dict[str, Any]]:
    """The first submissions in order: `command` and `script` of each. Writes nothing."""
    session_paths = SessionPaths(paths.root / "slurm" / NEXT)
    shown: list[dict[str, Any]] = []
    made_by: dict[str, list[int]] = {}
    for group in session.groups:
        firsts = {task.id: 1 for task in session.tasks if task.group == group.name}
        for submission in cut(session, group, firsts, len(shown) + 1):
            needs = sorted({number for name in _needs(session, group) for number in made_by[name]})
            text = script(batch(session, group, submission, session_paths, paths.logs))
            shown.append({"command": _command(needs, session_paths.script(submission.number)), "script": text})
            made_by.setdefault(group.name, []).append(submission.number)
    return shown


def _needs(session: Session, group: GroupEntry) -> set[str]:
    """The groups whose tasks a group's tasks need."""
    needed = {need for task in session.tasks if task.group == group.name for need in task.needs}
    return {task.group for task in session.tasks if task.id in needed}


def _command(needs: list[int], path: Path) -> list[str]:
    """As `submit` has it, the ids that sbatch will give written as <1>, <2>."""
    waits = ":".join(f"<{number}>" for number in needs)
    dependency = [f"--dependency=afterok:{waits}", "--kill-on-invalid-dep=yes"] if needs else []
    return ["sbatch", "--parsable", *dependency, str(path)]
