"""`manifest libero|calvin|rlds|agibot|egodex`: small sets that are written by each format's rules.

Every frame is a picture of (episode, step) and every action a number of them, so each pair and chunk can be told.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from lary_data import pool
from lary_data.formats.rlds_features import read_features
from lary_data.manifest import SetFacts
from lary_data.tfrecords import make_bytes_entry, make_entry, make_example, write_record
from lary_data.tools.manifest import command
from lary_data.trajectories import Cut, cut, find
from lary_data.trajectory_manifest import Cutting, write_trajectory_manifest
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.cards import DatasetCard
from numpy.typing import NDArray

LENGTHS = (9, 6, 7)
STRIDE = 2


def picture(episode: int, step: int) -> NDArray[np.uint8]:
    """(32, 32, 3): flat halves, which JPEG and H.264 keep to within a few levels. The top is brighter."""
    frame = np.empty((32, 32, 3), np.uint8)
    frame[:16], frame[16:] = (200, 20 * step + 30, 40 * episode + 40), (20, 20 * step + 30, 40 * episode + 40)
    return frame


def actions(episode: int, length: int, dim: int = 7) -> NDArray[np.float64]:
    return 100.0 * episode + np.arange(length)[:, None] + np.arange(dim) / 10


# --- the formats --------------------------------------------------------------------------------


def write_libero(root: Path) -> None:
    for file, episodes in (("KITCHEN_open_demo", (0, 1)), ("sub/STUDY_pick_demo", (2,))):
        path = root / f"{file}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as out:
            data = out.create_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": f"task of {file[:5]}"})
            for at, episode in enumerate(episodes):
                demo, length = data.create_group(f"demo_{at + 9}"), LENGTHS[episode]
                demo.attrs["num_samples"] = length
                demo["actions"], demo["states"] = actions(episode, length), np.zeros((length, 5))
                frames = np.stack([picture(episode, step)[::-1] for step in range(length)])
                demo["obs/agentview_rgb"], demo["obs/eye_in_hand_rgb"] = frames, frames[:, :, :16]


def write_calvin(root: Path) -> None:
    for folder, episodes in (("training", (0, 1)), ("validation", (2,))):
        (root / folder).mkdir(parents=True)
        ends, first = [], 100
        for episode in episodes:
            ends.append((first, first + LENGTHS[episode] - 1))
            for step, action in enumerate(actions(episode, LENGTHS[episode])):
                np.savez(
                    root / folder / f"episode_{first + step:07d}.npz", rel_actions=action, actions=action * 2,
                    rgb_static=picture(episode, step), rgb_gripper=picture(0, 0)[:8], robot_obs=np.zeros(15),
                )  # fmt: skip
            first += LENGTHS[episode] + 5
        np.save(root / folder / "ep_start_end_ids.npy", np.array(ends))


def tensor(*dimensions: int, dtype: str = "float32") -> dict[str, Any]:
    shape = {"dimensions": [str(size) for size in dimensions]} if dimensions else {}
    return {
        "pythonClassName": "x.tensor_feature.Tensor",
        "tensor": {"shape": shape, "dtype": dtype, "encoding": "none"},
    }


def write_rlds(root: Path, split_action: bool = False) -> None:
    root.mkdir(parents=True)
    image = {"pythonClassName": "x.Image", "image": {"dtype": "uint8", "encodingFormat": "jpeg"}}
    action = {"featuresDict": {"features": {"world": tensor(6), "grip": tensor(1)}}} if split_action else tensor(7)
    steps = {
        "action": action, "is_first": tensor(dtype="bool"), "language_instruction": {"text": {}},
        "observation": {"featuresDict": {"features": {"image": image, "wrist": image, "state": tensor(8)}}},
    }  # fmt: skip
    top = {"steps": {"sequence": {"feature": {"featuresDict": {"features": steps}}}}}
    (root / "features.json").write_text(json.dumps({"featuresDict": {"features": top}}))
    (root / "dataset_info.json").write_text(json.dumps({"splits": [{"name": "train", "shardLengths": ["2", "1"]}]}))
    for shard, episodes in enumerate(((0, 1), (2,))):
        with (root / f"mine-train.tfrecord-0000{shard}-of-00002").open("wb") as file:
            for episode in episodes:
                write_record(file, rlds_record(episode, split_action))


def rlds_record(episode: int, split_action: bool) -> bytes:
    length, values = LENGTHS[episode], actions(episode, LENGTHS[episode]).astype(np.float32)
    encoded = [cv2.imencode(".jpg", picture(episode, s)[..., ::-1])[1].tobytes() for s in range(length)]
    parts = {"action/world": values[:, :6], "action/grip": values[:, 6:]} if split_action else {"action": values}
    entries = {name: make_entry(f"steps/{name}", part.ravel()) for name, part in parts.items()}
    entries["first"] = make_entry("steps/is_first", np.arange(length) == 0)
    entries["image"] = make_bytes_entry("steps/observation/image", encoded)
    entries["wrist"] = make_bytes_entry("steps/observation/wrist", encoded)
    entries["text"] = make_bytes_entry("steps/language_instruction", [f"episode {episode}".encode()] * length)
    return make_example(entries)


def write_agibot(root: Path, clip: Callable[[Path, int], None]) -> None:
    (root / "task_info").mkdir(parents=True)
    said = [{"episode_id": 640 + e, "task_id": 327, "task_name": f"episode {e}"} for e in range(3)]
    (root / "task_info/task_327.json").write_text(json.dumps(said))
    for episode, length in enumerate(LENGTHS):
        clip(root / f"observations/327/{640 + episode}/videos/head_color.mp4", episode)
        clip(root / f"observations/327/{640 + episode}/videos/hand_left_color.mp4", 0)
        table = root / f"proprio_stats/327/{640 + episode}/proprio_stats.h5"
        table.parent.mkdir(parents=True)
        values = actions(episode, length, 16)
        with h5py.File(table, "w") as file:
            file["timestamp"], file["action/end/position"] = np.arange(length), values[:, :6].reshape(-1, 2, 3)
            file["action/end/orientation"] = values[:, 6:14].reshape(-1, 2, 4)
            file["action/effector/position"] = values[:, 14:]


def write_egodex(root: Path, clip: Callable[[Path, int], None]) -> None:
    for episode, (name, length) in enumerate(
        zip(("part1/fold/0", "part1/fold/1", "test/fold/0"), LENGTHS, strict=True)
    ):
        clip(root / f"{name}.mp4", episode)
        poses = np.tile(np.eye(4), (2, length, 1, 1))
        values = actions(episode, length, 6)
        poses[0, :, :3, 3], poses[1, :, :3, 3] = values[:, :3], values[:, 3:]
        with h5py.File(root / f"{name}.hdf5", "w") as file:
            file["transforms/leftHand"], file["transforms/rightHand"] = poses
            file.attrs["llm_description"], file.attrs["llm_description2"] = "fold it", f"episode {episode}"
            file.attrs["which_llm_description"] = "2"


class Written(NamedTuple):
    format: str
    root: Path
    names: tuple[str, ...]
    tasks: tuple[str, ...]
    dim: int


NAMES = {
    "libero": ("KITCHEN_open_demo/demo_9", "KITCHEN_open_demo/demo_10", "sub/STUDY_pick_demo/demo_9"),
    "calvin": ("training/0000100", "training/0000114", "validation/0000100"),
    "rlds": ("train/00000_00000", "train/00000_00001", "train/00001_00000"),
    "agibot": ("327/640", "327/641", "327/642"),
    "egodex": ("part1/fold/0", "part1/fold/1", "test/fold/0"),
}
TASKS = {"libero": ("task of KITCH", "task of KITCH", "task of sub/S"), "calvin": ("", "", "")}
DIMS = {"agibot": 16, "egodex": 6}
FORMATS = sorted(NAMES)


@pytest.fixture(scope="module")
def clip() -> Callable[[Path, int], None]:
    import av

    def write(path: Path, episode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            stream.options = {"qp": "0", "threads": "1"}
            for step in range(LENGTHS[episode]):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(episode, step), format="rgb24")))
            container.mux(stream.encode())

    return write


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, clip: Callable[[Path, int], None]) -> dict[str, Written]:
    """One set of every format, to be read only."""
    found = {}
    for name in FORMATS:
        root = tmp_path_factory.mktemp(name) / "set"
        write: Callable[..., None] = globals()[f"write_{name}"]
        write(root, clip) if name in DIMS else write(root)
        tasks = TASKS.get(name, tuple(f"episode {e}" for e in range(3)))
        found[name] = Written(name, root, NAMES[name], tasks, DIMS.get(name, 7))
    return found


@pytest.fixture
def copied(request: pytest.FixtureRequest, written: dict[str, Written], tmp_path: Path) -> Written:
    """A set of one's own to damage."""
    original = written[request.param]
    shutil.copytree(original.root, tmp_path / "set")
    return original._replace(root=tmp_path / "set")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are done here by the pool's own function, since processes are the pool's business, and tested there."""

    def run(function: Callable[[Any], Any], tasks: Any, workers: int, timeout_s: float) -> Any:
        for task in tasks:
            value, cause, detail = pool._attempt(function, task)
            yield pool.Done(task, None, detail) if cause else pool.Done(task, value)

    monkeypatch.setattr("lary_data.resuming.run_tasks", run)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "--workers", "1"])


def made(one: Written, out: Path, *further: object) -> Result:
    return call(one.format, one.root, "--key", "mine", "--out", out, "--stride", STRIDE, *further)


def rows(out: Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for split in ("train", "val"):
        with (out / f"mine_metadata_{split}.csv").open(encoding="utf-8", newline="") as file:
            found[split] = list(csv.DictReader(file))
    return found


# --- what is right ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_pair_and_chunk_is_the_right_one(name: str, written: dict[str, Written], tmp_path: Path) -> None:
    one, out = written[name], tmp_path / "out"
    result = made(one, out, "--every", 1)
    assert result.exit_code == 0, result.stderr
    found = rows(out)
    both = [*found["train"], *found["val"]]
    assert len(both) == sum(length - STRIDE for length in LENGTHS)
    for row in both:
        episode = one.names.index(row["episode_id"])
        assert row["task"] == one.tasks[episode]
        start = int(row["src_img"].rpartition("_")[2][:6])
        for column, step in (("src_img", start), ("tgt_img", start + STRIDE)):
            image = cv2.imread(str(out / row[column]))[..., ::-1].astype(int)
            off = np.abs(image - picture(episode, step))[
                [*range(12), *range(20, 32)]
            ]  # apart from where the halves meet
            assert off.max() <= 8, (row[column], column)
        chunk = np.load(out / row["action"])
        assert chunk.dtype == np.float32
        np.testing.assert_array_equal(
            chunk, actions(episode, LENGTHS[episode], one.dim).astype(np.float32)[start : start + STRIDE]
        )
    card = DatasetCard.load(out / "mine.yaml")
    assert card.actions is not None
    assert (card.actions.dim, card.actions.stride, card.instruction) == (
        one.dim,
        STRIDE,
        "task" if one.tasks[0] else None,
    )
    assert {dimension for group in card.actions.groups.values() for dimension in group} == set(range(one.dim))
    episodes = {split: {row["episode_id"] for row in part} for split, part in found.items()}
    assert not episodes["train"] & episodes["val"]
    if name in ("calvin", "egodex"):
        assert episodes["val"] == {one.names[2]}, "the source's own split"


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_done_is_kept_and_what_is_lost_made_again(
    name: str, written: dict[str, Written], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, out = written[name], tmp_path / "out"
    done: list[str] = []

    def counted(task: Cut) -> tuple[int, str]:
        done.append(task.trajectory.name)
        return cut(task)

    monkeypatch.setattr("lary_data.trajectory_manifest.cut", counted)
    assert made(one, out).exit_code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert made(one, out).exit_code == 0
    assert sorted(done) == sorted(one.names)
    lost = out / rows(out)["val"][0]["tgt_img"]
    lost.unlink()
    assert made(one, out).exit_code == 0
    assert done[3:] == [rows(out)["val"][0]["episode_id"]]
    assert {path: data for path, data in before.items() if path.name != "manifest.answers"} == {
        path: path.read_bytes() for path in before if path.name != "manifest.answers"
    }
    refused = made(one, out, "--stride", STRIDE + 1)
    assert isinstance(refused.exception, ContractError)
    assert "other data or settings" in str(refused.exception)


@pytest.mark.parametrize("name", FORMATS)
def test_a_task_goes_to_one_split_as_a_whole(name: str, written: dict[str, Written], tmp_path: Path) -> None:
    one, out = written[name], tmp_path / "out"
    result = made(one, out, "--group", "task")
    if not one.tasks[0]:
        assert "have no task" in str(result.exception)
        return
    assert result.exit_code == 0, result.stderr
    tasks = {split: {row["task"] for row in part} for split, part in rows(out).items()}
    assert tasks["train"] | tasks["val"] == set(one.tasks)
    assert not tasks["train"] & tasks["val"]
    group = DatasetCard.load(out / "mine.yaml").group
    assert group is not None
    assert group.column == "task"


def test_an_action_of_several_features(tmp_path: Path) -> None:
    write_rlds(tmp_path / "set", split_action=True)
    source = find("rlds", tmp_path / "set", None, "action/world,action/grip")
    assert (source.action, len(source.names)) == ("action/world,action/grip", 7)
    with pytest.raises(ContractError, match=r"name them by --action A,B .*there: action/world, action/grip"):
        find("rlds", tmp_path / "set", None, None)
    length, said = cut(
        Cut("rlds", source.trajectories[1], source.camera, source.action, 7, 2, 2, str(tmp_path / "out"))
    )
    assert (length, said) == (LENGTHS[1], "episode 1")
    chunk = np.load(next((tmp_path / "out/actions").rglob("action_000002to000003.npy")))
    np.testing.assert_array_equal(chunk, actions(1, 6).astype(np.float32)[2:4])


@pytest.mark.parametrize(
    ("name", "other"), [("libero", "eye_in_hand_rgb"), ("calvin", "rgb_gripper"), ("rlds", "wrist")]
)
def test_another_camera(name: str, other: str, written: dict[str, Written]) -> None:
    prefix = "observation/" if name == "rlds" else ""
    assert find(name, written[name].root, prefix + other, None).camera == prefix + other
    with pytest.raises(ContractError, match=f"no camera 'nose'.*there: .*{other}"):
        find(name, written[name].root, "nose", None)


@pytest.mark.parametrize(
    ("dtype", "channels", "taken"),
    [
        *(("uint8", channels, channels in ("3", "-1")) for channels in ("1", "2", "3", "4", "-1")),
        *((dtype, "3", False) for dtype in ("uint16", "float32", "bool")),
        ("uint16", "1", False),
    ],
)
def test_only_pictures_in_colour_are_cameras_of_rlds(tmp_path: Path, dtype: str, channels: str, taken: bool) -> None:
    """The names and nesting are those of TFDS 4.9.10."""
    image = {"dtype": dtype, "encodingFormat": "png", "shape": {"dimensions": ["64", "64", channels]}}
    colour = {"dtype": "uint8", "encodingFormat": "jpeg", "shape": {"dimensions": ["64", "64", "3"]}}
    kind = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"}
    inside = {"main": {"image": colour, **kind}, "other": {"image": image, **kind}}
    steps = {"sequence": {"feature": {"featuresDict": {"features": inside}}, "length": "-1"}}
    (tmp_path / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": steps}}}))
    kinds = {leaf.name: leaf.kind for leaf in read_features(tmp_path / "features.json").values()}
    assert kinds["steps/main"] == "image"
    assert (kinds["steps/other"] == "image") is taken


# --- what is refused ----------------------------------------------------------------------------


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def deflated_and_overwritten(path: Path) -> None:
    """A compressed step whose data are no stream of zlib's any more."""
    with np.load(path) as step:
        np.savez_compressed(path, **{name: step[name] for name in step.files})
    data = bytearray(path.read_bytes())
    for at in range(len(data)):
        if data[at : at + 4] == b"PK\x03\x04":
            start = at + 30 + int.from_bytes(data[at + 26 : at + 28], "little")
            start += int.from_bytes(data[at + 28 : at + 30], "little")
            data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def edited(path: Path, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        del file[name]
        file[name] = change(values)


def not_finite(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1)) == 3, np.nan, values)


def npz(path: Path, **changed: Any) -> None:
    with np.load(path) as old:
        arrays = {name: old[name] for name in old.files} | changed
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


STEP = "training/episode_0000103.npz"
TABLE = "proprio_stats/327/640/proprio_stats.h5"
VIDEO = "observations/327/640/videos/head_color.mp4"
POSES = "part1/fold/0.hdf5"
DEMO = "sub/STUDY_pick_demo.hdf5"
BAD: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("libero", DEMO, cut_off, "not a whole HDF5 file"),
    ("libero", DEMO, lambda p: p.write_bytes(b"x" * 3000), "not a whole HDF5 file"),
    ("libero", DEMO, lambda p: edited(p, "data/demo_9/actions", lambda a: a[:-1]), "6 actions, 7 pictures"),
    ("libero", DEMO, lambda p: edited(p, "data/demo_9/actions", not_finite), "not finite at step 3"),
    ("libero", DEMO, lambda p: edited(p, "data/demo_9/actions", lambda a: a[:, :6]), r"\(steps, 7\) expected"),
    ("libero", DEMO, lambda p: edited(p, "data/demo_9/obs/agentview_rgb", lambda a: a[..., 0]), "no RGB frame"),
    ("libero", DEMO, lambda p: edited(p, "data/demo_9/obs/agentview_rgb", lambda a: a / 255), "no RGB frame"),
    ("calvin", STEP, lambda p: p.unlink(), "no such file"),
    ("calvin", STEP, cut_off, "not the arrays of a step"),
    ("calvin", STEP, deflated_and_overwritten, "not the arrays of a step"),
    ("calvin", STEP, lambda p: npz(p, rel_actions=None), "no rel_actions"),
    ("calvin", STEP, lambda p: npz(p, rel_actions=np.zeros(6)), "changes its shape"),
    ("calvin", STEP, lambda p: npz(p, rel_actions=np.full(7, np.inf)), "not finite at step 3"),
    ("calvin", "training/episode_0000102.npz", lambda p: npz(p, rgb_static=np.zeros((4, 4, 3), np.uint8)), "no RGB"),
    ("calvin", STEP, lambda p: npz(p, rel_actions=np.array([{}], object)), "not the arrays of a step"),
    ("rlds", "mine-train.tfrecord-00001-of-00002", flipped, "checksum of its content"),
    ("agibot", TABLE, cut_off, "not a whole HDF5 file"),
    ("agibot", TABLE, lambda p: edited(p, "timestamp", lambda a: a[:-1]), "has 9 rows, timestamp has 8"),
    ("agibot", TABLE, lambda p: edited(p, "action/effector/position", not_finite), "not finite at step 3"),
    ("agibot", VIDEO, cut_off, "head_color.mp4: "),
    ("agibot", VIDEO, lambda p: p.unlink(), "no such file"),
    ("agibot", VIDEO, lambda p: p.write_bytes((p.parents[2] / "641/videos/head_color.mp4").read_bytes()), "6 frames"),
    ("egodex", POSES, lambda p: edited(p, "transforms/leftHand", lambda a: a[:-1]), r"\(steps, 4, 4\) expected"),
    ("egodex", POSES, lambda p: edited(p, "transforms/leftHand", not_finite), "not finite at step 3"),
    ("egodex", POSES, cut_off, "not a whole HDF5 file"),
    ("egodex", "part1/fold/0.mp4", lambda p: p.unlink(), "no such file"),
]


@pytest.mark.parametrize(
    ("copied", "file", "damage", "reason"), BAD, indirect=["copied"], ids=[f"{b[0]}-{i}" for i, b in enumerate(BAD)]
)
def test_a_bad_episode_is_left_out_with_its_file_and_reason(
    copied: Written, file: str, damage: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    """At every call anew; the others stay, and nothing of it is in the CSVs."""
    damage(copied.root / file)
    for _ in range(2):
        result = made(copied, tmp_path / "out", "--val", 0.4)
        known = [line for line in result.stderr.splitlines() if "is left out" in line]
        assert len(known) == 1, result.stderr
        assert Path(file).name in known[0]
        assert re.search(reason, known[0]), known[0]
        assert isinstance(result.exception, TooManyFailedError)
        left_out = known[0].split()[1]
        assert left_out not in {row["episode_id"] for part in rows(tmp_path / "out").values() for row in part}


SETS: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("rlds", "mine-train.tfrecord-00000-of-00002", lambda p: p.unlink(), "shard 00000 of 00002 .* is missing"),
    ("rlds", "mine-train.tfrecord-00001-of-00002", cut_off, "the file is cut off"),
    ("rlds", "mine-train.tfrecord-00001-of-00002", lambda p: p.write_bytes(b""), "says 3 records of train"),
    ("rlds", "features.json", lambda p: p.write_text('{"type": "old"}'), "features.json of TFDS"),
    ("rlds", "dataset_info.json", lambda p: p.write_text("{}"), "how many records"),
    ("rlds", "features.json", lambda p: p.unlink(), "features.json of TFDS"),
    ("calvin", "training/ep_start_end_ids.npy", lambda p: np.save(p, np.array([[1, 9], [5, 12]])), "overlap"),
    ("calvin", "training/ep_start_end_ids.npy", lambda p: np.save(p, np.array([3, 9])), "first and last step"),
    ("calvin", "training/ep_start_end_ids.npy", lambda p: np.save(p, np.array([{}], object)), "not an array"),
    ("agibot", "task_info/task_327.json", lambda p: p.write_text("[{}]"), "not AgiBot's list"),
]


@pytest.mark.parametrize(
    ("copied", "file", "damage", "reason"), SETS, indirect=["copied"], ids=[f"{b[0]}-{i}" for i, b in enumerate(SETS)]
)
def test_a_set_that_contradicts_itself_is_refused(
    copied: Written, file: str, damage: Callable[[Path], object], reason: str
) -> None:
    damage(copied.root / file)
    with pytest.raises(ContractError, match=reason):
        find(copied.format, copied.root, None, None)


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_of_something_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ContractError, match=str(tmp_path)):
        find(name, tmp_path, None, None)
    with pytest.raises(ContractError, match="no such folder"):
        find(name, tmp_path / "nothing", None, None)


def test_episodes_of_one_folder_are_refused(tmp_path: Path) -> None:
    """Names that differ in characters alone that no folder of ours has."""
    write_libero(tmp_path)
    shutil.copy(tmp_path / "KITCHEN_open_demo.hdf5", tmp_path / "KITCHEN open_demo.hdf5")
    with pytest.raises(ContractError, match="have one folder"):
        find("libero", tmp_path, None, None)


def test_out_inside_the_dataset_is_refused(written: dict[str, Written], tmp_path: Path) -> None:
    source = find("libero", written["libero"].root, None, None)
    facts = SetFacts(key="mine", title="mine", license="", val=0.25, seed=1)
    with pytest.raises(ContractError, match="lies in the dataset itself"):
        write_trajectory_manifest(source.root / "out", source, facts, Cutting(2, 2, 1, 9.0))


def test_by_processes_of_their_own(
    written: dict[str, Written], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lary_data.resuming.run_tasks", pool.run_tasks)
    result = made(written["rlds"], tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert sum(map(len, rows(tmp_path / "out").values())) == sum(len(range(0, n - STRIDE, STRIDE)) for n in LENGTHS)
