"""Results on disk: `results/RUN/MODEL/DATASET/PROBE/result.json`."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

from lary_schema import commands
from lary_schema.atomic import PARTIAL_SUFFIX
from lary_schema.base import ContractError, Document
from lary_schema.files import unlisted
from lary_schema.results import ProbeResult

RESULT_FILE = "result.json"
IMPORTED = "imported-"
"""What the folder of imported results begins with, in the place of a run's name."""
IMPORT_FILE = "import.json"
FOLDER = "evaluate"
"""Of evaluations, among those of runs."""


NAMED_RUNS = 10


class Import(Document):
    """`import.json`: where imported results come from."""

    version: Literal[1] = 1
    file: str
    """Name of the zip file."""
    runs: tuple[str, ...]
    """Theirs."""


def imports(results: Path) -> list[Path]:
    """The folders of all that was imported."""
    return sorted(folder for folder in results.glob(f"{IMPORTED}*") if not is_draft(folder))


def imported_from(result: Path) -> str | None:
    """The name of the file that a result was imported from; None: it was made here."""
    return import_name(result.parents[3])


def import_name(folder: Path) -> str | None:
    """The name of the file that is imported in a folder of results; None: it is a run's."""
    if not folder.name.startswith(IMPORTED):
        return None
    try:
        return _import(folder / IMPORT_FILE).file
    except (OSError, ContractError):
        return "an unknown file"


@lru_cache(maxsize=64)
def _import(path: Path) -> Import:
    return Import.read(path)


def one_folder(run: str) -> str:
    """A run's name, or `*`, as a pattern that leads nowhere else. Raises ContractError for what is no name."""
    if run in ("", ".", "..") or "/" in run or "\0" in run:
        raise ContractError(f"--run {run!r}: give the name of a run")
    return run


def nothing_found(results: Path, run: str, protocol: str | None) -> str:
    """What a command that found nothing says: what was looked for, and what there is."""
    wanted = [f"run {run!r}"] if run != "*" else []
    wanted += [f"protocol {protocol!r}"] if protocol is not None else []
    looked_for = f"no results of {' and '.join(wanted)}" if wanted else "no results"
    runs = [path.name for path in sorted({file.parents[3] for file in result_files(results)})]
    if not runs:
        return f"{looked_for} in {results}; `{commands.first_run()}` makes them"
    more = f" and {len(runs) - NAMED_RUNS} more" if len(runs) > NAMED_RUNS else ""
    return f"{looked_for} in {results}; there are results of runs {', '.join(runs[:NAMED_RUNS])}{more}"


def result_files(results: Path, run: str = "*") -> list[Path]:
    """All results, of one run or of every one, the newest first."""
    found = (path for path in results.glob(f"{one_folder(run)}/*/*/*/{RESULT_FILE}") if not is_draft(path.parents[3]))
    return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, str(path)))


def is_draft(folder: Path) -> bool:
    """Whether an import is being written there, or was when the machine stopped."""
    return folder.name.endswith(PARTIAL_SUFFIX)


def read_results(results: Path, run: str = "*", broken: list[str] | None = None) -> Iterator[tuple[Path, ProbeResult]]:
    """Validated results, the newest first.

    What is wrong with a file that is none is appended to `broken`; without that list it is raised as ContractError.
    """
    for message in _unlisted(results, run):
        if broken is None:
            raise ContractError(message)
        broken.append(message)
    for path in result_files(results, run):
        try:
            yield path, ProbeResult.read(path)
        except ContractError as error:
            if broken is None:
                raise
            broken.append(str(error))


def _unlisted(results: Path, run: str) -> list[str]:
    if run != "*":
        return unlisted(results / one_folder(run), 3)
    # Those of evaluations are named by who reads evaluations.
    runs = sorted(folder for folder in results.glob("*") if folder.name != FOLDER)
    return unlisted(results, 0) or [message for folder in runs for message in unlisted(folder, 3)]


def by_fingerprint(results: Path) -> dict[str, Path]:
    """Probe job fingerprint -> its newest result. Files that are no results count as absent."""
    found: dict[str, Path] = {}
    for path in result_files(results):
        try:
            fingerprint = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.setdefault(fingerprint, path)
    return found


def failed_rows(path: Path) -> dict[str, int] | None:
    """Split -> rows without a latent, as a result counted them (train under ""); None for no result."""
    try:
        result = ProbeResult.read(path)
    except ContractError:
        return None
    return {"": result.train_rows.failed} | {name: score.rows.failed for name, score in result.splits.items()}
