"""A regression set with action files, as LARYBench lays it out."""

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
from numpy.typing import NDArray


@dataclass
class Robots:
    """Five steps of two numbers a row; `chunks` by split and row as they were written."""

    root: Path
    key: str = "agibotbeta"
    folder: str = "regression/agibot_45"
    robots: bool = True
    chunks: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def card(self) -> DatasetCard:
        per_robot = {"kind": "per-robot", "stats": f"{self.folder}/{self.key}_stats.json"}
        actions = {
            "folder": self.folder,
            "implied_folder": "actions",
            "stride": 5,
            "dim": 2,
            "names": ["x", "y"],
            "normalisation": per_robot if self.robots else {"kind": "train"},
            "relative": {"kind": "per-robot"} if self.robots else {"kind": "train"},
        }
        card = {
            "key": self.key,
            "title": "robots",
            "task": "regression",
            "columns": {"input": "image"},
            "metadata": self.key + "_{split}.csv",
            "splits": {"train": "seen_train", "evaluate": ["unseen"]},
            "actions": actions,
            "license": "none",
            "source": "test",
        }
        return DatasetCard.parse(card, "test")

    def csv(self, split: str) -> Path:
        return self.data / f"{self.key}_{split}.csv"

    def file(self, split: str, row: int) -> Path:
        return self.data / self.folder.replace("{split}", split) / "actions" / f"{split}_{row}.npy"

    def fill(self, split: str, robots: Sequence[str], flat: bool = False, seed: int = 0) -> None:
        """One row per robot type; cells with and without the implied folder."""
        rng = np.random.default_rng([seed, len(split)])
        self.chunks[split] = [rng.normal(3 * at, 1 + at, (5, 2)).astype(np.float32) for at in range(len(robots))]
        lines = ["robot_type,src_img,tgt_img,action"]
        for row, (robot, chunk) in enumerate(zip(robots, self.chunks[split], strict=True)):
            path = self.file(split, row)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, chunk.reshape(-1) if flat else chunk)
            lines.append(f"{robot},a.png,b.png,{'actions/' if row % 2 else ''}{path.name}")
        self.csv(split).write_text("\n".join(lines) + "\n")

    def tool(self, *arguments: str) -> Result:
        """Run a tool as `lary-orch data` does."""
        known = self.root / "datasets.json"
        csvs = {split: self.csv(split) for split in self.card.splits.all}
        known.write_text(Datasets(datasets=(DatasetFiles(card=self.card, data=self.data, csv=csvs),)).to_json())
        return CliRunner().invoke(cli, arguments, env={DATASETS_VARIABLE: str(known)})


@pytest.fixture
def robots(tmp_path: Path) -> Robots:
    """Three types, one of them unnamed."""
    made = Robots(tmp_path)
    made.fill("seen_train", ["a2d", "", "a2d", "g1", "a2d"])
    made.fill("unseen", ["g1", "a2d"])
    return made


@pytest.fixture
def arm(tmp_path: Path) -> Robots:
    """calvin: no robot types, and a folder per split."""
    made = Robots(tmp_path, "calvin", "regression/calvin/{split}_stride5", robots=False)
    made.fill("seen_train", ["", "", ""])
    made.fill("unseen", ["", ""])
    return made
