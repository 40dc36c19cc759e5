"""The groups of rows: a column, or a part of one."""

from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ContractError, fingerprint
from lary_schema.cards import DatasetCard, check_roles
from lary_schema.groups import Grouping, group_of
from lary_schema.jobs import _NOT_VALUES, ProbeJob
from lary_schema.metadata import read_rows

CARD: dict[str, Any] = {
    "key": "k",
    "title": "t",
    "task": "classification",
    "columns": {"input": "video"},
    "metadata": "{split}.csv",
    "labels": {},
    "license": "-",
    "source": "-",
}


def _groups(tmp_path: Path, grouping: Grouping, cells: list[str]) -> list[str]:
    (tmp_path / "m.csv").write_text("video_path,episode\n" + "".join(f"a.mp4,{cell}\n" for cell in cells))
    return [group_of(row, grouping, "m.csv") for row in read_rows(tmp_path / "m.csv")]


def test_a_card_names_a_column_or_a_part_of_one() -> None:
    assert DatasetCard.parse(CARD, "card").group is None
    assert DatasetCard.parse(CARD | {"group": "episode"}, "card").group == Grouping(column="episode")
    long = {"column": "video_path", "pattern": r"ep(?P<group>\d+)"}
    assert DatasetCard.parse(CARD | {"group": long}, "card").group == Grouping(**long)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("", "names no column"),
        (" ", "names no column"),
        ({"column": "a", "pattern": "ep("}, "no regular expression"),
        ({"column": "a", "pattern": r"ep(\d+)"}, r"no part \(\?P<group>"),
        ({"column": "a", "pattern": r"ep(?P<episode>\d+)"}, r"no part \(\?P<group>"),
        ({"pattern": r"(?P<group>\d+)"}, "column"),
        ({"column": "a", "regex": "x"}, "Extra inputs"),
        (["a", "b"], "group"),
    ],
)
def test_a_card_without_a_usable_group_is_refused(group: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        DatasetCard.parse(CARD | {"group": group}, "card.yaml")


def test_the_group_of_a_row(tmp_path: Path) -> None:
    assert _groups(tmp_path, Grouping(column="episode"), ["7", " 7 ", "ü/1"]) == ["7", "7", "ü/1"]
    part = Grouping(column="episode", pattern=r"ep_(?P<group>[^/]+)/")
    assert _groups(tmp_path, part, ["x/ep_1/a", "ep_1/b", "ep_02/a"]) == ["1", "1", "02"]


@pytest.mark.parametrize("cell", ["", "  ", "ep_/a", "ep_ /a", "other", "a,b"])
def test_a_row_without_a_group_is_named(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ContractError, match=r"m\.csv: row 1: no group: .*correct group: in the dataset card"):
        _groups(tmp_path, Grouping(column="episode", pattern=r"ep_(?P<group>[^/]*)/"), ["ep_1/", cell])


def test_an_optional_part_that_takes_no_share_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="row 0: no group"):
        _groups(tmp_path, Grouping(column="episode", pattern=r"ep(?P<group>\d+)?"), ["ep"])


def _job(**changes: Any) -> ProbeJob:
    source = {
        "metadata": {"path": "m.csv", "sha256": "a" * 64, "rows": 4},
        "columns": {"input": "video"},
        "media": ".",
        "frames": 9,
    }
    split = {"name": "train", "store": {"path": "s.zarr", "fingerprint": "f" * 64, "rows": 4}, "source": source}
    facts = {"id": "j", "image": "i", "kind": "classify", "run": "r", "code_sha256": "c" * 64, "model": "m"}
    facts |= {"variant": "v", "dataset": "d", "time_axis": True, "train": split, "labels": {}}
    facts["evaluate"] = [split | {"name": "val"}]
    protocol = {"key": "p", "title": "t", "select_on": "holdout", "classify": {}, "regress": {}}
    return ProbeJob.parse(facts | {"protocol": protocol} | changes, "job")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate": ["train"]}, "trains and is evaluated"),
        ({"evaluate": ["val", "val"]}, "val stands twice"),
        ({"labels": {"column": "video_path"}}, "is an input and the target"),
        ({"labels": {"classes": 1}}, "greater than or equal to 2"),
        ({"columns": {"video": "a", "indices": "a"}}, "a stands twice"),
        ({"columns": {"input": "image", "source": "a", "target": "a"}}, "a stands twice"),
        ({"actions": {"groups": {"g": [0, 1], "h": [1, 2]}}}, "1 stands twice"),
        ({"actions": {"groups": {"g": [0, 0]}}}, "0 stands twice"),
        ({"actions": {"groups": {"g": []}}}, "names no dimension"),
        ({"actions": {"groups": {"g": [3]}}}, "outside 0..2"),
        ({"actions": {"groups": {"g": [-1]}}}, "outside 0..2"),
        ({"actions": {"names": ["x", "x", "z"]}}, "x stands twice"),
        ({"actions": {"normalisation": {"kind": "fixed", "mean": [0, 0, 0], "std": [1, -1, 1]}}}, "std not below 0"),
        ({"actions": {"normalisation": {"kind": "fixed", "mean": [0, float("nan"), 0], "std": [1, 1, 1]}}}, "finite"),
        ({"actions": {"column": "src_img"}, "columns": {"input": "image"}}, "is an input and the target"),
    ],
)
def test_what_a_job_refuses_a_card_refuses_too(changes: dict[str, Any], message: str) -> None:
    """A card's rule is the job's: nothing is extracted for a probe that will be refused."""
    card, job = _changed(changes)
    with pytest.raises(ContractError, match=message):
        DatasetCard.parse(card, "card.yaml")
    with pytest.raises((ContractError, ValueError), match=message):
        _as_a_probe_checks(job)


def _as_a_probe_checks(job: dict[str, Any]) -> None:
    parsed = ProbeJob.parse(job, "job.json")
    check_roles(parsed.train.name, [split.name for split in parsed.evaluate])


def _changed(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A card and a job with the same change."""
    job = _job().model_dump(mode="json")
    splits = [job["train"], *job["evaluate"]]
    card: dict[str, Any] = dict(CARD)
    if "actions" in changes:
        given: dict[str, Any] = {"folder": "f", "stride": 2, "dim": 3, "names": ["x", "y", "z"]}
        given |= {"normalisation": {"kind": "train"}} | changes["actions"]
        for document in (card, job):
            document.update(actions=given, labels=None)
        card["task"], job["kind"] = "regression", "regress"
    if "labels" in changes:
        card["labels"] = job["labels"] = changes["labels"]
    if "columns" in changes:
        card["columns"] = {"input": "video"} | changes["columns"]
        for split in splits:
            split["source"]["columns"] = card["columns"]
    if "evaluate" in changes:
        card["splits"] = {"train": "train", "evaluate": changes["evaluate"]}
        job["evaluate"] = [job["train"] | {"name": name} for name in changes["evaluate"]]
    return card, job


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": "all.csv"}, "names one file for all splits"),
        ({"metadata": ["{split}.csv", "all.csv"]}, "names one file for all splits"),
        ({"metadata": ["{split}.csv", "{split}.csv"]}, "stands twice"),
        ({"metadata": []}, "at least 1 item"),
    ],
)
def test_a_card_whose_splits_share_a_file_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        DatasetCard.parse(CARD | changes, "card.yaml")


def test_jobs_without_groups_keep_the_fingerprint_of_before() -> None:
    def before(job: ProbeJob) -> str:
        values = job.model_dump(mode="json", exclude=_NOT_VALUES)
        values.pop("group")
        values.pop("reads")
        return fingerprint(values)

    plain, grouped = _job(), _job(group={"column": "episode"})
    assert plain.fingerprint == before(plain) == before(grouped)
    parted = _job(group={"column": "episode", "pattern": "(?P<group>.)"})
    assert len({job.fingerprint for job in (plain, grouped, parted)}) == 3
    assert ProbeJob.model_validate_json(grouped.to_json()) == grouped


def test_jobs_that_read_actions_keep_the_fingerprint_of_before() -> None:
    actions = {"folder": "f", "stride": 1, "dim": 1, "names": ["x"], "normalisation": {"kind": "train"}}
    values = {"actions": actions, "labels": None, "kind": "regress"}
    plain, nuisance = _job(**values), _job(**values, reads="nuisance")
    before = plain.model_dump(mode="json", exclude=_NOT_VALUES)
    del before["reads"], before["group"]
    assert plain.fingerprint == fingerprint(before)
    assert nuisance.fingerprint != plain.fingerprint
    assert ProbeJob.model_validate_json(nuisance.to_json()) == nuisance


def test_labels_are_no_nuisance() -> None:
    with pytest.raises(ContractError, match="classify reads labels, not nuisance"):
        _job(reads="nuisance")


def test_a_probe_evaluates_something() -> None:
    """A card of data tools need not; the catalog refuses it as the job does (`check_roles`)."""
    assert DatasetCard.parse(CARD | {"splits": {"evaluate": []}}, "card").splits.evaluate == ()
    with pytest.raises(ValueError, match="evaluate must name one split or more"):
        check_roles("train", [])
