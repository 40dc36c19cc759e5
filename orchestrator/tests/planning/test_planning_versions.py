"""Which stores another version of the bench, of a library or of a model finds again, and what is said of the others."""

import json
from pathlib import Path
from typing import Any

import pytest
from lary_orch.plan.jobs import Plan
from lary_schema.jobs import minor_versions
from lary_schema.values import ExtractionSettings

BEFORE = {"av": "14.1.0", "opencv": "5.0.0.93", "torch": "2.13.0+cpu", "numpy": "2.0.0"}


def finish_as_before(world: Any) -> list[Path]:
    """Whole stores of the version that had no libraries in fingerprints, but in its provenance."""
    plan: Plan = world.plan()
    world.finish_stores(plan)
    roots = [world.workspace.latents / store.layout.path for store in plan.stores]
    for root in roots:
        group = json.loads((root / "zarr.json").read_text())
        group["attributes"]["lary"]["libraries"] = BEFORE
        (root / "zarr.json").write_text(json.dumps(group))
    return roots


def roots(world: Any, **fields: Any) -> list[Path]:
    return [world.workspace.latents / store.layout.path for store in world.plan(**fields).stores]


def test_minor_versions() -> None:
    assert minor_versions(BEFORE) == {"av": "14.1", "opencv": "5.0", "torch": "2.13"}
    assert minor_versions({"torch": "3", "zarr": "3.1.6"}) == {"torch": "3"}


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, False),
        ({"av": "14.1.9", "torch": "2.13.4", "numpy": "3"}, False),
        ({"av": "15.0.0"}, True),
        ({"opencv": "5.1.0.1"}, True),
        ({"torch": "2.14.0"}, True),
    ],
)
def test_a_whole_store_of_an_earlier_version_is_used_where_the_libraries_are_the_same(
    world: Any, changes: dict[str, str], again: bool
) -> None:
    world.toy()
    made = finish_as_before(world)
    world.runtime.libraries = BEFORE | changes
    plan = world.plan()
    assert [bool(store.missing) for store in plan.stores] == [again] * 2
    assert (roots(world) == made) is not again
    assert {store.why for store in plan.stores} == ({"av, opencv or torch"} if again else {""})


def test_one_that_is_not_whole_is_made_anew(world: Any) -> None:
    world.toy()
    made = finish_as_before(world)
    world.runtime.libraries = BEFORE
    (made[0] / "done" / "00000.json").unlink()
    train, val = world.plan().stores
    assert (len(train.missing), len(val.missing)) == (train.layout.shards, 0)
    assert train.why == "it is not whole"


def test_libraries_make_another_store_by_their_minor_version(world: Any) -> None:
    world.toy()
    world.runtime.libraries = BEFORE
    first = roots(world)
    for name, version, same in (("av", "14.1.7", True), ("numpy", "9", True), ("av", "14.2.0", False)):
        world.runtime.libraries = BEFORE | {name: version}
        assert (roots(world) == first) is same


@pytest.mark.parametrize(("model", "same"), [("frame-diff", True), ("pixels", True), ("random-vit", False)])
def test_another_seed_makes_no_store_of_a_model_that_draws_nothing(world: Any, model: str, same: bool) -> None:
    world.toy()
    found = [roots(world, models=(model,), settings=ExtractionSettings(seed=seed)) for seed in (0, 7)]
    assert (found[0] == found[1]) is same


def test_plan_says_why_a_store_is_made_anew(world: Any) -> None:
    world.toy()
    world.finish_stores(world.plan())
    world.csv("train", 12)
    train, val = world.plan().stores
    assert (train.why, val.why) == ("the CSV", "")
    world.runtime.code = "f" * 64
    assert world.plan().stores[1].why == "the model's code or the decoding"
