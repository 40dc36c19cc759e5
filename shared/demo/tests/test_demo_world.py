"""The demo world: what it shows is what it says, and the same on every machine."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import av
import lary_demo as demo
import numpy as np
import pytest
from click.testing import CliRunner
from lary_demo import Settings, arm, ensure, exact, motion
from lary_demo.__main__ import main
from lary_schema.base import ContractError
from lary_schema.metadata import parse_indices, read_rows
from numpy.typing import NDArray
from PIL import Image

MOTION_FRAMES = "bf3b803a743bffd6b12d2dcdb5dc8223d12b81eb1fc25e6821eaa5f389a321e9"
ARM_FRAMES = "09c58ccfe996aa80dd296342771bcb67ca2289a73834bc967c9367f4551499be"
NAME = Settings().name
SMALL = ("demo_motion", "demo_arm")
"""The sets that are made whole here; those of the long arm are tested in `test_long_arm.py`, with few episodes."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for key in SMALL:
        ensure(key, folder)
    return folder


def decoded(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def hashes(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- the same everywhere --------------------------------------------------------------------


def test_drawn_pixels_have_not_drifted() -> None:
    """Change VERSION in lary_demo with these hashes: old latents must not pass for new ones."""
    digest = hashlib.sha256()
    for clip in motion.clips("val", 0)[:16]:
        digest.update(clip.frames(50).tobytes())
    assert digest.hexdigest() == MOTION_FRAMES
    digest = hashlib.sha256()
    for episode in arm.episodes("val", 0)[:8]:
        for time in range(0, 17, 4):
            digest.update(episode.frame(time, 50).tobytes() + episode.state(time).vector().tobytes())
    assert digest.hexdigest() == ARM_FRAMES


@pytest.mark.parametrize("key", SMALL)
def test_two_generations_are_equal_byte_by_byte(world: Path, tmp_path: Path, key: str) -> None:
    ensure(key, tmp_path)
    assert hashes(tmp_path / key) == hashes(world / key)


def test_another_seed_is_another_world() -> None:
    one, two = motion.clips("val", 0)[0], motion.clips("val", 1)[0]
    assert not np.array_equal(one.background, two.background)
    assert arm.episodes("val", 0)[0].first != arm.episodes("val", 1)[0].first


def test_directions_are_on_the_circle() -> None:
    points = np.array([exact.direction(a) for a in range(exact.TURN)]) / exact.UNIT
    angles = np.arange(exact.TURN) * 2 * np.pi / exact.TURN
    np.testing.assert_allclose(points, np.stack([np.cos(angles), np.sin(angles)], 1), atol=0.51 / exact.UNIT)
    assert exact.direction(-1) == exact.direction(exact.TURN - 1)


def test_draws_cover_their_range() -> None:
    draws = exact.Draws(3)
    assert {draws.between(-2, 2) for _ in range(200)} == {-2, -1, 0, 1, 2}
    assert sorted(draws.shuffled(range(9))) == list(range(9))


# --- demo_motion ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", motion.ROWS)
def test_motion_labels_are_balanced_and_tables_are_sound(world: Path, split: str) -> None:
    folder = world / "demo_motion"
    rows = list(read_rows(folder / f"metadata_{split}.csv", ("video_path", "action", "sample_indices")))
    counts = Counter(row["action"] for row in rows)
    assert counts == dict.fromkeys(motion.CLASSES, motion.ROWS[split] // len(motion.CLASSES))
    for row, clip in zip(rows, motion.clips(split, 0), strict=True):
        assert (folder / row["video_path"]).is_file()
        indices = parse_indices(row["sample_indices"], motion.FRAMES)
        assert (indices[0], indices[-1]) == (0, clip.length - 1)
        assert len(set(indices)) == motion.FRAMES


def test_clips_decode_to_the_drawn_pixels(world: Path) -> None:
    for number, clip in enumerate(motion.clips("val", 0)[:24]):
        np.testing.assert_array_equal(
            decoded(world / f"demo_motion/{NAME}/val/{number:04d}.mp4"), clip.frames(Settings().distractor)
        )


def test_decord_sees_the_same_pixels(world: Path) -> None:
    decord = pytest.importorskip("decord", reason="decord is optional, and has no wheel for every platform")
    for number, clip in enumerate(motion.clips("val", 0)[:4]):
        reader = decord.VideoReader(str(world / f"demo_motion/{NAME}/val/{number:04d}.mp4"))
        frames = reader.get_batch(clip.sample_indices).asnumpy()
        np.testing.assert_array_equal(frames, clip.frames(Settings().distractor)[clip.sample_indices])


@pytest.mark.parametrize("action", motion.CLASSES)
def test_motion_is_as_labelled(action: str) -> None:
    """Seen in the pixels: without a distractor the agent alone differs from the background."""
    dx, dy, size = motion.CLASSES[action]
    for number in range(6):
        clip = motion.Clip.draw(exact.Draws(7, number), action)
        (x0, y0, area0), (x1, y1, area1) = (footprint(clip, time) for time in (0, clip.length - 1))
        pixels = clip.travel / 16
        assert [x1 - x0, y1 - y0] == pytest.approx([dx * pixels, dy * pixels], abs=1)
        assert np.sign(round((area1 - area0) / 20)) == size


def footprint(clip: motion.Clip, time: int) -> tuple[float, float, int]:
    """Centre (x, y) and area of the agent's pixels."""
    ys, xs = np.nonzero((clip.frame(time, 0) != clip.background).any(-1))
    assert min(*xs, *ys) > 0
    assert max(*xs, *ys) < 63
    return (xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2, len(xs)


def test_motion_distractor_changes_itself_alone() -> None:
    clip = motion.clips("train", 0)[0]
    for time in range(clip.length):
        none, full = clip.frame(time, 0), clip.frame(time, 100)
        changed = (none != full).any(-1)
        x, y = clip.distractor.at(time)
        rows, columns = np.nonzero(changed)
        assert len(rows) > 10
        reach = clip.distractor.radius + 16
        assert (np.hypot(columns * 16 - x, rows * 16 - y) <= reach + 16).all()


def test_distractor_strength_is_gradual_and_tells_nothing_of_the_label() -> None:
    clips = motion.clips("train", 0)[:64]
    change = [sum(int((c.frame(0, s) != c.frame(0, 0)).sum()) for c in clips) for s in (0, 5, 100)]
    assert change[0] == 0 < change[1] <= change[2]
    by_action = {a: {np.sign(c.distractor.velocity[0]) for c in clips if c.action == a} for a in motion.CLASSES}
    assert all({-1, 1} <= signs for signs in by_action.values())


# --- demo_arm -------------------------------------------------------------------------------


@pytest.mark.parametrize("split", arm.EPISODES)
def test_actions_lead_from_the_source_state_to_the_target_state(world: Path, split: str) -> None:
    folder = world / "demo_arm"
    columns = ("dataset", "type", "perspective", "src_img", "src_state", "tgt_img", "tgt_state", "action")
    rows = list(read_rows(folder / f"metadata_{split}.csv", columns))
    assert len(rows) == arm.EPISODES[split] * arm.CHUNKS
    for row in rows:
        action = np.load(folder / row["action"])
        assert (action.shape, action.dtype) == ((arm.STRIDE, 3), np.float32)
        source, target = (np.load(folder / row[name]) for name in ("src_state", "tgt_state"))
        np.testing.assert_allclose(source + action.sum(0), target, atol=1e-5)
        assert 0 <= target[2] <= 1


def test_arm_images_are_the_drawn_pixels(world: Path) -> None:
    rows = list(read_rows(world / "demo_arm/metadata_val.csv"))
    for number, episode in enumerate(arm.episodes("val", 0)[:4]):
        for chunk in range(arm.CHUNKS):
            image = Image.open(world / "demo_arm" / rows[number * arm.CHUNKS + chunk]["tgt_img"])
            drawn = episode.frame((chunk + 1) * arm.STRIDE, Settings().distractor)
            np.testing.assert_array_equal(np.asarray(image), drawn)


def test_every_action_dimension_moves() -> None:
    actions = np.concatenate([e.chunk(t) for e in arm.episodes("train", 0) for t in range(0, 16, 4)])
    assert (actions.std(0) > 0.04).all()
    assert (abs(actions.mean(0)) < 0.02).all()


def test_arm_stays_in_the_frame_and_shows_its_state() -> None:
    for episode in arm.episodes("train", 0):
        for time in range(0, 17, 4):
            shown = (episode.frame(time, 0) != episode.background).any(-1)
            assert np.count_nonzero(shown) == np.count_nonzero(shown[1:-1, 1:-1]) > 0
    episode = arm.episodes("train", 0)[0]
    moving = [t for t in range(16) if episode.state(t) != episode.state(t + 1)]
    assert all((episode.frame(t, 0) != episode.frame(t + 1, 0)).any() for t in moving)


def test_arm_distractor_lies_behind_the_arm() -> None:
    episode = arm.episodes("train", 0)[0]
    solid = (episode.frame(0, 0) == (235, 90, 60)).all(-1)
    np.testing.assert_array_equal(episode.frame(0, 100)[solid], episode.frame(0, 0)[solid])
    assert (episode.frame(0, 100) != episode.frame(0, 0)).any()


# --- ensure ---------------------------------------------------------------------------------


def test_a_complete_set_is_left_alone(world: Path) -> None:
    said: list[str] = []
    before = (world / "demo_arm" / demo.MARKER).stat()
    ensure("demo_arm", world, said.append)
    assert said == []
    assert (world / "demo_arm" / demo.MARKER).stat() == before


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of a few episodes, quickly made."""
    monkeypatch.setattr(arm, "EPISODES", {"train": 2, "val": 2})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["no marker", "cut file", "lost file", "other version"])
def test_what_is_not_whole_is_made_again(tmp_path: Path, damage: str) -> None:
    target = tmp_path / "demo_arm"
    ensure("demo_arm", tmp_path)
    whole = hashes(target)
    marker, image = target / demo.MARKER, target / NAME / "val/000/frame_00.png"
    match damage:
        case "no marker":
            marker.unlink()
        case "cut file":
            image.write_bytes(b"")
        case "lost file":
            image.unlink()
        case "other version":
            marker.write_text(json.dumps({**json.loads(marker.read_text()), "version": 0}))
    ensure("demo_arm", tmp_path)
    assert hashes(target) == whole
    assert [p.name for p in tmp_path.iterdir()] == ["demo_arm"]


def test_an_interrupted_generation_leaves_nothing(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lary_demo import generate

    def dies(folder: Path, settings: Settings) -> None:
        (folder / "metadata_train.csv").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setitem(generate.WRITERS, "demo_arm", dies)
    with pytest.raises(KeyboardInterrupt):
        ensure("demo_arm", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_settings_are_in_every_media_path(tmp_path: Path) -> None:
    """So that other pixels mean another CSV, and by its hash another latent store."""
    arguments = ["demo_arm", str(tmp_path), "--seed", "2", "--distractor", "0"]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    row = next(read_rows(tmp_path / "demo_arm/metadata_val.csv"))
    assert all(row[c].startswith("v1-seed2-distractor0/") for c in ("src_img", "tgt_img", "action"))
    assert json.loads((tmp_path / "demo_arm" / demo.MARKER).read_text())["seed"] == 2


@pytest.mark.parametrize("wrong", [{"distractor": 101}, {"distractor": -1}, {"seed": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ContractError, match="it "):
        Settings(**wrong)


def test_unknown_keys_and_unwritable_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="demo_motion, demo_arm, demo_arm_long, demo_arm_still"):
        ensure("demo_dance", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="--workspace"):
        ensure("demo_arm", tmp_path / "file")


def test_the_rows_of_an_episode_are_a_group(world: Path) -> None:
    for key, rows_each in (("demo_arm", arm.CHUNKS), ("demo_motion", 1)):
        groups = {
            split: [row["episode"] for row in read_rows(world / key / f"metadata_{split}.csv")]
            for split in ("train", "val")
        }
        assert set(groups["train"]).isdisjoint(groups["val"])
        for split, found in groups.items():
            assert set(Counter(found).values()) == {rows_each}
            media = [row["src_img" if key == "demo_arm" else "video_path"] for row in read_rows(
                world / key / f"metadata_{split}.csv"
            )]  # fmt: skip
            assert all(f"/{group}" in path for group, path in zip(found, media, strict=True))


@pytest.mark.usefixtures("small")
def test_a_set_without_the_column_is_made_again_with_the_same_media(tmp_path: Path) -> None:
    target = tmp_path / "demo_arm"
    ensure("demo_arm", tmp_path)
    whole = hashes(target)
    marker = json.loads((target / demo.MARKER).read_text())
    del marker["tables"]
    (target / demo.MARKER).write_text(json.dumps(marker))
    ensure("demo_arm", tmp_path)
    assert hashes(target) == whole
    assert json.loads((target / demo.MARKER).read_text())["tables"] == demo.TABLES
