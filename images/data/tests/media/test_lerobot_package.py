"""Datasets that the `lerobot` package itself writes: every frame and action of the set is the right one.

The package is not a dependency. `LARY_LEROBOT` names interpreters that have it, separated by colons; tried with 0.3.3
(which writes v2.1) and 0.4.4 (v3.0).
"""

import csv
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from lary_data.tools.manifest import command

PYTHONS = [python for python in os.environ.get("LARY_LEROBOT", "").split(":") if python]
LENGTHS = (12, 9, 10, 11)
STRIDE = 4

WRITER = """
import inspect, sys
from pathlib import Path
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, kind, fps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
lengths = [int(n) for n in sys.argv[4:]]
camera = {"dtype": kind, "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
features = {
    "action": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
    "observation.images.top": camera,
    "observation.images.wrist": camera,
}
made = LeRobotDataset.create("lab/arm", fps, features, root=root, robot_type="arm", use_videos=kind == "video")
for episode, length in enumerate(lengths):
    for t in range(length):
        frame = {
            "action": np.array([episode, t, 100 * episode + t], np.float32),
            "observation.images.top": np.full((64, 96, 3), 20 + 4 * (12 * episode + t), np.uint8),
            "observation.images.wrist": np.zeros((64, 96, 3), np.uint8),
        }
        if "task" in inspect.signature(made.add_frame).parameters:
            made.add_frame(frame, f"task {episode % 2}")
        else:
            made.add_frame({**frame, "task": f"task {episode % 2}"})
    made.save_episode()
if hasattr(made, "finalize"):
    made.finalize()
"""


@pytest.mark.skipif(not PYTHONS, reason="LARY_LEROBOT names no interpreter with the lerobot package")
@pytest.mark.parametrize("python", PYTHONS or ["none"])
@pytest.mark.parametrize(("kind", "fps"), [("video", 30), ("video", 10), ("image", 10)])
def test_what_lerobot_writes(tmp_path: Path, python: str, kind: str, fps: int) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    arguments = [str(root), kind, str(fps), *map(str, LENGTHS)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [python, "-c", WRITER, *arguments], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    call = ["lerobot", root, "--key", "k", "--camera", "observation.images.top", "--out", out, "--stride", STRIDE]
    result = CliRunner().invoke(command, [*map(str, call), "--every", "1", "--workers", "1"])
    assert result.exit_code == 0, result.stderr
    found = set()
    for split in ("train", "val"):
        with (out / f"k_metadata_{split}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                episode, t = int(row["episode_id"]), int(Path(row["src_img"]).stem[-6:])
                found.add((episode, t))
                assert row["task"] == f"task {episode % 2}"
                for name, step in ((row["src_img"], t), (row["tgt_img"], t + STRIDE)):
                    # AV1 is lossy; two pictures are 4 levels apart.
                    assert cv2.imread(str(out / name)).mean() == pytest.approx(20 + 4 * (12 * episode + step), abs=1.9)
                chunk = np.load(out / row["action"])
                assert chunk.tolist() == [[episode, t + i, 100 * episode + t + i] for i in range(STRIDE)]
    assert found == {(e, t) for e, n in enumerate(LENGTHS) for t in range(n - STRIDE)}
