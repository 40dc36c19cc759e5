"""Locks: between processes, byte by byte, with and without the kernel's help."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lary_schema import locks
from lary_schema.base import ContractError
from lary_schema.locks import BusyError, FileLocks, LockKind, NoLocksError, exclusive, if_free, is_locked, rehearse

KINDS: tuple[LockKind, ...] = ("kernel", "lease")
HOLDER = """
import sys
from pathlib import Path
from lary_schema.locks import FileLocks
locks = FileLocks(Path(sys.argv[1]), sys.argv[2])
print(all([locks.take(int(byte)) for byte in sys.argv[3:]]), flush=True)
sys.stdin.read()
locks.close()
"""


@contextmanager
def holder(path: Path, kind: LockKind, *numbers: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds these bytes until its stdin is closed."""
    arguments = [sys.executable, "-c", HOLDER, str(path), kind, *map(str, numbers)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_exclude_each_other_byte_by_byte(tmp_path: Path, kind: LockKind) -> None:
    path = tmp_path / "claims"
    assert not is_locked(path, kind)
    with FileLocks(path, kind) as mine:
        with holder(path, kind, 0, 7) as other:
            assert is_locked(path, kind)
            assert [mine.take(byte) for byte in (0, 3, 7)] == [False, True, False]
            other.communicate()
        assert [mine.take(byte) for byte in (0, 7)] == [True, True]
        mine.free(3)
        with holder(path, kind, 3):
            assert not mine.take(3)
    assert not is_locked(path, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_holder_holds_nothing(tmp_path: Path, kind: LockKind) -> None:
    path = tmp_path / "claims"
    with holder(path, kind, 1) as other:
        other.kill()
        other.wait()
        with FileLocks(path, kind) as mine:
            assert mine.take(1)
            mine.check(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lets_go_at", [1, 4, 30])
def test_one_that_is_about_to_let_go_is_waited_for(
    tmp_path: Path, kind: LockKind, lets_go_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of its own, which stands still but for sleeping."""
    path, now = tmp_path / "lock", [0]
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    with FileLocks(path, kind) as held:
        assert held.take()

        def sleep(_: float) -> None:
            now[0] += 1
            if now[0] == lets_go_at:
                held.free()

        monkeypatch.setattr(locks.time, "sleep", sleep)
        if lets_go_at < 5:
            with exclusive(path, "somebody else", patience_s=5, kind=kind):
                assert now == [lets_go_at]
        else:
            with pytest.raises(BusyError, match="els"), exclusive(path, "somebody else", patience_s=5, kind=kind):
                pass
            assert now == [5]


@pytest.mark.parametrize("kind", KINDS)
def test_exclusive_refuses_or_waits(tmp_path: Path, kind: LockKind) -> None:
    path, waited = tmp_path / "folder" / "lock", []
    path.parent.mkdir()
    with holder(path, kind, 0) as other:
        with pytest.raises(BusyError, match="somebody else"), exclusive(path, "somebody else", kind=kind):
            pass
        with if_free(path, kind) as free:
            assert not free

        def end() -> None:
            waited.append(1)
            other.kill()

        with exclusive(path, "", waiting=end, kind=kind):
            assert waited == [1]
            assert is_locked(path, kind)
    with if_free(path, kind) as free:
        assert free
        assert is_locked(path, kind)
    with if_free(tmp_path / "absent", kind) as free:
        assert free
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_another_descriptor_and_its_closing_change_nothing(tmp_path: Path, kind: LockKind) -> None:
    path = tmp_path / "log"
    with FileLocks(path, kind) as mine:
        assert mine.take()
        assert mine.take(), "taking it twice is no fault"
        with path.open("a+b") as other:
            other.write(b"line")
        assert not FileLocks(path, kind).take()
        assert is_locked(path, kind)


@pytest.mark.parametrize("code", ["ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL"])
@pytest.mark.parametrize(
    "use",
    [
        lambda path: FileLocks(path, "kernel").take(),
        lambda path: exclusive(path, "busy", kind="kernel").__enter__(),
        lambda path: if_free(path, "kernel").__enter__(),
        lambda path: is_locked(path, "kernel"),
        lambda path: rehearse(path.parent, "kernel"),
    ],
)
def test_a_volume_without_locks_is_one_line_and_a_way_to_be_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, use: Callable[[Path], Any]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, code), "no")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    (tmp_path / "claims").touch()
    with pytest.raises(NoLocksError, match=r"without file locks \(E\w+\).*set LARY_LOCKS=lease") as caught:
        use(tmp_path / "claims")
    assert "\n" not in str(caught.value)
    rehearse(tmp_path, "lease")


def test_other_faults_of_a_volume_are_not_taken_for_missing_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(OSError, match="Input/output"):
        FileLocks(tmp_path / "claims", "kernel").take()


@pytest.mark.parametrize("kind", KINDS)
def test_the_rehearsal_leaves_nothing(tmp_path: Path, kind: LockKind) -> None:
    rehearse(tmp_path, kind)
    assert list(tmp_path.iterdir()) == []


def test_the_rehearsal_notices_locks_that_are_granted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_set_lock", lambda *_: None)
    with pytest.raises(NoLocksError, match="does not keep the locks"):
        rehearse(tmp_path, "kernel")


def test_the_variable_names_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [locks.lock_kind({}), locks.lock_kind({"LARY_LOCKS": ""})] == ["kernel", "kernel"]
    assert locks.lock_kind({"LARY_LOCKS": "lease"}) == "lease"
    with pytest.raises(ContractError, match="LARY_LOCKS=none: must be 'kernel' or 'lease'"):
        locks.lock_kind({"LARY_LOCKS": "none"})


# --- leases of hosts that cannot be looked at -------------------------------------------------


def _foreign(path: Path, age_s: float, text: str | None = None) -> Path:
    lease = path.with_name(f"{path.name}.0.lease")
    said = {"token": "t", "host": "elsewhere", "pid": str(os.getpid()), "started": "1"}
    lease.write_text(json.dumps(said) if text is None else text)
    then = time.time() - age_s
    os.utime(lease, (then, then))
    return lease


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"pid": "x"}'])
def test_a_lease_of_another_host_holds_while_it_is_touched(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "claims"
    with FileLocks(path, "lease") as mine:
        _foreign(path, 60, text)
        assert not mine.take()
        assert is_locked(path, "lease")
        _foreign(path, locks.EXPIRY_S + 60, text)
        assert not is_locked(path, "lease")
        assert mine.take()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_lost_its_lease_says_so_before_it_publishes(tmp_path: Path) -> None:
    path = tmp_path / "claims"
    with FileLocks(path, "lease") as mine:
        assert mine.take()
        mine.check()
        _foreign(path, 0)
        with pytest.raises(BusyError, match="another process's now"):
            mine.check()
        mine.free()
        assert is_locked(path, "lease"), "the other's lease is not ours to remove"


def test_a_holder_touches_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.01)
    path = tmp_path / "claims"
    with FileLocks(path, "lease") as mine:
        assert mine.take()
        lease = tmp_path / "claims.0.lease"
        os.utime(lease, (1, 1))
        until = time.monotonic() + 280
        while lease.stat().st_mtime < 1000 and time.monotonic() < until:
            time.sleep(0.01)
        assert lease.stat().st_mtime > 1000
