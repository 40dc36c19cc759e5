"""Jobs from start to end: what lands in the store, and what costs a row, a batch or the job."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_schema import kept_frames
from lary_schema.base import ExitCode, file_sha256
from lary_schema.events import from_line
from lary_schema.kept_frames import KeptFrames
from lary_schema.store.layout import Status

ROWS = 10


def test_clips_become_latents(bench: Any, media: Any) -> None:
    colours = media.colours * 2
    bench.clips(colours)
    done = bench.extract(bench.job(workers=2))
    assert done.code == 0, done.message
    store, tokens = bench.store(), bench.tokens()
    assert store.ok_rows().tolist() == list(range(ROWS))
    assert tokens.shape == (ROWS, 3, 1, 3)
    for row, colour in enumerate(colours):
        assert np.abs(tokens[row, 0, 0] - media.frames(colour, 1).mean(axis=(0, 1, 2))).max() < 3
    np.testing.assert_allclose(store.indices(np.arange(ROWS)), tokens[..., 0] * 2, atol=1)
    assert [e.event for e in done.events if e.event != "progress"] == ["started", *["shard_done"] * 3, "finished"]
    finished = done.events[-1]
    assert (finished.done, finished.failed, finished.batch_size) == (ROWS, 0, 3)
    assert finished.per_second > 0
    assert finished.seconds.decode > 0


def test_pairs_become_latents(bench: Any, media: Any) -> None:
    for at, colour in enumerate(media.colours):
        media.png(bench.media / f"ä {at}.png", media.frames(colour, 1)[0])
    bench.write_csv([f"ä {at}.png,ä {at - 1}.png" for at in (1, 2, 3, 4)], header="src_img,tgt_img")
    assert bench.extract(bench.job(mode="image")).code == 0
    tokens = bench.tokens()
    for row in range(4):
        for side, colour in enumerate((media.colours[row + 1], media.colours[row])):
            mean = media.frames(colour, 1).mean(axis=(0, 1, 2))
            assert np.abs(tokens[row, side, 0] - mean).max() < 0.5


def test_every_bad_row_costs_itself_alone(bench: Any, media: Any, tmp_path: Path) -> None:
    bench.clips(media.colours[:1])
    good = next(bench.media.glob("*.mp4"))
    data = good.read_bytes()
    (bench.media / "empty.mp4").write_bytes(b"")
    (bench.media / "text.mp4").write_text("no film")
    (bench.media / "cut.mp4").write_bytes(data[: len(data) // 2])
    elsewhere = tmp_path / "absolute ü.mp4"
    elsewhere.write_bytes(data)
    bench.write_csv(
        [
            f'{good.name},"0,1,2"',
            f'{elsewhere},"0,1,2"',
            f'{good.name},"0,1,99"',
            f'/host/data/toys/{good.name},"0,1,2"',
            'none.mp4,"0,1,2"',
            'empty.mp4,"0,1,2"',
            'text.mp4,"0,1,2"',
            'cut.mp4,"0,1,2"',
            f'../toys/{good.name},"0,1,2"',
            ',"0,1,2"',
            f"{good.name},",
            f'{good.name},"0,1"',
            f'{good.name},"0,1,x"',
            f"{good.name}",
        ]
    )
    job = bench.job()
    done = bench.extract(job.model_copy(update={"source": job.source.model_copy(update={"host_data": "/host/data"})}))
    assert done.code == 0
    assert bench.reasons() == {
        4: "missing_file",
        5: "decode_error",
        6: "decode_error",
        7: "decode_error",
        8: "bad_path",
        9: "bad_row",
        10: "bad_row",
        11: "bad_indices",
        12: "bad_indices",
        13: "bad_row",
    }
    assert bench.store().status[:4].tolist() == [Status.OK] * 4
    assert bench.store().clamped == [2]
    assert done.events[-1].clamped == 1
    tokens = bench.tokens()
    assert np.isnan(tokens[4:]).all()
    assert (bench.store().indices(np.arange(4, 14)) == -1).all()
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert [e.row for e in done.of("row_failed")] == list(range(4, 14))
    # What a store says of a failure must not depend on the machine.
    assert not any(str(tmp_path).encode() in content for content in bench.tree().values())


@pytest.mark.parametrize(
    ("model", "reason", "says"),
    [
        ("nan", "non_finite", "NaN"),
        ("inf", "non_finite", "infinity"),
        ("large", "overflow", "70000 does not fit float16; use --dtype float32"),
        ("raises", "encode_error", "IndexError: a red row"),
        ("dies", "crashed", "died"),
    ],
)
def test_a_row_that_a_model_cannot_take(bench: Any, media: Any, model: str, reason: str, says: str) -> None:
    bench.clips([*media.colours, media.red, *media.colours])
    assert bench.extract(bench.job(store="sane.zarr")).code == 0
    assert bench.extract(bench.job(model)).code == 0
    assert bench.reasons() == {5: reason}
    (failure,) = bench.store().failures
    assert says in failure.detail
    others = np.delete(np.arange(11), 5)
    np.testing.assert_array_equal(bench.tokens()[others], bench.tokens("sane.zarr")[others])


def test_a_hung_row_costs_itself_alone(bench: Any, media: Any, patience: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each process has one row at a time: so both hang at once.
    monkeypatch.setattr("lary_worker.pool._IN_ADVANCE", 1)
    bench.clips([*media.colours, media.red, media.red, *media.colours])
    assert bench.extract(bench.job("hangs", row_timeout_s=patience(2), workers=2)).code == 0
    assert bench.reasons() == {5: "timeout", 6: "timeout"}


def test_float32_holds_what_float16_cannot(bench: Any, media: Any) -> None:
    bench.clips([media.colours[0], media.red])
    assert bench.extract(bench.job("large", values={"dtype": "float32"})).code == 0
    assert bench.tokens()[1].max() == 70000


def test_half_precision_is_another_store_of_nearly_the_same_values(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    assert bench.extract(bench.job()).code == 0
    assert bench.extract(bench.job(store="bf16.zarr", values={"precision": "bf16"})).code == 0
    assert np.any(bench.tokens() != bench.tokens("bf16.zarr"))
    np.testing.assert_allclose(bench.tokens(), bench.tokens("bf16.zarr"), rtol=0.02)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("broken-preprocess", "row 0: preprocess_error: ZeroDivisionError: every row"),
        ("broken", "row 0: encode_error: ZeroDivisionError: every row"),
        ("wrong-shape", ", 3, 1, 2) and indices"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_broken_model_is_not_many_bad_rows(bench: Any, media: Any, model: str, says: str, batch_size: int) -> None:
    bench.clips(media.colours)
    done = bench.extract(bench.job(model, batch_size=batch_size))
    assert done.code == ExitCode.BAD_JOB
    assert f"model {model} " in done.message
    assert says in done.message
    assert bench.records() == []


def test_a_first_row_that_raises_is_not_a_broken_model(bench: Any, media: Any) -> None:
    bench.clips([media.red, *media.colours])
    assert bench.extract(bench.job("raises", batch_size=1)).code == 0
    assert bench.reasons() == {0: "encode_error"}


def test_memory_that_runs_out_halves_the_batch(bench: Any, media: Any) -> None:
    bench.clips(media.colours * 2)
    assert bench.extract(bench.job(store="sane.zarr")).code == 0
    done = bench.extract(bench.job("small", batch_size=8, shard_rows=8))
    assert done.code == 0
    assert [e.batch_size for e in done.of("batch_halved")] == [4, 2]
    assert [record.batch_size for record in bench.records()] == [2, 2]
    assert done.events[-1].batch_size == 2
    np.testing.assert_array_equal(bench.tokens(), bench.tokens("sane.zarr"))


def test_one_row_that_does_not_fit_is_exit_code_5(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    done = bench.extract(bench.job("tiny"))
    assert done.code == ExitCode.OUT_OF_MEMORY
    assert "one row alone" in done.message


# --- resuming -----------------------------------------------------------------------------------


def test_bytes_depend_on_neither_partition_nor_attempt(bench: Any, media: Any) -> None:
    bench.clips([*media.colours, media.red, *media.colours])
    assert bench.extract(bench.job("nan", store="whole.zarr")).code == 0
    for shards in ([2], [0, 1]):
        assert bench.extract(bench.job("nan", shards=shards, workers=2)).code == 0
    assert bench.tree().keys() == bench.tree("whole.zarr").keys()
    different = {n for n, data in bench.tree().items() if data != bench.tree("whole.zarr")[n]}
    # The group's attributes hold the store's own path.
    assert different == {"zarr.json"}
    bench.extract(bench.job("nan", store="batch.zarr", batch_size=2))
    np.testing.assert_array_equal(bench.tokens(), bench.tokens("batch.zarr"))


def test_only_missing_shards_are_done(bench: Any, media: Any) -> None:
    bench.clips(media.colours * 2)
    assert bench.extract(bench.job()).code == 0
    before = bench.tree()
    (bench.root / "latents/latents.zarr/done/00001.json").unlink()
    done = bench.extract(bench.job())
    assert (done.events[0].total, done.events[0].skipped) == (4, 6)
    assert [e.shard for e in done.of("shard_done")] == [1]
    assert bench.tree() == before


def test_a_finished_job_does_nothing(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    bench.extract(bench.job())
    for clip in bench.media.glob("*.mp4"):
        clip.unlink()
    done = bench.extract(bench.job())
    assert done.code == 0
    assert [e.event for e in done.events] == ["started", "finished"]
    assert (done.events[0].total, done.events[0].skipped) == (0, 5)


def test_too_many_failed_rows(bench: Any, media: Any) -> None:
    bench.clips([media.red, *media.colours])
    assert bench.extract(bench.job("nan", max_failed=1 / 6)).code == 0
    for _ in range(2):  # also where nothing was left to do
        done = bench.extract(bench.job("nan", max_failed=0.1))
        assert done.code == ExitCode.TOO_MANY_FAILED
        assert "1 of 6 rows failed" in done.message
        assert "row 0 (non_finite" in done.message


# --- jobs that are refused ----------------------------------------------------------------------


def refused(bench: Any, job: Any) -> str:
    done = bench.extract(job)
    assert done.code == ExitCode.BAD_JOB
    return str(done.message)


def test_a_changed_csv(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    job = bench.job()
    bench.clips(media.colours[::-1])
    assert "metadata.csv: changed since it was planned" in refused(bench, job)


def test_a_csv_of_another_length(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    job = bench.job()
    metadata = job.source.metadata.model_copy(update={"rows": 4})
    job = job.model_copy(update={"source": job.source.model_copy(update={"metadata": metadata})})
    assert "has 5 rows, planned were 4" in refused(bench, job)


@pytest.mark.parametrize(
    ("header", "says"),
    [("video_path,sample_indices,video_path", "repeated column 'video_path'"), ("path,sample_indices", "no column")],
)
def test_a_csv_with_a_wrong_header(bench: Any, media: Any, header: str, says: str) -> None:
    bench.clips(media.colours)
    job = bench.job()
    text = (bench.root / "job/metadata.csv").read_text().splitlines()
    path = bench.write_csv(text[1:], header)
    metadata = job.source.metadata.model_copy(update={"sha256": file_sha256(path)})
    source = job.source.model_copy(update={"metadata": metadata})
    values = job.values.model_copy(update={"metadata_sha256": metadata.sha256})
    assert says in refused(bench, job.model_copy(update={"source": source, "values": values}))


def test_a_missing_csv(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    job = bench.job()
    (bench.root / "job/metadata.csv").unlink()
    assert "metadata.csv: cannot be read: No such file" in refused(bench, job)


def test_missing_media_are_not_many_bad_rows(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    job = bench.job()
    bench.media.rename(bench.root / "data" / "other")
    assert "toys: the folder of the media is missing" in refused(bench, job)
    assert bench.records() == []


def test_an_unknown_model(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    job = bench.job()
    job = job.model_copy(update={"values": job.values.model_copy(update={"model": "nope"})})
    assert "no model 'nope'; it serves mean, nan" in refused(bench, job)


def test_an_unknown_variant(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    assert "no variant 'v9'" in refused(bench, bench.job(values={"variant": "v9"}))


@pytest.mark.parametrize(
    "change", [{"code_sha256": "0" * 64}, {"preprocessing": "other"}, {"revision": 7}, {"media": "x"}, {"frames": 9}]
)
def test_a_job_of_another_image_or_plan(bench: Any, media: Any, change: dict[str, Any]) -> None:
    bench.clips(media.colours)
    message = refused(bench, bench.job(values=change))
    assert "plan it again" in message
    assert next(iter(change)) in message


def test_a_store_of_another_fingerprint(bench: Any, media: Any) -> None:
    bench.clips(media.colours)
    assert bench.extract(bench.job()).code == 0
    assert "holds latents of fingerprint" in refused(bench, bench.job(values={"seed": 1}))


def test_a_gpu_that_is_not_there(bench: Any, media: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    bench.clips(media.colours)
    assert "wants a GPU" in refused(bench, bench.job(device="cuda"))


# --- volumes ------------------------------------------------------------------------------------


@pytest.fixture
def small_volume(bench: Any) -> Iterator[Path]:
    """The latents mount as a tmpfs of 1 MiB."""
    volume = bench.root / "latents"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(volume)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield volume
    subprocess.run(["umount", str(volume)], check=True)


def test_a_full_disk_keeps_finished_shards(bench: Any, media: Any, small_volume: Path) -> None:
    bench.clips(media.colours * 2)
    assert bench.extract(bench.job(shards=[0])).code == 0
    before = bench.tree()
    ballast = small_volume / "ballast"
    free = os.statvfs(small_volume)
    ballast.write_bytes(b"0" * (free.f_bavail * free.f_bsize))
    message = refused(bench, bench.job())
    assert "latents.zarr: cannot be written: No space left" in message
    assert "free space" in message
    assert {n: bench.tree()[n] for n in before} == before
    ballast.unlink()
    assert bench.extract(bench.job()).code == 0
    assert bench.store().ok_rows().tolist() == list(range(ROWS))


def test_a_read_only_volume(bench: Any, media: Any, request: pytest.FixtureRequest) -> None:
    bench.clips(media.colours)
    if os.geteuid() == 0:  # root may write to whatever has no write bit
        volume = request.getfixturevalue("small_volume")
        subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    else:
        (bench.root / "latents").chmod(0o500)
    message = refused(bench, bench.job())
    assert "latents.zarr: cannot be written" in message
    assert "writable" in message


def test_jobs_one_after_the_other_in_a_process(bench: Any, media: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second and third find their model loaded; stores are byte for byte those of processes of their own."""
    bench.clips([*media.colours, media.red])
    jobs = [bench.job("noisy", id=f"job{n}", store=f"{n}.zarr") for n in range(2)]
    jobs += [bench.job("mean", id="job2", store="2.zarr"), bench.job("raises", id="job3", store="3.zarr")]
    monkeypatch.setenv("LARY_MORE_JOBS", "1")
    worker = bench.start(jobs[0], "job0.json", stdin=subprocess.PIPE, warm=True)
    messages = []
    for number, job in list(enumerate(jobs))[1:]:
        path = bench.root / "job" / f"job{number}.json"
        path.write_text(job.to_json())
        messages.append(json.dumps({"job": str(path), "env": {"LARY_MORE_JOBS": "1"}}))
    out, err = worker.communicate("\n".join(messages) + "\n", timeout=280)
    events = [from_line(line) for line in out.splitlines()]
    assert worker.returncode == 0, err
    assert [e.job for e in events if e.event == "idle"] == ["job0", "job1", "job2", "job3"]
    assert len({e.pid for e in events if e.event == "started"}) == 1
    # Once for the two jobs of `noisy`, which says so when it is loaded.
    assert err.count("library chatter") == 1
    monkeypatch.delenv("LARY_MORE_JOBS")
    for number, job in enumerate(jobs):
        together = bench.tree(f"{number}.zarr")
        shutil.rmtree(bench.root / "latents" / f"{number}.zarr")
        bench.extract(job)
        assert bench.tree(f"{number}.zarr") == together


def test_extractions_that_share_rows(bench: Any, media: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both stores are byte for byte those of before, and the second extraction does not look into the media."""
    csv = bench.clips([*media.colours, media.red, *media.colours])
    clips = [bench.media / "clip_{}_{}_{}.mp4".format(*colour) for colour in media.colours]
    csv.write_text(csv.read_text() + f'missing.mp4,"0,1,2"\n{clips[0].name},"0,5,40"\n')
    jobs = [bench.job("mean", store="mean.zarr"), bench.job("nan", store="nan.zarr")]
    alone = []
    for job in jobs:
        assert bench.extract(job).code == 0
        alone.append(bench.tree(job.store.path))
        shutil.rmtree(bench.root / "latents" / job.store.path)
    size = jobs[0].store.rows, 3 * 8 * 8 * 3
    files = [tmp_path / "frames" / name for name in ("toys.rows", "exchanged.rows")]
    for file in files:
        kept_frames.create(file, *size)
    monkeypatch.setenv(kept_frames.VARIABLE, str(files[0]))
    for job in jobs:
        bench.extract(job)
    assert [bench.tree(job.store.path) for job in jobs] == alone
    assert bench.reasons("mean.zarr") == {11: "missing_file"}
    assert bench.reasons("nan.zarr") == {5: "non_finite", 11: "missing_file"}
    assert [record.clamped for record in bench.records("nan.zarr")][-1] == (12,)
    # Now row 3 has the pixels of row 0, which is the one that is compared.
    pixels = bytearray(size[1])
    with KeptFrames(files[0], *size) as kept:
        kept.fill(0, [str(clips[0])], memoryview(pixels), lambda: False)
    with KeptFrames(files[1], *size) as kept:
        for row in (0, 3):
            kept.fill(row, [str(clips[row])], memoryview(bytearray(pixels)), lambda: False)
    own = bench.tokens("mean.zarr")
    shutil.rmtree(bench.root / "latents" / "mean.zarr")
    monkeypatch.setenv(kept_frames.VARIABLE, str(files[1]))
    bench.extract(jobs[0])
    found = bench.tokens("mean.zarr")
    assert not np.array_equal(own[3], own[0])
    assert np.array_equal(found[3], own[0])
    assert np.array_equal(np.delete(found, 3, axis=0), np.delete(own, 3, axis=0), equal_nan=True)
