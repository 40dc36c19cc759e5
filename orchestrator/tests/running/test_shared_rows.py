"""Which extractions share their decoded rows, which probes their action chunks, and how long those are kept."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lary_orch.runtimes import frames
from lary_orch.runtimes.frames import files_of, shared_files
from lary_orch.runtimes.jobs import Job
from lary_schema.cards import Actions, ModeSpec, Normalisation, PairColumns, TensorSpec, VideoColumns
from lary_schema.jobs import ArrayLayout, ExtractJob, MetadataFile, ProbeJob, ProbeSplit, Source, Values
from lary_schema.kept_frames import create, file_bytes

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


def names(shared: list[frames.Shared]) -> list[list[str]]:
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
    shared = shared_files(jobs, tmp_path / "frames")
    assert names(shared) == [["a", "b", "c"]]
    (one,) = shared
    assert one.bytes == 4096 + 4 * 2 * 8 * 8 * 3
    assert one.title == "rows of d/train are decoded once for a, b, c"
    assert [files_of(shared, job)["LARY_FRAMES"] for job in jobs[:3]] == [str(one.path)] * 2 + [""]
    assert not one.path.exists()


def test_parts_of_one_store_have_no_row_in_common(extraction: Extraction, tmp_path: Path) -> None:
    parts = [extraction(f"p{n}", store="same.zarr") for n in range(3)]
    assert shared_files(parts, tmp_path) == []
    assert names(shared_files([*parts, extraction("q")], tmp_path)) == [["p0", "p1", "p2", "q"]]


@pytest.mark.parametrize(
    ("free", "expected"), [(2 * 5631, []), (2 * 5632, [["a", "b"]]), (4 * 5632, [["a", "b"], ["c", "d"]])]
)
def test_half_of_what_is_free_is_taken(
    extraction: Extraction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, expected: list[list[str]]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    jobs = [*map(extraction, "ab"), *(extraction(name, csv=1) for name in "cd")]
    assert names(shared_files(jobs, tmp_path / "not" / "there")) == expected


@pytest.mark.parametrize("left", [None, "shards 3 are missing"])
def test_rows_are_kept_while_a_store_is_not_done(tmp_path: Path, left: str | None) -> None:
    jobs: Any = (SimpleNamespace(missing=lambda: None), SimpleNamespace(missing=lambda: left))
    path = tmp_path / "frames" / "x.rows"
    one = frames.Shared("LARY_FRAMES", path, file_bytes(4, 384), jobs, create=partial(create, path, 4, 384))
    one.make()
    assert one.path.stat().st_size == one.bytes
    one.remove_if_done()
    assert one.path.exists() == (left is not None)


def test_a_folder_that_cannot_be_made_costs_the_sharing_alone(extraction: Extraction, tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("a file")
    (one,) = shared_files([*map(extraction, "ab")], tmp_path / "frames" / "deep")
    one.make()
    one.remove_if_done()
    assert (tmp_path / "frames").read_text() == "a file"


# --- action chunks --------------------------------------------------------------------------------

ACTIONS = Actions(folder="a/{split}", stride=2, dim=3, names=("x", "y", "z"), normalisation=Normalisation(kind="train"))


@pytest.fixture
def probe(make_work: Callable[..., Job]) -> Callable[..., Job]:
    def make(name: str, csv: int = 0, evaluated: str = "val", **changes: Any) -> Job:
        columns = PairColumns()
        splits = [
            ProbeSplit.model_construct(
                name=split,
                source=Source(
                    metadata=MetadataFile(path="m.csv", sha256=str(csv), rows=rows),
                    columns=columns,
                    media="d",
                    frames=2,
                ),
            )
            for split, rows in (("train", 10), (evaluated, 4))
        ]
        fields: dict[str, Any] = {"actions": ACTIONS, "model": name, "reads": "actions"} | changes
        document = ProbeJob.model_construct(train=splits[0], evaluate=tuple(splits[1:]), **fields)
        return make_work(name, ["start"], document=document)

    return make


def other(**changes: Any) -> Actions:
    return ACTIONS.model_copy(update=changes)


def test_probes_of_the_same_action_files_share_them(probe: Callable[..., Job], tmp_path: Path) -> None:
    jobs = [
        probe("a"),
        probe("b", actions=other(normalisation=Normalisation(kind="fixed", mean=(0,) * 3, std=(1,) * 3))),
        probe("other-csv", csv=1),
        probe("other-split", evaluated="test"),
        *(probe(name, actions=other(**{name: value})) for name, value in OTHERS.items()),
        probe("labels", actions=None),
        probe("more-labels", actions=None),
        probe("c", model="d", protocol="another", control="shuffled"),
    ]
    (one,) = shared_files(jobs, tmp_path / "frames")
    assert [job.id for job in one.jobs] == ["a", "b", "c"]
    assert one.bytes == 14 * (32 + 8 * 2 * 3)
    assert one.title == ""
    assert files_of([one], jobs[0]) == {"LARY_FRAMES": "", "LARY_ACTIONS": str(one.path)}
    assert files_of([one], jobs[2]) == {"LARY_FRAMES": "", "LARY_ACTIONS": ""}
    one.make()
    assert not one.path.exists()


OTHERS: dict[str, Any] = {"column": "chunk", "folder": "other", "implied_folder": "x", "stride": 3, "dim": 2}


def test_rows_and_actions_share_the_space(
    extraction: Extraction, probe: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [*map(extraction, "ab"), *map(probe, "xy")]
    for free, expected in ((2 * (5632 + 1120), ["a", "x"]), (2 * (5632 + 1119), ["a"]), (2 * 5631, ["x"])):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert [one.jobs[0].id for one in shared_files(jobs, tmp_path)] == expected
