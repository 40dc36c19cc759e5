"""Fills the workspaces of `scale_runs.py` by the product's own planner and writers; no model runs, values are drawn."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.plan.files import write_plan
from lary_orch.plan.jobs import Plan, Probing, Request
from lary_orch.plan.planner import make_plan
from lary_orch.runtimes.choose import open_slots, process_runtime
from lary_orch.workspace import Workspace
from lary_probe.latents import open_latents
from lary_probe.outputs import Outputs
from lary_schema.jobs import ArrayLayout, ExtractJob, ProbeJob
from lary_schema.results import (
    EpochScore,
    Interval,
    ProbeResult,
    RowCount,
    SeedScores,
    SplitScore,
    StoreTrace,
    recipe_of,
)
from lary_schema.store.layout import Provenance, ShardRecord, Status, Store
from lary_schema.store.writer import LatentWriter
from lary_schema.values import ExtractionSettings

ROWS = 24
SHARDS = 20
"""Of a store, written by the writer; further ones are copies, for its syncs take long."""
CARD = """
key: {key}
title: drawn
task: {task}
columns: {{input: image, source: src_img, target: tgt_img}}
metadata: rows_{{split}}.csv
media: media
group: episode
{target}
license: none
source: synthetic
"""
LABELS = "labels: {column: label}"
ACTIONS = """
actions:
  column: action
  folder: actions
  stride: 4
  dim: 3
  names: [x, y, grip]
  normalisation: {kind: train}
  relative: {kind: train}
"""


class Bench:
    """A workspace in a folder of its own, with dataset cards over one pair of CSVs."""

    def __init__(self, root: Path, keys: tuple[str, ...], rows: int = ROWS) -> None:
        self.root, self.rng = root, np.random.default_rng(0)
        self.keys = keys
        (root / "cards").mkdir()
        for number, key in enumerate(keys):
            kind = ("classification", LABELS) if number % 2 else ("regression", ACTIONS)
            (root / f"cards/{key}.yaml").write_text(CARD.format(key=key, task=kind[0], target=kind[1]))
        for split, count in (("train", rows), ("val", ROWS)):
            self._csv(split, count)
        self.workspace = Workspace.locate(root / "w", data=root / "data", env={})

    def _csv(self, split: str, rows: int) -> None:
        path = self.root / f"data/rows_{split}.csv"
        path.parent.mkdir(exist_ok=True)
        lines = (f"a{i}.png,b{i}.png,class {i % 4},{i}.npy,e{i // 4}\n" for i in range(rows))
        path.write_text("src_img,tgt_img,label,action,episode\n" + "".join(lines))

    def request(self, models: tuple[str, ...], datasets: tuple[str, ...], **fields: Any) -> Request:
        probing = Probing(target="absolute")
        return Request(models, datasets, load_protocol("smoke"), control=False, probing=probing, **fields)

    def fill(self, requests: Iterable[Request]) -> None:
        """Plan each and write all of it: every store and result is there afterwards."""
        catalog, runtime = Catalog.load((self.root / "cards",), env={}), process_runtime(self.workspace, "current")
        for request in requests:
            wanted = request.on(open_slots("cpu", (), 1))
            plan = make_plan(wanted, self.workspace, catalog, runtime, lambda _: None)
            if plan.problems:
                raise SystemExit(str(plan.problems[0]))
            write_plan(plan, self.workspace)
            self._stores(plan)
            self._results(plan)

    def _stores(self, plan: Plan) -> None:
        for planned in plan.extracts:
            job = planned.document
            assert isinstance(job, ExtractJob)
            provenance = Provenance(
                layout=job.store,
                values=job.values,
                image=job.image,
                image_digest=None,
                code_revision=None,
                libraries=job.values.libraries or {},
            )
            writer = LatentWriter.open(self.workspace.latents / job.store.path, provenance)
            for shard in job.shards[:SHARDS]:
                record = self._shard(writer, job.store, shard)
            writer.close()
            for shard in job.shards[SHARDS:]:
                copy_shard(writer.store, record, shard)

    def _shard(self, writer: LatentWriter, layout: ArrayLayout, shard: int) -> ShardRecord:
        rows = len(layout.shard_range(shard))
        tokens = self.rng.normal(size=(rows, *layout.tokens)).astype(layout.dtype)
        status = np.full(rows, Status.OK, np.uint8)
        with writer.claim(shard):
            return writer.write(shard, tokens, None, status, failures=(), clamped=(), batch_size=8, device="cpu")

    def _results(self, plan: Plan) -> None:
        for planned in plan.probes:
            job = planned.document
            assert isinstance(job, ProbeJob)
            rows = job.evaluate[0].store.rows
            scores = np.abs(self.rng.normal(0.5, 0.2, (1, rows)))
            scores = (scores > 0.4).astype(float) if job.kind == "classify" else scores
            outputs = Outputs(planned.mounts.out)
            outputs.arrays(
                f"row_scores_{job.evaluate[0].name}.npz",
                row=np.arange(rows),
                group=np.arange(rows) // 4,
                group_names=np.array([f"e{n}" for n in range(-(-rows // 4))]),
                seed=np.array([0]),
                score=scores,
                target=np.arange(rows, dtype=np.uint64),
                train_target=np.array([7], np.uint64),
            )
            latents = self.workspace.latents
            opened = (
                open_latents(split, latents, time_axis=job.time_axis).trace(split.store.path)
                for split in (job.train, *job.evaluate)
            )
            outputs.result(result_of(job, float(scores.mean()), tuple(opened)))


def copy_shard(store: Store, of: ShardRecord, shard: int) -> None:
    """A shard of one row with the bytes of another's, and a marker of its own; nothing is synced."""
    sources = store.array_files(of.shard, indices=False)
    files = {}
    for name, path in store.array_files(shard, indices=False).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sources[name].read_bytes())
        files[path.relative_to(store.root).as_posix()] = path.stat().st_size
    record = of.model_copy(update={"shard": shard, "start": shard, "stop": shard + 1, "files": files})
    store.marker(shard).write_text(record.sealed().to_json(), encoding="utf-8")


def result_of(job: ProbeJob, value: float, stores: tuple[StoreTrace, ...]) -> ProbeResult:
    """A result that fits a job, as large as the probe's own of one seed."""
    classify, rows = job.kind == "classify", job.evaluate[0].store.rows
    heads = tuple([value] * len(job.protocol.classify.optimisers)) if classify else ()
    second = {"macro": value} if classify else {"r2": 1 - value}
    epochs = [EpochScore(epoch=n, value=value, selection=value, **second) for n in (1, 3, 9)]
    seed = SeedScores(seed=0, early=epochs[0], best=epochs[1], last=epochs[2], per_optimiser=heads)
    names = () if job.actions is None else job.actions.names
    score = SplitScore(
        value=value,
        interval=Interval(low=value - 0.05, high=value + 0.05, unit="groups", groups=-(-rows // 4)),
        seeds=(seed,),
        floor=0.25 if classify else 1.02,
        beats_floor=classify,
        chance=0.25 if classify else None,
        per_dimension=dict.fromkeys(names, value),
        r2_per_dimension=dict.fromkeys(names, 1 - value),
        rows=RowCount(used=rows, failed=0),
    )
    return ProbeResult(
        kind=job.kind,
        metric="top1" if classify else "mse",
        run=job.run,
        model=job.model,
        variant=job.variant,
        dataset=job.dataset,
        input="image",
        protocol=job.protocol.key,
        recipe=recipe_of(job.protocol, job.kind),
        control=job.control,
        learned=True,
        group="column episode",
        head=None if classify else job.protocol.regress.head,
        target=None if classify else "absolute",
        targets_sha256="7a" * 32,
        fingerprint=job.fingerprint,
        splits={job.evaluate[0].name: score},
        train_rows=RowCount(used=job.train.store.rows, failed=0),
        classes=("class 0", "class 1", "class 2", "class 3") if classify else (),
        stores=stores,
        probe_image=job.image,
        probe_image_digest=None,
        probe_code_sha256=job.code_sha256,
        code_revision=None,
        device="cpu",
        libraries={"torch": "2", "numpy": "2"},
        seconds=1.5,
    )


def main() -> None:
    """`scale_parts.py FOLDER ROWS SHARD_ROWS MODELS DATASETS SEEDS`: one run for each of so many seeds."""
    folder, rows, shard_rows, models, datasets, seeds = sys.argv[1:]
    bench = Bench(Path(folder), tuple(datasets.split(",")), int(rows))
    bench.fill(
        bench.request(
            tuple(models.split(",")),
            bench.keys,
            shard_rows=int(shard_rows),
            settings=ExtractionSettings(seed=seed),
        )
        for seed in range(int(seeds))
    )


if __name__ == "__main__":
    main()
