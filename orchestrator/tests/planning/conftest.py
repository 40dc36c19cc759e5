"""A world for planning: a workspace, dataset cards with CSVs, and a runtime that runs nothing."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.jobs import Plan, Request
from lary_orch.plan.planner import make_plan
from lary_orch.runtimes.base import Notify, Running
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job, Prepared
from lary_orch.workspace import Workspace
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_schema.events import Reason
from lary_schema.jobs import ProbeJob
from lary_schema.results import EpochScore, Interval, ProbeResult, RowCount, SeedScores, SplitScore, StoreTrace
from lary_schema.store.layout import Failure, Provenance, ShardRecord, Store, array_headers

CODE = "c0de" * 16


@dataclass
class FakeRuntime:
    """Runs `describe` from the image's own card; `missing` images cannot be prepared."""

    code: str = CODE
    libraries: dict[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    queried: list[tuple[str, ...]] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    name: str = "fake"

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        self.prepared.append(image.card.name)
        if image.card.name in self.missing:
            raise ContractError(f"image {image.card.name} is not built; `lary-orch images build`")
        return Prepared(
            image,
            f"lary/{image.card.name}:test",
            None,
            f"{image.card.name}-{self.code}-{sorted(self.libraries.items())}",
        )

    def query(self, prepared: Prepared, *arguments: str) -> str:
        self.queried.append((prepared.source.card.name, *arguments))
        card = prepared.source.card
        if "--model" not in arguments:
            return card.model_copy(update={"code_sha256": self.code, "libraries": self.libraries}).to_json()
        found = card.card(arguments[-1])
        assert found is not None
        hashed = found.model_copy(update={"code_sha256": self.code})
        return card.model_copy(update={"models": (hashed,), "libraries": self.libraries}).to_json()

    def start(self, job: Job, slot: Slot, stderr: Path) -> Running:
        raise AssertionError("planning starts nothing")

    def sweep(self) -> list[str]:
        return []

    def remarks(self, jobs: object) -> list[str]:
        return []

    def preview(self, paths: object, jobs: object, notify: Notify) -> None:
        """Nothing is submitted."""


@dataclass
class World:
    """Cards and CSVs in a temporary folder, and requests about them."""

    root: Path
    runtime: FakeRuntime = field(default_factory=FakeRuntime)

    @property
    def workspace(self) -> Workspace:
        return Workspace.locate(self.root / "ws", env={})

    @property
    def cards(self) -> Path:
        return self.root / "cards"

    def dataset(self, key: str = "toy", **fields: Any) -> Path:
        """Write the card of a pair set for regression (or what `fields` make of it)."""
        card = {
            "key": key,
            "title": key,
            "task": "classification",
            "columns": {"input": "image"},
            "metadata": key + "/{split}.csv",
            "media": key,
            "labels": {"column": "action"},
            "license": "MIT",
            "source": "test",
        }
        path = self.cards / f"{key}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(card | fields), encoding="utf-8")
        return path

    def csv(self, split: str, rows: int = 10, key: str = "toy", text: str | None = None) -> Path:
        path = self.workspace.data / key / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ["src_img,tgt_img,action", *(f"a{i}.png,b{i}.png,c{i % 2}" for i in range(rows))]
        path.write_bytes((text if text is not None else "\n".join(lines) + "\n").encode())
        return path

    def toy(self, train: int = 10, val: int = 6, key: str = "toy") -> None:
        """A whole dataset."""
        self.dataset(key)
        self.csv("train", train, key)
        self.csv("val", val, key)

    def catalog(self) -> Catalog:
        return Catalog.load([self.cards], env={})

    def request(self, models: Sequence[str] = ("frame-diff",), **fields: Any) -> Request:
        start = Request(models=tuple(models), datasets=("toy",), protocol=load_protocol("smoke"), control=False)
        return replace(start, **fields)

    def plan(self, models: Sequence[str] = ("frame-diff",), **fields: Any) -> Plan:
        return make_plan(
            self.request(models, **fields), self.workspace, self.catalog(), self.runtime, lambda line: None
        )

    def finish_stores(
        self, plan: Plan, failed: Mapping[str, Sequence[int]] | None = None, reason: Reason = "missing_file"
    ) -> None:
        """Leave on disk what workers would, arrays apart: groups, done markers and a file per shard."""
        for store in plan.stores:
            layout, values = store.layout, store.values
            paths = Store(self.workspace.latents / layout.path)
            provenance = Provenance(
                layout=layout,
                values=values,
                image="x",
                image_digest=None,
                code_revision=None,
                libraries=self.runtime.libraries,
            )
            publish_text(paths.group, json.dumps({"attributes": {"lary": provenance.model_dump(mode="json")}}))
            for name, header in array_headers(layout).items():
                publish_text(paths.root / name / "zarr.json", json.dumps(header))
            for shard in store.missing:
                rows = (failed or {}).get(values.split, ())
                self._finish_shard(paths, shard, layout.shard_range(shard), rows, reason)

    def _finish_shard(self, paths: Store, shard: int, rows: range, failed: Sequence[int], reason: Reason) -> None:
        publish_text(paths.root / f"tokens/c/{shard}/0/0/0", "bytes")
        record = ShardRecord(
            shard=shard,
            start=rows.start,
            stop=rows.stop,
            failures=tuple(Failure(row=r, reason=reason, detail=f"row {r} is gone") for r in failed if r in rows),
            batch_size=1,
            device="cpu",
            files={f"tokens/c/{shard}/0/0/0": 5},
        )
        publish_text(paths.marker(shard), record.to_json())

    def finish_probes(self, plan: Plan, values: Mapping[str, float] | None = None, failed: int = 0) -> list[Path]:
        """Write a result for every probe; `values` by control, `failed` rows in each split."""
        written = []
        for probe in plan.probes:
            assert isinstance(probe.document, ProbeJob)
            value = (values or {}).get(probe.document.control, 0.75)
            publish_text(probe.mounts.out / "result.json", make_result(probe.document, value, failed).to_json())
            written.append(probe.mounts.out / "result.json")
        return written

    def only_problem(self, models: Sequence[str] = ("frame-diff",), **fields: Any) -> ContractError:
        """The one problem of a plan."""
        (problem,) = self.plan(models, **fields).problems
        return problem.error


def make_result(job: ProbeJob, value: float, failed: int = 0) -> ProbeResult:
    """A result that fits a job."""
    epoch = EpochScore(epoch=1, value=value, selection=value)
    classify = job.kind == "classify"
    count = RowCount(used=job.evaluate[0].store.rows - failed, failed=failed)
    score = SplitScore(
        value=value,
        interval=Interval(low=value - 0.05, high=value + 0.05),
        std=0.01 if len(job.protocol.seeds) > 1 else None,
        seeds=tuple(SeedScores(seed=s, early=epoch, best=epoch, last=epoch) for s in job.protocol.seeds),
        floor=0.25 if classify else 1.02,
        chance=0.125 if classify else None,
        rows=count,
    )
    traces = [
        StoreTrace(
            split=split.name,
            path=split.store.path,
            fingerprint=split.store.fingerprint,
            image="x",
            image_digest=None,
            code_sha256="0",
            weights={},
            metadata_sha256=split.source.metadata.sha256,
        )
        for split in (job.train, *job.evaluate)
    ]
    return ProbeResult(
        kind=job.kind,
        metric="top1" if classify else "mse",
        run=job.run,
        model=job.model,
        variant=job.variant,
        dataset=job.dataset,
        protocol=job.protocol.key,
        control=job.control,
        reads=job.reads,
        fingerprint=job.fingerprint,
        splits={split.name: score for split in job.evaluate},
        train_rows=RowCount(used=1, failed=failed),
        stores=tuple(traces),
        probe_image="x",
        probe_image_digest=None,
        probe_code_sha256="0",
        code_revision=None,
        device="cpu",
        libraries={},
        seconds=1,
    )


@pytest.fixture
def result_of() -> Callable[..., ProbeResult]:
    return make_result


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes an image folder with one model."""

    def make(name: str, model: str, below: Path | None = None, **fields: Any) -> Path:
        folder = (below or tmp_path) / name
        package = folder / "src" / f"lary_{name}"
        package.mkdir(parents=True)
        card = {"name": name, "kind": "model", "module": "lary_worker", "models": [model_card(model, **fields)]}
        ImageCard.parse(card, "test")
        (package / "image.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
        return folder

    return make


def model_card(key: str, **fields: Any) -> dict[str, Any]:
    shape = {"input": {"shape": [2, 4, 4, 3], "dtype": "uint8"}, "tokens": [1, 4, 8]}
    card = {
        "key": key,
        "title": key,
        "paradigm": "baseline",
        "modes": {"image": shape},
        "preprocessing": "none",
        "revision": 1,
        "license": "MIT",
        "source": "test",
    }
    return card | fields


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LARY_HOME", "DATA_DIR", "LARY_LA_DIR", "MODEL_DIR", "LARY_CATALOG", "LARY_REPO", "DINO_V2_PATH"):
        monkeypatch.delenv(name, raising=False)
