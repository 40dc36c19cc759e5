"""Dataset cards: columns of their own for inputs, target, nuisance and instruction."""

from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_schema.jobs import MetadataFile, Source
from lary_schema.presence import SplitSource, lost_rows, missing_stats, needed_columns

BLOCK = {"folder": ".", "stride": 1, "dim": 1, "names": ["x"], "normalisation": {"kind": "train"}}
LABELS: dict[str, Any] = {"task": "classification", "labels": {"column": "verb"}}
ACTIONS: dict[str, Any] = {"task": "regression", "actions": BLOCK | {"column": "verb"}}
PAIR: dict[str, Any] = {"columns": {"input": "image"}}
CLIP: dict[str, Any] = {"columns": {"input": "video"}}


def card(**fields: Any) -> DatasetCard:
    start = {"key": "k", "title": "k", "metadata": "{split}.csv", "license": "x", "source": "x"}
    return DatasetCard.parse(start | fields, "card")


@pytest.mark.parametrize("task", [LABELS, ACTIONS])
@pytest.mark.parametrize("columns", [PAIR, CLIP])
def test_a_nuisance_is_no_input_and_not_the_target(task: dict[str, Any], columns: dict[str, Any]) -> None:
    made = card(**task, **columns, nuisance=BLOCK | {"column": "disc"}, instruction="text")
    for column in (*made.columns.names, "verb"):
        with pytest.raises(ContractError, match=f"column '{column}' is an input or the target"):
            card(**task, **columns, nuisance=BLOCK | {"column": column})


@pytest.mark.parametrize("columns", [PAIR, CLIP])
def test_an_instruction_is_no_column_of_files(columns: dict[str, Any]) -> None:
    fields = {**ACTIONS, **columns, "nuisance": BLOCK | {"column": "disc"}}
    for column in (*card(**fields).columns.names, "verb", "disc"):
        with pytest.raises(ContractError, match=f"column '{column}' names files"):
            card(**fields, instruction=column)
    assert card(**LABELS, **columns, instruction="verb").instruction == "verb", "a label's text may be the instruction"


def test_all_named_columns_are_needed_each_once() -> None:
    made = card(**LABELS, **PAIR, nuisance=BLOCK | {"column": "disc"}, instruction="verb", group="episode")
    assert sorted(needed_columns(made)) == ["disc", "episode", "src_img", "tgt_img", "verb"]


def test_reading_the_nuisance_makes_it_the_actions() -> None:
    for task in (LABELS, ACTIONS):
        made = card(**task, **PAIR, nuisance=BLOCK | {"column": "disc"})
        assert made.reading("actions") is made
        read = made.reading("nuisance")
        assert (read.task, read.labels, read.actions) == ("regression", None, made.nuisance)
        assert DatasetCard.parse(read.model_dump(), "read") == read
        with pytest.raises(ContractError, match="dataset k has no nuisance"):
            read.reading("nuisance")


def test_lost_nuisance_files_and_statistics_are_named(tmp_path: Path) -> None:
    per_robot = {"kind": "per-robot", "stats": "robots.json"}
    made = card(**ACTIONS, **PAIR, nuisance=BLOCK | {"column": "disc", "normalisation": per_robot})
    assert missing_stats(made, tmp_path) == [tmp_path / "robots.json"]
    (tmp_path / "train.csv").write_text("src_img,tgt_img,verb,disc\na,a,a,n.npy\n")
    (tmp_path / "a").touch()
    metadata = MetadataFile(path="train.csv", sha256="0", rows=1)
    source = Source(metadata=metadata, columns=made.columns, media=".", frames=9)
    split = SplitSource("train", tmp_path, tmp_path / "train.csv", source)
    (lost,) = lost_rows(made, split)
    assert "n.npy is missing" in lost
    (tmp_path / "n.npy").touch()
    assert lost_rows(made, split) == []
