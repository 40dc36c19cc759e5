"""A user of LARYBench switches over: its layout in miniature, its variables, one command, scores."""

import csv
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Small against the square: the classifier has no positions, so a patch alone must show the direction.
MOTIONS = {"Forward": (4, 0), "Backward": (-4, 0), "Left": (0, -4), "Right": (0, 4)}
CALVIN_MEAN = (0.03993005, -0.1113833, 0.50033228, 1.04580053, -0.08165425, 1.58390577, -0.08441296)
ROWS = {"train": 240, "seen_train": 240, "val": 40, "seen_val": 40, "unseen": 12}


def dot(where: tuple[float, float]) -> Image.Image:
    """A bright square on black, 64 x 64, its corner at (row, column)."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    row, column = (int(x) for x in where)
    pixels[row : row + 14, column : column + 14] = 255
    return Image.fromarray(pixels)


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def pairs(split: str) -> Iterator[tuple[int, str, Image.Image, Image.Image]]:
    """(number, motion, before, after) of every row of a split."""
    draw = np.random.default_rng(len(split))
    for number in range(ROWS[split]):
        motion = list(MOTIONS)[number % 4]
        start = draw.integers(24, 26, 2)
        yield number, motion, dot((start[0], start[1])), dot(tuple(start + MOTIONS[motion]))


def chunk(motion: str, steps: int, rest: Sequence[float], scale: float = 0.1) -> np.ndarray[Any, Any]:
    """(steps, dim): a steady motion around `rest` in the first two dimensions, none in the others."""
    values = np.tile(np.array(rest, float), (steps, 1))
    values[:, :2] += np.array(MOTIONS[motion]) / 4 * scale
    return values


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_calvin(media: Path, metadata: Path) -> None:
    for split in ("train", "val"):
        root, rows = media / f"regression/calvin/{split}_stride5", []
        for number, motion, before, after in pairs(split):
            episode = f"ep_{number // 4}"
            save(root / f"images/{episode}/a{number}.png", before)
            save(root / f"images/{episode}/b{number}.png", after)
            (root / f"actions/{episode}").mkdir(parents=True, exist_ok=True)
            np.save(root / f"actions/{episode}/c{number}.npy", chunk(motion, 5, CALVIN_MEAN))
            # Train with the leading folders, val without: both are out there.
            lead = ("images/", "actions/") if split == "train" else ("", "")
            files = (f"a{number}.png", f"b{number}.png", f"c{number}.npy")
            names = tuple(f"{lead[at]}{episode}/{file}" for at, file in zip((0, 0, 1), files, strict=True))
            rows.append({"dataset": "CALVIN", **dict(zip(("src_img", "tgt_img", "action"), names, strict=True))})
        write_csv(metadata / f"calvin_metadata_{split}.csv", rows)


def make_libero(media: Path, metadata: Path) -> None:
    for split in ("train", "val"):
        rows = []
        for number, motion, before, after in pairs(split):
            names = [f"{split}/demo_{number // 4}/{number}/{which}.png" for which in ("action_start", "action_end")]
            for name, image in zip(names, (before, after), strict=True):
                save(media / "classification/LIBERO" / name, image)
            rows.append({"src_img": names[0], "tgt_img": names[1], "action": motion})
        # The older name of the two.
        write_csv(metadata / f"libero_{split}.csv", rows)


def make_robocoin(media: Path, metadata: Path) -> None:
    root = media / "regression/robocoin_10"
    for split in ("seen_train", "seen_val", "unseen"):
        rows = []
        for number, motion, before, after in pairs(split):
            # Two robots, one of them nameless; `unseen` has a third.
            robot = "newcomer" if split == "unseen" and number < 3 else ("", "g1")[number % 2]
            stem = f"G1/{{}}/{split}/ep_{number // 4}/{number}"
            names = (stem.format("images") + "a.png", stem.format("images") + "b.png", stem.format("actions") + ".npy")
            save(root / names[0], before)
            save(root / names[1], after)
            (root / names[2]).parent.mkdir(parents=True, exist_ok=True)
            np.save(
                root / names[2], chunk(motion, 10, [0.0] * 12, scale=3.0 if robot == "g1" else 1.0).astype(np.float32)
            )
            rows.append({"robot_type": robot, **dict(zip(("src_img", "tgt_img", "action"), names, strict=True))})
        write_csv(metadata / f"robocoin_metadata_{split}.csv", rows)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, seed_workspace: Any, warm_python: Path) -> dict[str, str]:
    """A LARYBench checkout's data folder and its media: the variables of its env.sh, and PYTHON for `lary`."""
    root = tmp_path_factory.mktemp("switch")
    media, metadata = root / "media", root / "LARYBench/data"
    for make in (make_calvin, make_libero, make_robocoin):
        make(media, metadata)
    variables = {"DATA_DIR": str(media), "LARY_ROOT": str(root / "LARYBench"), "LARY_LA_DIR": str(root / "latents")}
    ours = {"LARY_HOME": str(seed_workspace(root / "home")), "OMP_NUM_THREADS": "1", "PYTHON": str(warm_python)}
    return os.environ | variables | ours


def lary(bench: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`lary-orch`; it and all that it starts are forks of one interpreter."""
    command = [bench["PYTHON"], "-m", "lary_orch", *arguments]
    return subprocess.run(command, env=bench, capture_output=True, text=True, check=False)


def run(bench: dict[str, str], dataset: str, *options: str) -> "subprocess.CompletedProcess[str]":
    fixed = ("-m", "frame-diff", "--protocol", "smoke", "--runtime", "process", "--env", "current", "--no-control")
    return lary(bench, "run", "-d", dataset, *fixed, *options)


def result_of(bench: dict[str, str], dataset: str, probe: str) -> dict[str, Any]:
    (path,) = Path(bench["LARY_HOME"]).glob(f"results/*/frame-diff/{dataset}/{probe}/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_libero_tells_the_motions(bench: dict[str, str]) -> None:
    done = run(bench, "libero")
    assert done.returncode == 0, done.stderr
    score = result_of(bench, "libero", "classify-corrected")["splits"]["val"]
    assert score["value"] > 0.9
    assert score["rows"] == {"used": 40, "failed": 0, "clamped": 0}


def test_calvin_by_its_fixed_statistics(bench: dict[str, str]) -> None:
    done = run(bench, "calvin")
    assert done.returncode == 0, done.stderr
    score = result_of(bench, "calvin", "regress-corrected")["splits"]["val"]
    assert score["value"] < score["floor"] / 2
    assert set(score["per_group"]) == {"position", "orientation", "gripper"}


def test_relative_targets_are_another_probe(bench: dict[str, str]) -> None:
    done = run(bench, "calvin", "--target", "relative")
    assert done.returncode == 0, done.stderr
    relative = result_of(bench, "calvin", "regress-corrected-relative")
    assert (relative["head"], relative["target"]) == ("mlp", "relative")
    # A steady chunk: its last step minus its first is nothing.
    assert relative["splits"]["val"]["value"] < 1e-2


def test_robocoin_asks_for_statistics_then_for_leave(bench: dict[str, str]) -> None:
    """The stats tool makes what is requested; a robot it never saw needs a flag and is counted."""
    without = run(bench, "robocoin")
    assert without.returncode == 2
    assert "robocoin_stats.json: missing" in without.stderr
    assert "data stats -d robocoin`" in without.stderr
    made = lary(bench, "data", "--env", "current", "stats", "-d", "robocoin")
    assert made.returncode == 0, made.stderr
    refused = run(bench, "robocoin")
    assert refused.returncode == 2
    assert "newcomer" in refused.stderr
    assert "--allow-unknown-robot" in refused.stderr
    done = run(bench, "robocoin", "--allow-unknown-robot")
    assert done.returncode == 0, done.stderr
    splits = result_of(bench, "robocoin", "regress-corrected")["splits"]
    assert splits["unseen"]["unknown_robots"] == {"newcomer": 3}
    assert splits["seen_val"]["unknown_robots"] == {}
    assert splits["seen_val"]["value"] < splits["seen_val"]["floor"] / 2
