"""The latent store: what is written is read back, and nothing else ever is."""

import contextlib
import itertools
import json
import multiprocessing
import multiprocessing.synchronize
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lary_schema.base import ContractError
from lary_schema.events import Reason
from lary_schema.jobs import Values
from lary_schema.store.layout import Failure, Provenance, ShardRecord, Store, array_headers, shard_rows
from lary_schema.store.reader import LatentReader
from lary_schema.store.writer import LatentWriter

WriteShard = Callable[..., None]


def tree(root: Path) -> dict[str, bytes | None]:
    """Every path below a folder with its bytes."""
    return {p.relative_to(root).as_posix(): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}


def full(root: Path, provenance: Provenance, write_shard: WriteShard, order: tuple[int, ...] = (0, 1, 2)) -> Path:
    writer = LatentWriter.open(root, provenance)
    for shard in order:
        write_shard(writer, shard)
    return root


def test_round_trip_with_a_failed_row(tmp_path: Path, provenance: Provenance, write_shard: WriteShard) -> None:
    writer = LatentWriter.open(tmp_path / "s.zarr", provenance)
    lost = Failure(row=5, reason="decode_error", detail="clips/ü 5.mp4: no frame")
    write_shard(writer, 0)
    write_shard(writer, 1, failures=(lost,))
    write_shard(writer, 2)
    store = LatentReader.open(tmp_path / "s.zarr", provenance.layout.fingerprint)
    assert store.ok_rows().tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert store.failures == [lost]
    rows = np.array([9, 0, 7, 7])
    assert store.tokens(rows)[:, 0, 0, 0].tolist() == [9, 0, 7, 7]
    assert store.tokens(rows).dtype == np.float16
    assert store.indices(rows)[:, 1, 2].tolist() == [9, 0, 7, 7]
    assert np.isnan(store.tokens(np.array([5]))).all()


def test_bytes_do_not_depend_on_order_or_attempt(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    first = full(tmp_path / "a.zarr", provenance, write_shard)
    second = full(tmp_path / "b.zarr", provenance, write_shard, (2, 0, 1))
    write_shard(LatentWriter.open(second, provenance), 1)
    assert tree(first) == tree(second)


def test_an_unfinished_store_is_refused_and_names_the_shard(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    root = full(tmp_path / "s.zarr", provenance, write_shard, (0, 2))
    assert LatentWriter.open(root, provenance).missing([2, 1, 0]) == [1]
    with pytest.raises(ContractError, match=r"1 of 3 shards are not done \(first: 1\)"):
        LatentReader.open(root)


@pytest.mark.parametrize(
    ("reason", "detail", "transient"),
    [
        *((reason, "x", reason in ("timeout", "killed", "out_of_memory", "io_error")) for reason in get_args(Reason)),
        ("crashed", "the decode process died", True),
    ],
)
def test_a_shard_with_transient_failures_is_done_again(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard, reason: Reason, detail: str, transient: bool
) -> None:
    """The last case is of a store from before killed processes were distinguished from crashed ones."""
    undisturbed = full(tmp_path / "u.zarr", provenance, write_shard)
    root = tmp_path / "s.zarr"
    with contextlib.closing(LatentWriter.open(root, provenance)) as writer:
        for shard in (0, 2):
            write_shard(writer, shard)
        write_shard(writer, 1, (Failure(row=5, reason=reason, detail=detail),))
        assert [r.transient for r in Store(root).records()] == [False, transient, False]
        assert writer.missing(range(3)) == ([1] if transient else [])
        write_shard(writer, 1)
    assert tree(root) == tree(undisturbed)


def test_another_fingerprint_and_another_layout_are_refused(tmp_path: Path, provenance: Provenance) -> None:
    root = tmp_path / "s.zarr"
    LatentWriter.open(root, provenance)
    values = provenance.values.model_copy(update={"seed": 1})
    layout = provenance.layout.model_copy(update={"fingerprint": values.fingerprint})
    other = provenance.model_copy(update={"values": values, "layout": layout})
    with pytest.raises(ContractError, match="use another folder"):
        LatentWriter.open(root, other)
    wider = provenance.model_copy(update={"layout": provenance.layout.model_copy(update={"shard_rows": 8})})
    with pytest.raises(ContractError, match=r"shard_rows 4 \(job: 8\)"):
        LatentWriter.open(root, wider)
    with pytest.raises(ContractError, match="expected 0000"):
        LatentReader.open(root, "0" * 64)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, provenance: Provenance) -> None:
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(ContractError, match="not the group of a latent store"):
        LatentWriter.open(tmp_path, provenance)
    with pytest.raises(ContractError, match="no latent store"):
        LatentReader.open(tmp_path / "absent")


def test_a_lost_a_cut_and_a_flipped_shard_are_noticed(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    root = full(tmp_path / "s.zarr", provenance, write_shard)
    file = Store(root).array_files(1, indices=True)["tokens"]
    good = file.read_bytes()

    flipped = bytearray(good)
    flipped[3] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(ContractError, match="damaged"):
        LatentReader.open(root).tokens(np.arange(10))
    assert LatentReader.open(root).tokens(np.array([0, 9])).shape == (2, 2, 3, 4)

    file.write_bytes(good[:-1])
    with pytest.raises(ContractError, match=f"{len(good) - 1} bytes, {len(good)} expected"):
        LatentReader.open(root)
    file.unlink()
    with pytest.raises(ContractError, match="missing"):
        LatentReader.open(root)


def test_a_hole_inside_a_shard_is_an_error_not_a_fill_value(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    root = full(tmp_path / "s.zarr", provenance, write_shard)
    file = Store(root).array_files(2, indices=True)["status"]
    file.unlink()
    store = LatentReader(root, provenance, Store(root).records())
    with pytest.raises(ContractError, match="damaged"):
        _ = store.status


def test_leftovers_of_a_killed_writer_are_swept(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    clean = full(tmp_path / "clean.zarr", provenance, write_shard)
    root = tmp_path / "s.zarr"
    writer = LatentWriter.open(root, provenance)
    for file in (*writer.store.array_files(1, indices=True).values(), writer.store.marker(1)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name(f"{file.stem}.0123abcd.partial").write_bytes(b"half")
    for shard in range(3):
        write_shard(writer, shard)
    assert tree(root) == tree(clean)


def test_status_and_failures_must_agree(tmp_path: Path, provenance: Provenance) -> None:
    writer = LatentWriter.open(tmp_path / "s.zarr", provenance)
    tokens, indices = np.zeros((4, 2, 3, 4), "float16"), np.zeros((4, 2, 3), "int64")
    write = {"failures": (), "clamped": (), "batch_size": 1, "device": "cpu"}
    with pytest.raises(ValueError, match="disagree"):
        writer.write(0, tokens, indices, np.array([1, 1, 2, 1], "uint8"), **write)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected"):
        writer.write(0, tokens.astype("float32"), indices, np.ones(4, "uint8"), **write)  # type: ignore[arg-type]
    assert writer.missing(range(3)) == [0, 1, 2]


def _hold(root: Path, provenance: Provenance, ready: multiprocessing.synchronize.Event) -> None:
    writer = LatentWriter.open(root, provenance)
    with writer.claim(1):
        with writer.claim(0):
            pass
        ready.set()
        time.sleep(600)


def test_a_shard_has_one_writer_and_a_killed_one_frees_it(tmp_path: Path, provenance: Provenance) -> None:
    root = tmp_path / "s.zarr"
    writer = LatentWriter.open(root, provenance)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_hold, args=(root, provenance, ready), daemon=True)
    other.start()
    assert ready.wait(280)
    with pytest.raises(ContractError, match="shard 1 is being written by another process"), writer.claim(1):
        pass
    with writer.claim(0), writer.claim(2):
        pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with writer.claim(1):
        pass


@pytest.fixture
def tiny_volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 64 kB."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root with CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_and_finished_shards_stay(
    tiny_volume: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    root, filler = tiny_volume / "s.zarr", tiny_volume / "filler"
    with contextlib.closing(LatentWriter.open(root, provenance)) as writer:
        write_shard(writer, 0)
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            file.writelines(itertools.repeat(b"x" * 4096))
        with pytest.raises(ContractError, match="No space left on device; free space"):
            write_shard(writer, 1)
        filler.unlink()
        assert writer.missing(range(3)) == [1, 2]
        write_shard(writer, 1)
        write_shard(writer, 2)
    assert LatentReader.open(root).ok_rows().tolist() == list(range(10))


@given(row_bytes=st.integers(1, 1 << 32), rows=st.integers(1, 10_000_000))
def test_shard_rows_are_in_bounds(row_bytes: int, rows: int) -> None:
    count = shard_rows(row_bytes, rows)
    assert 1 <= count <= min(1024, rows)
    assert count == 1 or count * row_bytes <= 128 << 20


VALUES = {
    "seed": 7,
    "dtype": "float32",
    "precision": "bf16",
    "decoder": "decord",
    "revision": 9,
    "model": "other",
    "split": "val",
    "metadata_sha256": "b" * 64,
    "code_sha256": "b" * 64,
    "weights": {"w": "1" * 64},
    "preprocessing": "other",
}


@pytest.mark.parametrize("name", VALUES)
def test_every_value_changes_the_fingerprint(values: Values, name: str) -> None:
    assert values.model_copy(update={name: VALUES[name]}).fingerprint != values.fingerprint


# --- metadata is guarded as data is -----------------------------------------------------------


def _said(root: Path) -> tuple[Provenance, list[ShardRecord]]:
    """All that the JSON files of a store say, checked as on opening."""
    store = Store(root)
    store.check()
    return store.provenance, store.records()


def test_headers_are_those_that_zarr_writes(tmp_path: Path, provenance: Provenance) -> None:
    LatentWriter.open(tmp_path / "s.zarr", provenance).close()
    for name, header in array_headers(provenance.layout).items():
        assert json.loads((tmp_path / "s.zarr" / name / "zarr.json").read_text()) == header


def test_a_flipped_bit_in_any_byte_of_the_metadata_changes_nothing_or_is_named(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    root = tmp_path / "s.zarr"
    with closing(LatentWriter.open(root, provenance)) as writer:
        for shard, row in enumerate((1, 5, 9)):
            write_shard(writer, shard, (Failure(row=row, reason="missing_file", detail="gone"),))
    whole = _said(root)
    silent = []
    for file in [root / "zarr.json", *root.glob("*/zarr.json"), *root.glob("done/*.json")]:
        text = file.read_bytes()
        for at in range(len(text)):
            file.write_bytes(text[:at] + bytes([text[at] ^ (1 << at % 8)]) + text[at + 1 :])
            try:
                if _said(root) != whole:
                    silent.append((file.name, at))
            except ContractError as error:
                assert str(file) in str(error)  # noqa: PT017 - refused or unchanged, both are right
        file.write_bytes(text)
    assert silent == []
    assert _said(root) == whole


def test_a_shard_of_another_store_is_named(tmp_path: Path, provenance: Provenance, write_shard: WriteShard) -> None:
    """Of equal shape: copied files and their marker fit each other, and not this store."""
    values = provenance.values.model_copy(update={"model": "another"})
    layout = provenance.layout.model_copy(update={"fingerprint": values.fingerprint})
    other = provenance.model_copy(update={"layout": layout, "values": values})
    root, foreign = full(tmp_path / "s.zarr", provenance, write_shard), full(tmp_path / "o.zarr", other, write_shard)
    for file in (*foreign.glob("*/c/1"), foreign / "done/00001.json"):
        copy = shutil.copytree if file.is_dir() else shutil.copy
        there = root / file.relative_to(foreign)
        _ = shutil.rmtree(there) if there.is_dir() else there.unlink()
        copy(file, there)
    for read in (LatentReader.open, lambda path: Store(path).records()):
        with pytest.raises(ContractError, match=r"00001\.json: is of another store"):
            read(root)
    (root / "done/00001.json").unlink()
    with closing(LatentWriter.open(root, provenance)) as writer:
        assert writer.missing(range(3)) == [1]
        write_shard(writer, 1)
    assert tree(root) == tree(full(tmp_path / "u.zarr", provenance, write_shard))


def test_what_earlier_versions_wrote_is_read(tmp_path: Path, provenance: Provenance, write_shard: WriteShard) -> None:
    root = tmp_path / "s.zarr"
    with closing(LatentWriter.open(root, provenance)) as writer:
        for shard in range(3):
            write_shard(writer, shard)
    group = json.loads((root / "zarr.json").read_text())
    del group["attributes"]["lary_sha256"]
    (root / "zarr.json").write_text(json.dumps(group))
    for marker in root.glob("done/*.json"):
        record = json.loads(marker.read_text())
        del record["sha256"], record["made_by"], record["fingerprint"]
        marker.write_text(json.dumps(record))
    assert LatentReader.open(root).ok_rows().tolist() == list(range(10))
    assert [record.made_by for record in Store(root).records()] == [None] * 3
    with closing(LatentWriter.open(root, provenance)) as writer:
        writer.refuse_mixed("cpu")
        with pytest.raises(ContractError, match="device cpu and cuda"):
            writer.refuse_mixed("cuda")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"libraries": {"numpy": "2"}}, "numpy 1 and 2"),
        ({"libraries": {}}, "numpy 1 and absent"),
        ({"libraries": {"numpy": "1", "av": "3"}}, "av absent and 3"),
        ({"image_digest": "sha256:b"}, "image sha256:a and sha256:b"),
        ({"image_digest": None}, None),
        ({"image": "another name"}, None),
    ],
)
def test_another_environment_goes_on_by_request_alone(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard, changes: dict[str, Any], said: str | None
) -> None:
    first = provenance.model_copy(update={"image_digest": "sha256:a"})
    with closing(LatentWriter.open(tmp_path / "s.zarr", first)) as writer:
        write_shard(writer, 0)
        writer.refuse_mixed("cpu")
    with closing(LatentWriter.open(tmp_path / "s.zarr", first.model_copy(update=changes))) as writer:
        if said is None:
            writer.refuse_mixed("cpu")
        else:
            with pytest.raises(ContractError, match=f"{said}.*--mixed"):
                writer.refuse_mixed("cpu")
        write_shard(writer, 1)
    made = [record.made_by for record in Store(tmp_path / "s.zarr").records()]
    assert made[0] is not None
    assert made[1] is not None
    assert (made[0].libraries, made[0].image_digest) == ({"numpy": "1"}, "sha256:a")
    assert made[1].model_dump().items() >= changes.items()
    with closing(LatentWriter.open(tmp_path / "s.zarr", first)) as writer:
        write_shard(writer, 2)
    assert LatentReader.open(tmp_path / "s.zarr", first.layout.fingerprint).mixed == ([] if said is None else [said])


def test_a_store_is_made_in_a_folder_that_is_there(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    """As in a container that may write below its own store's folder alone."""
    full(tmp_path / "outside.zarr", provenance, write_shard)
    root = tmp_path / "parent" / "inside.zarr"
    root.mkdir(parents=True)
    inode = root.stat().st_ino
    root.parent.chmod(0o555)
    try:
        both = [LatentWriter.open(root, provenance) for _ in range(2)]
        write_shard(both[0], 0)
        LatentWriter.open(root, provenance).close()
        for shard in (1, 2):
            write_shard(both[1], shard)
        for writer in both:
            writer.close()
    finally:
        root.parent.chmod(0o755)
    assert root.stat().st_ino == inode
    trees = [
        {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
        for store in (root, tmp_path / "outside.zarr")
    ]
    assert trees[0] == trees[1]
    assert not list(root.glob("*.partial"))
