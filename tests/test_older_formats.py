"""What an older version of the bench wrote: stores are found and read, runs go on (tests/formats/README.md)."""

import hashlib
import itertools
import json
import tarfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.jobs import Plan, Request
from lary_orch.plan.planner import make_plan
from lary_orch.run.drive import drive
from lary_orch.runtimes.jobs import Prepared
from lary_orch.workspace import Workspace
from lary_results.run_state import failed_rows, run_state, superseded
from lary_schema.runs import PlanFile
from lary_schema.store.reader import LatentReader
from lary_slurm.client import QueueEntry
from lary_slurm.follow import Follower, join

FORMATS = Path(__file__).parent / "formats"
RUN = "smoke-ae26f958"
TOKENS = {
    "train": ([0, 2, 3, 4], "5032f584ed8082358939683f649010680cc1603d6bf9842a40bef367b5007967"),
    "val": ([0, 1, 2], "d1feb8a1cbde4e86b09e81642b22b3b07284ca1e80c3b3de179493c37fd64da6"),
}
"""Rows with a latent, and the sha256 of their float16 tokens, as the old code read them."""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """The old files, where their own paths say that they are."""
    with tarfile.open(FORMATS / "contract-1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for file in (p for p in tmp_path.rglob("*") if p.suffix in (".json", ".sh")):
        text = file.read_text(encoding="utf-8")
        if "/bench" in text:
            file.write_text(text.replace("/bench", str(tmp_path)), encoding="utf-8")
    return tmp_path


def _stores(bench: Path) -> dict[str, Path]:
    return {path.parts[-3]: path for path in (bench / "done/latents").glob("*/*/*/*.zarr")}


class SameImages:
    """A runtime whose images are those of then, by the hash of their code."""

    name = "process"

    def __init__(self, bench: Path) -> None:
        self._model = LatentReader.open(_stores(bench)["val"]).provenance.values.code_sha256
        (result,) = (bench / "done/results").glob("*/*/*/*/result.json")
        self._probe = json.loads(result.read_text())["probe_code_sha256"]

    def prepare(self, image: ImageSource, notify: object) -> Prepared:
        return Prepared(image, image.card.name, None, image.card.name)

    def query(self, prepared: Prepared, *arguments: str) -> str:
        card = prepared.source.card
        if "--model" not in arguments:
            return card.model_copy(update={"code_sha256": self._probe}).to_json()
        found = card.card(arguments[-1])
        assert found is not None
        return card.model_copy(update={"models": (found.model_copy(update={"code_sha256": self._model}),)}).to_json()


def _plan(bench: Path) -> Plan:
    workspace = Workspace.locate(bench / "done", data=bench / "data", env={})
    request = Request(("frame-diff",), ("tiny",), load_protocol("smoke"), control=False, max_failed=0.5, slots=2)
    return make_plan(request, workspace, Catalog.load([bench / "cards"], env={}), SameImages(bench), print)  # type: ignore[arg-type]


def test_stores_are_read(bench: Path) -> None:
    for split, path in _stores(bench).items():
        store = LatentReader.open(path)
        rows, sha256 = TOKENS[split]
        assert store.ok_rows().tolist() == rows
        assert hashlib.sha256(store.tokens(store.ok_rows()).tobytes()).hexdigest() == sha256
        assert store.provenance.values.fingerprint == store.provenance.layout.fingerprint
    assert [f.reason for f in LatentReader.open(_stores(bench)["train"]).failures] == ["missing_file"]


def test_stores_are_found_and_nothing_is_extracted_again(bench: Path) -> None:
    plan = _plan(bench)
    assert [str(problem) for problem in plan.problems] == []
    assert {store.layout.path for store in plan.stores} == {
        str(path.relative_to(bench / "done/latents")) for path in _stores(bench).values()
    }
    assert plan.extracts == ()


def test_an_earlier_run_that_is_not_continued_is_named(bench: Path) -> None:
    """A probe of another version is another probe, and so another run: that is said, and what is done stays done."""
    workspace = Workspace.locate(bench / "cluster", data=bench / "data", env={})
    plan = _plan(bench)
    (line,) = superseded(replace(plan, run="smoke-00000000"), workspace.runs)
    assert f"run {RUN} requested the same and is not complete" in line
    assert list(superseded(replace(plan, run=RUN), workspace.runs)) == []
    other = replace(plan, run="smoke-00000000", probes=())
    assert list(superseded(other, workspace.runs)) == []
    finished = Workspace.locate(bench / "done", data=bench / "data", env={})
    assert list(superseded(replace(plan, run="smoke-00000000"), finished.runs)) == []


def test_a_run_is_told_of(bench: Path) -> None:
    plan = PlanFile.read(bench / "done/runs" / RUN / "plan.json")
    state = run_state(plan)
    assert [(s["split"], s["shards_done"], s["rows_failed"]) for s in state["stores"]] == [
        ("train", 3, 1),
        ("val", 2, 0),
    ]
    snapshots = bench / "done/cache/snapshots"
    snapshots.mkdir(parents=True)
    for entry in plan.stores:
        csv = Path(entry.csv)
        csv.write_bytes((bench / f"data/tiny/{entry.split}.csv").read_bytes())
    assert [(row["row"], row["file"]) for row in failed_rows(plan)] == [(1, "train1a.png, gone.png")]


# --- on a cluster -----------------------------------------------------------------------------


class Queue:
    """A queue that holds all tasks of the old session, until they have ended."""

    def __init__(self, arrays: dict[int, Sequence[str]]) -> None:
        self.arrays = arrays
        self.submitted: list[Path] = []

    def queue(self, name: str) -> list[QueueEntry]:
        return [
            QueueEntry(slurm, index, "RUNNING", "", "n1", "")
            for slurm, jobs in self.arrays.items()
            for index in range(len(jobs))
        ]

    def submit(self, script: Path, options: Sequence[str]) -> int:
        self.submitted.append(script)
        return 1000 + len(self.submitted)


class Shown:
    """A watch that keeps how jobs ended."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[str, str]] = {}

    def launched(self, *_: Any) -> None:
        """Not kept."""

    event = relaunch = note = launched

    def ended(self, outcome: Any) -> None:
        self.ends[outcome.task.id] = (outcome.state, outcome.message)


@pytest.fixture
def followed(bench: Path) -> tuple[Follower, Queue]:
    run = Workspace.locate(bench / "cluster", env={}).run(RUN)
    folder = bench / "cluster/runs" / RUN / "slurm/0001/submissions"
    submissions = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    queue = Queue({one["slurm"]: one["tasks"] for one in submissions})
    found = join(queue, run)  # type: ignore[arg-type]
    assert found is not None
    session, paths = found
    ticks = itertools.count()
    clock = partial(next, ticks)  # One second a look.
    return Follower(queue, session, paths, run, clock=clock, wait=lambda _: None), queue  # type: ignore[arg-type]


def _end(bench: Path, job: str, code: int) -> None:
    marks = bench / "cluster/runs" / RUN / "slurm/0001/tasks"
    (marks / f"{job}.1.start").write_text('{"node": "n1"}')
    (marks / f"{job}.1.end").write_text(json.dumps({"code": code}))


def test_a_session_goes_on(bench: Path, followed: tuple[Follower, Queue]) -> None:
    follower, queue = followed
    (bench / "cluster/latents").symlink_to(bench / "done/latents")
    (bench / "cluster/results").symlink_to(bench / "done/results")
    for task in follower.tasks:
        _end(bench, task.id, 0)
    watch = Shown()
    outcomes, interrupted = drive(follower, RUN, lambda jobs: nullcontext(watch), print)
    assert interrupted is None
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert len(outcomes) == 5
    assert queue.submitted == []


def test_what_an_old_task_left_undone_is_seen(bench: Path, followed: tuple[Follower, Queue]) -> None:
    """Its outputs are read from its own document: the session of then says nothing of them."""
    follower, queue = followed
    extract = follower.tasks[0]
    assert extract.outputs == ()
    _end(bench, extract.id, 0)
    follower.submit(Shown())
    follower.step()
    assert [outcome.state for outcome in follower.outcomes] == ["stopped"] * 5
    _end(bench, extract.id, 4)
    follower.step()
    assert follower.outcomes[0].state == "failed"
    assert follower.outcomes[-1].state == "skipped"
    assert queue.submitted == []
