"""What tables, pages and the state of runs cost as a workspace grows: counted in calls and reads, never in seconds."""

import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from lary_results import export, leaderboard, paired, row_scores, run_state
from lary_results.board import boards
from lary_results.paired import against_best, pairs
from lary_results.report.evidence import Evidence
from lary_results.report.page import page
from lary_results.run_list import run_records
from lary_results.running import QUIET_S, running_jobs
from lary_results.scores import Score, collect
from lary_results.study.loading import load_studies
from lary_schema.atomic import publish_text
from lary_schema.events import Finished, to_line
from lary_schema.results import ProbeResult
from lary_schema.runs import PlanFile, RunPaths, RunProbe, RunStore
from lary_schema.store.layout import Failure, ShardRecord, Store

FEW, MANY = 24, 96
ALLOWED = 1.15
"""Of what is in proportion: sorting takes a little more. What is done for each pair would be near `MANY / FEW`."""
NOW = datetime(2026, 11, 26, tzinfo=UTC)
Results = list[tuple[Path, ProbeResult]]


def calls(work: Callable[[], Any]) -> int:
    """How many functions are called, Python's and built-in ones."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def one_of(make: Callable[..., ProbeResult], nth: int, model: str = "m", dataset: str = "d", **fields: Any) -> Any:
    metric = fields.get("metric", "top1")
    made = make(model, dataset, {"val": 0.3 + nth / 1000}, targets_sha256="7a" * 32, **{"metric": metric} | fields)
    return Path(f"/results/r/{model}/{dataset}/p{nth}/result.json"), made


SHAPES: dict[str, Callable[..., Results]] = {
    "models": lambda make, n: [one_of(make, i, model=f"m{i}") for i in range(n)],
    "models of regressions": lambda make, n: [one_of(make, i, model=f"m{i}", metric="mse") for i in range(n)],
    "datasets": lambda make, n: [one_of(make, i, dataset=f"d{i}") for i in range(n)],
    "older results": lambda make, n: [one_of(make, i) for i in range(n)],
    "refused": lambda make, n: [one_of(make, i, model=f"m{i}", failed=20) for i in range(n)],
    "recipes": lambda make, n: [one_of(make, i, model=f"m{i}", recipe={"epochs": i}) for i in range(n)],
    "protocols": lambda make, n: [one_of(make, i, protocol=f"p{i}") for i in range(n)],
    "controls": lambda make, n: [one_of(make, i, model=f"m{i}", control="shuffled") for i in range(n)],
}


def text_of(scores: list[Score]) -> None:
    leaderboard.show_all(scores, StringIO())


def page_of(results: Results) -> None:
    by_file = {str(path): result for path, result in results}
    page(Evidence(Path("/results"), by_file, tuple(boards(collect(results))), (), ()), 1.0, NOW)


WAYS: dict[str, Callable[[Results], Any]] = {
    "table": lambda results: text_of(collect(results)),
    "json": lambda results: export.as_json(collect(results)),
    "page": page_of,
    "paired": lambda results: pairs(boards(collect(results)), "m0", "m1"),
}


PAIRS = [(way, shape) for way in ("table", "json") for shape in SHAPES]
PAIRS += [("page", shape) for shape in ("models", "models of regressions", "datasets", "refused", "controls")]
PAIRS += [("paired", shape) for shape in ("models", "models of regressions")]


@pytest.mark.parametrize(("way", "shape"), PAIRS)
def test_four_times_the_results_take_four_times_the_work(
    way: str, shape: str, make_result: Callable[..., ProbeResult]
) -> None:
    few, many = (SHAPES[shape](make_result, count) for count in (FEW, MANY))
    WAYS[way](few)  # What is imported and cached once counts for neither.
    assert calls(lambda: WAYS[way](many)) <= ALLOWED * MANY / FEW * calls(lambda: WAYS[way](few))


# --- row scores -----------------------------------------------------------------------------------


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each score's rows were read."""
    counted: Counter[str] = Counter()
    real = row_scores.read_row_scores

    def read(score: Score) -> row_scores.RowScores:
        counted[score.file] += 1
        return real(score)

    monkeypatch.setattr(paired, "read_row_scores", read)
    monkeypatch.setattr("lary_results.common_rows.read_row_scores", read)
    return counted


def test_rows_of_the_best_are_read_once(
    write: Callable[..., Path], write_rows: Callable[..., None], rows_read: Counter[str], workspace: Any
) -> None:
    for nth in range(5):
        write_rows(write(f"m{nth}", "d", {"val": 0.5}, rows={"val": 4}), "val", [0.0, 1.0, nth % 2, 1.0])
    from lary_results.files import read_results

    (board,) = boards(collect(read_results(workspace.results)))
    assert len(against_best(board)) == 4
    assert set(rows_read.values()) == {1}
    assert len(rows_read) == 5


def test_rows_for_common_rows_are_read_once_for_json(
    write: Callable[..., Path], write_rows: Callable[..., None], rows_read: Counter[str], workspace: Any
) -> None:
    from lary_results.files import read_results

    for nth in range(3):
        folder = write(f"m{nth}", "d", {"val": 0.5}, rows={"val": 40}, failed=nth % 2)
        write_rows(folder, "val", [nth % 2, 1.0] * 20 if not nth % 2 else ([0.0, 1.0] * 20)[:39])
    found = export.as_json(collect(read_results(workspace.results)))
    assert {entry["common_rows"] for entry in found} == {39}
    assert set(rows_read.values()) == {1}


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often markers and results were read."""
    counted: Counter[Path] = Counter()
    real = Store.record, ProbeResult.read

    def record(store: Store, shard: int) -> ShardRecord:
        counted[store.marker(shard)] += 1
        return real[0](store, shard)

    def read(path: Path) -> ProbeResult:
        counted[path] += 1
        return real[1](path)

    monkeypatch.setattr(Store, "record", record)
    monkeypatch.setattr(ProbeResult, "read", read)
    return counted


def make_runs(root: Path, result: Path, runs: int) -> list[RunPaths]:
    """Runs that share a store of three shards, one with a failed row, and a result."""
    store = Store(root / "latents/d/val/m/s.zarr")
    for shard in range(3):
        lost = (Failure(row=1, reason="decode_error", detail="x"),) if shard == 1 else ()
        record = ShardRecord(
            shard=shard, start=shard, stop=shard + 1, failures=lost, batch_size=1, device="cpu", files={}
        )
        publish_text(store.marker(shard), record.to_json())
    csv = root / "rows.csv"
    publish_text(csv, "video_path\na.mp4\nb.mp4\nc.mp4\n")
    of = {"model": "m", "variant": "v", "dataset": "d"}
    entry = RunStore(**of, split="val", path="d/val/m/s.zarr", rows=3, shards=3, csv=str(csv), columns=("video_path",))
    probe = RunProbe(id="p", **of, control="none", fingerprint="fe" * 32, result=str(result))
    made = []
    for number in range(runs):
        paths = RunPaths(root / f"runs/clean-{number}", root / f"results/clean-{number}")
        plan = PlanFile(
            run=f"clean-{number}",
            protocol="clean",
            latents=str(root / "latents"),
            stores=(entry,),
            probes=(probe,),
            problems=(),
        )
        publish_text(paths.plan, plan.to_json())
        made.append(paths)
    return made


@pytest.mark.parametrize("look", ["runs", "report", "superseded", "status"])
def test_what_runs_share_is_read_once(look: str, write: Callable[..., Path], workspace: Any, reads: Any) -> None:
    from lary_results.report.evidence import gather

    result = write("m", "d", {"val": 0.5}) / "result.json"
    paths = make_runs(workspace.root, result, 4)
    reads.clear()
    if look == "runs":
        found = list(run_records(workspace.runs, workspace.results))
        assert [record["rows_failed"] for record in found] == [1] * 4
        assert [record["done"] for record in found] == [2] * 4
    elif look == "report":
        found = list(gather(workspace.results, workspace.runs).runs)
        assert [len(run.failures) for run in found] == [1] * 4
    elif look == "superseded":
        assert list(run_state.superseded(PlanFile.read(paths[0].plan), workspace.runs)) == []
    else:
        disk, plan = run_state.DiskState(), PlanFile.read(paths[0].plan)
        run_state.run_state(plan, disk)
        assert [row["file"] for row in run_state.failed_rows(plan, disk)] == ["b.mp4"]
    # The page shows the result itself too, whatever run it is of.
    assert set(reads.values()) == {1} if look != "report" else set(reads.values()) <= {1, 2}
    assert sum(path.parent.name == "done" for path in reads) == 3


def test_logs_of_a_run_that_ended_long_ago_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import time

    paths = RunPaths(tmp_path / "runs/r", tmp_path / "results/r")
    old = time.time() - QUIET_S - 60
    for number in range(5):
        publish_text(paths.events(f"a.p{number}", 1), to_line(Finished(job="a", done=1, per_second=1)))
        os.utime(paths.events(f"a.p{number}", 1), (old, old))
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *given: opened.append(path) or real(path, *given))
    assert running_jobs(paths) == []
    assert [path for path in opened if path.suffix == ".jsonl"] == []


def test_results_are_read_once_for_all_studies(
    write: Callable[..., Path], workspace: Any, reads: Counter[Path]
) -> None:
    from lary_results.study.record import StudyRecord, record_path

    write("m", "d", {"val": 0.5}, metric="mse")
    for key in ("one", "two", "three"):
        record = StudyRecord.model_validate(
            {"key": key, "title": "", "dataset": "d", "protocol": "clean", "target": "relative", "variants": ["v"]}
            | {"arms": {"a": "A"}, "baselines": {}, "compare": [], "entries": []}
        )
        publish_text(record_path(workspace.root / "studies", key), record.to_json())
    reads.clear()
    assert [study.record.key for study in load_studies(workspace.root)] == ["one", "three", "two"]
    assert list(reads.values()) == [1]
