"""`manifest lerobot` of an annotated dataset: a card with latents:, whose files a training reads row by row."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from lary_data.lerobot_latents import annotated, write_latents
from lary_data.lerobot_pairs import HEADER
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_trainer.latents import read_latents

from .test_lerobot_sources import ALL, LENGTHS, STRIDE, Source, check_frames, make

FACTS = {"dt": 2, "tokens": 2, "width": 3, "codes": 50, "model": "abc"}
pytestmark = pytest.mark.usefixtures("_in_this_process")


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from . import test_lerobot_sources as sources

    sources._in_this_process.__wrapped__(monkeypatch)  # the same stand-in for processes


def label(root: Path) -> None:
    """The columns and the file that annotate adds: code k of step t of episode e is 10 e + t + k."""
    path = root / "data/chunk-000/file-000.parquet"
    table = pyarrow.parquet.read_table(path)
    steps = [(e, t) for e, n in enumerate(LENGTHS) for t in range(n)]
    indices = np.array([[10 * e + t, 10 * e + t + 1] for e, t in steps])
    vectors = np.arange(6 * len(steps), dtype=np.float32)
    table = table.append_column("latent_idx", pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(indices.ravel()), 2))
    table = table.append_column("latent_z", pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors), 6))
    table = table.append_column("latent_valid", pyarrow.array([t + 2 < LENGTHS[e] for e, t in steps]))
    pyarrow.parquet.write_table(table, path)
    (root / "meta/latents.json").write_text(json.dumps(FACTS))


def rows_of(out: Path) -> list[dict[str, str]]:
    found = []
    for path in out.glob("k_metadata_*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            found += list(csv.DictReader(file))
    return found


def test_an_annotated_set_has_latents_in_its_card(tmp_path: Path) -> None:
    Source("v3.0", finish=label).write(tmp_path / "in")
    result = make(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    check_frames(tmp_path / "out", ALL)
    card = DatasetCard.load(next((tmp_path / "out").rglob("*.yaml")))
    assert card.latents is not None
    assert card.latents.model_dump(include={*FACTS}) == FACTS
    assert card.latents.steps == STRIDE
    rows = rows_of(tmp_path / "out")
    places = [(row["episode_id"], int(row["step"])) for row in rows]
    found = read_latents(card.latents, tmp_path / "out" / card.latents.folder, places, ["latent_idx", "latent_z"])
    for at, (episode, step) in enumerate(places):
        length = LENGTHS[int(episode)]
        valid = [step + i + 2 < length for i in range(STRIDE)]
        assert found["latent_valid"][at].tolist() == valid
        for i in range(STRIDE):
            first = 10 * int(episode) + step + i
            assert found["latent_idx"][at, i].tolist() == ([first, first + 1] if valid[i] else [0, 0])
        start = 6 * (sum(LENGTHS[: int(episode)]) + step)
        assert found["latent_z"][at, 0].ravel().tolist() == ([*range(start, start + 6)] if valid[0] else [0] * 6)


def test_sets_without_labels_are_as_they_were(tmp_path: Path) -> None:
    Source("v3.0").write(tmp_path / "in")
    assert make(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert tuple(rows_of(tmp_path / "out")[0]) == HEADER
    assert DatasetCard.load(next((tmp_path / "out").rglob("*.yaml"))).latents is None


def _no_columns(root: Path) -> None:
    (root / "meta/latents.json").write_text(json.dumps(FACTS))


def _torn(root: Path) -> None:
    label(root)
    (root / "meta/latents.json").write_text('{"dt": 2')


@pytest.mark.parametrize(("finish", "says"), [(_no_columns, "annotate again"), (_torn, "annotate the dataset again")])
def test_damaged_labels_are_refused(tmp_path: Path, finish: Any, says: str) -> None:
    from lary_data.lerobot import read_lerobot

    Source("v3.0", finish=finish).write(tmp_path / "in")
    dataset = read_lerobot(tmp_path / "in", None, "action")

    def read() -> None:
        latents = annotated(dataset, STRIDE)
        assert latents is not None
        write_latents(tmp_path / "out", latents, dataset.episodes)

    with pytest.raises(ContractError, match=says):
        read()
