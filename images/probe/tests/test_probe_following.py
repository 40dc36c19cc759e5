"""Probes that follow each other in a process find what those of a process of their own do, bit for bit."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_probe.__main__ import _probe
from lary_probe.run import run_probe
from lary_schema.base import ContractError
from lary_schema.cards import DiffusionHead, Labels, ProtocolCard
from lary_schema.events import from_line
from lary_schema.jobs import ProbeJob

PICTURES = {".png"}


@pytest.fixture
def jobs(bench: Any, with_protocol: Callable[..., ProtocolCard]) -> dict[str, ProbeJob]:
    """Of both kinds, and every head, on one small set."""
    mixing = np.random.default_rng(0).normal(size=(8, 6))
    for name, count, seed in (("train", 36, 1), ("val", 12, 2)):
        tokens = np.random.default_rng(seed).normal(size=(count, 1, 2, 4))
        chunks = (tokens.reshape(count, 8) @ mixing).reshape(count, 2, 3)
        cells = [bench.action(f"{name}_{i}.npy", chunk) for i, chunk in enumerate(chunks)]
        labels = [("grasp", "push", "turn")[i % 3] for i in range(count)]
        bench.split(name, tokens, cells, columns={"label": labels})
    base = with_protocol(bootstrap=100).regress.model_copy(update={"epochs": 2})
    dit = base.model_copy(update={"head": "dit", "dit": DiffusionHead(width=8, depth=1, heads=2, sample_steps=3)})
    recipes = {"mlp": base, "linear": base.model_copy(update={"head": "linear"}), "dit": dit}
    made = {name: bench.job("regress", protocol=with_protocol(bootstrap=100, regress=r)) for name, r in recipes.items()}
    classify = {"labels": Labels(column="label"), "protocol": with_protocol(bootstrap=100)}
    made["classes"] = bench.job("classify", **classify)
    made["shuffled"] = bench.job("classify", control="shuffled", **classify)
    return {name: job.model_copy(update={"id": name}) for name, job in made.items()}


def written(folder: Path) -> dict[str, Any]:
    """All that a job wrote but its pictures and how long it took."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in PICTURES]
    files: dict[str, Any] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    result: dict[str, Any] = json.loads(files["result.json"])
    assert result.pop("seconds") > 0
    return files | {"result.json": result}


def run(job: ProbeJob, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    out.mkdir(parents=True)
    monkeypatch.setenv("LARY_MOUNT_OUT", str(out))
    run_probe(job.kind, job, lambda event: None)
    return written(out)


def test_what_ran_before_changes_nothing(
    jobs: dict[str, ProbeJob], tmp_path: Path, warm_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process forwards and backwards, and in one process that is given job after job."""
    forwards = {name: run(job, tmp_path / "forwards" / name, monkeypatch) for name, job in jobs.items()}
    for name in reversed(jobs):
        assert run(jobs[name], tmp_path / "backwards" / name, monkeypatch) == forwards[name]
    assert forwards["classes"]["result.json"]["splits"] != forwards["shuffled"]["result.json"]["splits"]
    monkeypatch.setenv("LARY_MORE_JOBS", "1")
    order = ["shuffled", "mlp", "classes"]
    messages = []
    for name in order:
        (tmp_path / "following" / name).mkdir(parents=True)
        (tmp_path / f"{name}.json").write_text(jobs[name].to_json())
        out = str(tmp_path / "following" / name)
        messages.append(json.dumps({"job": str(tmp_path / f"{name}.json"), "env": {"LARY_MOUNT_OUT": out}}))
    monkeypatch.setenv("LARY_MOUNT_OUT", str(tmp_path / "following" / order[0]))
    done = subprocess.run(
        [str(warm_python), "-m", "lary_probe", "classify", "--job", str(tmp_path / f"{order[0]}.json")],
        input="\n".join(messages[1:]) + "\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [from_line(line) for line in done.stdout.splitlines()]
    assert [event.job for event in events if event.event == "idle"] == order
    assert len({event.pid for event in events if event.event == "started"}) == 1
    for name in order:
        assert written(tmp_path / "following" / name) == forwards[name]


def test_a_job_of_several_processes_follows_none(jobs: dict[str, ProbeJob]) -> None:
    with pytest.raises(ContractError, match="mlp takes 2 processes, so it cannot follow another job in one"):
        _probe(None, jobs["mlp"].model_copy(update={"processes": 2}), lambda event: None)
