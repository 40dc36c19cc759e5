"""A dataset that the `lerobot` package wrote, labelled, and read by it again: both kinds of labels, all else as it was.

The package is not a dependency: `LARY_LEROBOT` names interpreters that have it, separated by colons; those that write
v3 are asked. Tried with 0.4.4.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Disk
from .test_annotate import FAILED, LENGTHS, annotate, expected, valid
from .test_annotate import disk as disk
from .test_tokenize_actions import expected as expected_tokens
from .test_tokenize_actions import made, tokenize, write_store

PYTHONS = [python for python in os.environ.get("LARY_LEROBOT", "").split(":") if python]
WRITER = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
camera = {"dtype": "image", "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
features = {"action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}, "observation.images.top": camera}
made = LeRobotDataset.create("lab/arm", 10, features, root=sys.argv[1], use_videos=False)
for episode, length in enumerate(map(int, sys.argv[2:])):
    for t in range(length):
        frame = {"action": np.array([episode, t], np.float32), "task": "t"}
        made.add_frame(frame | {"observation.images.top": np.full((64, 96, 3), 10 * episode + t, np.uint8)})
    made.save_episode()
made.finalize()
"""
READER = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
read = LeRobotDataset("lab/arm", root=sys.argv[1])
rows = []
for at in range(len(read)):
    item = read[at]
    row = {"picture": round(255 * float(item["observation.images.top"].mean()))}
    for name, value in item.items():
        if name == "action" or name.startswith(("latent", "action_token")):
            row[name] = value if isinstance(value, str) else [str(value.dtype), list(value.shape), value.tolist()]
    rows.append(row)
print(json.dumps(rows))
"""


def run(python: str, home: Path, script: str, *arguments: object) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(home), "HF_HOME": str(home)}
    command = [python, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not PYTHONS, reason="LARY_LEROBOT names no interpreter with the lerobot package")
@pytest.mark.parametrize("python", PYTHONS or ["none"])
def test_lerobot_reads_what_was_annotated(disk: Disk, tmp_path: Path, python: str) -> None:
    root, home = tmp_path / "robot", tmp_path / "home"
    run(python, home, WRITER, root, *LENGTHS)
    if not json.loads((root / "meta/info.json").read_text())["codebase_version"].startswith("v3."):
        pytest.skip("this version of lerobot writes no v3")
    once, out = tmp_path / "once", tmp_path / "out"
    assert annotate(disk, "lerobot", once, "--from", str(root)).exit_code == 0
    (tmp_path / "tokens").mkdir()
    other = made(tmp_path / "tokens")
    write_store(other)
    done = tokenize(other, "lerobot", out, "--from", str(once))
    assert done.exit_code == 0, done.output
    before: list[dict[str, Any]] = json.loads(run(python, home, READER, root).splitlines()[-1])
    after: list[dict[str, Any]] = json.loads(run(python, home, READER, out).splitlines()[-1])
    assert [{name: row[name] for name in row if name in before[0]} for row in after] == before
    indices, vectors = np.concatenate(expected(disk, "idx")), np.concatenate(expected(disk, "z"))
    tokens, flags = (np.concatenate(found) for found in expected_tokens())
    for at, row in enumerate(after):
        assert row["latent_idx"] == ["torch.int64", [2], indices[at].tolist()]
        assert row["latent_z"] == ["torch.float32", [8], vectors[at].ravel().tolist()]
        assert row["action_token"] == ["torch.int64", [3], tokens[at].tolist()]
        assert row["action_token_valid"] == ["torch.bool", [], bool(flags[at])]
    assert [row["latent_valid"][2] for row in after] == [flag for e in range(len(LENGTHS)) for flag in valid(e)]
    assert len(after) > FAILED
