"""The studies of a workspace: its own, and those that came with results of others."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lary_schema.base import unknown_key
from lary_schema.printable import printable_lines

from lary_results.files import imported_from, imports, read_results
from lary_results.study.arms import Study, read_study
from lary_results.study.record import STUDIES, StudyRecord, record_path, records


def load_study(root: Path, key: str) -> Study:
    """A study that was planned in a workspace, else an imported one. Raises ContractError where there is none."""
    homes = _homes(root)
    files = [(home, record_path(home / STUDIES, key)) for home in homes]
    found = [(home, StudyRecord.read(file)) for home, file in files if file.is_file()][:1]
    if not found:
        known = {file.stem for home in homes for file in (home / STUDIES).glob("*.json")}
        raise unknown_key("planned study", key, sorted(known) or ("none",))
    return next(_loaded(root, found))


def load_studies(root: Path) -> list[Study]:
    """All studies of a workspace, imported ones last."""
    return list(_loaded(root, [(home, record) for home in _homes(root) for record in records(home / STUDIES)]))


def _homes(root: Path) -> list[Path]:
    return [root, *imports(root / "results")]


def _loaded(root: Path, wanted: Sequence[tuple[Path, StudyRecord]]) -> Iterator[Study]:
    """Results are read once; what is wrong with a file is said on stderr."""
    broken: list[str] = []
    found = list(read_results(root / "results", broken=broken)) if wanted else []
    # What was made here goes before what was imported, however old it is.
    found.sort(key=lambda result: imported_from(result[0]) is not None)
    _tell(broken)
    for home, record in wanted:
        # Of an import its own results alone; above all runs lies the workspace.
        study = read_study(record, [(path, result) for path, result in found if path.is_relative_to(home)], home)
        _tell(study.unreadable)
        yield study


def _tell(broken: Sequence[str]) -> None:
    for message in broken:
        sys.stderr.write(printable_lines(f"error: {message}") + "\n")
