"""A toy bench in a temporary folder: stores, CSVs and jobs of either probe."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_probe.describe import code_sha256
from lary_probe.run import run_probe
from lary_schema.base import file_sha256
from lary_schema.cards import (
    Actions,
    ClassifyRecipe,
    Labels,
    ModeSpec,
    Normalisation,
    PairColumns,
    ProtocolCard,
    RegressRecipe,
    TensorSpec,
    VideoColumns,
)
from lary_schema.events import _Event
from lary_schema.jobs import ArrayLayout, MetadataFile, ProbeJob, ProbeSplit, Source, StoreLocation, Values
from lary_schema.mounts import Mounts
from lary_schema.results import ProbeResult
from lary_schema.store.layout import Failure, Provenance, Status, store_path
from lary_schema.store.writer import LatentWriter
from numpy.typing import NDArray

CLASSIFY = ClassifyRecipe(
    width=16, depth=2, heads=2, optimisers=((1e-2, 0.01), (1e-4, 0.1)), epochs=3, batch_size=16, autocast="none"
)
REGRESS = RegressRecipe(width=32, blocks=1, lr=1e-2, epochs=4, batch_size=16)
ACTIONS = Actions(
    folder="actions",
    stride=2,
    dim=3,
    names=("x", "y", "grip"),
    groups={"position": (0, 1), "gripper": (2,)},
    normalisation=Normalisation(kind="train"),
)


def protocol(**changes: Any) -> ProtocolCard:
    facts: dict[str, Any] = {"key": "toy", "title": "toy", "select_on": "holdout", "holdout": 0.25, "bootstrap": 200}
    return ProtocolCard(**(facts | {"classify": CLASSIFY, "regress": REGRESS} | changes))


@dataclass
class Bench:
    """Five mounts below a temporary folder, and the splits made so far."""

    mounts: Mounts
    splits: dict[str, ProbeSplit] = field(default_factory=dict)
    events: list[_Event] = field(default_factory=list)
    protocol = staticmethod(protocol)

    def split(
        self,
        name: str,
        tokens: NDArray[Any],
        targets: Sequence[str],
        *,
        failed: Sequence[int] = (),
        clamped: Sequence[int] = (),
        shard_rows: int = 16,
        columns: dict[str, Sequence[str]] | None = None,
        dtype: str = "float32",
    ) -> ProbeSplit:
        """Write a CSV and a store of `tokens` (n, T, N, D); `targets` fill the column `action`."""
        csv = self.mounts.job / "metadata" / f"{name}.csv"
        table: dict[str, Sequence[str]] = {"src_img": [f"{name}/é {i}.png" for i in range(len(targets))]}
        table |= {"tgt_img": table["src_img"], "action": list(targets)} | (columns or {})
        lines = [",".join(table), *(",".join(cells) for cells in zip(*table.values(), strict=True))]
        csv.parent.mkdir(exist_ok=True)
        csv.write_text("\n".join(lines) + "\n", encoding="utf-8")
        metadata = MetadataFile(path=f"metadata/{name}.csv", sha256=file_sha256(csv), rows=len(targets))
        store = self._store(name, tokens, metadata.sha256, failed, clamped, shard_rows, dtype)
        source = Source(metadata=metadata, columns=PairColumns(), media="images", frames=9)
        self.splits[name] = ProbeSplit(name=name, store=store, source=source)
        return self.splits[name]

    def _store(
        self,
        split: str,
        tokens: NDArray[Any],
        sha256: str,
        failed: Sequence[int],
        clamped: Sequence[int],
        shard_rows: int,
        dtype: str,
    ) -> StoreLocation:
        shape = (int(tokens.shape[1]), int(tokens.shape[2]), int(tokens.shape[3]))
        values = Values(
            model="toy", variant="corrected", mode="image", spec=ModeSpec(input=TensorSpec(shape=(1,)), tokens=shape),
            preprocessing="none", revision=1, code_sha256="c" * 64, weights={"w": "0" * 64}, dataset="toys",
            split=split, metadata_sha256=sha256, columns=VideoColumns(), media=".", frames=9, decoder="pyav",
            precision="fp32", dtype=dtype, seed=0,
        )  # fmt: skip
        layout = ArrayLayout(
            path=store_path(values), fingerprint=values.fingerprint, rows=len(tokens),
            shard_rows=min(shard_rows, len(tokens)), dtype=dtype, tokens=shape,
        )  # fmt: skip
        provenance = Provenance(
            layout=layout, values=values, image="toy", image_digest=None, code_revision=None, libraries={}
        )
        writer = LatentWriter.open(self.mounts.latents / layout.path, provenance)
        for shard in range(layout.shards):
            rows = layout.shard_range(shard)
            lost = [r for r in failed if r in rows]
            block = tokens[rows.start : rows.stop].astype(dtype)
            status = np.full(len(rows), Status.OK, "uint8")
            for row in lost:
                block[row - rows.start], status[row - rows.start] = np.nan, Status.FAILED
            writer.write(
                shard, block, None, status,
                failures=[Failure(row=r, reason="decode_error", detail="cut") for r in lost],
                clamped=[r for r in clamped if r in rows], batch_size=4, device="cpu",
            )  # fmt: skip
        writer.close()
        return StoreLocation(path=layout.path, fingerprint=layout.fingerprint, rows=layout.rows)

    def job(self, kind: str, **changes: Any) -> ProbeJob:
        """A job on the splits made so far, the first one training."""
        first, *others = self.splits.values()
        facts: dict[str, Any] = {
            "id": "probe-1", "kind": kind, "run": "r", "image": "probe", "code_sha256": code_sha256(), "model": "toy",
            "variant": "corrected", "dataset": "toys", "time_axis": True, "train": first, "evaluate": tuple(others),
            "protocol": protocol(), "threads": 1,
        }  # fmt: skip
        facts |= {"labels": Labels()} if kind == "classify" else {"actions": ACTIONS}
        return ProbeJob(**(facts | changes))

    def run(self, job: ProbeJob) -> ProbeResult:
        """Run a job in this process; its result file, parsed."""
        run_probe(job.kind, job, self.events.append)
        return ProbeResult.read(self.mounts.out / "result.json")

    def action(self, name: str, chunk: NDArray[Any]) -> str:
        """Write an action file; its cell."""
        path = self.mounts.data / "actions" / name
        path.parent.mkdir(exist_ok=True)
        np.save(path, chunk)
        return name

    def document(self, name: str) -> Any:
        return json.loads((self.mounts.out / name).read_text(encoding="utf-8"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """An empty bench; what a job sets for its whole process is set back afterwards."""
    folders = {name: tmp_path / name for name in Mounts.model_fields}
    for folder in folders.values():
        folder.mkdir()
    made = Bench(Mounts(**folders))
    for name, value in made.mounts.to_env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    yield made
    torch.set_deterministic_debug_mode(mode)
    torch.set_num_threads(threads)


@pytest.fixture
def with_protocol() -> Callable[..., ProtocolCard]:
    """Makes the toy protocol with some fields changed."""
    return protocol


@pytest.fixture
def toy_classes(bench: Bench) -> Bench:
    """Three separable classes: 36 train rows, 15 val rows, tokens (2, 3, 8)."""
    for name, count, seed in (("train", 36, 1), ("val", 15, 2)):
        labels = np.arange(count) % 3
        noise = np.random.default_rng(seed).normal(size=(count, 2, 3, 8))
        tokens = 0.1 * noise + 3 * np.eye(8)[labels][:, None, None, :]
        bench.split(name, tokens, [("grasp", "push", "turn")[i] for i in labels])
    return bench


@pytest.fixture
def toy_actions(bench: Bench) -> Bench:
    """Actions linear in the tokens: 64 train rows, 24 val rows, tokens (1, 2, 4), chunks (2, 3)."""
    mixing = np.random.default_rng(0).normal(size=(8, 6))
    for name, count, seed in (("train", 64, 1), ("val", 24, 2)):
        tokens = np.random.default_rng(seed).normal(size=(count, 1, 2, 4))
        chunks = (tokens.reshape(count, 8) @ mixing).reshape(count, 2, 3)
        cells = [bench.action(f"{name}_{i}.npy", chunk) for i, chunk in enumerate(chunks)]
        bench.split(name, tokens, cells)
    return bench


@pytest.fixture
def toy_signs(bench: Bench) -> Bench:
    """Actions that are the signs of three values in the tokens: 240 train rows, 60 val rows, chunks (2, 3).

    Either sign is as frequent, so standardised targets are -1 and 1.
    """
    for name, count, seed in (("train", 240, 1), ("val", 60, 2)):
        rng = np.random.default_rng(seed)
        signs = np.stack([rng.permutation(np.arange(count) % 2) * 2.0 - 1 for _ in range(3)], axis=1)
        tokens = np.concatenate([2 * signs, np.zeros((count, 5))], axis=1) + 0.1 * rng.normal(size=(count, 8))
        cells = [bench.action(f"{name}_{i}.npy", np.stack([s, s]) * [1, 2, 3] + 5) for i, s in enumerate(signs)]
        bench.split(name, tokens.reshape(count, 1, 2, 4), cells)
    return bench


@pytest.fixture
def real_pictures() -> None:
    """For tests that look at pictures."""


@pytest.fixture(autouse=True)
def _sketches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of pictures, which are most of the time of a small probe, files that only claim to be some."""
    if "real_pictures" in request.fixturenames:
        return
    from lary_probe import plots

    def confusion(path: Path, matrix: NDArray[np.int64], labels: Sequence[str], title: str) -> None:
        assert matrix.shape == (len(labels), len(labels))
        path.write_bytes(b"\x89PNG")

    def actions(path: Path, truth: Any, predicted: Any, names: Sequence[str], frames: Any, title: str) -> None:
        assert truth.shape == predicted.shape
        assert truth.shape[-1] == len(names)
        path.write_bytes(b"\x89PNG")

    monkeypatch.setattr(plots, "plot_confusion", confusion)
    monkeypatch.setattr(plots, "plot_trajectory", actions)
    monkeypatch.setattr(plots, "plot_step", actions)
