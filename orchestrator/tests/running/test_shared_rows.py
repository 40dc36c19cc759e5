"""Which extractions share their decoded rows, and how long those are kept."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lary_orch.runtimes import frames
from lary_orch.runtimes.frames import file_of, shared_rows
from lary_orch.runtimes.jobs import Job
from lary_schema.cards import ModeSpec, TensorSpec, VideoColumns
from lary_schema.jobs import ArrayLayout, ExtractJob, MetadataFile, Source, Values

Extraction = Callable[..., Job]


@pytest.fixture
def extraction(make_work: Callable[..., Job]) -> Extraction:
    def make(name: str, *, rows: int = 4, side: int = 8, store: str = "", **changes: Any) -> Job:
        spec = ModeSpec(input=TensorSpec(shape=(2, side, side, 3), dtype="uint8"), tokens=(1, 1, 1))
        values: Any = {"model": name, "variant": "corrected", "mode": "video", "preprocessing": "area-8"} | changes
        document = ExtractJob.model_construct(
            values=Values.model_construct(**values, spec=spec, dataset="d", split="train", decoder="pyav"),
            source=Source(
                metadata=MetadataFile(path="m.csv", sha256=str(changes.get("csv", 0)), rows=rows),
                columns=VideoColumns(), media="d", frames=2,
            ),
            store=ArrayLayout.model_construct(path=store or f"{name}.zarr"),
        )  # fmt: skip
        return make_work(name, ["start"], document=document)

    return make


def names(shared: list[frames.SharedRows]) -> list[list[str]]:
    return [[job.id for job in one.jobs] for one in shared]


def test_equal_rows_of_several_stores_are_shared(extraction: Extraction, tmp_path: Path) -> None:
    jobs = [
        extraction("a"),
        extraction("b"),
        extraction("other-preprocessing", preprocessing="area-9"),
        extraction("other-size", side=9),
        extraction("other-mode", mode="image"),
        extraction("x", mode="actions"),
        extraction("y", mode="actions"),
        extraction("other-csv", csv=1),
        extraction("c"),
    ]
    shared = shared_rows(jobs, tmp_path / "frames")
    assert names(shared) == [["a", "b", "c"]]
    (one,) = shared
    assert one.bytes == 4096 + 4 * 2 * 8 * 8 * 3
    assert one.title == "rows of d/train are decoded once for a, b, c"
    assert file_of(shared, jobs[0]) == file_of(shared, jobs[1]) == str(one.path)
    assert file_of(shared, jobs[2]) == ""
    assert not one.path.exists()


def test_parts_of_one_store_have_no_row_in_common(extraction: Extraction, tmp_path: Path) -> None:
    parts = [extraction(f"p{n}", store="same.zarr") for n in range(3)]
    assert shared_rows(parts, tmp_path) == []
    assert names(shared_rows([*parts, extraction("q")], tmp_path)) == [["p0", "p1", "p2", "q"]]


@pytest.mark.parametrize(
    ("free", "expected"), [(2 * 5631, []), (2 * 5632, [["a", "b"]]), (4 * 5632, [["a", "b"], ["c", "d"]])]
)
def test_half_of_what_is_free_is_taken(
    extraction: Extraction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, expected: list[list[str]]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    jobs = [*map(extraction, "ab"), *(extraction(name, csv=1) for name in "cd")]
    assert names(shared_rows(jobs, tmp_path / "not" / "there")) == expected


@pytest.mark.parametrize("left", [None, "shards 3 are missing"])
def test_rows_are_kept_while_a_store_is_not_done(tmp_path: Path, left: str | None) -> None:
    jobs: Any = (SimpleNamespace(missing=lambda: None), SimpleNamespace(missing=lambda: left))
    one = frames.SharedRows(tmp_path / "frames" / "x.rows", 4, 384, jobs)
    one.make()
    assert one.path.stat().st_size == one.bytes
    one.remove_if_done()
    assert one.path.exists() == (left is not None)


def test_a_folder_that_cannot_be_made_costs_the_sharing_alone(extraction: Extraction, tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("a file")
    (one,) = shared_rows([*map(extraction, "ab")], tmp_path / "frames" / "deep")
    one.make()
    one.remove_if_done()
    assert (tmp_path / "frames").read_text() == "a file"
