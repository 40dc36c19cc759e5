"""`latents import`: every layout, exact values, what is refused, and going on after a kill."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_data import importing, larybench
from lary_schema.base import ContractError
from lary_schema.cards import SplitRoles
from lary_schema.jobs import IMPORTED
from lary_schema.store.layout import Store
from numpy.typing import NDArray

Tokens = NDArray[np.float32]


def names(folder: str = "", rows: range = range(10)) -> list[str]:
    return [f"{folder}{larybench.file_name(row)}" for row in rows]


def read(disk: Any) -> NDArray[Any]:
    store = disk.store()
    return store.tokens(np.arange(store.rows))


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- values and shapes ------------------------------------------------------------------------


def test_float32_is_exact_and_says_where_it_is_from(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    result = pairs.bring()
    assert result.exit_code == 0, result.output
    assert "10 of 10 rows" in result.output
    assert np.array_equal(read(pairs)[:, 0], tokens)
    provenance = pairs.store().provenance
    assert (provenance.values.model, provenance.values.variant, provenance.image) == ("dinov2", IMPORTED, IMPORTED)
    assert provenance.layout.tokens == (1, 3, 4)
    assert provenance.layout.dtype == "float32"
    assert provenance.values.spec.time_axis is False
    assert provenance.layout.indices is None
    assert pairs.store().ok_rows().tolist() == list(range(10))


def test_time_steps_stay(pairs: Any) -> None:
    values = np.arange(10 * 2 * 3 * 4, dtype=np.float32).reshape(10, 2, 3, 4)
    pairs.release(values)
    assert pairs.bring().exit_code == 0
    assert np.array_equal(read(pairs), values)
    assert pairs.store().provenance.values.spec.time_axis is True


@pytest.mark.parametrize(
    ("shape", "stored"), [((4,), (1, 4)), ((8, 4), (8, 4)), ((3, 1), (3, 1))], ids=["pair", "clip", "villa-x pair"]
)
def test_codes(pairs: Any, tokens: Tokens, shape: tuple[int, ...], stored: tuple[int, ...]) -> None:
    codes = [np.arange(np.prod(shape)).reshape(shape) + 100 * row for row in range(10)]
    pairs.release(tokens, codes)
    assert pairs.bring().exit_code == 0
    found = pairs.store().indices(np.arange(10))
    assert found.shape == (10, *stored)
    assert np.array_equal(found.reshape(10, -1), np.stack(codes).reshape(10, -1))


def test_float16_values_and_one_that_does_not_fit(pairs: Any, tokens: Tokens) -> None:
    tokens[4, 0, 0] = 1e6
    pairs.release(tokens)
    assert pairs.bring("--dtype", "float16", "--max-failed", "0.1").exit_code == 0
    store = pairs.store()
    assert [(f.row, f.reason) for f in store.failures] == [(4, "overflow")]
    ok = store.ok_rows()
    assert np.array_equal(read(pairs)[ok, 0], tokens[ok].astype(np.float16))
    assert np.isnan(read(pairs)[4]).all()


def test_memory_order_of_a_file_is_not_its_values(pairs: Any, tokens: Tokens) -> None:
    pairs.release(np.zeros_like(tokens))
    pairs.npz("calvin/val/dinov2", 0, tokens=np.asfortranarray(tokens[0]), indices=np.array([]))
    assert pairs.bring().exit_code == 0
    assert np.array_equal(read(pairs)[0, 0], tokens[0])


# --- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["calvin/val/dinov2", "calvin/dinov2", "calvin/stride_5/val/dinov2"])
@pytest.mark.parametrize("bare", [True, False])
def test_layouts(pairs: Any, tokens: Tokens, folder: str, bare: bool) -> None:
    pairs.release(tokens, folder=folder)
    pairs.la_csv(names("" if bare else folder + "/"))
    assert pairs.bring().exit_code == 0
    assert np.array_equal(read(pairs)[:, 0], tokens)


def test_the_same_latents_in_another_layout_are_the_same_store(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens, folder="calvin/dinov2")
    assert pairs.bring().exit_code == 0
    first = pairs.stores()
    shutil.rmtree(pairs.old)
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    assert pairs.stores() == first


def test_bare_names_in_two_layouts_are_not_guessed(pairs: Any, tokens: Tokens) -> None:
    for folder in ("calvin/val/dinov2", "calvin/dinov2"):
        pairs.release(tokens, folder=folder)
    pairs.la_csv(names())
    result = pairs.bring()
    assert isinstance(result.exception, Exception)
    assert "all hold .npz files" in str(result.exception)


def test_absolute_paths(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens, folder="elsewhere")
    pairs.la_csv(names(f"{pairs.old}/elsewhere/"))
    assert pairs.bring("--from", str(pairs.root)).exit_code == 0
    assert np.array_equal(read(pairs)[:, 0], tokens)


def test_file_numbers_need_not_be_row_numbers(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    order = [7, 3, 9, 0, 1, 2, 4, 5, 6, 8]
    pairs.la_csv([f"calvin/val/dinov2/{larybench.file_name(number)}" for number in order])
    assert pairs.bring().exit_code == 0
    assert np.array_equal(read(pairs)[:, 0], tokens[order])


def test_partitions_in_the_order_of_their_numbers(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    (pairs.data / "val_la_calvin_5_dinov2.csv").unlink()
    paths = names("calvin/val/dinov2/")
    for part, start in enumerate(range(10)):
        pairs.la_csv(paths[start : start + 1], f"val_la_calvin_5_dinov2_{part}.csv", start)
    # Eleven partitions: as text, 10 would stand before 2.
    pairs.rows.append([cell.replace("ep_", "ep_x") for cell in pairs.rows[0]])
    pairs.write(pairs.csv, pairs.header, pairs.rows)
    pairs.npz("calvin/val/dinov2", 10, tokens=tokens[0], indices=np.array([]))
    pairs.la_csv(names("calvin/val/dinov2/", range(10, 11)), "val_la_calvin_5_dinov2_10.csv", 10)
    result = pairs.bring()
    assert result.exit_code == 0, result.exception
    assert np.array_equal(read(pairs)[:, 0], tokens[[*range(10), 0]])


def test_a_lost_partition(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    (pairs.data / "val_la_calvin_5_dinov2.csv").rename(pairs.data / "val_la_calvin_5_dinov2_1.csv")
    assert "neither one CSV nor the partitions 0 to 1" in str(pairs.bring().exception)


def test_the_csv_of_another_model_or_set_is_not_taken(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    for name in ("val_la_calvin_5_dinov2-origin", "val_la_calvin_15_dinov2", "unval_la_calvin_5_dinov2"):
        shutil.copy(pairs.data / "val_la_calvin_5_dinov2.csv", pairs.data / f"{name}.csv")
    assert pairs.bring().exit_code == 0
    (pairs.data / "val_la_calvin_5_dinov2.csv").unlink()
    assert "no val_la_calvin_5_dinov2.csv; name the CSV by --csv" in str(pairs.bring().exception)


def test_clips(clips: Any, tokens: Tokens) -> None:
    for row, values in enumerate(tokens):
        clips.npz("human_1st/dinov2", row, tokens=values, indices=np.array([]))
    clips.la_csv(names(), "val_la_human_1st_dinov2.csv")
    assert clips.bring().exit_code == 0
    assert np.array_equal(read(clips)[:, 0], tokens)
    clips.rows[3][2] = "0,1,2,3,4,5,6,7,8"
    clips.write(clips.csv, clips.header, clips.rows)
    assert "row 3: sample_indices is '3,4,5" in str(clips.bring().exception)


# --- rows -------------------------------------------------------------------------------------


def test_without_the_folders_that_a_csv_implies(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    full = [list(row) for row in pairs.rows]
    for row in pairs.rows:
        row[1:] = [cell.removeprefix("images/").removeprefix("actions/") for cell in row[1:]]
    pairs.rows[2][1] = f"/old/disk/calvin/{full[2][1]}"
    pairs.la_csv(names("calvin/val/dinov2/"))
    assert pairs.bring().exit_code == 0


@pytest.mark.parametrize("column", [1, 2, 3])
def test_other_rows_are_refused(pairs: Any, tokens: Tokens, column: int) -> None:
    pairs.release(tokens)
    pairs.rows[6][column] = pairs.rows[7][column]
    pairs.write(pairs.csv, pairs.header, pairs.rows)
    error = str(pairs.bring().exception)
    assert f"row 6: {pairs.header[column]} is" in error
    assert "other rows, or in another order" in error
    assert pairs.stores() == []


@pytest.mark.parametrize("rows", [9, 11])
def test_another_number_of_rows_is_refused(pairs: Any, tokens: Tokens, rows: int) -> None:
    pairs.release(tokens)
    pairs.write(pairs.csv, pairs.header, [*pairs.rows, pairs.rows[0]][:rows])
    assert f"val_la_calvin_5_dinov2.csv: 10 rows, {pairs.csv} has {rows}" in str(pairs.bring().exception)


def test_rows_without_a_latent_are_failed_rows(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    paths = names("calvin/val/dinov2/")
    paths[1] = ""
    pairs.la_csv(paths)
    (pairs.old / paths[2]).unlink()
    whole = (pairs.old / paths[3]).read_bytes()
    (pairs.old / paths[3]).write_bytes(whole[:-30])
    (pairs.old / paths[4]).write_bytes(b"\0" * 100 + whole[100:])
    pairs.npz("calvin/val/dinov2", 5, indices=np.array([]))
    tokens[6, 1, 1] = np.nan
    pairs.npz("calvin/val/dinov2", 6, tokens=tokens[6], indices=np.array([]))
    result = pairs.bring("--max-failed", "0.6")
    assert result.exit_code == 0, result.exception
    assert "4 of 10 rows" in result.output
    store = pairs.store()
    assert [(f.row, f.reason) for f in store.failures] == [*((r, "no_latent") for r in range(1, 6)), (6, "non_finite")]
    details = [f.detail for f in store.failures]
    assert details[0] == "the CSV gives no file: its la_path is empty"
    assert details[1] == f"{paths[2]}: no such file"
    assert details[2].startswith(f"{paths[3]}: no whole .npz")
    assert details[4] == f"{paths[5]}: no array 'tokens'; it has indices.npy"
    ok = store.ok_rows()
    assert ok.tolist() == [0, 7, 8, 9]
    assert np.array_equal(read(pairs)[ok, 0], tokens[ok])


def test_too_many_lost_rows(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    pairs.la_csv(["", *names("calvin/val/dinov2/", range(1, 10))])
    error: Any = pairs.bring().exception
    assert error.exit_code == 3
    assert "1 of 10 rows have no latent, more than --max-failed 0.01 allows" in str(error)
    assert "row 0: the CSV gives no file" in str(error)
    assert pairs.stores() == []


def test_not_one_latent(pairs: Any) -> None:
    pairs.la_csv([""] * 10)
    assert "no row has a latent that can be read" in str(pairs.bring("--max-failed", "1").exception)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize("name", ["tokens", "indices"])
def test_pickled_objects_are_refused(pairs: Any, tokens: Tokens, row: int, name: str) -> None:
    pairs.release(tokens)
    arrays = {"tokens": tokens[row], "indices": np.array([]), name: np.array([{"a": 1}], dtype=object)}
    path = pairs.npz("calvin/val/dinov2", row, **arrays)
    error: Any = pairs.bring().exception
    assert error.exit_code == 2
    assert str(error).startswith(f"{path}: {name} holds pickled objects")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"tokens": np.zeros((3, 5), np.float32)}, "tokens (3, 5) and indices None; the first file has (3, 4)"),
        ({"tokens": np.zeros((1, 3, 4), np.float32)}, "tokens (1, 3, 4) and"),
        ({"tokens": np.zeros((3, 4), np.int64)}, "tokens are int64 (3, 4)"),
        ({"tokens": np.zeros(12, np.float32)}, "tokens are float32 (12,)"),
        ({"tokens": np.zeros((3, 4), np.float32), "indices": np.zeros(4)}, "indices are float64 (4,)"),
        ({"tokens": np.zeros((3, 4), np.float32), "indices": np.zeros(4, int)}, "and indices (1, 4); the first"),
    ],
)
def test_files_of_another_kind_are_refused(pairs: Any, tokens: Tokens, arrays: Any, message: str) -> None:
    pairs.release(tokens)
    path = pairs.npz("calvin/val/dinov2", 5, **arrays)
    error = str(pairs.bring().exception)
    assert error.startswith(f"{path}: ")
    assert message in error


def test_paths_that_leave_the_root(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    pairs.la_csv(["../secret.npz", *names("calvin/val/dinov2/", range(1, 10))])
    assert "contains '..'" in str(pairs.bring().exception)


def test_splits_and_csvs_that_do_not_fit(pairs: Any) -> None:
    command = ("latents-import", "-m", "dinov2", "-d", "calvin")
    assert "calvin has no split unseen; it has val" in str(pairs.tool(*command, "--split", "unseen").exception)
    key = ("latents-import", "-d", "calvin", "-m", "../dinov2", "--split", "val", "--csv", "some.csv")
    assert "model key '../dinov2': letters" in str(pairs.tool(*key).exception)
    assert "one --split" in str(pairs.tool(*command, "--csv", "some.csv").exception)


def test_a_split_that_cannot_be_imported_costs_no_other(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    pairs.card = pairs.card.model_copy(update={"splits": SplitRoles(train="train", evaluate=("val", "unseen"))})
    result = pairs.tool("latents-import", "-m", "dinov2", "-d", "calvin", "--from", str(pairs.old))
    assert isinstance(result.exception, ContractError)
    assert "calvin_metadata_unseen.csv: cannot be read" in str(result.exception)
    assert "calvin_metadata_train.csv: cannot be read" in result.output
    assert len(pairs.store().ok_rows()) == 10


# --- going on ---------------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows a shard."""
    monkeypatch.setattr(importing, "shard_rows", lambda row_bytes, rows: 4)


@pytest.mark.usefixtures("small_shards")
def test_a_stopped_import_goes_on_to_the_same_bytes(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    (store,) = pairs.stores()
    whole = tree(store)
    assert set(Store(store).markers.iterdir()) == {Store(store).marker(shard) for shard in range(3)}
    shutil.rmtree(pairs.latents)

    harmed = pairs.old / "calvin/val/dinov2" / larybench.file_name(5)
    data = harmed.read_bytes()
    pairs.npz("calvin/val/dinov2", 5, tokens=np.zeros((2, 2), np.float32), indices=np.array([]))
    assert "tokens (2, 2)" in str(pairs.bring().exception)
    (stopped,) = pairs.stores()
    assert set(Store(stopped).markers.iterdir()) == {Store(stopped).marker(0)}
    shutil.rmtree(stopped)

    harmed.write_bytes(data)
    assert pairs.bring().exit_code == 0
    Store(store).marker(0).unlink()
    (store / "tokens/c/2/0/0/0").unlink()
    mark = Store(store).marker(1).stat().st_mtime_ns
    assert pairs.bring().exit_code == 0
    assert tree(store) == whole
    assert Store(store).marker(1).stat().st_mtime_ns == mark


@pytest.mark.usefixtures("small_shards")
def test_a_finished_import_reads_no_latent_again(pairs: Any, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    monkeypatch.setattr(importing.Shard, "put", lambda *_: pytest.fail("a finished shard was read"))
    assert pairs.bring().exit_code == 0


def test_damage_that_reading_found_is_repaired(pairs: Any, tokens: Tokens) -> None:
    tokens = np.random.default_rng(1).normal(size=(10, 64, 64)).astype(np.float32)
    pairs.release(tokens)
    path = pairs.old / "calvin/val/dinov2" / larybench.file_name(2)
    whole = path.read_bytes()
    # In the middle of the compressed tokens: the archive's directory stays whole.
    path.write_bytes(whole[:3000] + bytes(200) + whole[3200:])
    assert pairs.bring("--max-failed", "0.2").exit_code == 0
    assert [f.row for f in pairs.store().failures] == [2]
    path.write_bytes(whole)
    assert pairs.bring().exit_code == 0
    assert pairs.store().failures == []
    assert np.array_equal(read(pairs)[:, 0], tokens)


def test_other_values_make_another_store(pairs: Any, tokens: Tokens) -> None:
    pairs.release(tokens)
    assert pairs.bring().exit_code == 0
    pairs.npz("calvin/val/dinov2", 9, tokens=tokens[9] + 1, indices=np.array([]))
    assert pairs.bring().exit_code == 0
    assert len(pairs.stores()) == 2


def test_a_file_that_changes_meanwhile(pairs: Any, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs.release(tokens)
    made = importing.provenance

    def meddle(*arguments: Any) -> Any:
        pairs.npz("calvin/val/dinov2", 3, tokens=tokens[3] + 1, indices=np.array([]))
        return made(*arguments)

    monkeypatch.setattr("lary_data.migration.provenance", meddle)
    assert "changed while it was imported" in str(pairs.bring().exception)
