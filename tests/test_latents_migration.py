"""LARYBench's latents on disk become a score without images, weights or media, and go back as they came."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lary_schema.store.reader import LatentReader

COMMAND = Path(sys.executable).with_name("lary-orch")
METADATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "larybench_metadata"
CARD = """
key: moves
title: one number gives the action
task: regression
columns: {input: image, implied_folder: images}
metadata: "moves_metadata_{split}.csv"
media: regression/moves
actions:
  column: action
  folder: regression/moves
  implied_folder: actions
  stride: 2
  dim: 1
  names: [x]
  normalisation: {kind: train}
license: none
source: test
"""
ROWS = {"train": 160, "val": 40}


def lary_orch(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command under LARYBench's own variables."""
    folders = {"DATA_DIR": "data", "LARY_ROOT": "LARYBench", "LARY_LA_DIR": "latent_actions", "LARY_HOME": "workspace"}
    env = {name: value for name, value in os.environ.items() if not name.startswith("LARY_")}
    env |= {name: str(root / folder) for name, folder in folders.items()} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([COMMAND, *arguments], env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def make_release(root: Path) -> None:
    """Actions, CSVs and latents of a model that no image serves; no picture anywhere."""
    rng = np.random.default_rng(0)
    (root / "cards").mkdir()
    (root / "cards/moves.yaml").write_text(CARD)
    for split, count in ROWS.items():
        lines = [["src_img", "tgt_img", "action", "la_path"]]
        for row in range(count):
            value = rng.normal()
            action = root / f"data/regression/moves/actions/{split}_{row}.npy"
            action.parent.mkdir(parents=True, exist_ok=True)
            np.save(action, np.full((2, 1), value, np.float32))
            name = f"moves/{split}/third-party/latent_action_{row:08d}.npz"
            npz = root / "latent_actions" / name
            npz.parent.mkdir(parents=True, exist_ok=True)
            tokens = np.concatenate([np.full((2, 4), value), rng.normal(size=(2, 4))], axis=1).astype(np.float32)
            np.savez_compressed(npz, tokens=tokens, indices=np.array([]))
            lines.append([f"images/a{row}.png", f"images/b{row}.png", action.name, name])
        folder = root / "LARYBench/data"
        folder.mkdir(parents=True, exist_ok=True)
        # The dataset's own CSV has no la_path.
        for path, width in ((f"moves_metadata_{split}.csv", 3), (f"{split}_la_moves_2_third-party.csv", 4)):
            with (folder / path).open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(line[:width] for line in lines)


def test_from_latents_on_disk_to_a_score_and_back(tmp_path: Path) -> None:
    make_release(tmp_path)
    key = ("-m", "third-party", "-d", "moves", "--env", "current", "--catalog", str(tmp_path / "cards"))
    lary_orch(tmp_path, "latents", "import", *key)
    run = ("--variant", "imported", "--runtime", "process", "--protocol", "smoke", "--no-control")
    lary_orch(tmp_path, "run", *key, *run)
    (path,) = (tmp_path / "workspace/results").glob("*/third-party/moves/*/result.json")
    result = json.loads(path.read_text())
    assert (result["model"], result["variant"]) == ("third-party", "imported")
    assert result["train_rows"]["used"] == ROWS["train"]
    score = result["splits"]["val"]
    assert score["rows"] == {"used": ROWS["val"], "failed": 0, "clamped": 0}
    assert score["value"] < 0.5 * score["floor"]
    assert "nothing to do" in lary_orch(tmp_path, "run", *key, *run).stderr

    lary_orch(tmp_path, "latents", "export", *key, "--to", str(tmp_path / "back"), "--compress")
    for split, count in ROWS.items():
        name = f"{split}_la_moves_2_third-party.csv"
        assert (tmp_path / "back" / name).read_text() == (tmp_path / "LARYBench/data" / name).read_text()
        for row in range(count):
            file = f"moves/{split}/third-party/latent_action_{row:08d}.npz"
            old, new = (np.load(tmp_path / root / file) for root in ("latent_actions", "back"))
            assert new["tokens"].dtype == old["tokens"].dtype == np.float32
            assert np.array_equal(new["tokens"], old["tokens"])
            assert new["indices"].shape == old["indices"].shape == (0,)


@pytest.mark.skipif(not METADATA.is_dir(), reason="LARYBench's first CSV rows are not next to this checkout")
def test_a_real_csv_of_latents(tmp_path: Path) -> None:
    """Bare names, the older layout, and paths that leave out `images/` and `actions/`."""
    folder = tmp_path / "LARYBench/data"
    folder.mkdir(parents=True)
    for name in ("calvin_metadata_val.csv", "val_la_calvin_5_dinov2.csv"):
        shutil.copy(METADATA / name, folder / name)
    values = np.random.default_rng(0).normal(size=(200, 16, 8)).astype(np.float32)
    folder = tmp_path / "latent_actions/calvin/stride_5/val/dinov2"
    folder.mkdir(parents=True)
    for row, tokens in enumerate(values):
        codes = np.arange(16) + row
        np.savez_compressed(folder / f"latent_action_{row:08d}.npz", tokens=tokens, indices=codes)
    lary_orch(tmp_path, "latents", "import", "-m", "dinov2", "-d", "calvin", "--split", "val", "--env", "current")
    (path,) = (tmp_path / "latent_actions/calvin/val/dinov2").glob("image-imported-*.zarr")
    store = LatentReader.open(path)
    rows = np.arange(200)
    assert np.array_equal(store.tokens(rows), values[:, None])
    assert np.array_equal(store.indices(rows), np.arange(16) + rows[:, None, None])
