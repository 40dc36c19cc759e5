"""`latents export`: what LARYBench reads, and the way there and back."""

import csv
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_data import exporting, importing, larybench
from lary_schema.base import ContractError
from numpy.typing import NDArray

Tokens = NDArray[np.float32]


def send(disk: Any, *arguments: str, to: str = "new") -> Any:
    where = ("-m", "dinov2", "-d", disk.card.key, "--to", str(disk.root / to), "--workers", "2")
    return disk.tool("latents-export", *where, *arguments)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def as_larybench_reads(root: Path, table: Path) -> list[dict[str, NDArray[Any]]]:
    """By its rule: a la_path with a folder is below LARY_LA_DIR."""
    loaded = []
    for row in rows_of(table):
        assert "/" in row["la_path"]
        with np.load(root / row["la_path"]) as arrays:
            loaded.append({name: arrays[name] for name in arrays.files})
    return loaded


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows a shard."""
    monkeypatch.setattr(importing, "shard_rows", lambda row_bytes, rows: 4)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("codes", [None, (4,), (3, 1)], ids=["no codes", "pair", "villa-x pair"])
def test_there_and_back_is_exact(pairs: Any, tokens: Tokens, codes: tuple[int, ...] | None) -> None:
    indices = None if codes is None else [np.arange(np.prod(codes)).reshape(codes) + row for row in range(10)]
    pairs.release(tokens, indices)
    assert pairs.bring().exit_code == 0
    result = send(pairs)
    assert result.exit_code == 0, result.exception
    table = pairs.root / "new/val_la_calvin_5_dinov2.csv"
    assert table.read_text() == (pairs.data / table.name).read_text().replace("\r\n", "\n")
    for row, arrays in enumerate(as_larybench_reads(pairs.root / "new", table)):
        old = np.load(pairs.old / f"calvin/val/dinov2/{larybench.file_name(row)}")
        for name in ("tokens", "indices"):
            assert arrays[name].dtype == old[name].dtype
            assert arrays[name].shape == old[name].shape
            assert np.array_equal(arrays[name], old[name])

    first = pairs.stores()
    shutil.rmtree(pairs.latents)
    assert pairs.bring("--from", str(pairs.root / "new")).exit_code == 0
    assert pairs.stores() == first


def test_time_steps_and_their_codes(pairs: Any) -> None:
    values = np.random.default_rng(0).normal(size=(10, 2, 3, 4)).astype(np.float32)
    codes = [np.arange(8).reshape(2, 4) + row for row in range(10)]
    pairs.release(values, codes)
    assert pairs.bring().exit_code == 0
    assert send(pairs, "--compress").exit_code == 0
    read = as_larybench_reads(pairs.root / "new", pairs.root / "new/val_la_calvin_5_dinov2.csv")
    assert np.array_equal(np.stack([arrays["tokens"] for arrays in read]), values)
    assert np.array_equal(np.stack([arrays["indices"] for arrays in read]), np.stack(codes))


def test_float16_store_gives_its_values_as_float32(pairs: Any, tokens: Tokens) -> None:
    half = tokens.astype(np.float16).astype(np.float32)
    pairs.release(half)
    assert pairs.bring("--dtype", "float16").exit_code == 0
    assert send(pairs).exit_code == 0
    read = as_larybench_reads(pairs.root / "new", pairs.root / "new/val_la_calvin_5_dinov2.csv")
    assert read[0]["tokens"].dtype == np.float32
    assert np.array_equal(np.stack([arrays["tokens"] for arrays in read]), half)


def test_clips_have_no_stride_in_the_name(clips: Any, tokens: Tokens) -> None:
    for row, values in enumerate(tokens):
        clips.npz("human_1st/val/dinov2", row, tokens=values, indices=np.array([]))
    clips.la_csv([larybench.file_name(row) for row in range(10)], "val_la_human_1st_dinov2.csv")
    assert clips.bring().exit_code == 0
    assert send(clips, "--as", "mine").exit_code == 0
    table = clips.root / "new/val_la_human_1st_mine.csv"
    assert rows_of(table)[3]["la_path"] == "human_1st/val/mine/latent_action_00000003.npz"
    assert rows_of(table)[3]["sample_indices"] == clips.rows[3][2]
    assert len(as_larybench_reads(clips.root / "new", table)) == 10


@pytest.mark.parametrize("drop", [False, True])
def test_failed_rows(pairs: Any, tokens: Tokens, drop: bool) -> None:
    pairs.release(tokens)
    paths = [f"calvin/val/dinov2/{larybench.file_name(row)}" for row in range(10)]
    paths[2] = paths[7] = ""
    pairs.la_csv(paths)
    assert pairs.bring("--max-failed", "0.2").exit_code == 0
    result = send(pairs, *(["--drop-failed"] if drop else []))
    assert "8 of 10 rows have a latent" in result.output
    rows = rows_of(pairs.root / "new/val_la_calvin_5_dinov2.csv")
    assert [row["la_path"] for row in rows] == [path for path in paths if path or not drop]
    assert [row["src_img"] for row in rows] == [
        cells[1] for cells, path in zip(pairs.rows, paths, strict=True) if path or not drop
    ]
    folder = pairs.root / "new/calvin/val/dinov2"
    assert sorted(path.name for path in folder.glob("*.npz")) == [Path(path).name for path in paths if path]


def test_other_latents_are_not_overwritten(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    before = {path: path.read_bytes() for path in pairs.old.rglob("*.npz")}
    error = send(pairs, to="old").exception
    assert isinstance(error, ContractError)
    assert "holds other latents; export elsewhere by --to" in str(error)
    assert {path: path.read_bytes() for path in pairs.old.rglob("*.npz")} == before
    assert send(pairs, "--overwrite", to="old").exit_code == 0


def test_another_csv_is_not_overwritten_and_found_first(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    table = pairs.data / "val_la_calvin_5_dinov2.csv"
    table.write_text("mine\n")
    assert "differs from what would be written" in str(send(pairs, "--csv-to", str(pairs.data)).exception)
    assert table.read_text() == "mine\n"
    assert not list((pairs.root / "new").rglob("*.npz"))
    assert not list(pairs.data.glob(".*"))


@pytest.mark.usefixtures("small_shards")
def test_a_stopped_export_goes_on(pairs: Any, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    written: list[str] = []
    real = exporting.write_latent

    def write(path: Path, *arguments: Any, **options: Any) -> None:
        if "00000006" in path.name and not written.count("stopped"):
            written.append("stopped")
            raise OSError("killed")
        written.append(path.name.partition(".npz")[0] + ".npz")
        real(path, *arguments, **options)

    monkeypatch.setattr(exporting, "write_latent", write)
    assert isinstance(send(pairs).exception, OSError)
    assert not list((pairs.root / "new").glob("*.csv"))
    written.clear()
    written.append("stopped")
    assert send(pairs).exit_code == 0
    assert sorted(written[1:]) == [larybench.file_name(row) for row in range(4, 10)]

    (pairs.root / "new/calvin/val/dinov2" / larybench.file_name(1)).unlink()
    written[1:] = []
    assert send(pairs).exit_code == 0
    assert sorted(written[1:]) == [larybench.file_name(row) for row in range(4)]
    read = as_larybench_reads(pairs.root / "new", pairs.root / "new/val_la_calvin_5_dinov2.csv")
    assert np.array_equal(np.stack([arrays["tokens"] for arrays in read]), tokens)


def test_a_name_that_leaves_the_folder(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    assert "model key '../x': letters" in str(send(pairs, "--as", "../x").exception)


def test_which_store(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    assert "no store of" in str(send(pairs).exception)
    assert pairs.bring().exit_code == 0
    assert pairs.bring("--dtype", "float16").exit_code == 0
    error = str(send(pairs).exception)
    assert "several stores of" in error
    assert all(path.name in error for path in pairs.stores())
    for path in pairs.stores():
        assert send(pairs, "--store", path.name[:-5], to=path.name).exit_code == 0
    assert "variant corrected; there is" in str(send(pairs, "--variant", "corrected").exception)
    pairs.write(pairs.csv, pairs.header, pairs.rows[:9])
    assert "as it is now" in str(send(pairs).exception)


def test_a_stopped_machine_leaves_no_draft_behind(
    pairs: Any, tokens: Tokens, stopped_at_every_change: Callable[[Callable[[], object]], Iterator[int]]
) -> None:
    """The first changes: the CSV's draft, then the journal. The same command goes on."""
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    assert send(pairs, to="whole").exit_code == 0
    whole = {path.name for path in (pairs.root / "whole").rglob("*")}
    for _ in islice(stopped_at_every_change(lambda: send(pairs)), 8):
        assert send(pairs).exit_code == 0
        assert {path.name for path in (pairs.root / "new").rglob("*")} == whole
        shutil.rmtree(pairs.root / "new")
