"""What a run says about what went wrong: which job or row, why, and what to do."""

import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from lary_results.remedies import remedy
from lary_results.run_state import failed_rows
from lary_schema import commands
from lary_schema.printable import printable_lines
from lary_schema.runs import PlanFile

from lary_orch.plan.jobs import Problem, error_lines
from lary_orch.runtimes.base import Outcome

SHOWN_ROWS = 10
LOG_LINES = 5


def run_code(problems: Sequence[Problem], outcomes: Sequence[Outcome], interrupted: signal.Signals | None) -> int:
    """128 + signal, 0, the code that all failures share, or 1."""
    if interrupted is not None:
        return 128 + interrupted
    codes = {int(p.code) for p in problems} | {outcome.code for outcome in outcomes if outcome.state == "failed"}
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def report_failures(plan: PlanFile, problems: Sequence[Problem], outcomes: Sequence[Outcome], out: TextIO) -> None:
    """A short list of everything that is missing from the table, and why."""
    lines = [*_job_lines(outcomes), *_row_lines(failed_rows(plan)), *error_lines(problems)]
    if lines:
        out.write(printable_lines("\n" + "\n".join(lines) + "\n"))


def _job_lines(outcomes: Sequence[Outcome]) -> Iterable[str]:
    for outcome in outcomes:
        if outcome.state == "failed":
            yield f"failed: {outcome.task.verb} {outcome.task.title}: {outcome.message} (exit {outcome.code})"
            if outcome.stderr is not None:
                # The message is the log's end, too.
                said = outcome.message.splitlines()
                yield from (f"    | {line}" for line in _tail(outcome.stderr) if line not in said)
                yield f"    log: {outcome.stderr}"
        elif outcome.state == "skipped":
            yield f"skipped: {outcome.task.verb} {outcome.task.title}: {outcome.message}"


def _tail(log: Path) -> list[str]:
    if not log.is_file():
        return []
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]


def _row_lines(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    """The first failed rows, each once with all the models that do not have it; then each remedy, once."""
    models: dict[tuple[str, ...], list[str]] = {}
    remedies: Counter[str] = Counter()
    for row in rows:
        name = f"{row['dataset']}/{row['split']} row {row['row']}"
        # Most details begin with the file, or with one of a pair; it is said once.
        why = str(row["detail"] or row["reason"])
        names_it = any(file and file in why for file in str(row["file"]).split(", "))
        said = why if names_it else f"{row['file']}: {why}"
        of = (name, said)
        if of not in models:
            remedies[remedy(row["reason"], sampled=row["sampled"])] += 1
        models.setdefault(of, []).append(row["model"])
    if models:
        yield f"{len(models)} rows without a latent; they are excluded from scores:"
    for (name, said), names in islice(models.items(), SHOWN_ROWS):
        yield f"    {name} ({', '.join(dict.fromkeys(names))}): {said}"
    if len(models) > SHOWN_ROWS:
        yield f"    and {len(models) - SHOWN_ROWS} more: `{commands.command('status', '--failures')}` lists them"
    for text, count in remedies.items():
        yield f"  {count} of them: {text}"
