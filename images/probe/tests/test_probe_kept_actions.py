"""Action chunks out of one file: the same bits as from their own files, the same refusals, and far fewer files read."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_probe import actions as actions_module
from lary_probe import kept_actions
from lary_probe.actions import read_chunks
from lary_probe.kept_actions import KeptActions, Part
from lary_schema.base import ContractError
from lary_schema.cards import Actions, Normalisation
from lary_schema.kept_actions import VARIABLE
from numpy.typing import NDArray

SHAPE = (2, 3)
ACTIONS = Actions(folder="a", stride=2, dim=3, names=("x", "y", "z"), normalisation=Normalisation(kind="train"))
OUTCOME = tuple[bytes, str]


class Split:
    """A split's CSV as `read_chunks` needs it, and its action files."""

    def __init__(self, data: Path, name: str, rows: int) -> None:
        self.path, self.rows = Path(f"{name}.csv"), rows
        self.split = SimpleNamespace(name=name, source=SimpleNamespace(host_data=None))
        self.files = [data / f"a/{name}_{row}.npy" for row in range(rows)]

    def cell(self, row: int, _column: str) -> str:
        return self.files[row].name


def write(path: Path, seed: int, dtype: str) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, (np.random.default_rng(seed).normal(size=SHAPE) * 1e3).astype(dtype))


def outcome(splits: list[Split], wanted: list[list[int]], data: Path, kept_path: Path | None) -> tuple[OUTCOME, int]:
    """What reading came to, bytes or a message; and how many action files were read for it."""
    read = 0
    real = actions_module.read_chunk

    def counted(*given: Any) -> NDArray[np.float64]:
        nonlocal read
        read += 1
        return real(*given)

    kept = KeptActions(kept_path, sum(split.rows for split in splits), SHAPE)
    actions_module.read_chunk = counted  # type: ignore[assignment]
    try:
        parts, first = [], 0
        for split, rows in zip(splits, wanted, strict=True):
            numbers, mounts = np.array(rows, np.int64), SimpleNamespace(data=data)
            given: Any = (split, numbers, ACTIONS, mounts, lambda: None, kept, first)
            parts.append(Part(first + numbers, read_chunks(*given)))
            first += split.rows
        kept.write(parts)
    except ContractError as error:
        return (b"", str(error)), read
    finally:
        kept.close()
        actions_module.read_chunk = real
    return (b"".join(part.chunks.tobytes() for part in parts), ""), read


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests have just changed: their times of change are set apart by hand, and no time is too recent."""
    monkeypatch.setattr(kept_actions, "RECENT_NS", -(10**12))
    monkeypatch.setattr(kept_actions, "BLOCK", 4)
    monkeypatch.setattr(actions_module, "BLOCK", 4)


# --- any history ----------------------------------------------------------------------------------

ROWS = (7, 5)
EVENTS = st.one_of(
    st.tuples(
        st.just("write"), st.integers(0, sum(ROWS) - 1), st.sampled_from(["float32", "float64", "int16", "bool"])
    ),
    st.tuples(st.just("damage"), st.integers(0, sum(ROWS) - 1), st.sampled_from([b"", b"no array", b"\x93NUMPY\x01"])),
    st.tuples(st.just("remove"), st.integers(0, sum(ROWS) - 1), st.none()),
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.none()),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.none()),
    st.tuples(st.just("read"), st.integers(0, 2 ** sum(ROWS) - 1), st.none()),
    st.tuples(st.just("read"), st.just(2 ** sum(ROWS) - 1), st.none()),
)


def happen(event: tuple[str, Any, Any], files: list[Path], kept: Path, nth: int) -> None:
    kind, where, what = event
    if kind == "write":
        write(files[where], nth, what)
    elif kind == "damage":
        files[where].write_bytes(what)
    if kind in ("write", "damage"):
        os.utime(files[where], (1e9 + nth, 1e9 + nth))
    elif kind == "remove":
        files[where].unlink(missing_ok=True)
    elif kept.exists() and kept.stat().st_size:
        content = bytearray(kept.read_bytes())
        at = int(where * len(content))
        kept.write_bytes(content[:at] if kind == "cut" else content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])


@settings(max_examples=30, deadline=None)
@given(history=st.lists(EVENTS, max_size=9))
def test_whatever_happened_before_what_is_read_is_what_the_files_hold(
    history: list[tuple[str, Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("data")
    splits = [Split(data, name, rows) for name, rows in zip(("train", "val"), ROWS, strict=True)]
    files = [path for split in splits for path in split.files]
    for seed, path in enumerate(files):
        write(path, seed, "float32")
    for nth, event in enumerate([("read", 2 ** len(files) - 1, None), *history, ("read", 2 ** len(files) - 1, None)]):
        if event[0] != "read":
            happen(event, files, data / "x.actions", 100 + nth)
            continue
        bits = [event[1] >> n & 1 for n in range(len(files))]
        wanted = [[r for r in range(ROWS[0]) if bits[r]], [r for r in range(ROWS[1]) if bits[ROWS[0] + r]]]
        found, _ = outcome(splits, wanted, data, data / "x.actions")
        assert found == outcome(splits, wanted, data, None)[0]
    assert not list(data.glob("*.partial"))


# --- how many files are read -----------------------------------------------------------------------


@pytest.fixture
def split(tmp_path: Path) -> Split:
    made = Split(tmp_path, "train", 9)
    for row, path in enumerate(made.files):
        write(path, row, "float32")
    return made


def reads(split: Split, wanted: list[int], kept: Path) -> int:
    (_, fault), count = outcome([split], [wanted], split.files[0].parents[1], kept)
    assert not fault
    return count


def test_files_are_read_once_and_again_where_they_changed(split: Split, tmp_path: Path) -> None:
    every, kept = list(range(9)), tmp_path / "deep/x.actions"
    assert [reads(split, every, kept) for _ in range(2)] == [9, 0]
    write(split.files[5], 99, "float64")
    assert [reads(split, every, kept) for _ in range(2)] == [1, 1]  # One of nine: not worth writing all anew.
    os.utime(split.files[0], (1e9, 1e9))
    assert [reads(split, every, kept) for _ in range(2)] == [2, 0]


def test_a_file_that_has_just_changed_is_not_kept(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_actions, "RECENT_NS", 3600 * 10**9)
    assert [reads(split, list(range(9)), tmp_path / "x.actions") for _ in range(2)] == [9, 9]


def test_a_file_that_is_put_back_with_its_old_times_is_read_again(split: Split, tmp_path: Path) -> None:
    kept, before = tmp_path / "x.actions", split.files[3].stat()
    assert reads(split, list(range(9)), kept) == 9
    write(split.files[3], 77, "float32")
    while split.files[3].stat().st_ctime_ns == before.st_ctime_ns:  # The kernel's clock ticks a few ms.
        os.utime(split.files[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(split.files[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert split.files[3].stat().st_size == before.st_size
    assert reads(split, list(range(9)), kept) == 1


@pytest.mark.parametrize(("dtype", "bytes_"), [("float32", 4), ("float64", 8), ("int16", 4)])
def test_values_take_four_bytes_where_that_loses_nothing(split: Split, tmp_path: Path, dtype: str, bytes_: int) -> None:
    write(split.files[8], 8, dtype)
    assert reads(split, list(range(9)), tmp_path / "x.actions") == 9
    blocks = 3 * (8 + 4 * (24 + bytes_ * 6))
    assert 0 < (tmp_path / "x.actions").stat().st_size - blocks < 100


def test_rows_that_were_not_wanted_are_read_when_they_are(split: Split, tmp_path: Path) -> None:
    kept = tmp_path / "x.actions"
    assert [reads(split, wanted, kept) for wanted in ([0, 2, 4, 6, 8], list(range(9)), [1, 3])] == [5, 4, 0]


@pytest.mark.parametrize("changed", [(10, (2, 3)), (9, (3, 2)), (9, (1, 6))])
def test_a_file_of_another_set_is_none(split: Split, tmp_path: Path, changed: tuple[int, tuple[int, int]]) -> None:
    kept = tmp_path / "x.actions"
    assert reads(split, list(range(9)), kept) == 9
    other = KeptActions(kept, *changed)
    into = np.zeros((1, *changed[1]))
    assert other.fill(np.array([0]), split.files[:1], into) == [0]
    other.close()


# --- whole probes ----------------------------------------------------------------------------------


def result(bench: Any, monkeypatch: pytest.MonkeyPatch, kept: Path | str) -> tuple[dict[str, Any], dict[str, bytes]]:
    monkeypatch.setenv(VARIABLE, str(kept))
    found = bench.run(bench.job("regress")).model_dump(exclude={"seconds"})
    return found, {path.name: path.read_bytes() for path in bench.mounts.out.rglob("*.np[yz]")}


def test_scores_are_the_same_to_the_last_bit_and_no_action_file_is_opened(
    toy_actions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "frames/x.actions"
    ways = [result(toy_actions, monkeypatch, where) for where in ("", kept)]
    monkeypatch.setattr(actions_module, "read_chunk", None)
    ways.append(result(toy_actions, monkeypatch, kept))
    assert ways[0] == ways[1] == ways[2]
    assert set(ways[0][1]) == {"predictions_val.npy", "row_scores_val.npz"}


@pytest.mark.parametrize("change", ["other values", "cut", "gone"])
def test_a_changed_file_is_noticed_and_a_damaged_one_refused(
    toy_actions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    before, _ = result(toy_actions, monkeypatch, tmp_path / "x.actions")
    path = toy_actions.mounts.data / "actions/val_7.npy"
    if change == "other values":
        np.save(path, np.load(path) + 1)
        after, _ = result(toy_actions, monkeypatch, tmp_path / "x.actions")
        assert after["targets_sha256"] != before["targets_sha256"]
        assert after == result(toy_actions, monkeypatch, "")[0]
        return
    path.write_bytes(path.read_bytes()[:-1]) if change == "cut" else path.unlink()
    with pytest.raises(ContractError, match=r"val.csv: row 7: action file .*val_7.npy"):
        result(toy_actions, monkeypatch, tmp_path / "x.actions")


def test_where_nothing_can_be_written_files_are_read(
    toy_actions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_text("a file, no folder")
    assert result(toy_actions, monkeypatch, "")[0] == result(toy_actions, monkeypatch, tmp_path / "x/y.actions")[0]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == []
