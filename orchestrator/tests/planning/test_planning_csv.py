"""CSVs at planning: what is refused, what is read, and that a large one costs little memory."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.catalog.splits import find_split
from lary_schema.cards import DatasetCard

HEADER = "src_img,tgt_img,action\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; a header line is expected"),
        (HEADER, "has a header and no rows"),
        ("src_img,action\na,c\n", "no column 'tgt_img'; it has 'src_img', 'action'"),
        ("src_img,tgt_img,src_img,action\na,b,a,c\n", "repeated column 'src_img'"),
        (HEADER + '"a,b,c\n' * 2 + "\0", "no"),
    ],
)
def test_a_csv_that_cannot_be_used_is_named(world: Any, text: str, said: str) -> None:
    world.toy()
    path = world.csv("val", text=text)
    if said == "no":
        path.write_bytes(HEADER.encode() + b"\xff\xfe,b,c\n")
        said = "not a UTF-8 CSV"
    error = str(world.only_problem())
    assert str(path) in error
    assert said in error


def test_a_missing_csv_says_where_it_is_looked_for(world: Any) -> None:
    world.dataset()
    error = str(world.only_problem())
    assert str(world.workspace.data / "toy" / "train.csv") in error
    assert "--data-dir" in error


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "a,b,c\nd,e,f\n",
        "\ufeff" + HEADER + "a,b,c\nd,e,f",
        (HEADER + "a,b,c\nd,e,f\n").replace("\n", "\r\n"),
        HEADER + "bild ä.png,図 1.png,greifen\n\nd,e,f\n",
        HEADER + ',,\n"a,b",b,c\n',
    ],
)
def test_rows_are_counted_as_the_worker_counts_them(world: Any, text: str) -> None:
    world.toy()
    world.csv("train", text=text)
    card = world.catalog().dataset("toy")
    assert find_split(card, "train", world.workspace).rows == 2


def test_a_count_is_remembered_and_a_change_seen(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.toy()
    first = world.plan()
    monkeypatch.setattr("lary_orch.catalog.splits.count_rows", lambda *given: pytest.fail("counted again"))
    assert world.plan().run == first.run
    monkeypatch.undo()
    world.csv("train", 12)
    assert world.plan().stores[0].layout.rows == 12


def test_another_column_is_another_question(world: Any) -> None:
    """What was counted under one card's columns says nothing of another's."""
    world.toy()
    assert world.plan().problems == ()
    world.dataset(labels={"column": "verb"})
    assert "no column 'verb'" in str(world.only_problem())


def test_a_cache_that_cannot_be_written_costs_time_alone(world: Any) -> None:
    world.toy()
    world.workspace.root.mkdir(exist_ok=True)
    world.workspace.cache.write_text("a file where the folder should be")
    assert world.plan().problems == ()


def test_a_large_csv_is_planned_in_little_memory(world: Any, tmp_path: Path) -> None:
    rows = 100_000
    card = DatasetCard.load(world.dataset())
    path = world.csv("train", rows=1)
    with path.open("w") as file:
        file.write(HEADER)
        file.writelines(f"images/episode_{i // 100:06d}/frame_{i:08d}.jpg,b/{i:08d}.jpg,c\n" for i in range(rows))
    tracemalloc.start()
    split = find_split(card, "train", world.workspace)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert split.rows == rows
    assert peak < 4 << 20, "the file alone has 5 MB"


def test_the_column_of_the_groups_is_looked_for_and_given_to_the_probe(world: Any) -> None:
    world.toy()
    assert all(planned.document.group is None for planned in world.plan().probes)
    world.dataset(group="verb")
    assert "no column 'verb'" in str(world.only_problem())
    world.dataset(group={"column": "src_img", "pattern": "(?P<group>[0-9]+)"})
    probes = world.plan().probes
    assert probes
    assert {planned.document.group.column for planned in probes} == {"src_img"}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("group", "cells", "said"),
    [
        ("episode", ["e1", "e2", "", "e3"], "row 2: no group: column 'episode' is empty"),
        ("episode", ["e1", "e2", "  ", "e3"], "row 2: no group: column 'episode' is empty"),
        ({"column": "episode", "pattern": "(?P<group>[0-9]+)"}, ["e1", "x", "e2", "e3"], "finds none"),
        ({"column": "src_img", "pattern": "(?P<group>[A-Z]+)"}, ["", "", "", ""], "row 0: no group: column 'src_img'"),
    ],
)
def test_a_row_without_a_group_is_found_before_anything_is_extracted(
    world: Any, split: str, group: Any, cells: list[str], said: str
) -> None:
    world.toy()
    for name in ("train", "val"):
        header, *rows = world.csv(name).read_text().splitlines()
        own = [cells[at] if at < 4 and name == split else f"e{at}" for at in range(len(rows))]
        lines = [f"{header},episode", *(f"{row},{cell}" for row, cell in zip(rows, own, strict=True))]
        world.csv(name).write_text("\n".join(lines) + "\n")
    world.dataset(group=group)
    error = str(world.only_problem())
    assert said in error
    assert f"{split if isinstance(group, str) or group['column'] == 'episode' else 'train'}.csv" in error


def test_one_group_cannot_be_held_out(world: Any) -> None:
    world.toy()
    world.dataset(group={"column": "src_img", "pattern": "(?P<group>png)"})
    assert "all rows are of one group" in str(world.only_problem(protocol=load_protocol("clean")))
    assert world.plan(protocol=load_protocol("lary-v1")).probes


def test_an_edit_that_keeps_size_and_time_is_noticed(world: Any) -> None:
    world.toy()
    path = world.csv("train")
    before = world.plan().stores[0].layout.fingerprint
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"a1.png", b"a9.png"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert world.plan().stores[0].layout.fingerprint != before


def test_a_damaged_header_is_no_finished_store(world: Any) -> None:
    world.toy()
    plan = world.plan()
    world.finish_stores(plan)
    header = world.workspace.latents / plan.stores[0].layout.path / "tokens" / "zarr.json"
    header.write_text(header.read_text().replace('"shape": [10', '"shape": [11'))
    error = str(world.only_problem())
    assert f"{header}: is damaged (shape)" in error
    assert "run the same command again" in error


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (["a", "b", ""], ["a"], "train.csv: row 2: column 'action' is empty"),
        (["a", " ", "b", "\t"], ["a"], "train.csv: row 1 and 1 more rows: column 'action' is empty"),
        (["a", "b"], ["a", ""], "val.csv: row 1: column 'action' is empty"),
        (["a", "a ", "b"], ["a"], "labels 'a' and 'a ' in column 'action' differ by white space"),
        (["a", "b"], ["b", " a"], "labels ' a' and 'a' in column 'action' differ by white space"),
        (["\u00f6", "b"], ["o\u0308"], "differ by white space or by the way a letter is written"),
        (["a", "a"], ["a"], "1 classes in column 'action'; nothing to distinguish"),
        (["a", "b"], ["c", "a", "d"], "val.csv: labels 'c', 'd' in column 'action'"),
    ],
)
def test_labels_that_no_probe_takes_are_refused_before_extraction(
    world: Any, train: list[str], val: list[str], said: str
) -> None:
    world.toy()
    for split, labels in (("train", train), ("val", val)):
        world.csv(split, text=HEADER + "".join(f'a.png,b.png,"{label}"\n' for label in labels))
    assert said in str(world.only_problem())


def test_labels_of_rows_that_fail_alone_and_unseen_ones_of_larybench_pass(world: Any) -> None:
    world.toy()
    world.csv("train", text=HEADER + "a,b,c\na,b\na,b,d\n")
    world.csv("val", text=HEADER + "a,b,e\n")
    assert not world.plan(protocol=load_protocol("lary-v1")).problems
    assert "val.csv: label 'e'" in str(world.only_problem())


def test_the_number_of_classes_is_the_card_s(world: Any) -> None:
    world.toy()
    world.dataset(labels={"column": "action", "classes": 3})
    assert "train.csv: 2 classes in column 'action', the dataset card says 3" in str(world.only_problem())
