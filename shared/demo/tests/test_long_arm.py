"""`demo_arm_long` and `demo_arm_still`: pairs of every frame, instructions, and a distractor that can be measured."""

import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import lary_demo as demo
import numpy as np
import pytest
from lary_demo import Settings, arm, ensure, exact
from lary_demo.canvas import SUB, Distractor
from lary_demo.files import write_plain_png
from lary_schema.base import ContractError
from lary_schema.metadata import Row, read_rows
from numpy.typing import NDArray
from PIL import Image

KEYS = ("demo_arm_long", "demo_arm_still")
EPISODES = {"train": 6, "val": 4}
PAIRS = arm.STRIDE * arm.CHUNKS - arm.STRIDE + 1
MEDIA = ("src_img", "tgt_img", "action")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(arm, "LONG_EPISODES", EPISODES)
        for key in KEYS:
            ensure(key, folder)
    return folder


@cache
def drawn(split: str) -> list[arm.Episode]:
    """The episodes that the files show, and further ones."""
    return arm.long_episodes(split, 0)


def rows_of(world: Path, key: str, split: str) -> list[Row]:
    return list(read_rows(world / key / f"metadata_{split}.csv"))


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_there_are_as_many_pairs_as_are_said() -> None:
    counts = {split: episodes * PAIRS for split, episodes in arm.LONG_EPISODES.items()}
    assert counts == {"train": 6500, "val": 1560}


@pytest.mark.parametrize("key", KEYS)
def test_splits_share_nothing(world: Path, key: str) -> None:
    train, val = (rows_of(world, key, split) for split in ("train", "val"))
    for column in ("episode", *MEDIA):
        assert {row[column] for row in train}.isdisjoint(row[column] for row in val)
    seen = [drawn(split) for split in ("train", "val")]
    starts = {(e.first, e.actions, e.background.tobytes()) for part in seen for e in part}
    assert len(starts) == sum(map(len, seen))
    assert not starts & {(e.first, e.actions, e.background.tobytes()) for e in arm.episodes("train", 0)}


@pytest.mark.parametrize("key", KEYS)
def test_every_pair_of_an_episode_is_there_once(world: Path, key: str) -> None:
    for split, episodes in EPISODES.items():
        rows = rows_of(world, key, split)
        assert set(Counter(row["episode"] for row in rows).values()) == {PAIRS}
        assert len({row["episode"] for row in rows}) == episodes
        spans = {(Path(row["src_img"]).stem, Path(row["tgt_img"]).stem) for row in rows}
        assert spans == {(f"frame_{t:02d}", f"frame_{t + 4:02d}") for t in range(PAIRS)}
    images = list((world / key).rglob("*.png"))
    assert len(images) == sum(EPISODES.values()) * (arm.STRIDE * arm.CHUNKS + 1)


@pytest.mark.parametrize("key", KEYS)
def test_images_and_actions_are_the_episode_s(world: Path, key: str) -> None:
    distractor = Settings.of(key).distractor
    for row in rows_of(world, key, "val"):
        episode = drawn("val")[int(row["episode"].removeprefix("val/"))]
        start = int(Path(row["src_img"]).stem[-2:])
        for column, moment in (("src_img", start), ("tgt_img", start + arm.STRIDE)):
            np.testing.assert_array_equal(pixels_of(world / key / row[column]), episode.frame(moment, distractor))
        action = np.load(world / key / row["action"])
        assert (action.shape, action.dtype) == ((arm.STRIDE, 3), np.float32)
        difference = episode.state(start + arm.STRIDE).vector() - episode.state(start).vector()
        np.testing.assert_allclose(action.sum(0), difference, atol=1e-5)


def test_both_sets_show_the_same_motion(world: Path) -> None:
    for split in EPISODES:
        pairs = zip(*(rows_of(world, key, split) for key in KEYS), strict=True)
        for long, still in pairs:
            assert long["instruction"] == still["instruction"]
            actions = [(world / key / row["action"]).read_bytes() for key, row in zip(KEYS, (long, still), strict=True)]
            assert actions[0] == actions[1]


@pytest.mark.parametrize("key", KEYS)
def test_instructions_follow_the_signs_of_the_chunk(world: Path, key: str) -> None:
    seen: set[str] = set()
    for row in rows_of(world, key, "train"):
        total = np.load(world / key / row["action"]).sum(0)
        # Half a unit: sums of float32 multiples of one are not exactly 0.
        signs = np.sign(np.where(abs(total) < arm.RADIANS / 2, 0, total)).astype(int)
        words = [names[sign + 1] for names, sign in zip(arm.WORDS.values(), signs, strict=True)]
        assert row["instruction"] == " ".join(words)
        seen |= set(words)
    assert len(seen) >= 8


def test_every_word_says_one_thing() -> None:
    words = [word for names in arm.WORDS.values() for word in names]
    assert len(set(words)) == 9
    assert all(word.isalpha() for word in words)


def centre_of_disc(frame: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(x, y) of a white disc, pixels, weighted by how much it covers of each."""
    weight = (frame.astype(float) - background).sum(-1) / (255.0 * 3 - background.sum(-1, dtype=float))
    ys, xs = np.indices(weight.shape)
    return np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()


def test_nuisance_is_the_displacement_seen_in_the_pixels(world: Path) -> None:
    """On the bare background: the arm would cover parts of the disc."""
    moved = []
    for row in rows_of(world, "demo_arm_long", "train"):
        episode = drawn("train")[int(row["episode"].removeprefix("train/"))]
        start = int(Path(row["src_img"]).stem[-2:])
        centres = []
        for moment in (start, start + arm.STRIDE):
            frame = episode.background.copy()
            episode.distractor.paint(frame, moment, 100)
            shown = pixels_of(world / "demo_arm_long" / row["src_img" if moment == start else "tgt_img"])
            arm_free = (episode.frame(moment, 0) == episode.background).all(-1)
            np.testing.assert_array_equal(shown[arm_free], frame[arm_free])
            centres.append(centre_of_disc(frame, episode.background))
        nuisance = np.load(world / "demo_arm_long" / row["nuisance"])
        assert (nuisance.shape, nuisance.dtype) == ((1, 2), np.float32)
        np.testing.assert_allclose(nuisance[0], centres[1] - centres[0], atol=0.15)
        moved.append(nuisance[0])
    assert np.abs(moved).max() > 4


def test_the_disc_is_white_opaque_and_up_to_two_pixels_fast() -> None:
    drawn = [Distractor.white(exact.Draws(5, number)) for number in range(200)]
    assert {(d.radius, d.colour) for d in drawn} == {(5 * SUB, (255, 255, 255))}
    speeds = np.abs([d.velocity for d in drawn])
    assert speeds.max() == 2 * SUB
    for moment in range(17):
        steps = [np.subtract(d.at(moment + 1), d.at(moment)) for d in drawn]
        assert np.abs(steps).max() <= 2 * SUB


def test_the_still_set_has_no_disc_and_no_nuisance(world: Path) -> None:
    header = (world / "demo_arm_still/metadata_val.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "nuisance" not in header.split(",")
    assert not list((world / "demo_arm_still").rglob("nuisance*"))
    with pytest.raises(ContractError, match="demo_arm_long"):
        Settings.of("demo_arm_still", distractor=50)
    for key in ("demo_arm_long", "demo_motion"):
        assert Settings.of(key, distractor=30).distractor == 30


@pytest.mark.parametrize("key", KEYS)
def test_a_second_generation_gives_the_same_bytes_and_a_third_none(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(arm, "LONG_EPISODES", EPISODES)
    ensure(key, tmp_path)
    files = sorted(p.relative_to(world) for p in (world / key).rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in (tmp_path / key).rglob("*") if p.is_file())
    assert all((world / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)
    said: list[str] = []
    ensure(key, tmp_path, said.append)
    assert said == []


def test_a_killed_generation_leaves_nothing_that_passes_for_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole set, killed as soon as the first images are there."""
    target = tmp_path / "demo_arm_long"
    with subprocess.Popen([sys.executable, "-m", "lary_demo", target.name, str(tmp_path)]) as child:
        while not list(tmp_path.glob("*/*/train/000/frame_16.png")):
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert not demo.is_complete(target)
    monkeypatch.setattr(arm, "LONG_EPISODES", EPISODES)
    ensure(target.name, tmp_path)
    assert demo.is_complete(target)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (3, 70), (200, 150)])
def test_plain_png_reads_back(tmp_path: Path, size: tuple[int, int]) -> None:
    """Also where it takes more than one stored block."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    write_plain_png(tmp_path / "image.png", pixels)
    np.testing.assert_array_equal(pixels_of(tmp_path / "image.png"), pixels)
    with Image.open(tmp_path / "image.png") as image:
        image.verify()
