"""What is missing from the tables, and why: unreadable files, jobs, what was not planned, rows."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lary_schema import commands

from lary_results.remedies import remedy
from lary_results.report.evidence import Evidence, FailedJob, Run
from lary_results.report.markup import Child, Html, details, el, join, table
from lary_results.run_state import is_complete

ROWS_SHOWN = 200
"""Failed rows of a run that are listed."""


def section(evidence: Evidence) -> Html:
    parts = [*_unreadable(evidence), *(part for run in evidence.runs for part in _run(run))]
    return el(
        "section",
        el("h2", "Failures"),
        parts or el("p", _none(evidence.runs)),
        _runs(evidence.runs) if evidence.runs else None,
        id="failures",
    )


def _none(runs: Sequence[Run]) -> str:
    """What may be said where nothing was found."""
    if not runs:
        return "None known: no run was planned in this workspace."
    if all(is_complete(run.state) for run in runs):
        return "None: every planned job was done, and every row has its latent."
    return "None so far; what is left to do stands below."


def _unreadable(evidence: Evidence) -> Iterator[Html]:
    if evidence.unreadable:
        yield el("h3", "Files that could not be read")
        yield el("ul", [el("li", el("pre", message)) for message in evidence.unreadable], class_="bad")


def _run(run: Run) -> Iterator[Html]:
    problems = run.state["problems"]
    if problems:
        yield el("h3", f"Not planned in run {run.name}")
        yield el("ul", [el("li", problem) for problem in problems], class_="bad")
    if run.failed_jobs:
        yield el("h3", f"Jobs of run {run.name} without a good end")
        yield from (_failed_job(job, under_way=run.under_way) for job in run.failed_jobs)
    if run.failures:
        yield el("h3", f"Rows without a latent in run {run.name}")
        yield _rows(run)


def _failed_job(job: FailedJob, *, under_way: bool) -> Html:
    if job.code is not None:
        what = f"exit code {job.code}"
    else:
        what = "under way, or killed" if under_way else "no end was recorded: killed, crashed, or running elsewhere"
    log = el("pre", "\n".join(job.log)) if job.log else None
    return el(
        "div",
        el("p", el("b", job.job), " ", el("span", what, class_="tag")),
        el("pre", job.message) if job.message else None,
        details(join("log: ", el("code", str(job.stderr))), log) if log else None,
        class_="bad card",
    )


def _rows(run: Run) -> Html:
    """How many for which reason, then the rows themselves."""
    counts = Counter(
        (row["dataset"], row["split"], row["model"], row["variant"], row["reason"], row["sampled"])
        for row in run.failures
    )
    summary = table(
        ("dataset", "split", "model", "variant", "reason", "what to do", "rows"),
        [(*of[:-1], remedy(of[-2], sampled=of[-1]), count) for of, count in counts.most_common()],
        numbers=6,
    )
    listed: list[list[Child]] = [
        [row[name] for name in ("dataset", "split", "model", "variant", "row", "reason", "file", "detail")]
        for row in run.failures[:ROWS_SHOWN]
    ]
    hidden = len(run.failures) - len(listed)
    listing = commands.command("status", run.name, "--failures")
    more = el("p", f"and {hidden} more: {listing}", class_="muted") if hidden else None
    every = table(("dataset", "split", "model", "variant", "row", "reason", "file", "detail"), listed)
    return join(summary, details(f"{len(listed)} of {len(run.failures)} rows", every, more))


def _runs(runs: Sequence[Run]) -> Html:
    header = ["run", "state", "stores whole", "probes done", "rows failed", "rows clamped"]
    rows = [_state(run) for run in runs]
    if any(run.state["evaluations"] for run in runs):
        header.append("evaluations done")
        rows = [[*row, _evaluated(run)] for row, run in zip(rows, runs, strict=True)]
    unfinished = [line for run in runs for line in _unfinished(run)]
    items = [el("li", line) for line in unfinished]
    left = details(f"{len(unfinished)} stores, probes and evaluations to be done", el("ul", items))
    return join(el("h3", "Runs"), table(header, rows, numbers=2), left if unfinished else None)


def _unfinished(run: Run) -> Iterator[str]:
    """Stores, probes and evaluations that are not whole."""
    for store in run.state["stores"]:
        if store["shards_done"] < store["shards"]:
            named = f"{store['model']} ({store['variant']}) on {store['dataset']}/{store['split']}"
            yield f"{run.name}: latents of {named}: {store['shards_done']} of {store['shards']} shards"
    for probe in run.state["probes"]:
        if not probe["done"]:
            yield f"{run.name}: probe {probe['id']}"
    for one in run.state["evaluations"]:
        if not one["done"]:
            named = f"{one['policy']} on {one['benchmark']}/{one['task']}, seed {one['seed']}"
            yield f"{run.name}: {named}: {one['episodes_done']} of {one['episodes']} episodes"


def _state(run: Run) -> list[Child]:
    stores, probes = run.state["stores"], run.state["probes"]
    whole = sum(store["shards_done"] == store["shards"] for store in stores)
    done = sum(probe["done"] for probe in probes)
    return [
        run.name,
        "under way" if run.under_way else "done" if is_complete(run.state) else "incomplete",
        f"{whole} of {len(stores)}",
        f"{done} of {len(probes)}",
        sum(store["rows_failed"] for store in stores),
        sum(store["rows_clamped"] for store in stores),
    ]


def _evaluated(run: Run) -> str:
    evaluations = run.state["evaluations"]
    return f"{sum(one['done'] for one in evaluations)} of {len(evaluations)}"
