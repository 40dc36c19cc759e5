"""`check`: labels, groups, and CSVs that contradict each other or the card."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from lary_data import integrity
from lary_data.pool import Done
from lary_data.tools.check import command
from lary_schema.cards import Actions, DatasetCard, Labels, Normalisation, PairColumns, SplitRoles
from lary_schema.groups import Grouping


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "run_tasks", lambda function, tasks, *_: [Done(t, function(t)) for t in tasks])


def card(**changes: Any) -> DatasetCard:
    fields = {
        "key": "k", "title": "k", "task": "classification", "columns": PairColumns(), "metadata": ("{split}.csv",),
        "splits": SplitRoles(evaluate=("val",)), "labels": Labels(), "license": "x", "source": "x",
    } | changes  # fmt: skip
    return DatasetCard.parse(fields, "card")


def write(root: Path, train: list[str], val: list[str], header: str = "src_img,tgt_img,action,episode") -> None:
    """Rows of action and episode; the pictures are the same."""
    cv2.imwrite(str(root / "a.png"), np.zeros((4, 4, 3), np.uint8))
    for split, rows in (("train", train), ("val", val)):
        (root / f"{split}.csv").write_text("\n".join([header, *(f"a.png,a.png,{row}" for row in rows)]) + "\n")


def call(root: Path, *further: str) -> tuple[Result, Any]:
    result = CliRunner().invoke(
        command, ["-d", "k", "--workers", "1", "--json", str(root / "r.json"), *further], catch_exceptions=False
    )
    return result, json.loads((root / "r.json").read_text())


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (["push,1", "pull,2"], ["push,3"], ""),
        (["push,1", "pull ,2", "pull,2"], ["push,3"], "labels 'pull' and 'pull ' differ by white space"),
        (["push,1", "pull,2"], ["pull ,3"], "labels 'pull' and 'pull ' differ by white space"),
        (["push,1", "o\u0308,2", "\u00f6,2"], ["push,3"], "by the way a letter is written"),
        (["push,1", "pull,2"], ["lift,3"], "val has 1 labels that train does not have: 'lift'"),
        (["push,1"], ["push,3"], "train has 1 labels, the card says classes: 2"),
        (["push,1", "pull,2", "lift,2"], ["push,3"], "train has 3 labels, the card says classes: 2"),
    ],
)
def test_labels(tmp_path: Path, publish: Any, train: list[str], val: list[str], said: str) -> None:
    write(tmp_path, train, val)
    publish(tmp_path, card(labels=Labels(classes=2)))
    result, report = call(tmp_path)
    assert result.exit_code == bool(said)
    assert said in result.stdout
    assert bool(report["datasets"][0]["contradictions"]) == bool(said)


@pytest.mark.parametrize("empty", ["", "   ", "\t"])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("sample", [[], ["--sample", "1"]])
def test_an_empty_label_is_a_bad_row(tmp_path: Path, publish: Any, empty: str, split: str, sample: list[str]) -> None:
    rows = {"train": ["push,1", "pull,2"], "val": ["push,3", "pull,3"]}
    rows[split][1] = f"{empty},2" if split == "train" else f"{empty},3"
    write(tmp_path, **rows)
    publish(tmp_path, card())
    result, report = call(tmp_path, *sample)
    assert result.exit_code == 1
    (found,) = [found for found in report["splits"] if found["bad_rows"]]
    assert (found["split"], found["bad_rows"]) == (split, [{"row": 1, "detail": "column 'action' is empty"}])
    assert "row 1: column 'action' is empty" in result.stdout


def test_a_column_that_is_not_there(tmp_path: Path, publish: Any) -> None:
    write(tmp_path, ["push,1"], ["push,2"])
    publish(tmp_path, card(labels=Labels(column="verb"), group=Grouping(column="video")))
    result, report = call(tmp_path)
    assert result.exit_code == 1
    assert "no column 'verb', 'video'" in report["datasets"][0]["contradictions"][0]


def test_a_column_of_robots_that_is_not_there(tmp_path: Path, publish: Any) -> None:
    write(tmp_path, ["a.npy,1"], ["a.npy,2"])
    np.save(tmp_path / "a.npy", np.zeros((1, 1)))
    actions = Actions(folder=".", stride=1, dim=1, names=("x",), normalisation=Normalisation(kind="per-robot"))
    publish(tmp_path, card(task="regression", labels=None, actions=actions))
    result, _ = call(tmp_path)
    assert result.exit_code == 1
    assert "no column 'robot_type'" in result.stdout


def test_a_pointer_in_place_of_a_csv(tmp_path: Path, publish: Any) -> None:
    write(tmp_path, ["push,1"], ["push,2"])
    (tmp_path / "val.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    publish(tmp_path, card())
    result, report = call(tmp_path)
    assert result.exit_code == 1
    assert [split["state"] for split in report["splits"]] == ["checked", "bad csv"]
    assert "val.csv: is a Git LFS pointer" in result.stdout


@pytest.mark.parametrize(
    ("group", "train", "val", "shared"),
    [
        ("episode", ["push,1", "push,2"], ["push,3"], []),
        ("episode", ["push,1", "push,2"], ["push,2", "push,3"], ["2"]),
        ("episode", ["push,1", "push, 2"], ["push,2 ", "push,1"], ["1", "2"]),
        ({"column": "episode", "pattern": r"^(?P<group>\w)_"}, ["push,a_1"], ["push,a_2", "push,b_1"], ["a"]),
        ({"column": "episode", "pattern": r"_(?P<group>\d)"}, ["push,a_1"], ["push,a_2", "push,b_3"], []),
    ],
)
def test_groups_that_two_splits_share(
    tmp_path: Path, publish: Any, group: Any, train: list[str], val: list[str], shared: list[str]
) -> None:
    write(tmp_path, train, val)
    publish(tmp_path, card(group=group))
    for split in ([], ["--split", "val"], ["--sample", "1"]):
        result, report = call(tmp_path, *split)
        assert result.exit_code == bool(shared)
        (found,) = report["datasets"]
        assert [one["groups"] for one in found["shared_groups"]] == ([shared] if shared else [])
        assert not found["shared_groups_allowed"]
        assert (f"k: {len(shared)} groups are in train and in val: {', '.join(shared)}" in result.stdout) == bool(
            shared
        )
    result, report = call(tmp_path, "--allow-shared-groups")
    assert result.exit_code == 0
    assert report["datasets"][0]["shared_groups_allowed"] == bool(shared)
    assert [one["groups"] for one in report["datasets"][0]["shared_groups"]] == ([shared] if shared else [])


def test_a_row_without_a_group(tmp_path: Path, publish: Any) -> None:
    write(tmp_path, ["push,1", "push,"], ["push,x"])
    publish(tmp_path, card(group={"column": "episode", "pattern": r"(?P<group>\d)"}))
    result, report = call(tmp_path)
    assert result.exit_code == 1
    assert [[row["row"] for row in split["bad_rows"]] for split in report["splits"]] == [[1], [0]]
    assert "no group: column 'episode' is empty" in result.stdout
    assert "finds none" in result.stdout


def test_paths_below_a_folder_of_each_split_are_not_compared(tmp_path: Path, publish: Any) -> None:
    write(tmp_path, ["push,1"], ["push,1"])
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / "a.png").with_name(split).joinpath("a.png").write_bytes((tmp_path / "a.png").read_bytes())
    publish(tmp_path, card(media="{split}", group={"column": "src_img", "pattern": "(?P<group>a)"}))
    result, report = call(tmp_path)
    assert result.exit_code == 0
    assert report["datasets"][0]["notes"] == [
        "groups of train and val are not compared: paths are below a folder of each split"
    ]
    assert "are not compared" in result.stdout


# --- instructions and nuisances ---------------------------------------------------------------


def further(root: Path, **changes: Any) -> DatasetCard:
    """A set with a text and a nuisance of (1, 2) in each row."""
    np.save(root / "n.npy", np.zeros((1, 2), np.float32))
    np.save(root / "short.npy", np.zeros((1, 1), np.float32))
    block = Actions(
        column="disc", folder=".", stride=1, dim=2, names=("u", "v"), normalisation=Normalisation(kind="train")
    )
    return card(nuisance=block, instruction="text", **changes)


HEADER = "src_img,tgt_img,action,text,disc"


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("left,n.npy", ""),
        (",n.npy", "row 1: column 'text' is empty"),
        ("left,", "row 1: column 'disc' is empty"),
        ("left,short.npy", "mismatch action file short.npy has shape (1, 1), expected (1, 2)"),
        ("left,gone.npy", "missing  gone.npy: no such file"),
        ("left,a.png", "corrupt  "),
    ],
)
def test_texts_and_nuisances_are_looked_at(tmp_path: Path, publish: Any, split: str, cells: str, said: str) -> None:
    rows = {name: ["push,left,n.npy", "push,right,n.npy"] for name in ("train", "val")}
    rows[split][1] = f"push,{cells}"
    write(tmp_path, **rows, header=HEADER)
    publish(tmp_path, further(tmp_path))
    result, report = call(tmp_path)
    assert result.exit_code == bool(said)
    assert said in result.stdout
    assert [s["split"] for s in report["splits"] if s["bad_rows"] or s["bad_files"]] == ([split] if said else [])


def test_one_file_may_be_right_as_actions_and_wrong_as_a_nuisance(tmp_path: Path, publish: Any) -> None:
    actions = Actions(folder=".", stride=1, dim=1, names=("x",), normalisation=Normalisation(kind="train"))
    write(tmp_path, ["short.npy,left,short.npy"], ["short.npy,left,n.npy"], header=HEADER)
    publish(tmp_path, further(tmp_path, task="regression", labels=None, actions=actions))
    _, report = call(tmp_path)
    assert [(f["kind"], f["status"]) for s in report["splits"] for f in s["bad_files"]] == [("nuisance", "mismatch")]
