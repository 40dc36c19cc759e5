"""The built-in cards of LARYBench's datasets, on its layouts in miniature."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.splits import csv_path, find_split
from lary_orch.cli.datasets import command
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.presence import lost_rows, missing_stats

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "larybench_metadata"

PAIR = "dataset,type,perspective,src_img,src_state,tgt_img,tgt_state,action"
# key, split, header, row as released, row without the implied folders (None: the set implies none), its files
LAYOUTS: list[tuple[str, str, str, str, str | None, list[str]]] = [
    (
        "calvin",
        "val",
        PAIR,
        "CALVIN,robot,1st,images/ep_1/a.png,states/ep_1/s.npy,images/ep_1/b.png,states/ep_1/t.npy,actions/ep_1/c.npy",
        "CALVIN,robot,1st,ep_1/a.png,ep_1/s.npy,ep_1/b.png,ep_1/t.npy,ep_1/c.npy",
        [
            f"regression/calvin/val_stride5/{name}"
            for name in ("images/ep_1/a.png", "images/ep_1/b.png", "actions/ep_1/c.npy")
        ],
    ),
    *(
        (
            key,
            "train",
            PAIR,
            "VLABench,robot,3rd,images/ep_9/a.png,s.npy,images/ep_9/b.png,t.npy,actions/ep_9/c.npy",
            None,
            [
                f"regression/vlabench/{name}"
                for name in ("images/ep_9/a.png", "images/ep_9/b.png", "actions/ep_9/c.npy")
            ],
        )
        for key in ("vlabench", "vlabench_15", "vlabench_30")
    ),
    (
        "agibotbeta",
        "unseen",
        "dataset,task_id,episode_id,perspective,robot_type,src_img,tgt_img,action",
        "task_5,5,8,1st,a2d,task_5/images/ep_8/a.png,task_5/images/ep_8/b.png,task_5/actions/ep_8/c.npy",
        None,
        [
            f"regression/agibot_45/task_5/{name}"
            for name in ("images/ep_8/a.png", "images/ep_8/b.png", "actions/ep_8/c.npy")
        ],
    ),
    (
        "robocoin",
        "seen_train",
        "dataset,robot_type,perspective,src_img,tgt_img,action",
        "G1,,1st,G1/images/ep_0/a.png,G1/images/ep_0/b.png,G1/actions/ep_0/c.npy",
        "G1,,1st,G1/ep_0/a.png,G1/ep_0/b.png,G1/ep_0/c.npy",
        [
            f"regression/robocoin_10/{name}"
            for name in ("G1/images/ep_0/a.png", "G1/images/ep_0/b.png", "G1/actions/ep_0/c.npy")
        ],
    ),
    (
        "libero",
        "val",
        "src_img,tgt_img,action",
        "d/a.png,d/b.png,Forward_Up",
        None,
        ["classification/LIBERO/d/a.png", "classification/LIBERO/d/b.png"],
    ),
    (
        "human_1st",
        "train",
        "dataset,video_path,sample_indices,action",
        'SSv2,SSv2/7_0_rev.mp4,"0,1,2,3,4,5,6,7,8",push',
        None,
        ["classification/SSv2/7_0_rev.mp4"],
    ),
    (
        "robot_1st",
        "val",
        "dataset,video_path,sample_indices,action",
        'AgiBot,AgiBotWorld-Beta/t/e.mp4,"0,1,2,3,4,5,6,7,8",pick',
        None,
        ["classification/AgiBotWorld-Beta/t/e.mp4"],
    ),
]
IDS = [layout[0] for layout in LAYOUTS]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Media under DATA_DIR, CSVs under LARY_ROOT/data, as a user of LARYBench has them."""
    env = {"DATA_DIR": str(tmp_path / "media"), "LARY_ROOT": str(tmp_path / "LARYBench")}
    return Workspace.locate(tmp_path / "ws", env=env)


def write_csv(path: Path, header: str, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def touch(root: Path, names: Sequence[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def lost(workspace: Workspace, key: str, split: str) -> list[str]:
    card = Catalog.load(env={}).dataset(key)
    return lost_rows(card, find_split(card, split, workspace))


@pytest.mark.parametrize(("key", "split", "header", "row", "short", "files"), LAYOUTS, ids=IDS)
def test_every_layout_is_resolved(
    workspace: Workspace, key: str, split: str, header: str, row: str, short: str | None, files: list[str]
) -> None:
    write_csv(workspace.metadata / f"{key}_metadata_{split}.csv", header, [row])
    assert len(lost(workspace, key, split)) == 1
    touch(workspace.data, files)
    assert lost(workspace, key, split) == []
    for name in files:
        (workspace.data / name).unlink()
        assert len(lost(workspace, key, split)) == 1, f"{name} is not looked for"
        (workspace.data / name).touch()


@pytest.mark.parametrize(
    ("key", "split", "header", "short"), [(k, s, h, x) for k, s, h, _, x, _ in LAYOUTS if x], ids=["calvin", "robocoin"]
)
def test_implied_folders_are_put_in_between(
    workspace: Workspace, key: str, split: str, header: str, short: str
) -> None:
    write_csv(workspace.metadata / f"{key}_metadata_{split}.csv", header, [short])
    card = Catalog.load(env={}).dataset(key)
    root = workspace.data / card.media.replace("{split}", split)
    below = short.rsplit(",", 1)[1].rsplit("/", 1)[0]
    touch(root, [f"images/{below}/a.png", f"images/{below}/b.png", f"actions/{below}/c.npy"])
    assert lost(workspace, key, split) == []


def test_absolute_paths_are_taken_as_they_are(workspace: Workspace, tmp_path: Path) -> None:
    away = tmp_path / "elsewhere"
    touch(away, ["a.png", "b.png", "c.npy"])
    row = f"CALVIN,robot,1st,{away}/a.png,s,{away}/b.png,t,{away}/c.npy"
    write_csv(workspace.metadata / "calvin_metadata_train.csv", PAIR, [row])
    assert lost(workspace, "calvin", "train") == []


def test_csv_names_old_and_new_and_both_folders(workspace: Workspace) -> None:
    card = Catalog.load(env={}).dataset("robocoin")
    new = workspace.metadata / "robocoin_metadata_unseen.csv"
    assert csv_path(card, "unseen", workspace) == new
    for path in (workspace.data / "robocoin_unseen.csv", workspace.metadata / "robocoin_unseen.csv", new):
        touch(path.parent, [path.name])
        assert csv_path(card, "unseen", workspace) == path


def test_a_missing_csv_says_where_it_may_be(workspace: Workspace) -> None:
    card = Catalog.load(env={}).dataset("calvin")
    with pytest.raises(ContractError, match=r"calvin_metadata_val\.csv: missing .*--metadata-dir or LARY_ROOT"):
        find_split(card, "val", workspace)


@pytest.mark.parametrize(
    ("key", "name"), [("agibotbeta", "agibot_45/agibotbeta"), ("robocoin", "robocoin_10/robocoin")]
)
def test_statistics_are_requested(workspace: Workspace, key: str, name: str) -> None:
    card = Catalog.load(env={}).dataset(key)
    stats = f"regression/{name}_stats.json"
    assert missing_stats(card, workspace.data) == [workspace.data / stats]
    touch(workspace.data, [stats])
    assert missing_stats(card, workspace.data) == []


def test_the_table_says_what_is_complete(workspace: Workspace) -> None:
    layouts = {layout[0]: layout for layout in LAYOUTS}
    for key in ("libero", "robocoin"):
        _, split, header, row, _, files = layouts[key]
        write_csv(workspace.metadata / f"{key}_metadata_{split}.csv", header, [row])
        touch(workspace.data, files)
    options = [
        "--data-dir",
        str(workspace.data),
        "--metadata-dir",
        str(workspace.metadata),
        "--workspace",
        str(workspace.root),
    ]
    done = CliRunner().invoke(command, ["--json", *options], catch_exceptions=False)
    found: dict[str, Any] = {r["key"]: {s["split"]: s for s in r["splits"]} for r in json.loads(done.stdout)}
    assert found["libero"]["val"]["complete"]
    assert found["libero"]["val"]["rows"] == 1
    assert "(`lary-orch data --" in found["robocoin"]["seen_train"]["problem"]
    assert found["robocoin"]["seen_train"]["problem"].endswith(" stats -d robocoin`)")
    assert found["calvin"]["val"]["problem"].startswith("no CSV:")


FACTS = {
    "human_1st": (123, None, ("train", "val")),
    "robot_1st": (54, None, ("train", "val")),
    "libero": (None, None, ("train", "val")),
    "calvin": (None, (5, 7), ("train", "val")),
    "vlabench": (None, (5, 7), ("train", "val")),
    "vlabench_15": (None, (15, 7), ("train", "val")),
    "vlabench_30": (None, (30, 7), ("train", "val")),
    "agibotbeta": (None, (45, 16), ("seen_train", "seen_val", "unseen")),
    "robocoin": (None, (10, 12), ("seen_train", "seen_val", "unseen")),
}


@pytest.mark.parametrize("key", FACTS)
def test_the_facts_of_each(key: str) -> None:
    card = Catalog.load(env={}).dataset(key)
    classes, chunk, splits = FACTS[key]
    assert (card.labels.classes if card.labels else None) == classes
    assert ((card.actions.stride, card.actions.dim) if card.actions else None) == chunk
    assert card.splits.all == splits
    assert card.mode == ("video" if key in ("human_1st", "robot_1st") else "image")


def test_groups_hold_the_right_dimensions() -> None:
    """By their names, which the groups' numbers are not derived from."""
    catalog = Catalog.load(env={})
    for key in ("calvin", "vlabench", "agibotbeta", "robocoin"):
        actions = catalog.dataset(key).actions
        assert actions is not None
        kinds = {
            "position": r"(l_|r_)?[xyz]",
            "orientation": r"(l_|r_)?(roll|pitch|yaw|q[xyzw])",
            "gripper": "gripper|[lr]_g",
        }
        for group, dimensions in actions.groups.items():
            named = [i for i, name in enumerate(actions.names) if re.fullmatch(kinds[group], name)]
            assert list(dimensions) == named, (key, group)


@pytest.mark.parametrize(
    ("file", "key", "split"),
    [
        ("agibotbeta_metadata_unseen", "agibotbeta", "unseen"),
        ("calvin_metadata_val", "calvin", "val"),
        ("libero_metadata_val", "libero", "val"),
        ("robocoin_metadata_unseen", "robocoin", "unseen"),
        ("vlabench_15_metadata_val", "vlabench_15", "val"),
        ("vlabench_30_metadata_train", "vlabench_30", "train"),
    ],
)
def test_real_csvs_are_read(workspace: Workspace, file: str, key: str, split: str) -> None:
    real = SHARED / f"{file}.csv"
    if not real.is_file():
        pytest.skip(f"the first rows of LARYBench's CSVs are not next to the project ({real.name})")
    target = workspace.metadata / real.name
    target.parent.mkdir(parents=True)
    target.write_bytes(real.read_bytes())
    card = Catalog.load(env={}).dataset(key)
    source = find_split(card, split, workspace)
    assert source.rows == 200
    problems = lost_rows(card, source)
    assert len(problems) == 20
    for problem in problems:
        assert "is missing" in problem
        assert str(workspace.data / card.media.replace("{split}", split)) in problem
