"""How far a run's evaluations are: from nothing over a journal under way to a result, and what is not theirs."""

import json
from pathlib import Path
from typing import Any

import pytest
from lary_results.report.evidence import gather
from lary_results.report.failures import section
from lary_results.run_list import run_records
from lary_results.run_state import failure_tables, failures, run_state, state_tables
from lary_schema.atomic import publish_text
from lary_schema.evaluation import Episode, EpisodeProtocol, EvaluateValues, EvaluationResult, journal_head
from lary_schema.runs import PlanFile, RunEvaluation
from lary_terminal.tables import plain

VALUES = EvaluateValues(
    policy="zero", policy_code_sha256="p", benchmark="world", benchmark_code_sha256="b", task="lift",
    states=(0, 1, 2), seed=4, protocol=EpisodeProtocol(horizon=9, settle=2),
)  # fmt: skip


def episode(state: int, fault: str | None = None, *, success: bool = False) -> Episode:
    said = "no way" if fault else ""
    return Episode.model_validate(
        {"state": state, "success": success, "steps": 5, "trace_sha256": "0", "fault": fault, "detail": said}
    )


def entry(folder: Path, **changes: Any) -> RunEvaluation:
    fields = VALUES.model_dump(include={"policy", "benchmark", "task", "seed", "states"})
    fields |= {"id": "evaluate.zero", "fingerprint": VALUES.fingerprint, "result": str(folder / "evaluation.json")}
    return RunEvaluation.model_validate(fields | changes)


def plan(tmp_path: Path, **changes: Any) -> PlanFile:
    made = PlanFile(
        run="evaluate-1", protocol="evaluate", latents="/l", stores=(), probes=(),
        evaluations=(entry(tmp_path / "out", **changes),), problems=(),
    )  # fmt: skip
    publish_text(tmp_path / "runs/evaluate-1/plan.json", made.to_json())
    return PlanFile.read(tmp_path / "runs/evaluate-1/plan.json")


def journal(tmp_path: Path, *episodes: Episode, fingerprint: str = VALUES.fingerprint, cut: str = "") -> None:
    lines = [json.dumps(one.model_dump(mode="json")) + "\n" for one in episodes]
    publish_text(tmp_path / "out/episodes.jsonl", journal_head(fingerprint) + "".join(lines) + cut)


def result(tmp_path: Path, *episodes: Episode) -> None:
    values = VALUES.model_copy(update={"states": tuple(one.state for one in episodes)})
    made = EvaluationResult(fingerprint=values.fingerprint, values=values, episodes=episodes, simulator_image="i")
    publish_text(tmp_path / "out/evaluation.json", made.to_json())


GOOD, PLAIN = episode(0, success=True), episode(1)
WRONG, SILENT = episode(2, "refused"), episode(2, "policy_timeout")


def state(tmp_path: Path, **changes: Any) -> tuple[Any, ...]:
    (found,) = run_state(plan(tmp_path, **changes))["evaluations"]
    names = ("episodes_done", "succeeded", "faults", "not_evaluated", "done")
    return tuple(found[name] for name in names)


@pytest.mark.parametrize("cut", ["", '{"state": 2, "succ', '{"state": 2}\n'])
def test_what_has_no_result_yet_is_read_from_its_journal(tmp_path: Path, cut: str) -> None:
    assert state(tmp_path) == (0, 0, 0, 0, False)
    journal(tmp_path, GOOD, PLAIN, cut=cut)
    assert state(tmp_path) == (2, 1, 0, 0, False)
    journal(tmp_path, GOOD, PLAIN, SILENT)
    assert state(tmp_path) == (2, 1, 0, 1, False)
    # All of them ended, and the result is not published: the same command does that.
    journal(tmp_path, GOOD, PLAIN, WRONG)
    assert state(tmp_path) == (3, 1, 1, 0, False)


def test_a_result_counts_where_it_has_all_that_is_planned(tmp_path: Path) -> None:
    result(tmp_path, GOOD, PLAIN, WRONG)
    assert state(tmp_path) == (3, 1, 1, 0, True)
    assert state(tmp_path, states=(0, 1)) == (2, 1, 0, 0, True)
    # More are planned than it has: the journal knows which have ended since.
    journal(tmp_path, GOOD, PLAIN, WRONG, episode(3))
    assert state(tmp_path, states=(0, 1, 2, 3, 4)) == (4, 1, 1, 0, False)
    result(tmp_path, GOOD, PLAIN, SILENT)
    assert state(tmp_path) == (2, 1, 0, 1, False)


def test_another_evaluation_s_files_are_none_of_it(tmp_path: Path) -> None:
    result(tmp_path, GOOD, PLAIN, WRONG)
    journal(tmp_path, GOOD, fingerprint="0" * 64)
    assert state(tmp_path, fingerprint="1" * 64) == (0, 0, 0, 0, False)
    publish_text(tmp_path / "out/evaluation.json", "{")
    assert state(tmp_path) == (0, 0, 0, 0, False)


def test_what_people_see(tmp_path: Path) -> None:
    """The run's own table instead of empty ones of latents; its faults instead of rows."""
    journal(tmp_path, GOOD, SILENT)
    made = plan(tmp_path)
    (table,) = state_tables(run_state(made))
    assert [line.split() for line in plain(table).splitlines()][-1][:6] == ["world", "zero", "lift", "4", "to", "do"]
    assert table.rows[0][5:] == ("1/3", "1", "0", "1")
    found = failures(made)
    assert found["failures"] == []
    (table,) = failure_tables(found, made)
    assert table.rows == [("world", "zero", "lift", "4", "2", "policy_timeout", "no way")]
    (record,) = run_records(tmp_path / "runs", tmp_path / "results")
    assert (record["state"], record["done"], record["parts"]) == ("not complete", 0, 1)
    assert (record["models"], record["datasets"]) == (["zero"], ["world"])
    page = section(gather(tmp_path / "results", tmp_path / "runs"))
    assert "evaluate-1: zero on world/lift, seed 4: 1 of 3 episodes" in str(page)
    assert "0 of 1" in str(page)
    result(tmp_path, GOOD, PLAIN, WRONG)
    (record,) = run_records(tmp_path / "runs", tmp_path / "results")
    assert (record["state"], record["done"]) == ("complete", 1)
