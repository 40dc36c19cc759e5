"""What every document of the contract shares: strict parsing, readable errors, canonical bytes."""

import difflib
import errno
import hashlib
import json
import os
import signal
import stat
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lary_schema.files import visible_files

CONTRACT_VERSION = 1
"""Version of the job, event and result documents. A worker refuses a job of another version."""


class ExitCode(IntEnum):
    """How an image's command ended. Part of the contract: the orchestrator decides by it alone."""

    DONE = 0
    BAD_JOB = 2
    TOO_MANY_FAILED = 3
    WEIGHTS = 4
    OUT_OF_MEMORY = 5
    DIVERGED = 7
    PEER_LOST = 8
    STALLED = 124


def explain(code: int) -> str:
    """An exit code in words."""
    if code == ExitCode.STALLED:
        return "stalled: no progress for too long"
    if code == 128 + signal.SIGKILL:
        return "killed (SIGKILL); often by the kernel for want of memory"
    if code > 128 and code - 128 in set(signal.Signals):
        return f"ended by {signal.Signals(code - 128).name}"
    return f"exit {code}"


class ContractError(Exception):
    """A job cannot be done as given. The message names the file, the row or key, and what to do."""

    exit_code = ExitCode.BAD_JOB


class WeightsError(ContractError):
    """A checkpoint is missing, or it is not the expected one."""

    exit_code = ExitCode.WEIGHTS


class TooManyFailedError(ContractError):
    """More rows failed than the job allows. What succeeded is in the store."""

    exit_code = ExitCode.TOO_MANY_FAILED


class OutOfMemoryError(ContractError):
    """Not even a batch of one row fits on the device."""

    exit_code = ExitCode.OUT_OF_MEMORY


class PeerLostError(ContractError):
    """The other side of a connection has gone, or says nothing. What was finished before is kept."""

    exit_code = ExitCode.PEER_LOST


class DivergedError(ContractError):
    """A loss or a gradient is not finite. The last good state is kept."""

    exit_code = ExitCode.DIVERGED


def unknown_key(what: str, key: str, known: Iterable[str]) -> ContractError:
    """The error for a key that is none of `known`, with the nearest of them."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return ContractError(f"no {what} {key!r}{hint}; known: {', '.join(names)}")


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises ContractError naming the file where it cannot be read or is no JSON."""
    try:
        content = _regular_bytes(path)
        if content is None:
            raise ContractError(f"{path}: is no regular file; a JSON file is expected")
        return json.loads(content.decode())
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: not JSON: {error}") from None


def _regular_bytes(path: Path) -> bytes | None:
    """A regular file's content; None for a device, a pipe or a socket. Raises OSError.

    Few system calls: a store may have tens of thousands of markers.
    """
    try:
        # Not waiting for somebody to write to a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            return None
        raise
    with os.fdopen(fd, "rb", buffering=0) as file:
        return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None


class Document(BaseModel):
    """A part of the contract: immutable, and an unknown key is an error instead of a silent typo."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """Validate `data`; `where` (a file or a command) opens the error message.

        Raises ContractError with one line per problem: the paths of the keys that have it, and what it is; a single
        problem stands in the message's own line.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            keys: dict[str, list[str]] = {}
            for fault in error.errors():
                keys.setdefault(fault["msg"], []).append(".".join(map(str, fault["loc"])) or "(top)")
            lines = [f"{', '.join(names)}: {problem}" for problem, names in keys.items()]
            text = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
            raise ContractError(f"{where}: not a valid {cls.__name__}:{text}") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Parse a JSON file."""
        return cls.parse(read_json(path), str(path))

    def to_json(self) -> str:
        """Readable JSON with a trailing newline: the same bytes for equal documents."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8, NaN refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def fingerprint(value: Any) -> str:
    """sha256 (hex) of a JSON value's canonical bytes."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_sha256(path: Path) -> str:
    """sha256 (hex) of a file; of a folder, the fingerprint of its files' relative names and hashes.

    Hidden files and folders are left out: download tools keep times and locks there.
    """
    if not path.is_dir():
        return file_sha256(path)
    return fingerprint({file.relative_to(path).as_posix(): file_sha256(file) for file in visible_files(path)})
