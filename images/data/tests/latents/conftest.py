"""A LARYBench user's disk in miniature: CSVs, .npz folders, and the stores that come of them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from lary_data.__main__ import cli
from lary_schema.cards import DatasetCard
from lary_schema.datasets import DATASETS_VARIABLE, DatasetFiles, Datasets
from lary_schema.mounts import Mounts
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray

ACTIONS = {
    "folder": "regression/calvin/{split}_stride5",
    "implied_folder": "actions",
    "stride": 5,
    "dim": 1,
    "names": ["x"],
    "normalisation": {"kind": "train"},
}
PAIRS = {
    "key": "calvin",
    "title": "pairs",
    "task": "regression",
    "columns": {"input": "image", "implied_folder": "images"},
    "metadata": "calvin_metadata_{split}.csv",
    "actions": ACTIONS,
    "license": "none",
    "source": "test",
}
CLIPS = {
    "key": "human_1st",
    "title": "clips",
    "task": "classification",
    "columns": {"input": "video"},
    "metadata": "human_1st_metadata_{split}.csv",
    "labels": {},
    "license": "none",
    "source": "test",
}
PAIR_HEADER = ["dataset", "src_img", "tgt_img", "action"]
CLIP_HEADER = ["dataset", "video_path", "sample_indices", "action"]


def pair_cells(row: int) -> list[str]:
    episode = f"ep_{row // 4}"
    return [
        "CALVIN",
        *(f"images/{episode}/frame_{row + d:06d}.png" for d in (0, 5)),
        f"actions/{episode}/action_{row}.npy",
    ]


def clip_cells(row: int) -> list[str]:
    return ["EgoDex", f"EgoDex/clip {row}.mp4", ",".join(str(row + i) for i in range(9)), f"do {row % 3}"]


@dataclass
class Disk:
    """Below `root`: data/ (CSVs), old/ (LARYBench's latents), latents/ (stores)."""

    root: Path
    card: DatasetCard
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    split: str = "val"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def old(self) -> Path:
        return self.root / "old"

    @property
    def latents(self) -> Path:
        return self.root / "latents"

    @property
    def csv(self) -> Path:
        return self.data / self.card.metadata[0].replace("{split}", self.split)

    def write(self, path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    def la_csv(self, cells: Sequence[str], name: str = "val_la_calvin_5_dinov2.csv", start: int = 0) -> Path:
        """LARYBench's CSV of the rows from `start`, with these la_path cells."""
        part = self.rows[start : start + len(cells)]
        rows = [[*row, cell] for row, cell in zip(part, cells, strict=True)]
        return self.write(self.data / name, [*self.header, "la_path"], rows)

    def npz(self, folder: str, row: int, **arrays: Any) -> Path:
        """A file as LARYBench writes it."""
        path = self.old / folder / f"latent_action_{row:08d}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)
        return path

    def release(
        self, tokens: NDArray[Any], indices: Sequence[NDArray[Any]] | None = None, folder: str = "calvin/val/dinov2"
    ) -> None:
        """A whole extraction: (rows, ...) tokens, one file each, and the CSV with paths below the root."""
        for row, values in enumerate(tokens):
            self.npz(folder, row, tokens=values, indices=np.array([]) if indices is None else indices[row])
        self.la_csv([f"{folder}/latent_action_{row:08d}.npz" for row in range(len(tokens))])

    def tool(self, *arguments: str) -> Result:
        """Run a tool as `lary-orch data` does."""
        known = self.root / "datasets.json"
        csvs = {split: self.data / self.csv.name.replace("val", split) for split in self.card.splits.all}
        known.write_text(Datasets(datasets=(DatasetFiles(card=self.card, data=self.data, csv=csvs),)).to_json())
        mounts = Mounts(data=self.data, weights=self.root, latents=self.latents, job=self.root, out=self.root)
        return CliRunner().invoke(cli, arguments, env=mounts.to_env() | {DATASETS_VARIABLE: str(known)})

    def bring(self, *arguments: str) -> Result:
        where = ("-m", "dinov2", "-d", self.card.key, "--split", "val", "--from", str(self.old), "--workers", "2")
        return self.tool("latents-import", *where, *arguments)

    def stores(self) -> list[Path]:
        return sorted(self.latents.glob("*/*/*/*.zarr"))

    def store(self) -> LatentReader:
        """The one store there is."""
        (path,) = self.stores()
        return LatentReader.open(path)


def make(root: Path, card: dict[str, Any], rows: int) -> Disk:
    header, cells = (PAIR_HEADER, pair_cells) if card["columns"]["input"] == "image" else (CLIP_HEADER, clip_cells)
    card = card | {"splits": {"train": "val", "evaluate": []}}
    disk = Disk(root, DatasetCard.parse(card, "test"), header, [cells(row) for row in range(rows)])
    disk.write(disk.csv, header, disk.rows)
    return disk


@pytest.fixture
def pairs(tmp_path: Path) -> Disk:
    """calvin/val with ten rows."""
    return make(tmp_path, PAIRS, 10)


@pytest.fixture
def clips(tmp_path: Path) -> Disk:
    """human_1st/val with ten rows."""
    return make(tmp_path, CLIPS, 10)


@pytest.fixture
def tokens() -> NDArray[np.float32]:
    """(10, 3, 4): a pair model's tokens (N, D), every number another, not exact in float16."""
    return np.random.default_rng(0).normal(size=(10, 3, 4)).astype(np.float32)
