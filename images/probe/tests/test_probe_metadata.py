"""The columns of a CSV that a probe keeps: every cell as it is, in little memory."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lary_probe import metadata as module
from lary_probe.groups import groups_of
from lary_probe.labels import class_ids, class_names, labels_of
from lary_probe.metadata import SplitMetadata
from lary_probe.targets import target_codes
from lary_schema.base import ContractError, file_sha256
from lary_schema.cards import Labels, VideoColumns
from lary_schema.groups import Grouping
from lary_schema.metadata import Row, RowError, read_rows
from numpy.typing import NDArray

NAMES = ("video_path", "action", "group", "unused", "robot_type")
CELLS = ["", " ", "a", "é/ü 1.mp4", "x,y", 'say ""so""', "'", "\\0", "\t", "0", "𝄞", "a" * 300]


def split_of(path: Path, rows: int) -> Any:
    facts = SimpleNamespace(path=path.name, sha256=file_sha256(path), rows=rows)
    return SimpleNamespace(name="train", source=SimpleNamespace(columns=VideoColumns(), metadata=facts))


def rows_of(rows: NDArray[np.int64]) -> Any:
    """As much of `Latents` as is looked at here."""
    return type("Rows", (), {"rows": rows, "__len__": lambda _: len(rows)})()


def same(found: Row, wanted: Row, column: str) -> bool:
    def told(row: Row) -> Any:
        try:
            return row[column]
        except RowError as error:
            return str(error)

    return (found.index, told(found), found.get(column)) == (wanted.index, told(wanted), wanted.get(column))


@pytest.mark.parametrize("block", [1, 3, 7, 2048])
def test_cells_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    rng, path = np.random.default_rng(0), tmp_path / "t.csv"
    lines = [",".join(f'"{rng.choice(CELLS)}"' for _ in NAMES) for _ in range(40)]
    for malformed in (0, 6, 7, 39):
        lines[malformed] = "one,cell" if malformed % 2 else "a,b,c,d,e,f"
    path.write_text("\n".join([",".join(NAMES), *lines]) + "\n", encoding="utf-8")
    found = SplitMetadata(split_of(path, 40), tmp_path, ("action", "group"), {"robot_type", "other"})
    wanted = list(read_rows(path))
    assert len(found) == 40
    for column in ("action", "group", "video_path", "robot_type"):
        assert all(same(row, wanted[at], column) for at, row in enumerate(found))
        assert all(same(found.row(at), wanted[at], column) for at in rng.integers(0, 40, 60).tolist())
    whole = rows_of(np.array([1, 2, 8, 38]))
    assert list(found.media(whole)) == [wanted[row].get("video_path") or "" for row in whole.rows]
    with pytest.raises(KeyError):
        found.row(1)["unused"]
    with pytest.raises(ContractError, match=r"t.csv: row 7: the row has more or fewer cells"):
        found.cell(7, "action")


@pytest.mark.parametrize("change", ["bytes", "rows", "column"])
def test_another_file_than_the_planned_one_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("video_path,action\na,b\nc,d\n")
    split = split_of(path, 3 if change == "rows" else 2)
    if change == "bytes":
        path.write_text("video_path,action\na,b\nc,e\n")
    with pytest.raises(
        ContractError, match={"bytes": "changed", "rows": "2 rows, 3 were", "column": "no column"}[change]
    ):
        SplitMetadata(split, tmp_path, ("action", *(["group"] if change == "column" else [])))


def test_a_row_takes_less_than_200_bytes(tmp_path: Path) -> None:
    """Long paths, 20 rows an episode, 100 classes: what is kept, and the most while labels and groups are read."""
    count, path = 12_000, tmp_path / "t.csv"
    lines = (
        f"part_{row // 1000:04d}/of/a/long/folder/{row * 7919 % 10**9:09d}_clip_{row:07d}.mp4,verb {row % 100},"
        f'e{row // 20:06d},"0,4,8,12,16,20,24,28,32",franka'
        for row in range(count)
    )
    path.write_text("\n".join(["video_path,action,group,indices,robot_type", *lines]) + "\n")
    split, latents = split_of(path, count), rows_of(np.arange(count))
    tracemalloc.start()
    found = SplitMetadata(split, tmp_path, ("action", "group"), {"robot_type"})
    groups = groups_of(found, latents, Grouping(column="group"))
    labels = labels_of(found, latents, "action")
    ids = class_ids(found, latents, labels, class_names(found, Labels()), 100)
    codes = target_codes(labels)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert groups.count == count // 20
    assert len(set(ids.tolist())) == len(set(codes.tolist())) == 100
    assert most < 200 * count
    assert kept < 100 * count
