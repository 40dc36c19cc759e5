"""Locks between processes: the one way in which shards, runs, environments and tools' files are held.

`kernel` (the default): a lock of the kernel on one byte of a file. It ends with its process, however that ends, and
holds between hosts where the volume's server keeps locks (NFS, Lustre with `-o flock`, GPFS, CephFS).
`lease`: for volumes without such locks. A small file that one process alone can create, with a heartbeat: its holder
touches it, and one that was not touched for `EXPIRY_S` is nobody's. All processes that share a volume must use the same
kind; LARY_LOCKS chooses it. See `docs/locks.md`.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from lary_schema.atomic import PARTIAL_SUFFIX
from lary_schema.base import ContractError

LockKind = Literal["kernel", "lease"]
LOCKS_VARIABLE = "LARY_LOCKS"
LEASE_SUFFIX = ".lease"
HEARTBEAT_S = 10.0
EXPIRY_S = 180.0
"""Above the time for which network file systems may show an old time of change (NFS: 60 s)."""
_BUSY = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_POLL_S = 0.2
_FLOCK = "hhqqi4x"
"""`struct flock` of 64-bit Linux: type, whence, start, length, pid."""


class BusyError(ContractError):
    """Another process holds the lock."""


class NoLocksError(ContractError):
    """The volume has no locks."""


def lock_kind(env: Mapping[str, str] = os.environ) -> LockKind:
    """What LARY_LOCKS says, `kernel` where it is not set. Raises ContractError for another word."""
    match env.get(LOCKS_VARIABLE) or "kernel":
        case "kernel":
            return "kernel"
        case "lease":
            return "lease"
        case other:
            raise ContractError(f"{LOCKS_VARIABLE}={other}: must be 'kernel' or 'lease'")


class _Backend(Protocol):
    def take(self, byte: int) -> bool: ...
    def free(self, byte: int) -> None: ...
    def check(self, byte: int) -> None: ...
    def close(self) -> None: ...


class FileLocks:
    """Locks on one file, each on a byte of its own. Made where it is missing; a context manager.

    Another process, and another `FileLocks` of this one, is excluded byte by byte.
    """

    def __init__(self, path: Path, kind: LockKind | None = None) -> None:
        """Raises OSError where the file cannot be opened for writing."""
        self._backend: _Backend = _Kernel(path) if (kind or lock_kind()) == "kernel" else _Leases(path)

    def take(self, byte: int = 0) -> bool:
        """Take a lock; False where somebody else has it. Raises NoLocksError where the volume has none."""
        return self._backend.take(byte)

    def free(self, byte: int = 0) -> None:
        self._backend.free(byte)

    def check(self, byte: int = 0) -> None:
        """Raises BusyError where a lock that was taken is another's now: a lease that expired in a long sleep."""
        self._backend.check(byte)

    def close(self) -> None:
        """Free all."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def exclusive(
    path: Path,
    busy: str,
    *,
    waiting: Callable[[], None] | None = None,
    patience_s: float = 0,
    kind: LockKind | None = None,
) -> Iterator[None]:
    """Hold a lock file while the block lasts.

    Where somebody else has it: with `waiting`, call that once and wait; without, raise BusyError with the text `busy`,
    after `patience_s`. A process that was killed keeps its locks until the last of its threads has ended, which takes
    seconds where cores are busy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLocks(path, kind) as locks:
        if not locks.take():
            if waiting is not None:
                waiting()
            end = time.monotonic() + patience_s
            while not locks.take():
                if waiting is None and time.monotonic() >= end:
                    raise BusyError(busy)
                time.sleep(_POLL_S)
        yield


@contextmanager
def if_free(path: Path, kind: LockKind | None = None) -> Iterator[bool]:
    """Whether nobody holds a lock file's first byte; then it is held while the block lasts. Leaves no file."""
    missing = path if (kind or lock_kind()) == "kernel" else path.parent
    if not missing.exists():
        yield True
        return
    with FileLocks(path, kind) as locks:
        yield locks.take()


def is_locked(path: Path, kind: LockKind | None = None) -> bool:
    """Whether anybody holds any byte of a lock file. Changes nothing; False where the file is missing."""
    if (kind or lock_kind()) == "lease":
        return any(not _is_stale(lease) for lease in _leases(path))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _holder(fd) != fcntl.F_UNLCK
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        os.close(fd)


def rehearse(folder: Path, kind: LockKind | None = None) -> None:
    """Do once in an existing folder what the bench does with locks. Raises ContractError where that fails."""
    path = folder / f"lary-locks.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
    try:
        with FileLocks(path, kind) as mine, FileLocks(path, kind) as others:
            kept = mine.take(3) and not others.take(3) and others.take(4) and is_locked(path, kind)
            mine.free(3)
            kept = kept and others.take(3)
    finally:
        path.unlink(missing_ok=True)
    if not kept:
        raise NoLocksError(_advice(folder, "does not keep the locks that it grants"))


# --- locks of the kernel ----------------------------------------------------------------------


class _Kernel:
    """Locks of an open file (OFD), which neither another descriptor's closing nor a child process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def take(self, byte: int) -> bool:
        try:
            _set_lock(self._fd, fcntl.F_WRLCK, byte)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise _explained(self._path, error) from error
        return True

    def free(self, byte: int) -> None:
        with suppress(OSError):
            _set_lock(self._fd, fcntl.F_UNLCK, byte)

    def check(self, byte: int) -> None:
        """The kernel takes none away."""

    def close(self) -> None:
        os.close(self._fd)


def _set_lock(fd: int, what: int, byte: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, what, os.SEEK_SET, byte, 1, 0))


def _holder(fd: int) -> int:
    """Which kind of lock is in the way of one on the whole file; F_UNLCK for none."""
    query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    return int(struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query))[0])


def _explained(path: Path, error: OSError) -> Exception:
    if error.errno not in _UNSUPPORTED:
        return error
    return NoLocksError(_advice(path, f"is on a volume without file locks ({errno.errorcode[error.errno]})"))


def _advice(path: Path, what: str) -> str:
    return (
        f"{path}: {what}; mount it with locks (Lustre: -o flock), choose a folder on another volume, or set "
        f"{LOCKS_VARIABLE}=lease for every process that shares it"
    )


# --- leases -----------------------------------------------------------------------------------


class _Leases:
    """Files that exclude by their existence, touched by a thread while they are held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[int, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock-heartbeat", daemon=True)

    def take(self, byte: int) -> bool:
        if byte in self._held:
            return True
        lease, token = _lease(self._path, byte), secrets.token_hex(16)
        if not _create(lease, token) and not (_break_stale(lease) and _create(lease, token)):
            return False
        self._held[byte] = token
        if self._thread.ident is None:
            self._thread.start()
        return True

    def free(self, byte: int) -> None:
        token = self._held.pop(byte, None)
        lease = _lease(self._path, byte)
        if token is not None and _read(lease).get("token") == token:
            lease.unlink(missing_ok=True)

    def check(self, byte: int) -> None:
        token, lease = self._held.get(byte), _lease(self._path, byte)
        if token is not None and _read(lease).get("token") != token:
            raise BusyError(
                f"{lease}: is another process's now: this one was stopped for more than {EXPIRY_S:g} s; start it again"
            )

    def close(self) -> None:
        self._ended.set()
        for byte in list(self._held):
            self.free(byte)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            for byte in list(self._held):
                with suppress(OSError):
                    os.utime(_lease(self._path, byte))


def _lease(path: Path, byte: int) -> Path:
    return path.with_name(f"{path.name}.{byte}{LEASE_SUFFIX}")


def _leases(path: Path) -> Iterator[Path]:
    if path.parent.is_dir():
        yield from (p for p in path.parent.iterdir() if p.name.startswith(f"{path.name}.") and p.suffix == LEASE_SUFFIX)


def _create(lease: Path, token: str) -> bool:
    try:
        fd = os.open(lease, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(fd, json.dumps({"token": token, **_process(os.getpid())}).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def _read(lease: Path) -> dict[str, str]:
    """What a lease says of its holder; nothing where it is gone or being written."""
    try:
        found = json.loads(lease.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _process(pid: int) -> dict[str, str]:
    """A living process, distinguished from a later one of the same number, and from one of another container."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The name of a program may hold spaces and brackets: the fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        state, started = fields[0], fields[19]
    except (OSError, IndexError):
        return {}
    if state in ("Z", "X"):
        return {}
    return {"host": f"{socket.gethostname()} {boot} {namespace}", "pid": str(pid), "started": started}


def _is_stale(lease: Path) -> bool:
    """Whether its holder is dead, as far as this host sees, or has not touched it for too long."""
    said = _read(lease)
    here = _process(os.getpid())
    if said.get("pid", "").isdigit() and here and said.get("host") == here["host"]:
        now = _process(int(said["pid"]))
        return now.get("started") != said.get("started")
    try:
        return _volume_time(lease.parent) - lease.stat().st_mtime > EXPIRY_S
    except FileNotFoundError:
        return True


def _volume_time(folder: Path) -> float:
    """The clock that the volume stamps files with: hosts' own clocks may differ."""
    probe = folder / f"lary-time.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _break_stale(lease: Path) -> bool:
    """Remove a dead holder's lease; False where it is a living one's."""
    token = _read(lease).get("token")
    if not _is_stale(lease):
        return False
    aside = lease.with_name(f"{lease.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    with suppress(FileNotFoundError):
        lease.rename(aside)
        # Somebody else may have broken it first, and this is a new one: put it back.
        if _read(aside).get("token") != token:
            with suppress(OSError):
                os.link(aside, lease)
            aside.unlink(missing_ok=True)
            return False
        aside.unlink(missing_ok=True)
    return True
