"""`manifest`: a folder of clips or a LeRobot dataset becomes a set that the bench takes."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from lary_data.lerobot_files import DataRows, Frame, VideoFrames
from lary_data.manifest import SetFacts, held_out, held_out_episodes
from lary_data.tools.manifest import command
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.cards import DatasetCard
from lary_schema.groups import Grouping

FPS = 10
LENGTHS = [12, 7, 9, 3]
CAMERA = "observation.images.top"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "--workers", "1"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_held_out_part_depends_on_items_and_seed_alone() -> None:
    items = list(range(100))
    assert len(held_out(items, 0.25, 42)) == 25
    assert held_out(items, 0.25, 42) == held_out(items, 0.25, 42) != held_out(items, 0.25, 43)
    assert [len(held_out(items[:n], 0.25, 1)) for n in (0, 1, 2, 3, 4, 8)] == [0, 0, 1, 1, 1, 2]
    assert len(held_out([1, 2], 0.9, 1)) == 1


# --- a folder of clips --------------------------------------------------------------------------


def test_a_folder_of_clips(tmp_path: Path, write_clip) -> None:
    root = tmp_path / "in"
    for label, count in (("öffnen", 4), ("push it", 8), ("once", 1)):
        for i in range(count):
            write_clip(root / label / f"s{i % 2}" / f"{i}.mp4", 4)
    (root / "push it" / "notes.txt").write_text("x")
    (root / "öffnen" / "bad.MP4").write_text("x")
    (root / "empty").mkdir()
    out = tmp_path / "out"
    result = call("folder", root, "--key", "mine", "--out", out, "--frames", 3, "--title", "My clips")
    assert isinstance(result.exception, TooManyFailedError)
    assert "class 'once' has one clip" in result.stderr
    train, val = rows(out / "mine_metadata_train.csv"), rows(out / "mine_metadata_val.csv")
    assert list(train[0]) == ["video_path", "action", "sample_indices", "sampling"]
    names = {row["video_path"] for row in train + val}
    assert len(names) == len(train) + len(val) == 14
    assert {row["video_path"].split("/")[0] == row["action"] for row in train + val} == {True}
    by_class = {label: sum(row["action"] == label for row in val) for label in ("öffnen", "push it", "once")}
    assert by_class == {"öffnen": 1, "push it": 2, "once": 0}
    bad = next(row for row in train + val if row["video_path"] == "öffnen/bad.MP4")
    assert bad["sample_indices"] == ""
    assert bad["sampling"].startswith("failed: öffnen/bad.MP4: Invalid data")
    assert {row["sample_indices"] for row in train + val if row is not bad} == {"0,1,2"}
    card = DatasetCard.load(out / "mine.yaml")
    assert (card.key, card.title, card.task, card.mode, card.frames) == (
        "mine", "My clips", "classification", "video", 3,
    )  # fmt: skip
    assert card.labels is not None
    assert card.labels.classes == 3
    assert result.stderr.endswith(f"run -m frame-diff -d mine --catalog {out}\n")
    assert card.root == str(root)


def test_a_folder_without_classes_is_refused(tmp_path: Path, write_clip) -> None:
    write_clip(tmp_path / "a.mp4", 4)
    result = call("folder", tmp_path, "--key", "mine", "--out", tmp_path / "out")
    assert isinstance(result.exception, ContractError)
    assert "CLASS" in str(result.exception)


# --- LeRobot ------------------------------------------------------------------------------------


def action_of(episode: int, step: int) -> list[float]:
    return [episode, step, episode * 100 + step]


def info_of(version: str, **changes: Any) -> dict[str, Any]:
    return {
        "codebase_version": version, "robot_type": "so100", "fps": FPS, "total_episodes": len(LENGTHS),
        "chunks_size": 2,
        "features": {
            "action": {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "gripper"]}},
            "observation.state": {"dtype": "float32", "shape": [3], "names": None},
            CAMERA: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channel"]},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        },
    } | changes  # fmt: skip


def data_table(episodes: list[int], images: Callable[[int, int], bytes] | None = None) -> pyarrow.Table:
    steps = [(e, t) for e in episodes for t in range(LENGTHS[e])]
    columns: dict[str, Any] = {
        "action": pyarrow.array([action_of(e, t) for e, t in steps], pyarrow.list_(pyarrow.float32())),
        "timestamp": pyarrow.array([t / FPS for _, t in steps], pyarrow.float32()),
        "frame_index": [t for _, t in steps],
        "episode_index": [e for e, _ in steps],
    }
    if images:
        columns[CAMERA] = [{"bytes": images(e, t), "path": f"frame-{t}.png"} for e, t in steps]
    return pyarrow.table(columns)


def write_table(path: Path, table: pyarrow.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_v2(root: Path, write_clip) -> None:
    """A file and a video per episode; picture t of episode e is number 10 e + t."""
    write_json(root / "meta/info.json", info_of(
        "v2.1", data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ))  # fmt: skip
    lines = [{"episode_index": e, "tasks": [f"task {e % 2}"], "length": n} for e, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for e, length in enumerate(LENGTHS):
        chunk = f"chunk-{e // 2:03d}"
        write_table(root / f"data/{chunk}/episode_{e:06d}.parquet", data_table([e]))
        write_clip(root / f"videos/{chunk}/{CAMERA}/episode_{e:06d}.mp4", length, fps=FPS, first=10 * e)


def write_v3(root: Path, write_clip) -> None:
    """Two data files with the episodes 0, 1 and 3, 2 (in this order), and one video with all."""
    write_json(root / "meta/info.json", info_of(
        "v3.0", data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ))  # fmt: skip
    starts = np.cumsum([0, *LENGTHS[:-1]]) / FPS
    for file, episodes in enumerate(([0, 1], [2, 3])):
        write_table(root / f"meta/episodes/chunk-000/file-{file:03d}.parquet", pyarrow.table({
            "episode_index": episodes, "length": [LENGTHS[e] for e in episodes],
            "tasks": [[f"task {e % 2}"] for e in episodes],
            "data/chunk_index": [0, 0], "data/file_index": [file, file],
            f"videos/{CAMERA}/chunk_index": [0, 0], f"videos/{CAMERA}/file_index": [0, 0],
            f"videos/{CAMERA}/from_timestamp": [starts[e] for e in episodes],
        }))  # fmt: skip
    write_table(root / "data/chunk-000/file-000.parquet", data_table([0, 1]))
    write_table(root / "data/chunk-000/file-001.parquet", data_table([3, 2]))
    write_clip(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", sum(LENGTHS), fps=FPS)


def picture(path: Path) -> float:
    """Which picture of the source it is, by its blue."""
    image = cv2.imread(str(path))
    assert image.shape == (48, 64, 3)
    return float(image[..., 0].mean()) / 6


def check_set(out: Path, number: Callable[[int, int], int]) -> None:
    """Every pair of the set has its own frames and actions."""
    train, val = rows(out / "arm_metadata_train.csv"), rows(out / "arm_metadata_val.csv")
    assert {row["episode_id"] for row in train}.isdisjoint(row["episode_id"] for row in val)
    assert len({row["episode_id"] for row in val}) == 1
    found = {(int(row["episode_id"]), row["action"]): row for row in train + val}
    expected = [(e, t) for e, n in enumerate(LENGTHS) for t in range(0, n - 4, 2)]
    assert len(found) == len(train) + len(val) == len(expected)
    for e, t in expected:
        row = found[e, f"actions/ep_{e:06d}/action_{t:06d}to{t + 3:06d}.npy"]
        assert (row["dataset"], row["robot_type"], row["task"]) == ("arm", "so100", f"task {e % 2}")
        assert row["src_img"] == f"images/ep_{e:06d}/frame_{t:06d}.png"
        assert row["tgt_img"] == f"images/ep_{e:06d}/frame_{t + 4:06d}.png"
        assert picture(out / row["src_img"]) == pytest.approx(number(e, t), abs=0.4)
        assert picture(out / row["tgt_img"]) == pytest.approx(number(e, t + 4), abs=0.4)
        chunk = np.load(out / row["action"], allow_pickle=False)
        assert chunk.dtype == np.float32
        assert chunk.tolist() == [action_of(e, t + i) for i in range(4)]


def make(root: Path, out: Path, *further: object) -> Result:
    return call("lerobot", root, "--key", "arm", "--out", out, "--stride", 4, "--every", 2, *further)


def test_a_v2_dataset(tmp_path: Path, write_clip) -> None:
    write_v2(tmp_path / "in", write_clip)
    result = make(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    check_set(tmp_path / "out", lambda e, t: 10 * e + t)
    assert "1 episodes are not longer than the stride" in result.stderr
    card = DatasetCard.load(tmp_path / "out/arm.yaml")
    assert card.actions is not None
    assert (card.task, card.mode, card.actions.stride, card.actions.dim) == ("regression", "image", 4, 3)
    assert card.actions.names == ("x", "y", "gripper")
    assert card.group is not None
    assert (card.group.column, card.instruction) == ("episode_id", "task")
    assert result.stderr.endswith(f"run -m frame-diff -d arm --catalog {tmp_path}/out\n")
    assert card.root == "."


def test_whole_tasks_are_held_out(tmp_path: Path, write_clip) -> None:
    write_v2(tmp_path / "in", write_clip)
    result = make(tmp_path / "in", tmp_path / "out", "--group", "task")
    assert result.exit_code == 0, result.stderr
    by_split = {split: rows(tmp_path / f"out/arm_metadata_{split}.csv") for split in ("train", "val")}
    tasks = {split: {row["task"] for row in found} for split, found in by_split.items()}
    assert sorted(map(len, tasks.values())) == [1, 1]
    assert not tasks["train"] & tasks["val"]
    assert DatasetCard.load(tmp_path / "out/arm.yaml").group == Grouping(column="task")
    assert f"train: {len(by_split['train'])} rows, 1 groups (task)" in result.stderr
    facts = SetFacts(key="k", title="k", license="x", val=0.25, seed=1, group="task")
    with pytest.raises(ContractError, match="--group task: episodes 0, 2 have no task"):
        held_out_episodes({0: "", 1: "pull", 2: " "}, facts)


@pytest.mark.parametrize(("lost", "said"), [((1,), "1 episodes have no task"), (range(len(LENGTHS)), "")])
@pytest.mark.parametrize("none", [[], None, ["  "]])
def test_a_dataset_without_texts_has_no_instruction(
    tmp_path: Path, write_clip, none: Any, lost: Sequence[int], said: str
) -> None:
    write_v2(tmp_path / "in", write_clip)
    file = tmp_path / "in/meta/episodes.jsonl"
    episodes = [json.loads(line) for line in file.read_text().splitlines()]
    episodes = [e | ({"tasks": none} if e["episode_index"] in lost else {}) for e in episodes]
    file.write_text("\n".join(map(json.dumps, episodes)) + "\n")
    result = make(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert DatasetCard.load(tmp_path / "out/arm.yaml").instruction is None
    assert ("have no task" in result.stderr) == bool(said)
    assert said in result.stderr


def test_a_v3_dataset(tmp_path: Path, write_clip) -> None:
    write_v3(tmp_path / "in", write_clip)
    result = make(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    firsts = np.cumsum([0, *LENGTHS])
    check_set(tmp_path / "out", lambda e, t: int(firsts[e]) + t)


def write_image_rows(root: Path, image: Callable[[int, int], bytes]) -> None:
    """A dataset whose rows hold the images."""
    info = info_of("v2.1", data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet")
    info["features"][CAMERA]["dtype"] = "image"
    write_json(root / "meta/info.json", info)
    lines = [{"episode_index": e, "tasks": [f"task {e % 2}"], "length": n} for e, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for e in range(len(LENGTHS)):
        write_table(root / f"data/chunk-{e // 2:03d}/episode_{e:06d}.parquet", data_table([e], image))


def test_images_in_the_rows(tmp_path: Path, png) -> None:
    def image(e: int, t: int) -> bytes:
        png(tmp_path / "x.png", 10 * e + t)
        return (tmp_path / "x.png").read_bytes()

    write_image_rows(tmp_path / "in", image)
    assert make(tmp_path / "in", tmp_path / "out").exit_code == 0
    check_set(tmp_path / "out", lambda e, t: 10 * e + t)


def cut(data: bytes) -> bytes:
    return data[: len(data) * 3 // 4]


def hole(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes(64) + data[at + 64 :]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("damage", [cut, hole])
def test_damaged_images_in_the_rows(tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    """The decoder takes most of them, and shows what is missing as grey or black."""
    noise = np.random.default_rng(0)

    def image(e: int, t: int) -> bytes:
        done, data = cv2.imencode(suffix, noise.integers(0, 256, (96, 128, 3), np.uint8))
        assert done
        return damage(data.tobytes()) if (e, t) == (0, 4) else data.tobytes()

    write_image_rows(tmp_path / "in", image)
    result = make(tmp_path / "in", tmp_path / "out")
    assert isinstance(result.exception, TooManyFailedError)
    assert "episode 0 is left out:" in result.stderr
    assert "episode 0, frame 4: " in result.stderr
    kept = rows(tmp_path / "out/arm_metadata_train.csv") + rows(tmp_path / "out/arm_metadata_val.csv")
    assert {row["episode_id"] for row in kept} == {"1", "2"}


def test_a_damaged_episode_is_left_out_and_named(tmp_path: Path, write_clip) -> None:
    write_v2(tmp_path / "in", write_clip)
    (tmp_path / f"in/videos/chunk-000/{CAMERA}/episode_000000.mp4").write_text("x")
    result = make(tmp_path / "in", tmp_path / "out")
    assert isinstance(result.exception, TooManyFailedError)
    assert "episode 0 is left out:" in result.stderr
    assert "episode_000000.mp4: Invalid data" in result.stderr
    kept = rows(tmp_path / "out/arm_metadata_train.csv") + rows(tmp_path / "out/arm_metadata_val.csv")
    assert {row["episode_id"] for row in kept} == {"1", "2"}
    assert make(tmp_path / "in", tmp_path / "out", "--max-failed", 0.25).exit_code == 0


@pytest.mark.parametrize("what", ["rows", "nan", "dim", "video"])
def test_rows_that_are_not_the_episodes_are_faults(tmp_path: Path, write_clip, what: str) -> None:
    write_v3(tmp_path / "in", write_clip)
    path = tmp_path / "in/data/chunk-000/file-001.parquet"
    table = data_table([3, 2])
    actions = table["action"].to_pylist()
    if what == "rows":
        table = table.slice(0, len(table) - 1)
    elif what == "nan":
        actions[-1][1] = float("nan")
    elif what == "dim":
        actions = [[*action, 0.0] if i == 5 else action for i, action in enumerate(actions)]
    if what in ("nan", "dim"):
        table = table.set_column(table.schema.get_field_index("action"), "action", pyarrow.array(actions))
    write_table(path, table)
    if what == "video":
        write_clip(tmp_path / f"in/videos/{CAMERA}/chunk-000/file-000.mp4", 20, fps=FPS)
    result = make(tmp_path / "in", tmp_path / "out")
    assert isinstance(result.exception, TooManyFailedError)
    said = {"rows": "are not frames 0 to 8", "nan": "not finite", "dim": "not 3 numbers", "video": "its video ends"}
    assert "episode 2 is left out:" in result.stderr
    assert said[what] in result.stderr
    kept = rows(tmp_path / "out/arm_metadata_train.csv") + rows(tmp_path / "out/arm_metadata_val.csv")
    assert {row["episode_id"] for row in kept} == {"0", "1"}


def test_what_is_there_is_not_made_again(tmp_path: Path, write_clip, monkeypatch) -> None:
    write_v3(tmp_path / "in", write_clip)
    out = tmp_path / "out"
    assert make(tmp_path / "in", out).exit_code == 0
    whole = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    gone = ["images/ep_000002/frame_000004.png", "actions/ep_000000/action_000002to000005.npy"]
    for name in gone:
        (out / name).unlink()
    (out / "images/ep_000000/frame_000000.png.0123.partial").write_text("of a killed run")
    from lary_data import lerobot_pairs

    tasks: list[Any] = []
    real = lerobot_pairs.run_tasks

    def spy(function: Any, given: list[Any], *further: Any) -> Any:
        tasks.extend(given)
        return real(function, given, *further)

    monkeypatch.setattr(lerobot_pairs, "run_tasks", spy)
    assert make(tmp_path / "in", out).exit_code == 0
    data, video = tasks
    assert isinstance(data, DataRows)
    assert isinstance(video, VideoFrames)
    assert [os.path.relpath(chunk.out, out) for chunk in data.chunks] == gone[1:]
    assert [os.path.relpath(frame.out, out) for frame in video.frames] == gone[:1]
    assert isinstance(video.frames[0], Frame)
    assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
    refused = call("lerobot", tmp_path / "in", "--key", "arm", "--out", out, "--stride", 3)
    assert "choose another --out" in str(refused.exception)


def test_bad_datasets_are_refused_with_what_to_do(tmp_path: Path, write_clip) -> None:
    root = tmp_path / "in"
    assert "meta/info.json: cannot be read" in str(make(root, tmp_path / "out").exception)
    write_v2(root, write_clip)
    good = json.loads((root / "meta/info.json").read_text())

    def refusal(*further: object, **changes: Any) -> str:
        write_json(root / "meta/info.json", good | changes)
        error = make(root, tmp_path / "out", *further).exception
        assert isinstance(error, ContractError)
        return str(error)

    assert "v2 and v3 are read" in refusal(codebase_version="v1.6")
    two = good["features"] | {"wrist": {"dtype": "video", "shape": [1, 1, 3]}}
    assert f"cameras are {CAMERA}, wrist; choose one by --camera" in refusal(features=two)
    assert "'front' is none of them" in refusal("--camera", "front", features=two)
    assert "choose by --action: action, observation.state, timestamp" in refusal("--action", "act")
    assert "fps is None" in refusal(fps=None)
    assert "is not a table of features" in refusal(features=[1])
    assert "cannot be filled in" in refusal(data_path="data/{chunk_index}.parquet")
    assert "meta/episodes: no parquet file" in refusal(codebase_version="v3.0")
    (root / "meta/episodes.jsonl").write_text('{"episode_index": 0}\n')
    assert "episodes.jsonl: line 1: not an episode" in refusal()
    assert not (tmp_path / "out").exists()
    assert "may hold letters" in str(call("lerobot", root, "--key", "a/b", "--out", root, "--stride", 4).exception)
    write_v2(root, write_clip)
    assert "is the LeRobot dataset itself" in str(make(root, root).exception)
    assert not (root / "manifest.json").exists()
    lengths = [4] * len(LENGTHS)
    lines = [{"episode_index": e, "tasks": [], "length": n} for e, n in enumerate(lengths)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "arm: no row for train: too few episodes" in str(make(root, tmp_path / "out").exception)
