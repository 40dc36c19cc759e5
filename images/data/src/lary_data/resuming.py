"""What a killed tool need not do again: results on disk, by what they depend on."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lary_schema.atomic import PARTIAL_SUFFIX, publish_text
from lary_schema.base import ContractError, canonical_json, fingerprint
from lary_schema.locks import FileLocks

from lary_data.pool import Done, run_tasks

Task = TypeVar("Task")
Result = TypeVar("Result")


def claim_folder(settings: Path, made_from: Mapping[str, Any], below: Iterable[str]) -> None:
    """Make the folder of `settings`, a file that says what is made from what, or go on in it; drafts lie `below`.

    Raises ContractError where it says otherwise.
    """
    text = canonical_json(made_from).decode() + "\n"
    if settings.is_file() and settings.read_text(encoding="utf-8") != text:
        raise ContractError(
            f"{settings}: the folder holds files made from other data or settings; choose another --out"
        )
    publish_text(settings, text)
    drafts = (left for folder in below for left in (settings.parent / folder).rglob(f"*{PARTIAL_SUFFIX}"))
    for left_behind in (*drafts, *settings.parent.glob(f"{settings.name}.*{PARTIAL_SUFFIX}")):
        left_behind.unlink(missing_ok=True)


def file_identity(path: Path) -> list[Any] | None:
    """Path, size and times of change: another content has another identity. None where there is no file.

    The inode's time counts, since copies often keep the other one.
    """
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


class ResultLog:
    """Results by key, one JSON line each, appended as they come. A context manager.

    A line that a killed tool left unfinished is cut off. One process writes at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._results: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLocks(self.path)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise ContractError(f"{self.path}: cannot be written: {error.strerror}") from None
        if not self._lock.take():
            self._close()
            raise ContractError(f"{self.path}: in use by another run of this tool; wait for it or stop it")
        self._load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._lock.close()

    def get(self, key: str) -> Any | None:
        return self._results.get(key)

    def put(self, key: str, result: Any) -> None:
        """Keep a result (JSON, not null). It is on its way to the disk when this returns."""
        self._results[key] = result
        self._file.write(json.dumps([key, result]).encode() + b"\n")
        self._file.flush()

    def _load(self) -> None:
        self._file.seek(0)
        end = 0
        for line in self._file:
            try:
                key, result = json.loads(line)
            except (ValueError, TypeError):
                break
            self._results[key] = result
            end += len(line)
        os.ftruncate(self._file.fileno(), end)


def result_key(identity: list[Any], settings: Any) -> str:
    """The key of a result: what a file is and what is done with it."""
    return fingerprint([identity, settings])[:32]


def run_resumed(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    key_of: Callable[[Task], str | None],
    log: ResultLog,
    workers: int,
    timeout_s: float,
    keep: Callable[[Result], bool] = lambda _: True,
) -> Iterator[Done[Task, Result]]:
    """`run_tasks` for the tasks whose result is not in `log` yet.

    New results are put there where `keep` says so, faults are not.
    Tasks can be hashed and differ from each other; results are JSON. A task whose key is None is always done.
    """
    known: deque[Done[Task, Result]] = deque()
    keys: dict[Task, str] = {}

    def missing() -> Iterator[Task]:
        for task in tasks:
            key = key_of(task)
            result = None if key is None else log.get(key)
            if result is not None:
                known.append(Done(task, result))
                continue
            if key is not None:
                keys[task] = key
            yield task

    for done in run_tasks(function, missing(), workers, timeout_s):
        key = keys.pop(done.task, None)
        if key is not None and done.result is not None and keep(done.result):
            log.put(key, done.result)
        yield done
        while known:
            yield known.popleft()
    yield from known
