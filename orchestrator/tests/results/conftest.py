"""Results as probes leave them, made of a few numbers."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from lary_orch.workspace import Workspace
from lary_schema.atomic import publish_text
from lary_schema.results import EpochScore, Interval, ProbeResult, RowCount, SeedScores, SplitScore, StoreTrace

Write = Callable[..., Path]


def split_score(value: float, rows: int, *, classify: bool, failed: int = 0) -> SplitScore:
    epoch = EpochScore(
        epoch=1, value=value, selection=value, macro=value if classify else None, r2=None if classify else 1 - value
    )
    return SplitScore(
        value=value,
        interval=Interval(low=value - 0.05, high=value + 0.05),
        seeds=(SeedScores(seed=0, early=epoch, best=epoch, last=epoch),),
        floor=0.25 if classify else 1.02,
        chance=0.125 if classify else None,
        per_group={} if classify else {"position": value / 2},
        rows=RowCount(used=rows - failed, failed=failed),
    )


def make_result(
    model: str,
    dataset: str,
    values: Mapping[str, float],
    *,
    rows: Mapping[str, int] | None = None,
    metric: str = "top1",
    failed: int = 0,
    csv: str = "c5",
    image: str = "lary/x:1",
    **fields: Any,
) -> ProbeResult:
    """`values` and `rows` by split; `rows` names train too."""
    counts = {"train": 100} | dict.fromkeys(values, 50) | dict(rows or {})
    classify = metric == "top1"
    train, *evaluated = (
        StoreTrace(
            split=split,
            path=f"{dataset}/{split}/{model}/store.zarr",
            fingerprint="f1" * 32,
            image=image,
            image_digest="sha256:d1",
            code_sha256="c0" * 32,
            weights={"model": "ab" * 32},
            metadata_sha256=csv * 32,
        )
        for split in ("train", *values)
    )
    document = {
        "kind": "classify" if classify else "regress",
        "metric": metric,
        "run": "run-1",
        "model": model,
        "variant": "lary-v1",
        "dataset": dataset,
        "protocol": "lary-v1",
        "control": "none",
        "fingerprint": "fe" * 32,
        "splits": {s: split_score(v, counts[s], classify=classify, failed=failed) for s, v in values.items()},
        "train_rows": RowCount(used=counts["train"], failed=failed),
        "stores": (train, *evaluated),
        "probe_image": "lary/probe:1",
        "probe_image_digest": None,
        "probe_code_sha256": "0e" * 32,
        "code_revision": "abc",
        "device": "cpu",
        "libraries": {"torch": "2"},
        "seconds": 1.5,
    }
    return ProbeResult.model_validate(document | fields)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.locate(tmp_path / "ws", env={})


@pytest.fixture
def write(workspace: Workspace) -> Write:
    """Put a result on disk; later ones are newer. Gives its folder."""
    count = 0

    def written(*arguments: Any, **fields: Any) -> Path:
        nonlocal count
        count += 1
        result = make_result(*arguments, **fields)
        name = f"{result.kind}-{result.variant}-{result.protocol}-{result.control}-{count}"
        folder = workspace.results / result.run / result.model / result.dataset / name
        publish_text(folder / "result.json", result.to_json())
        os.utime(folder / "result.json", (1_700_000_000 + count,) * 2)
        return folder

    return written
