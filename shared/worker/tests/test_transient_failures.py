"""A row is lost for good by its own fault alone: what was killed, hung or ran out of memory is tried again."""

import errno
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest
from lary_schema.base import ExitCode
from lary_worker import decode, processes
from lary_worker.decode import read_clip, read_images
from lary_worker.faults import RowFaultError
from lary_worker.media import binary


@pytest.mark.parametrize("how", ["killed", "hung", "aborted", "no-memory", "raises"])
def test_what_goes_wrong_once_costs_nothing(
    bench: Any, media: Any, how: str, patience: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARY_TEST_MARKS", str(tmp_path))
    bench.clips([*media.colours, media.red, media.colours[0]])
    assert bench.extract(bench.job(store="sane.zarr")).code == 0
    assert bench.extract(bench.job(f"once-{how}", row_timeout_s=patience(1))).code == 0
    assert bench.reasons() == {}
    assert (bench.tokens() == bench.tokens("sane.zarr")).all()
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 1


@pytest.mark.parametrize(
    ("model", "reason", "says"),
    [
        ("killed", "killed", "its process was killed, in preprocess"),
        ("dies", "crashed", "its process died of SIGABRT, in preprocess"),
        ("no-memory", "out_of_memory", "out of memory"),
        ("hangs", "timeout", "not done within 10000 s, in preprocess"),
    ],
)
def test_what_goes_wrong_every_time_is_recorded(
    bench: Any, media: Any, patience: Any, model: str, reason: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fresh process for each of eight tries is a matter of seconds; two show the same.
    monkeypatch.setitem(processes.TRIES, "killed", 2)
    bench.clips([media.colours[0], media.red, media.colours[1]])
    job = bench.job(model, row_timeout_s=patience(1))
    assert bench.extract(job).code == 0
    assert bench.reasons() == {1: reason}
    (failure,) = bench.store().failures
    assert says in failure.detail
    assert failure.transient == (reason != "crashed")
    # The same job again does the shard again only where the failure may have been another's.
    again = bench.extract(job)
    assert again.code == 0
    assert again.of("started")[0].total == (3 if failure.transient else 0)


def test_a_resumed_store_is_that_of_an_undisturbed_run(
    bench: Any, media: Any, patience: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that hung throughout one run comes through in the next."""
    monkeypatch.setenv("LARY_TEST_MARKS", str(tmp_path))
    bench.clips([*media.colours, media.red, media.colours[0]])
    job = bench.job("once-hung", row_timeout_s=patience(1))
    monkeypatch.setattr("lary_worker.processes.TRIES", {})
    assert bench.extract(job).code == 0
    assert bench.reasons() == {5: "timeout"}
    assert bench.extract(job).code == 0
    assert bench.reasons() == {}
    disturbed = bench.tree()
    (bench.root / "latents" / "latents.zarr").rename(bench.root / "latents" / "disturbed.zarr")
    assert bench.extract(job).code == 0
    assert bench.tree() == disturbed


@pytest.mark.parametrize("workers", [1, 2])
def test_a_preprocess_that_hangs_ends_the_job_after_a_few_rows(
    bench: Any, media: Any, patience: Any, workers: int
) -> None:
    bench.clips(media.colours * 4)
    settings = {"row_timeout_s": patience(workers), "workers": workers, "batch_size": 20, "shard_rows": 20}
    done = bench.extract(bench.job("hangs-always", **settings))
    assert done.code == ExitCode.BAD_JOB
    assert "4 rows one after the other (the first is row 0) took longer than 10000 s" in done.message
    assert "all in `preprocess`, which hangs" in done.message
    assert bench.records() == []


def test_a_volume_that_hangs_ends_the_job_as_stalled(bench: Any) -> None:
    """Pipes that nobody writes to: opening one never returns."""
    lines = []
    for number in range(12):
        os.mkfifo(bench.media / f"{number}.mp4")
        lines.append(f'{number}.mp4,"0,1,2"')
    bench.write_csv(lines)
    done = bench.extract(bench.job(row_timeout_s=0.5, batch_size=12, shard_rows=12))
    assert done.code == ExitCode.STALLED
    assert "the volume of the media hangs" in done.message


def decode_processes(parent: int | None = None) -> list[int]:
    """The process that they are forks of, and its forks."""
    found = []
    for file in Path(f"/proc/{parent or os.getpid()}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                if b"lary_worker.child" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found += [child, *decode_processes(child)]
    return found


KILLS = 15


@pytest.mark.parametrize("seed", range(2))
def test_decode_processes_killed_at_any_moment_lose_no_row(
    bench: Any, media: Any, seed: int, cold_decode_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they start, too: some kills come within milliseconds of the process's birth."""
    # On a slow machine many kills may meet one row; whoever kills so often loses it, which is not what is tested here.
    monkeypatch.setitem(processes.TRIES, "killed", KILLS + 1)
    bench.clips([*media.colours, media.red] * 6)
    job = bench.job("slow", workers=2, shard_rows=9)
    assert bench.extract(job).code == 0
    undisturbed = bench.tree()
    (bench.root / "latents" / "latents.zarr").rename(bench.root / "latents" / "undisturbed.zarr")
    chance, stop, kills = random.Random(seed), threading.Event(), list[int]()

    def kill() -> None:
        while not stop.is_set() and len(kills) < KILLS:
            alive = decode_processes()
            with suppress(ProcessLookupError):
                for pid in chance.sample(alive, min(len(alive), 1)):
                    os.kill(pid, signal.SIGKILL)
                    kills.append(pid)
            time.sleep(chance.choice([0.001, 0.02, 0.3, 0.8]))

    killer = threading.Thread(target=kill)
    killer.start()
    done = bench.extract(job)
    stop.set()
    killer.join()
    assert done.code == 0
    assert kills
    assert bench.reasons() == {}
    assert bench.tree() == undisturbed


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
@pytest.mark.parametrize("name", ["c.mp4", "i.png"])
def test_errors_of_the_volume_are_not_the_files(
    tmp_path: Path, media: Any, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    path = tmp_path / name
    if name == "c.mp4":
        media.clip(path, media.frames((30, 60, 90), 12))
    else:
        media.png(path, media.frames((30, 60, 90), 1)[0])

    def refuse(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(binary.os, "pread", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RowFaultError, match=os.strerror(number)) as caught:
        read_clip(path, "n", [0], "pyav") if name == "c.mp4" else read_images([path], ["n"])
    assert caught.value.reason == "io_error"
    assert caught.value.detail == f"n: {os.strerror(number)}"


@pytest.mark.parametrize("readable", [True, False])
def test_an_input_output_error_of_libav_is_the_files_where_the_file_can_be_read(
    tmp_path: Path, media: Any, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """libavformat says EIO of damaged Matroska files."""
    path = tmp_path / "c.mp4"
    media.clip(path, media.frames((30, 60, 90), 12))

    def refuse(*_: Any) -> Any:
        raise av.error.OSError(errno.EIO, "Input/output error")

    def unreadable(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(decode, "make_strict", refuse)
    if not readable:
        monkeypatch.setattr(decode, "require_readable", unreadable)
    with pytest.raises(RowFaultError, match="n: Input/output error") as caught:
        read_clip(path, "n", [0], "pyav")
    assert caught.value.reason == ("decode_error" if readable else "io_error")
