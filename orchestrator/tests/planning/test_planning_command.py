"""`lary-orch plan` from options to output, with a runtime that runs nothing."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lary_orch.cli import plan
from lary_orch.runtimes.devices import Device, Slot
from lary_schema.base import ExitCode
from lary_schema.json_schemas import Job
from pydantic import TypeAdapter


@pytest.fixture
def invoke(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    opened = (world.runtime, [Slot(Device("cuda", ("GPU-1",), "H"), 4)] * 2)
    monkeypatch.setattr("lary_orch.runtimes.choose.open_runtime", lambda *options: opened)

    def run(*arguments: str) -> Result:
        where = ["--workspace", str(world.workspace.root), "--catalog", str(world.cards)]
        return CliRunner().invoke(plan.command, [*arguments, *where, "--protocol", "smoke"])

    return run


def test_the_jobs_that_run_would_launch(world: Any, invoke: Any) -> None:
    world.toy()
    document = json.loads(invoke("-m", "frame-diff", "-d", "toy", "--json").stdout)
    jobs: list[Any] = [TypeAdapter(Job).validate_python(job) for job in document["jobs"]]
    assert [job.kind for job in jobs] == ["extract", "extract", "classify", "classify"]
    assert {(job.device, job.threads) for job in jobs} == {("cuda", 4)}
    assert document["problems"] == []
    assert list(world.workspace.root.glob("runs/*")) == [], "planning writes no run"


def test_a_table_for_people(world: Any, invoke: Any) -> None:
    world.toy()
    made = world.plan()
    world.finish_stores(made)
    result = invoke("-m", "frame-diff", "-m", "pixels", "-d", "toy", "--no-control", "--shard-rows", "4")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["extract.toy.train.pixels.corrected.p0", "4", "1", "48.0", "KiB"] in lines
    assert ["extract.toy.train.pixels.corrected.p1", "6", "2", "72.0", "KiB"] in lines
    assert "done already: 2 of 4 stores, 0 of 2 probes." in result.stdout


def test_problems_go_to_stderr_and_decide_the_code(world: Any, invoke: Any) -> None:
    world.toy()
    result = invoke("-m", "univla", "-m", "frame-diff", "-d", "toy", "--json")
    assert result.exit_code == ExitCode.WEIGHTS
    document = json.loads(result.stdout)
    assert [(p["what"], p["code"]) for p in document["problems"]] == [("model univla", ExitCode.WEIGHTS)]
    assert len(document["jobs"]) == 4
    assert "error: model univla: " in result.stderr
