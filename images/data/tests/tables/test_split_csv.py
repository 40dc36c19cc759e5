"""`split`: every row in exactly one part, classes and groups, seeds, files."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st
from lary_data import splits
from lary_data.__main__ import cli
from lary_schema.groups import Grouping, group_of, grouping_of
from lary_schema.metadata import read_rows


def split(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["split", *arguments])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A hundred rows: classes of 60, 39 and 1; ten episodes of ten rows."""
    path = tmp_path / "all_clips.csv"
    labels = ["walk"] * 60 + ["run, fast"] * 39 + ["fall"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_path", "sample_indices", "action", "episode"])
        writer.writerows([f"{row}.mp4", f"{row},1", label, f"e{row % 10}"] for row, label in enumerate(labels))
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def parts(source: Path) -> tuple[list[list[str]], list[list[str]]]:
    return rows(source.with_name("train_clips.csv")), rows(source.with_name("val_clips.csv"))


@pytest.mark.parametrize("options", [(), ("--stratify", "action"), ("--group", "episode")])
def test_every_row_in_exactly_one_part_as_it_was(source: Path, options: tuple[str, ...]) -> None:
    result = split(str(source), *options)
    assert result.exit_code == 0, result.exception
    train, val = parts(source)
    assert len(val) == 30
    assert sorted(train + val) == sorted(rows(source))
    for part in (train, val):
        order = [int(row[0].removesuffix(".mp4")) for row in part]
        assert order == sorted(order)


def test_classes_are_in_both_parts_alike(source: Path) -> None:
    result = split(str(source), "--stratify", "action")
    train, val = parts(source)
    assert Counter(row[2] for row in val) == {"walk": 18, "run, fast": 12}
    assert Counter(row[2] for row in train) == {"walk": 42, "run, fast": 27, "fall": 1}
    assert "in train alone, having one row: fall" in result.output


def test_episodes_stay_whole(source: Path) -> None:
    split(str(source), "--group", "episode", "--ratio", "0.2")
    train, val = parts(source)
    assert len({row[3] for row in val}) == 2
    assert not {row[3] for row in val} & {row[3] for row in train}


def test_groups_by_two_columns(source: Path) -> None:
    split(str(source), "--group", "episode", "--group", "action")
    train, val = parts(source)
    assert not {(row[3], row[2]) for row in val} & {(row[3], row[2]) for row in train}
    assert {row[3] for row in val} & {row[3] for row in train}


def card_of(result: Result) -> Grouping:
    """The grouping that a card has when it is written as the tool says."""
    line = next(line for line in result.stderr.splitlines() if line.startswith("for the dataset's card: "))
    said = yaml.safe_load(line.removeprefix("for the dataset's card: "))
    return Grouping.parse(grouping_of(said["group"]), "card")


@pytest.mark.parametrize(
    "options",
    [
        ("--group", "episode"),
        ("--group", "episode", "--group", "action"),
        ("--group", "video_path", "--group-pattern", r"(?P<group>\d)\.mp4"),
    ],
)
def test_the_card_finds_the_groups_that_were_kept_whole(source: Path, options: tuple[str, ...]) -> None:
    result = split(str(source), *options)
    assert result.exit_code == 0, result.exception
    grouping = card_of(result)
    train, val = (
        {group_of(row, grouping) for row in read_rows(source.with_name(f"{name}_clips.csv"))}
        for name in ("train", "val")
    )
    assert train
    assert val
    assert not train & val
    assert len(train | val) == (21 if options.count("--group") == 2 else 10)


def test_groups_of_several_columns_do_not_run_into_each_other(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\nu/v,w\nu,v/w\nu%2Fv,w\n")
    assert len(set(splits.read_groups(tmp_path / "x.csv", [Grouping(column="a"), Grouping(column="b")]))) == 3


def test_rows_without_a_group_are_refused(source: Path) -> None:
    pattern = ("--group", "action", "--group-pattern", "(?P<group>walk)")
    assert "row 60: no group: " in str(split(str(source), *pattern).exception)
    assert "needs one --group" in str(split(str(source), "--group-pattern", "(?P<group>a)").exception)
    source.write_text("a,group\n1,2\n2,\n3,4\n")
    assert "row 1: no group: column 'group' is empty" in str(split(str(source), "--group", "group").exception)
    source.write_text("a,group\n1,2\n2,3\n3,4\n")
    both = split(str(source), "--group", "a", "--group", "group").exception
    assert "has a column 'group' already" in str(both)
    assert sorted(path.name for path in source.parent.iterdir()) == ["all_clips.csv"]


def test_the_seed_decides(source: Path) -> None:
    drawn = []
    for seed in ("1", "1", "2"):
        split(str(source), "--seed", seed, "--overwrite")
        drawn.append(parts(source))
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_is_there_is_not_overwritten(source: Path) -> None:
    assert split(str(source)).exit_code == 0
    before = parts(source)
    assert "is there already; --overwrite" in str(split(str(source), "--seed", "7").exception)
    assert parts(source) == before
    assert "is the CSV that is split" in str(split(str(source), "--val", str(source), "--overwrite").exception)
    assert len(rows(source)) == 100


def test_what_cannot_be_split(source: Path) -> None:
    both = ("--stratify", "action", "--group", "episode")
    assert "exclude each other" in str(split(str(source), *both).exception)
    assert "no column 'class'" in str(split(str(source), "--stratify", "class").exception)
    source.write_text("a,b\n1,2\n1,3\n")
    assert "all rows are one group" in str(split(str(source), "--group", "a").exception)
    source.write_text("a,b\n1,2\n1,3,4\n")
    assert "row 1: 3 cells, the header has 2" in str(split(str(source)).exception)
    source.write_text("a,b\n1,2\n")
    assert "one row cannot be split" in str(split(str(source)).exception)
    assert sorted(path.name for path in source.parent.iterdir()) == ["all_clips.csv"]


def test_names() -> None:
    assert splits.default_names(Path("d/all_x.csv")) == ("train_x.csv", "val_x.csv")
    assert splits.default_names(Path("small.csv")) == ("small_train.csv", "small_val.csv")
    assert splits.default_names(Path("x_metadata_all.csv")) == ("x_metadata_train.csv", "x_metadata_val.csv")


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=60), st.floats(0.05, 0.95), st.integers(0, 99))
@example(["a", "a", "a", "b", "c"], 1 / 3, 0)
def test_stratified_counts(labels: list[str], ratio: float, seed: int) -> None:
    made = splits.stratified(labels, ratio, np.random.default_rng(seed))
    counts = Counter(labels)
    held = Counter(label for label, val in zip(labels, made.val, strict=True) if val)
    assert len(made.val) == len(labels)
    for label, count in counts.items():
        # Within one row of its share, and never without a row in train.
        assert abs(held[label] - count * ratio) < 1
        assert held[label] < count
    assert set(made.singles) == {label for label, count in counts.items() if count == 1}


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=60), st.floats(0.05, 0.95), st.integers(0, 99))
def test_grouped_parts(groups: list[str], ratio: float, seed: int) -> None:
    if len(set(groups)) < 2:
        return
    made = splits.grouped(groups, ratio, np.random.default_rng(seed))
    val = {group for group, held in zip(groups, made.val, strict=True) if held}
    train = {group for group, held in zip(groups, made.val, strict=True) if not held}
    assert val
    assert train
    assert not val & train
