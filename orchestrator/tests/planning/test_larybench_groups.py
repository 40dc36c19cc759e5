"""The groups of the built-in cards, on rows as LARYBench releases them."""

from pathlib import Path

import pytest
from lary_orch.catalog.cards import Catalog
from lary_schema.groups import Grouping, group_of
from lary_schema.metadata import Row, read_rows

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "larybench_metadata"


def grouping_of(key: str) -> Grouping:
    grouping = next(card for _, card in Catalog.load().datasets if card.key == key).group
    assert grouping is not None
    return grouping


def group(key: str, cell: str) -> str:
    grouping = grouping_of(key)
    return group_of(Row(0, {grouping.column: cell}), grouping)


@pytest.mark.parametrize(
    ("key", "cell", "expected"),
    [
        ("calvin", "images/ep_1/frame_000065.png", "ep_1"),
        ("calvin", "ep_1/frame_000065.png", "ep_1"),
        ("vlabench", "images/ep_1811/frame_207633.png", "ep_1811"),
        ("vlabench_15", "images/ep_1811/frame_207633.png", "ep_1811"),
        ("vlabench_30", "images/ep_4126/frame_474275.png", "ep_4126"),
        ("agibotbeta", "804004", "804004"),
        ("robocoin", "G1edu-u3_pick/images/ep_10/frame_003366.png", "G1edu-u3_pick/images/ep_10"),
        ("libero", "libero_90_clean/K_demo/demo_15/action_03/action_start.png", "libero_90_clean/K_demo/demo_15"),
        ("human_1st", "SSv2/123_0.mp4", "SSv2/123"),
        ("human_1st", "SSv2/123_14_rev.mp4", "SSv2/123"),
        ("human_1st", "EgoDex/7/123_0_rev.mp4", "EgoDex/7/123"),
        ("human_1st", "SSv2/other name.webm", "SSv2/other name.webm"),
        ("human_1st", "EPIC-KITCHENS/P01_101_12.mp4", "EPIC-KITCHENS/P01_101_12.mp4"),
        ("demo_arm", "train/003", "train/003"),
        ("demo_motion", "val/0007", "val/0007"),
    ],
)
def test_the_group_of_a_row(key: str, cell: str, expected: str) -> None:
    assert group(key, cell) == expected


@pytest.mark.skipif(not SHARED.is_dir(), reason="the first rows of LARYBench's CSVs are not there")
@pytest.mark.parametrize(
    ("csv", "key", "groups"),
    [
        ("agibotbeta_metadata_unseen", "agibotbeta", 189),
        ("calvin_metadata_val", "calvin", 17),
        ("libero_metadata_val", "libero", 195),
        ("robocoin_metadata_unseen", "robocoin", 176),
        ("vlabench_15_metadata_val", "vlabench_15", 196),
        ("vlabench_30_metadata_train", "vlabench_30", 198),
    ],
)
def test_every_row_of_larybench_has_a_group(csv: str, key: str, groups: int) -> None:
    grouping = grouping_of(key)
    assert len({group_of(row, grouping) for row in read_rows(SHARED / f"{csv}.csv")}) == groups
