"""A metadata CSV of 1.2 million rows: import of latents, statistics of actions, a sampled check; export of latents.

The CSV's rows name some thousands of files again and again, so that it measures what each row costs and not a disk
of a million files. The import of real-size latents is measured apart, each row with a file of its own.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, child, report
from PIL import Image

CARD = """
key: {key}
title: many pairs
task: regression
columns: {{input: image, implied_folder: images}}
metadata: "{key}_metadata_{{split}}.csv"
media: regression/{key}
splits: {{train: train, evaluate: []}}
actions:
  column: action
  folder: regression/{key}
  implied_folder: actions
  stride: 45
  dim: 16
  names: [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15]
  normalisation: {{kind: per-robot, stats: regression/{key}/{key}_stats.json}}
license: none
source: synthetic
"""
HEADER = ["dataset", "robot_type", "src_img", "tgt_img", "action"]


class Set:
    """A dataset below `root`: `rows` rows that name `files` different pairs, action files and latents."""

    def __init__(self, root: Path, key: str, rows: int, files: int, tokens: tuple[int, int]) -> None:
        self.root, self.key, self.rows, self.files = root, key, rows, files
        (root / "cards").mkdir(exist_ok=True)
        (root / f"cards/{key}.yaml").write_text(CARD.format(key=key))
        rng = np.random.default_rng(0)
        self._media(rng)
        folder = self._folder(f"la/{key}/train/m")
        for number in range(files):
            values = rng.normal(size=tokens).astype(np.float32)
            np.savez_compressed(folder / f"{number}.npz", tokens=values, indices=np.array([]))
        self._csv(f"{key}_metadata_train.csv", HEADER, (self._cells(row) for row in range(rows)))
        paths = (f"{key}/train/m/{row % files}.npz" for row in range(rows))
        cells = ([*self._cells(row), path] for row, path in enumerate(paths))
        self._csv(f"train_la_{key}_45_m.csv", [*HEADER, "la_path"], cells)

    def _media(self, rng: np.random.Generator) -> None:
        images, actions = (self._folder(f"data/regression/{self.key}/{name}") for name in ("images", "actions"))
        for number in range(self.files):
            np.save(actions / f"{number}.npy", rng.normal(size=(45, 16)).astype(np.float32))
        for number in range(min(self.files, 1000)):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(images / f"{number}.png")

    def _cells(self, row: int) -> list[str]:
        number, other = row % min(self.files, 1000), (row + 1) % min(self.files, 1000)
        return ["synthetic", f"robot {row % 7}", f"{number}.png", f"{other}.png", f"{row % self.files}.npy"]

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        return folder

    def _csv(self, name: str, header: list[str], rows: Iterable[list[str]]) -> None:
        with (self.root / "data" / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header])
            csv.writer(file).writerows(rows)

    def run(self, *command: str) -> dict[str, float]:
        """Seconds and peak memory (MiB) of one command."""
        folders = {"DATA_DIR": "data", "LARY_HOME": "w", "LARY_LA_DIR": "latents", "LARY_CATALOG": "cards"}
        env = os.environ | {name: str(self.root / folder) for name, folder in folders.items()}
        start = time.perf_counter()
        whole = [Path(sys.executable).with_name("lary-orch"), *command]
        with child(whole, env=env, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise SystemExit(f"{' '.join(command)}: status {status}")
        return {"seconds": round(time.perf_counter() - start, 2), "peak_mib": round(usage.ru_maxrss / 1024)}

    def latents(self, verb: str, *options: str) -> dict[str, float]:
        found = self.run("latents", verb, "--env", "current", "-m", "m", "-d", self.key, *options)
        return found | {"rows_per_s": round(self.rows / found["seconds"])}


def many(root: Path, rows: int) -> dict[str, Any]:
    """What a row costs."""
    data = Set(root, "million", rows, 5000, (4, 32))
    source = ("--from", str(root / "la"))
    figures: dict[str, Any] = {"rows": rows, "import": data.latents("import", *source)}
    figures["import_again"] = data.latents("import", *source)
    figures["stats"] = data.run("data", "--env", "current", "stats", "-d", "million")
    figures["check_sample_500"] = data.run("data", "--env", "current", "check", "-d", "million", "--sample", "500")
    return figures


def real(root: Path, rows: int) -> dict[str, Any]:
    """What a latent of a usual size costs: (16, 1024) float32, 64 KiB."""
    data = Set(root, "sample", rows, rows, (16, 1024))
    figures: dict[str, Any] = {"rows": rows, "import": data.latents("import", "--from", str(root / "la"))}
    figures["export"] = data.latents("export", "--to", str(root / "back"))
    figures["export_compressed"] = data.latents("export", "--to", str(root / "back2"), "--compress")
    figures["stats_files"] = data.run("data", "--env", "current", "stats", "-d", "sample")
    return figures


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--sample", type=int, default=10_000, help="rows with a file of their own")
    options = parser.parse_args()
    figures = {}
    for name, measure, rows in (("many_rows", many, options.rows), ("real_latents", real, options.sample)):
        folder = Path(tempfile.mkdtemp())
        try:
            figures[name] = measure(folder, rows)
        finally:
            shutil.rmtree(folder)
    report("scale", figures, options.save)


if __name__ == "__main__":
    main()
