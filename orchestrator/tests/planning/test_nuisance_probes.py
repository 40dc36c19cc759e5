"""Probes of a nuisance: jobs of their own beside those of the task, wherever a card has one."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.cli import options
from lary_orch.plan.jobs import Probing, Request
from lary_results.board import boards
from lary_results.files import read_results
from lary_results.scores import collect
from lary_schema.jobs import ProbeJob

ACTIONS = {
    "column": "chunk",
    "folder": "toy",
    "stride": 4,
    "dim": 1,
    "names": ["x"],
    "normalisation": {"kind": "train"},
}
NUISANCE = ACTIONS | {"column": "disc", "stride": 1, "dim": 2, "names": ["u", "v"]}
BOTH = Probing(reads=("actions", "nuisance"))


def toy(world: Any, **fields: Any) -> None:
    task = {"task": "regression", "labels": None, "actions": ACTIONS}
    world.dataset(**(task | {"nuisance": NUISANCE} | fields))
    lines = ["src_img,tgt_img,action,chunk,disc", *(f"a{i}.png,b{i}.png,c{i % 2},{i}.npy,n{i}.npy" for i in range(10))]
    for split in ("train", "val"):
        world.csv(split, text="\n".join(lines) + "\n")


def jobs(plan: Any) -> list[ProbeJob]:
    return [planned.document for planned in plan.probes]


def test_a_nuisance_is_probed_by_a_job_of_its_own(world: Any) -> None:
    toy(world)
    # The baseline itself: beside other models it would be planned too.
    plan = world.plan(("single-frame",), probing=BOTH, control=True)
    assert not plan.problems
    assert [(job.reads, job.control) for job in jobs(plan)] == [
        (reads, control) for control in ("none", "shuffled") for reads in ("actions", "nuisance")
    ]
    for job in jobs(plan):
        assert job.actions is not None
        expected = (1, 2, "disc") if job.reads == "nuisance" else (4, 1, "chunk")
        assert (job.actions.stride, job.actions.dim, job.actions.column) == expected
        assert (job.kind, job.labels) == ("regress", None)
    assert len({planned.id for planned in plan.probes}) == len({planned.mounts.out for planned in plan.probes}) == 4
    assert len({job.fingerprint for job in jobs(plan)}) == 4
    assert [planned.id.endswith("nuisance") for planned in plan.probes[:2]] == [False, True]


def test_the_task_s_probe_is_the_same_with_and_without_a_nuisance(world: Any) -> None:
    toy(world)
    (with_both, _), (alone,) = jobs(world.plan(probing=BOTH)), jobs(world.plan())
    assert with_both.fingerprint == alone.fingerprint
    toy(world, nuisance=None)
    (without,) = jobs(world.plan())
    assert without.fingerprint == alone.fingerprint


def test_relative_targets_are_those_of_the_block_that_is_read(world: Any) -> None:
    toy(world, actions=ACTIONS | {"relative": {"kind": "train"}})
    recipe = world.request().protocol.regress.model_copy(update={"both_targets": True})
    protocol = world.request().protocol.model_copy(update={"regress": recipe})
    found = [(job.reads, job.protocol.regress.target) for job in jobs(world.plan(protocol=protocol, probing=BOTH))]
    assert found == [("actions", "absolute"), ("actions", "relative"), ("nuisance", "absolute")]


def test_classes_and_a_nuisance(world: Any) -> None:
    toy(world, task="classification", labels={"column": "action"}, actions=None)
    plan = world.plan(probing=BOTH)
    assert [(job.kind, job.reads) for job in jobs(plan)] == [("classify", "actions"), ("regress", "nuisance")]
    assert [planned.document.labels is None for planned in plan.probes] == [False, True]


def test_a_card_without_a_nuisance_is_a_problem_and_the_rest_is_planned(world: Any) -> None:
    toy(world, nuisance=None)
    plan = world.plan(probing=BOTH)
    assert [job.reads for job in jobs(plan)] == ["actions"]
    (problem,) = plan.problems
    assert "the card of dataset toy has no nuisance:" in str(problem)


def test_results_of_both_stand_in_columns_of_their_own(world: Any) -> None:
    """The best model is that of the actions' column, whatever it shows of the nuisance."""
    toy(world)
    plan = world.plan(("frame-diff", "pixels"), probing=BOTH)
    world.finish_stores(plan)
    world.finish_probes(plan)
    again = world.plan(("frame-diff", "pixels"), probing=BOTH)
    assert [planned.result is not None for planned in again.probes] == [True] * 4, "finished ones are found again"
    (board,) = boards(collect(read_results(world.workspace.results)))
    assert [column[3].split(", ")[-1] for column in board.columns] == ["", "nuisance"]
    assert board.best(board.columns[0]) is not None
    assert board.best(board.columns[1]) is None


def test_the_option(tmp_path: Path) -> None:
    import click

    seen: list[Request] = []

    @click.command()
    @options.request_options
    def command(request: Request) -> None:
        seen.append(request)

    for further in ([], ["--reads", "nuisance"], ["--reads", "actions", "--reads", "nuisance"]):
        result = CliRunner().invoke(command, ["-m", "a", "-d", "b", *further])
        assert result.exit_code == 0, result.output
    assert [request.probing.reads for request in seen] == [("actions",), ("nuisance",), ("actions", "nuisance")]


@pytest.mark.parametrize("column", ["chunk", "disc", "src_img"])
def test_a_named_column_has_to_be_there(world: Any, column: str) -> None:
    toy(world)
    path = world.workspace.data / "toy/train.csv"
    path.write_text(path.read_text().replace(column, "other", 1))
    assert column in str(world.only_problem())
