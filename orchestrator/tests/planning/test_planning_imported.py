"""Latents that were imported: probed without image, weights or media of their model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lary_orch.plan.jobs import Plan
from lary_orch.workspace import Workspace
from lary_schema.base import TooManyFailedError
from lary_schema.jobs import IMPORTED, ProbeJob
from lary_schema.store.layout import Store, store_path
from lary_schema.store_state import StoreState


def imported(plan: Plan, model: str, code: str = "f" * 64) -> Plan:
    """The stores of a plan as an import would have named them."""

    def renamed(store: StoreState) -> StoreState:
        values = store.values.model_copy(update={"model": model, "variant": IMPORTED, "code_sha256": code})
        update = {"path": store_path(values), "fingerprint": values.fingerprint}
        layout = store.layout.model_copy(update=update)
        return StoreState(values, layout, store.source, tuple(range(layout.shards)))

    return replace(plan, stores=tuple(renamed(store) for store in plan.stores))


def bring(world: Any, model: str = "third-party", code: str = "f" * 64, **failed: Any) -> Plan:
    """Have imported latents of the toy set."""
    made = imported(world.plan(shard_rows=4), model, code)
    world.finish_stores(made, failed)
    world.runtime.prepared.clear()
    world.runtime.queried.clear()
    return made


def stores(plan: Plan, workspace: Workspace) -> list[Path]:
    return [workspace.latents / store.layout.path for store in plan.stores]


def test_only_the_probe_is_planned_for_a_model_that_no_image_serves(world: Any) -> None:
    world.toy()
    made = bring(world)
    plan = world.plan(("third-party",), variants=(IMPORTED,))
    assert plan.problems == ()
    assert plan.extracts == ()
    (probe,) = plan.probes
    assert probe.id == "classify.toy.third-party.imported"
    assert probe.needs == ()
    assert isinstance(probe.document, ProbeJob)
    assert (probe.document.model, probe.document.variant, probe.document.time_axis) == (
        "third-party",
        "imported",
        False,
    )
    found = [split.store.fingerprint for split in (probe.document.train, *probe.document.evaluate)]
    assert found == [store.layout.fingerprint for store in made.stores]
    assert world.runtime.prepared == ["probe"]


def test_beside_an_extracted_variant(world: Any) -> None:
    world.toy()
    bring(world, "frame-diff")
    plan = world.plan(("frame-diff",), variants=("corrected", IMPORTED))
    assert [probe.id for probe in plan.probes] == [
        "classify.toy.frame-diff.imported",
        "classify.toy.frame-diff.corrected",
    ]
    assert {job.document.values.variant for job in plan.extracts} == {"corrected"}


def test_a_finished_probe_is_not_run_again(world: Any) -> None:
    world.toy()
    bring(world)
    world.finish_probes(world.plan(("third-party",), variants=(IMPORTED,)))
    assert world.plan(("third-party",), variants=(IMPORTED,)).todo == ()


def test_nothing_imported_names_the_command(world: Any) -> None:
    world.toy()
    error = str(world.only_problem(("third-party",), variants=(IMPORTED,)))
    assert "toy/train/third-party: no imported latents of" in error
    assert "`lary-orch latents import -m third-party -d toy`" in error


def test_latents_of_another_state_of_the_csv(world: Any) -> None:
    world.toy()
    bring(world)
    world.csv("val", 7)
    error = str(world.only_problem(("third-party",), variants=(IMPORTED,)))
    assert "toy/val/third-party: no imported latents" in error
    assert "1 of another state of" in error


def test_two_imports_of_the_same_rows_are_not_chosen_from(world: Any) -> None:
    world.toy()
    one, two = bring(world), bring(world, code="e" * 64)
    error = str(world.only_problem(("third-party",), variants=(IMPORTED,)))
    for plan in (one, two):
        assert stores(plan, world.workspace)[0].name in error


@pytest.mark.parametrize("harm", ["unfinished", "cut"])
def test_a_store_that_is_not_whole(world: Any, harm: str) -> None:
    world.toy()
    store = stores(bring(world), world.workspace)[1]
    if harm == "unfinished":
        Store(store).marker(1).unlink()
    else:
        (store / "tokens/c/1/0/0/0").write_text("byte")
    error = str(world.only_problem(("third-party",), variants=(IMPORTED,)))
    assert f"{store}: 1 of 2 shards are missing or damaged" in error
    assert "latents import -m third-party -d toy" in error


def test_too_many_failed_rows(world: Any) -> None:
    world.toy()
    bring(world, train=(3,))
    assert isinstance(world.only_problem(("third-party",), variants=(IMPORTED,)), TooManyFailedError)
    assert world.plan(("third-party",), variants=(IMPORTED,), max_failed=0.1).problems == ()


def test_splits_of_different_shapes(world: Any) -> None:
    world.toy()
    made = imported(world.plan(), "third-party")
    odd = made.stores[1]
    spec = odd.values.spec.model_copy(update={"tokens": (1, 7, 7)})
    values = odd.values.model_copy(update={"spec": spec})
    path, layout = store_path(values), odd.layout
    layout = layout.model_copy(update={"path": path, "fingerprint": values.fingerprint, "tokens": (1, 7, 7)})
    changed = replace(odd, values=values, layout=layout)
    world.finish_stores(replace(made, stores=(made.stores[0], changed)))
    error = str(world.only_problem(("third-party",), variants=(IMPORTED,)))
    assert error.startswith("latents of different shapes: train (1, ")
    assert "val (1, 7, 7) flat" in error


def test_an_imported_variant_does_not_excuse_an_unknown_model(world: Any) -> None:
    world.toy()
    bring(world)
    plan = world.plan(("third-party",), variants=(IMPORTED, "corrected"))
    assert [problem.what for problem in plan.problems] == ["model third-party"]
    assert len(plan.probes) == 1
