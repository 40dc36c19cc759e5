"""Jobs of models that read actions: no media is opened, and a bad row costs itself."""

import errno
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_schema.jobs import ActionRows
from lary_worker import chunks
from lary_worker.faults import RowFaultError
from lary_worker.selftest import selftest

ROWS = ActionRows(column="action", folder="arms/acts", stride=4, dim=3)
HEADER = "src_img,tgt_img,action"


@pytest.fixture(autouse=True)
def folder(bench: Any) -> Path:
    """The actions' folder; there is no media."""
    bench.media.rmdir()
    made: Path = bench.root / "data/arms/acts"
    made.mkdir(parents=True)
    return made


def job(bench: Any, actions: ActionRows = ROWS, **changes: Any) -> Any:
    return bench.job("sums", "actions", values={"actions": actions}, **changes)


def write_chunks(folder: Path, count: int) -> Any:
    found = np.random.default_rng(0).normal(0, 9, (count, 4, 3))
    for row, chunk in enumerate(found):
        np.save(folder / f"{row}.npy", (chunk if row % 2 else chunk.ravel()).astype(np.float64 if row % 3 else "f4"))
    return found


def csv(bench: Any, cells: list[str]) -> None:
    bench.write_csv([f"no{row}a.png,no{row}b.png,{cell}" for row, cell in enumerate(cells)], header=HEADER)


def test_actions_become_latents(bench: Any, folder: Path) -> None:
    found = write_chunks(folder, 10)
    csv(bench, [f"{row}.npy" for row in range(10)])
    done = bench.extract(job(bench))
    assert done.code == 0, done.message
    tokens, store = bench.tokens(), bench.store()
    np.testing.assert_allclose(tokens[:, :, 0], 2 * found, rtol=2e-3)
    np.testing.assert_array_equal(store.indices(np.arange(10))[..., 0], found.astype("f4").sum(2).astype(int))
    assert store.provenance.values.actions == ROWS
    whole = bench.tree()
    # Half of it, then all of it: the bytes are those of one attempt.
    assert bench.extract(job(bench, shards=[0, 2], store="half.zarr")).code == 0
    assert bench.extract(job(bench, store="half.zarr")).code == 0
    assert {n: b for n, b in bench.tree("half.zarr").items() if n != "zarr.json"} == {
        n: b for n, b in whole.items() if n != "zarr.json"
    }


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


BAD = {
    "none.npy": (None, "missing_file"),
    "empty.npy": (b"", "decode_error"),
    "text.npy": (b"0.1 0.2", "decode_error"),
    "cut.npy": (npy(np.zeros((4, 3)))[:-1], "decode_error"),
    "long.npy": (npy(np.zeros((4, 3))) + b"x", "decode_error"),
    "steps.npy": (npy(np.zeros((5, 3))), "decode_error"),
    "dims.npy": (npy(np.zeros((4, 2))), "decode_error"),
    "nan.npy": (npy(np.full((4, 3), np.nan)), "decode_error"),
    "complex.npy": (npy(np.zeros((4, 3), complex)), "decode_error"),
    "lfs.npy": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "missing_file"),
    "../acts/0.npy": (None, "bad_path"),
    "": (None, "bad_row"),
    "0.npy,more": (None, "bad_row"),
}


def test_every_bad_row_costs_itself_alone(bench: Any, folder: Path, tmp_path: Path) -> None:
    write_chunks(folder, 1)
    for name, (content, _) in BAD.items():
        if content is not None:
            (folder / name).write_bytes(content)
    (folder / "folder.npy").mkdir()
    csv(bench, ["0.npy", *BAD, "folder.npy", "/host/data/arms/acts/0.npy", str(folder / "0.npy")])
    made = job(bench)
    done = bench.extract(made.model_copy(update={"source": made.source.model_copy(update={"host_data": "/host/data"})}))
    assert done.code == 0, done.message
    expected = [reason for _, reason in BAD.values()] + ["decode_error"]
    assert bench.reasons() == dict(enumerate(expected, 1))
    tokens = bench.tokens()
    for row in (-1, -2):
        np.testing.assert_array_equal(tokens[0], tokens[row])
    assert np.isnan(tokens[1:-2]).all()
    # What a store says of a failure must not depend on the machine.
    assert not any(str(tmp_path).encode() in content for content in bench.tree().values())


def test_what_the_volume_does_is_tried_again(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def fails(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(chunks, "is_lfs_pointer", fails)
    with pytest.raises(RowFaultError) as caught:
        chunks.read_actions(folder / "0.npy", "0.npy", 4, 3)
    assert (caught.value.reason, caught.value.detail) == ("io_error", "0.npy: Input/output error")


def test_jobs_that_do_not_fit_are_refused(bench: Any, folder: Path) -> None:
    write_chunks(folder, 2)
    csv(bench, ["0.npy", "1.npy"])
    made = job(bench)
    folder.rename(folder.with_name("elsewhere"))
    refused = bench.extract(made)
    assert (refused.code, "folder of the actions is missing" in refused.message) == (2, True)
    folder.with_name("elsewhere").rename(folder)
    refused = bench.extract(job(bench, ROWS.model_copy(update={"column": "acts"})))
    assert (refused.code, "acts" in refused.message) == (2, True)


def test_the_self_test_feeds_actions() -> None:
    out = io.StringIO()
    selftest("sums", "cpu", out)
    assert json.loads(out.getvalue()) == {"model": "sums", "ok": True, "problems": {}}
