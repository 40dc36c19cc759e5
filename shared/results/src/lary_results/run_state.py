"""How far a run is, from its plan, the stores' done markers and the results. Opens no array."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.metadata import read_rows
from lary_schema.results import ProbeResult
from lary_schema.runs import PlanFile, RunProbe, RunStore
from lary_schema.store.layout import Failure, Store
from lary_terminal.tables import Table

from lary_results.evaluation_state import episode_table, evaluation_state, evaluation_table, failed_episodes

SAMPLING, SAMPLING_FAILED = "sampling", "failed: "
"""Column of the CSVs that `lary-orch data` writes, and how its cell begins for a clip without indices."""
OF_INDICES = ("bad_indices", "bad_row")


def find_plan(runs: Path, run: str | None) -> PlanFile:
    """The plan of a run, or of the one that was planned last. Raises ContractError where there is none."""
    plans = sorted(runs.glob("*/plan.json"), key=lambda p: p.stat().st_mtime_ns)
    if not plans:
        raise ContractError(f"{runs}: no run there yet; start one by `{commands.first_run()}`")
    chosen = plans[-1] if run is None else runs / run / "plan.json"
    if chosen not in plans:
        raise ContractError(f"no run {run!r}; there are {', '.join(p.parent.name for p in plans)}")
    return PlanFile.read(chosen)


class StoreFacts(NamedTuple):
    """What the done markers of a store say."""

    shards: int
    ok: int
    failures: tuple[Failure, ...]
    clamped: int


class DiskState:
    """What is finished on this disk. Each store and each result is read once, however many runs name it."""

    def __init__(self) -> None:
        self.store: Callable[[Path], StoreFacts] = cache(_store_facts)
        """Raises StoreError for a damaged marker."""
        self.result: Callable[[Path], tuple[str, dict[str, float]] | None] = cache(_result_facts)
        """Fingerprint and score by split; None where there is no result. Raises ContractError for a damaged one."""


def _store_facts(root: Path) -> StoreFacts:
    """One marker after the other: tens of thousands of them, kept, take memory and the time to look for garbage."""
    store, shards, ok, clamped = Store(root), 0, 0, 0
    failures: list[Failure] = []
    for shard in sorted(store.done()):
        record = store.record(shard)
        shards, ok, clamped = shards + 1, ok + record.ok, clamped + len(record.clamped)
        failures += record.failures
    return StoreFacts(shards, ok, tuple(failures), clamped)


def _result_facts(path: Path) -> tuple[str, dict[str, float]] | None:
    if not path.is_file():
        return None
    result = ProbeResult.read(path)
    return result.fingerprint, {name: score.value for name, score in result.splits.items()}


def run_state(plan: PlanFile, disk: DiskState | None = None) -> dict[str, Any]:
    """Everything that `status` shows, as JSON values; `disk` where more than one run is looked at."""
    disk = disk or DiskState()
    return {
        "run": plan.run,
        "trainings": [{"key": one.key, "done": Path(one.result).is_file()} for one in plan.trainings],
        "stores": [_store_state(entry, disk.store(Path(plan.latents, entry.path))) for entry in plan.stores],
        "probes": [_probe_state(entry, disk) for entry in plan.probes],
        "evaluations": [evaluation_state(entry) for entry in plan.evaluations],
        "problems": list(plan.problems),
    }


def is_complete(state: dict[str, Any]) -> bool:
    """Whether every store of a run is whole, and every training, probe and evaluation done."""
    stores = all(store["shards_done"] == store["shards"] for store in state["stores"])
    return stores and all(job["done"] for name in ("trainings", "probes", "evaluations") for job in state[name])


def _store_state(entry: RunStore, facts: StoreFacts) -> dict[str, Any]:
    return {
        **entry.model_dump(include={"model", "variant", "dataset", "split", "path", "rows", "shards"}),
        "shards_done": facts.shards,
        "rows_ok": facts.ok,
        "rows_failed": len(facts.failures),
        "rows_clamped": facts.clamped,
        "reasons": dict(Counter(failure.reason for failure in facts.failures).most_common()),
    }


def _probe_state(entry: RunProbe, disk: DiskState) -> dict[str, Any]:
    """With its scores where the result is this very job's; a result of another state of things is none."""
    found = disk.result(Path(entry.result))
    scores = None if found is None or found[0] != entry.fingerprint else dict(found[1])
    return {**entry.model_dump(exclude={"fingerprint"}), "done": scores is not None, "scores": scores}


def failed_rows(plan: PlanFile, disk: DiskState | None = None) -> Iterator[dict[str, Any]]:
    """Every failed row of every store, with the files that its CSV names.

    Where the tool that chose a clip's frames failed on it, its CSV says why: that is the row's detail, and not that its
    indices are empty.
    """
    disk = disk or DiskState()
    for entry in plan.stores:
        failures = {failure.row: failure for failure in disk.store(Path(plan.latents, entry.path)).failures}
        said = _said(Path(entry.csv), failures, entry.columns) if failures else {}
        for row, failure in failures.items():
            yield _failed_row(entry, failure, *said.get(row, ("", "")))


def _failed_row(entry: RunStore, failure: Failure, file: str, sampling: str) -> dict[str, Any]:
    named = entry.model_dump(include={"model", "variant", "dataset", "split"})
    failed = failure.reason in OF_INDICES and sampling.startswith(SAMPLING_FAILED)
    detail = sampling.removeprefix(SAMPLING_FAILED) if failed else failure.detail
    return {
        **named,
        "row": failure.row,
        "file": file,
        "reason": failure.reason,
        "detail": detail,
        "sampled": not failed,
    }


def _said(csv: Path, wanted: Collection[int], columns: tuple[str, ...]) -> dict[int, tuple[str, str]]:
    """Row -> the cells that name its files, and what was said of sampling its frames. A malformed row has none."""
    rows = (row for row in read_rows(csv) if row.index in wanted)
    return {
        row.index: (", ".join(row.get(column) or "" for column in columns).strip(", "), row.get(SAMPLING) or "")
        for row in rows
    }


# --- for people -------------------------------------------------------------------------------


def state_tables(state: dict[str, Any]) -> list[Table]:
    """Trainings and evaluations (where there are some), stores and probes of `run_state`."""
    if state["evaluations"]:
        return [evaluation_table(state["evaluations"], state["run"])]
    trainings = Table(
        "trainings",
        ("model", "state"),
        [(one["key"], "done" if one["done"] else "to do") for one in state["trainings"]],
    )
    stores = Table(
        f"run {state['run']}: latents",
        ("dataset", "split", "model", "variant", "shards", "ok", "failed", "clamped", "of rows", "reasons"),
        [_store_cells(store) for store in state["stores"]],
        right=frozenset(range(4, 9)),
        keys=frozenset(range(4)),
        notes=tuple(f"not planned: {problem}" for problem in state["problems"]),
    )
    probes = Table(
        "probes",
        ("dataset", "model", "variant", "control", "state", "scores"),
        [_probe_cells(probe) for probe in state["probes"]],
        keys=frozenset(range(4)),
    )
    return [*([trainings] if trainings.rows else []), stores, probes]


def _store_cells(store: dict[str, Any]) -> tuple[str, ...]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in store["reasons"].items())
    counts = (store["rows_ok"], store["rows_failed"], store["rows_clamped"], store["rows"])
    shards = f"{store['shards_done']}/{store['shards']}"
    named = tuple(store[name] for name in ("dataset", "split", "model", "variant"))
    return (*named, shards, *map(str, counts), reasons or "-")


def _probe_cells(probe: dict[str, Any]) -> tuple[str, ...]:
    scores = ", ".join(f"{split} {value:.4f}" for split, value in (probe["scores"] or {}).items())
    named = tuple(probe[name] for name in ("dataset", "model", "variant", "control"))
    return (*named, "done" if probe["done"] else "to do", scores or "-")


def failures(plan: PlanFile, disk: DiskState | None = None) -> dict[str, list[dict[str, Any]]]:
    """Failed rows, and episodes that ended by a fault."""
    return {"failures": list(failed_rows(plan, disk)), "failed_episodes": list(failed_episodes(plan))}


def failure_tables(found: dict[str, list[dict[str, Any]]], plan: PlanFile) -> list[Table]:
    """`failures` of a plan."""
    if plan.evaluations:
        return [episode_table(found["failed_episodes"])]
    return [failure_table(found["failures"])]


def failure_table(rows: list[dict[str, Any]]) -> Table:
    """`failed_rows`, a line each."""
    columns = ("dataset", "split", "model", "variant", "row", "reason", "file", "detail")
    cells = [tuple(str(row[column]) for column in columns) for row in rows]
    return Table(f"{len(rows)} failed rows", columns, cells, right=frozenset({4}), keys=frozenset(range(5)))


def superseded(plan: PlanFile, runs: Path) -> Iterator[str]:
    """A line for each earlier run that requested the same and will not be continued, though it is not complete.

    Another version of an image or of the bench makes other fingerprints, and so another run.
    """
    disk = DiskState()
    for file in sorted(runs.glob(f"{plan.protocol}-*/plan.json")):
        try:
            earlier = PlanFile.read(file)
            same = {probe.id for probe in earlier.probes} == {probe.id for probe in plan.probes}
            if earlier.run == plan.run or not same or is_complete(run_state(earlier, disk)):
                continue
        except ContractError:
            continue
        yield (
            f"run {earlier.run} requested the same and is not complete. It was planned with other images, data or "
            f"settings, or by another version of the bench, and is not continued; run {plan.run} uses what it has done "
            f"of the same latents. `{commands.command('status', earlier.run)}` shows it; "
            f"`{commands.command('cancel', earlier.run)}` ends "
            "what it still has on a cluster"
        )
