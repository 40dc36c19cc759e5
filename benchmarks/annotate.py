"""Rows a second of `lary-orch data annotate`, compared with a copy of the same files.

A LeRobot v3 dataset of episodes of 100 steps and latents (16 codes, 4 tokens of 32 numbers, in memory) are made in a
temporary folder. `annotate` writes the columns, `copy` copies the tables. Steps a second are those of the shortest
round by the clock, since both wait for the volume too.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from common import arguments, measured, report
from lary_data.annotating import Annotation
from lary_data.annotating_lerobot import write_lerobot
from lary_data.joining import LatentLabels
from lary_data.labels import Labels, StepRow

LENGTH, DT, TOKENS, WIDTH, CODES = 100, 5, 4, 32, 16


class MemoryStore:
    """What `Labels` reads of a store, from memory: the benchmark is of writing."""

    def __init__(self, rows: int) -> None:
        drawn = np.random.default_rng(0)
        self._tokens = drawn.normal(size=(rows, 1, TOKENS, WIDTH)).astype(np.float16)
        self._indices = drawn.integers(CODES, size=(rows, 1, TOKENS))
        self.shape = (1, TOKENS, WIDTH)

    def tokens(self, rows: Any) -> Any:
        return self._tokens[rows]

    def indices(self, rows: Any) -> Any:
        return self._indices[rows]


class MemoryLabels(LatentLabels):
    @property
    def model(self) -> str:
        return "benchmark"

    @property
    def facts(self) -> dict[str, Any]:
        return {"model": "benchmark", "dt": DT, "tokens": TOKENS, "width": WIDTH, "codes": CODES}


def write_dataset(root: Path, episodes: int) -> None:
    features = {"action": {"dtype": "float32", "shape": [7], "names": None}}
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps({"codebase_version": "v3.0", "features": features}))
    for number, first in enumerate(range(0, episodes, 10)):
        rows = [(e, t) for e in range(first, min(first + 10, episodes)) for t in range(LENGTH)]
        drawn = np.random.default_rng(first).normal(size=7 * len(rows)).astype(np.float32)
        table = pyarrow.table(
            {
                "action": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(drawn), 7),
                "episode_index": [e for e, _ in rows],
                "frame_index": [t for _, t in rows],
            }
        )
        path = root / f"data/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, path)


def measure(root: Path, labels: Labels, rounds: int) -> dict[str, dict[str, float]]:
    def annotate() -> None:
        shutil.rmtree(root / "out", ignore_errors=True)
        write_lerobot(Annotation({"train": labels}, root / "out", False), root / "in", lambda _: None)

    def copy() -> None:
        shutil.rmtree(root / "copy", ignore_errors=True)
        shutil.copytree(root / "in", root / "copy")

    return measured({"annotate": annotate, "copy": copy}, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    given = parser.parse_args()
    rows = {str(e): tuple(StepRow(e * (LENGTH - DT) + t, t) for t in range(LENGTH - DT)) for e in range(given.episodes)}
    store: Any = MemoryStore(given.episodes * (LENGTH - DT))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "in", given.episodes)
        found = measure(root, MemoryLabels(store, rows, frozenset(), CODES, DT), given.rounds)
    steps = given.episodes * LENGTH
    rates = {f"{name}_steps_per_s": round(steps / seconds["wall_min_s"]) for name, seconds in found.items()}
    report("annotate", {"steps": steps, "rounds": given.rounds, **rates, "seconds": found}, given.save)


if __name__ == "__main__":
    main()
