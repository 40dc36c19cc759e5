"""What the tests of this image share: small rows on disk, and the real training loop on them, in this process."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lary_schema.base import file_sha256
from lary_schema.cards import Actions, Latents, Normalisation, PairColumns
from lary_schema.command import run_command
from lary_schema.groups import Grouping
from lary_schema.jobs import MetadataFile, Source, minor_versions
from lary_schema.metadata import count_rows
from lary_schema.training import Labelled, Recipe, TrainData, TrainJob, TrainValues
from lary_trainer.registry import training_sha256
from lary_worker import registry

STEPS, DIM, TOKENS, WIDTH, CODES = 4, 3, 2, 5, 6
ACTIONS = Actions(folder="set", stride=STEPS, dim=DIM, names=("a", "b", "c"), normalisation=Normalisation(kind="train"))
LATENTS = Latents(folder="set", steps=STEPS, tokens=TOKENS, width=WIDTH, codes=CODES, dt=4, model="f" * 64)


@dataclass
class Rows:
    """Mounts in a folder; 16 pairs of 4 episodes to train on, 8 of 2 held out."""

    root: Path

    def data(self, split: str, **changes: Any) -> tuple[TrainData, Source]:
        path = self.root / f"job/{split}.csv"
        common: dict[str, Any] = {"columns": PairColumns(), "media": "set", "frames": 1}
        fields = {"dataset": "set", "split": split, "metadata_sha256": file_sha256(path), "actions": ACTIONS}
        fields |= {"group": Grouping(column="episode"), "instruction": "text", "latents": LATENTS} | common | changes
        metadata = MetadataFile(path=path.name, sha256=file_sha256(path), rows=count_rows(path))
        return TrainData(**fields), Source(metadata=metadata, **common)

    def job(self, recipe: Recipe, *, init: tuple[Any, ...] = (), changed: dict[str, Any] | None = None) -> TrainJob:
        """A state every 2 steps; `changed` are fields of both splits."""
        (data, source), (held_out, held_source) = (self.data(split, **(changed or {})) for split in ("train", "val"))
        values = TrainValues(
            recipe=recipe, data=data, held_out=held_out, labelled=Labelled(share=1), seed=3,
            init={file.name: file.sha256 for file in init}, code_sha256=training_sha256(recipe),
            libraries=minor_versions(registry.libraries()),
        )  # fmt: skip
        return TrainJob(
            id="job", image="latentvla", values=values, source=source, held_out=held_source, init=init,
            save_every=2, evaluate_every=100, workers=1, threads=1,
        )  # fmt: skip

    def train(self, job: TrainJob, out: str) -> tuple[int, list[Any]]:
        """Exit code and events."""
        from lary_trainer.train import train

        os.environ["LARY_MOUNT_OUT"] = str(self.root / out)
        events: list[Any] = []
        return run_command(lambda: train(job, events.append), events.append, job.id), events


def write_rows(root: Path) -> None:
    folder = root / "data/set"
    folder.mkdir(parents=True)
    for name in ("weights", "latents", "job"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        lines = ["src_img,tgt_img,action,episode,text"]
        for row in range(count):
            name = f"{split}{row}"
            for end in "ab":
                cv2.imwrite(str(folder / f"{name}{end}.png"), rng.integers(0, 256, (40, 40, 3), np.uint8))
            np.save(folder / f"{name}.npy", rng.normal(2, 3, (STEPS, DIM)).astype(np.float32))
            text = ("push red", "pull the blue one")[row % 2]
            lines.append(f"{name}a.png,{name}b.png,{name}.npy,{split}-{row % (count // 4)},{text}")
        (root / f"job/{split}.csv").write_text("\n".join(lines) + "\n")
        for episode in range(count // 4):
            np.savez(
                folder / f"{split}-{episode}.npz",
                latent_idx=rng.integers(0, CODES, (4, TOKENS)),
                latent_z=rng.normal(size=(4, TOKENS, WIDTH)).astype(np.float32),
                latent_valid=np.arange(4) < 3, latent_dt=4, latent_model="f" * 64,
            )  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of this size are slower with two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def rows_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rows")
    write_rows(root)
    return root


@pytest.fixture
def rows(rows_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    monkeypatch.setenv("LARY_IMAGE", "latentvla")
    for name in ("data", "weights", "latents", "job"):
        (tmp_path / name).symlink_to(rows_once / name) if name != "weights" else (tmp_path / name).mkdir()
        monkeypatch.setenv(f"LARY_MOUNT_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("LARY_MOUNT_OUT", str(tmp_path / "out"))
    registry.find_image.cache_clear()
    yield Rows(tmp_path)
    registry.find_image.cache_clear()
    torch.set_deterministic_debug_mode("default")


class Killed(BaseException):
    """In place of SIGKILL: nothing of the loop catches it."""


def killed_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The next training of this process ends right after it has done so many steps."""
    from lary_trainer.training import Training

    does = Training.step

    def dies(self: Training, pairs: Any) -> None:
        does(self, pairs)
        if pairs.step + 1 == step:
            monkeypatch.setattr(Training, "step", does)
            raise Killed

    monkeypatch.setattr(Training, "step", dies)
