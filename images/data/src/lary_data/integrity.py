"""Checks every file of datasets, and reports what is wrong with which rows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lary_schema.base import ContractError, Document
from lary_schema.datasets import DatasetFiles
from pydantic import Field

from lary_data.checking import Check, Kind, Status, Verdict, check_file
from lary_data.pool import run_tasks
from lary_data.progress import progress
from lary_data.references import References, references
from lary_data.resuming import ResultLog, file_identity, result_key, run_resumed
from lary_data.row_facts import DatasetReport, RowFacts, dataset_report, look_at_rows

ROWS_SHOWN = 100
"""Of the rows that name a bad file, at most this many are listed; all are counted."""

FILES_LISTED = 100_000
"""Bad files of a split that the report holds."""
_REVISION = 2
"""Bump when a file that was good could be found bad."""


class BadFile(Document):
    """A file that is not as it should be."""

    kind: Kind
    path: str
    status: Status
    detail: str
    rows: tuple[int, ...]
    """Data rows of the split's CSV that name it, the first ones."""
    references: int
    """How many rows name it."""


class BadRow(Document):
    """A row that names no file, or has no label, group or instruction."""

    row: int
    detail: str


class SplitReport(Document):
    """One split of one dataset."""

    dataset: str
    split: str
    csv: str
    state: Literal["checked", "no csv", "bad csv", "no media"]
    detail: str = ""
    """Why it was not checked."""
    rows: int = 0
    """That were looked at."""
    counts: dict[Status, int] = Field(default_factory=dict)
    """Files by status."""
    bad_files: tuple[BadFile, ...] = ()
    unlisted: int = 0
    """Further bad files, which are counted alone."""
    bad_rows: tuple[BadRow, ...] = ()

    @property
    def good(self) -> bool:
        return self.state == "checked" and not self.bad_files and not self.bad_rows


class CheckReport(Document):
    """What `check --json` writes."""

    version: Literal[1] = 1
    sample: int | None
    """Rows of each split that were looked at; None: all."""
    splits: tuple[SplitReport, ...]
    datasets: tuple[DatasetReport, ...] = ()
    """What their CSVs say as a whole, those of splits that were not requested included."""

    @property
    def good(self) -> bool:
        return all(split.good for split in self.splits) and all(dataset.good for dataset in self.datasets)


@dataclass(frozen=True)
class Checker:
    """How files are checked."""

    sample: int | None
    workers: int
    timeout_s: float
    log: Path | None
    """What a killed check goes on from."""
    allow_shared_groups: bool = False
    """A group that stands in train and in an evaluated split is recorded and no fault."""


def check_splits(wanted: Sequence[tuple[DatasetFiles, str]], checker: Checker) -> CheckReport:
    """Check the splits one after the other, and each of their datasets as a whole."""
    facts: dict[str, dict[str, RowFacts]] = {}
    datasets: list[DatasetReport] = []
    for files in {files.card.key: files for files, _ in wanted}.values():
        found, faults = look_at_rows(files)
        facts[files.card.key] = found
        report = dataset_report(files.card, found, faults, allow_shared_groups=checker.allow_shared_groups)
        datasets.append(report)
    with nullcontext() if checker.log is None else ResultLog(checker.log) as log:
        splits = tuple(
            _check_split(files, split, facts[files.card.key].get(split, RowFacts()), checker, log)
            for files, split in wanted
        )
    return CheckReport(sample=checker.sample, splits=splits, datasets=tuple(datasets))


def _check_split(
    files: DatasetFiles, split: str, facts: RowFacts, checker: Checker, log: ResultLog | None
) -> SplitReport:
    csv, key = files.csv[split], files.card.key
    if not csv.is_file():
        return SplitReport(dataset=key, split=split, csv=str(csv), state="no csv", detail="there is none")
    media = files.media(split).root
    if not media.is_dir():
        detail = f"{media}: the folder of the media is missing; give the data's root by --data-dir"
        return SplitReport(dataset=key, split=split, csv=str(csv), state="no media", detail=detail)
    try:
        found = references(files, split, checker.sample)
    except ContractError as error:
        return SplitReport(dataset=key, split=split, csv=str(csv), state="bad csv", detail=str(error))
    counts: Counter[Status] = Counter()
    bad: list[BadFile] = []
    sizes: dict[str, str] = {}
    with progress(f"{key}/{split}", len(found.files), "files") as tick:
        for check, (status, detail) in _verdicts(list(found.files.values()), checker, log):
            counts[status] += 1
            if status == "ok" and check.kind == "image":
                sizes[check.path] = detail
            elif status != "ok" and len(bad) < FILES_LISTED:
                bad.append(_bad_file(check, status, detail, found))
            tick(counts.total() - counts["ok"])
    unlike = _unlike_pairs(found, sizes)
    counts["ok"] -= len(unlike)
    counts["mismatch"] += len(unlike)
    counts = +counts
    bad += unlike[: FILES_LISTED - len(bad)]
    bad.sort(key=lambda file: (file.rows, file.path))
    rows = tuple(BadRow(row=row, detail=detail) for row, detail in sorted([*found.bad_rows, *facts.bad_rows]))
    return SplitReport(
        dataset=key, split=split, csv=str(csv), state="checked", rows=found.rows, counts=dict(counts),
        bad_files=tuple(bad), unlisted=counts.total() - counts["ok"] - len(bad), bad_rows=rows,
    )  # fmt: skip


def _verdicts(checks: Sequence[Check], checker: Checker, log: ResultLog | None) -> Iterator[tuple[Check, Verdict]]:
    """Only what was good is remembered: a bad file may be so for a moment."""
    if log is None:
        ends = run_tasks(check_file, checks, checker.workers, checker.timeout_s)
    else:
        ends = run_resumed(check_file, checks, _key, log, checker.workers, checker.timeout_s, _is_good)
    for done in ends:
        if done.result is not None:
            yield done.task, done.result
        else:
            yield done.task, ("timeout" if done.timed_out else "corrupt", f"{done.task.name}: {done.fault}")


def _is_good(verdict: Verdict) -> bool:
    return verdict[0] == "ok"


def _key(check: Check) -> str | None:
    identity = file_identity(Path(check.path))
    return None if identity is None else result_key(identity, [_REVISION, check.kind, check.last, *check.shape])


def _unlike_pairs(found: References, sizes: Mapping[str, str]) -> list[BadFile]:
    """The second images that are of another size than the first of their pair: no model takes such a row."""
    details: dict[str, str] = {}
    rows: dict[str, list[int]] = {}
    for (source, target), named in found.pairs.items():
        first, second = sizes.get(source), sizes.get(target)
        if first is not None and second is not None and first != second:
            one, two = found.files["image", source].name, found.files["image", target].name
            details.setdefault(target, f"{two}: is {second}, and {one}, which it is a pair with, {first}")
            rows.setdefault(target, []).extend(named)
    return [
        BadFile(
            kind="image", path=target, status="mismatch", detail=detail, rows=tuple(rows[target][:ROWS_SHOWN]),
            references=len(rows[target]),
        )
        for target, detail in details.items()
    ]  # fmt: skip


def _bad_file(check: Check, status: Status, detail: str, found: References) -> BadFile:
    rows = found.rows_of[(check.kind, check.path)]
    return BadFile(
        kind=check.kind, path=check.path, status=status, detail=detail, rows=tuple(rows[:ROWS_SHOWN]),
        references=len(rows),
    )  # fmt: skip
