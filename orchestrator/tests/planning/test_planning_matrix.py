"""From requests to jobs: the matrix, fingerprints, partitions, and what is done already."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.plan.jobs import Plan, Probing
from lary_orch.plan.planner import make_plan
from lary_orch.runtimes.refusals import TRIES, KilledError
from lary_schema.base import ContractError, ExitCode, TooManyFailedError, WeightsError
from lary_schema.events import TRANSIENT, Reason
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.store.layout import Store
from lary_schema.store_state import partitions
from lary_schema.values import ExtractionSettings


def probe_jobs(plan: Plan) -> list[ProbeJob]:
    return [planned.document for planned in plan.probes if isinstance(planned.document, ProbeJob)]


def fingerprints(plan: Plan) -> list[str]:
    return [store.layout.fingerprint for store in plan.stores]


# --- the matrix -------------------------------------------------------------------------------


def test_models_times_splits_then_probes_and_one_control(world: Any) -> None:
    world.toy()
    plan = world.plan(("frame-diff", "pixels"), control=True)
    assert plan.problems == ()
    assert [job.id for job in plan.extracts] == [
        "extract.toy.train.frame-diff.corrected.p0",
        "extract.toy.val.frame-diff.corrected.p0",
        "extract.toy.train.pixels.corrected.p0",
        "extract.toy.val.pixels.corrected.p0",
    ]
    assert [job.id for job in plan.probes] == [
        "classify.toy.frame-diff.corrected",
        "classify.toy.frame-diff.corrected.shuffled",
        "classify.toy.pixels.corrected",
    ]
    assert plan.probes[0].needs == plan.probes[1].needs == tuple(job.id for job in plan.extracts[:2])
    assert plan.probes[2].needs == tuple(job.id for job in plan.extracts[2:])
    assert {job.run for job in probe_jobs(plan)} == {plan.run}
    assert plan.todo == plan.extracts + plan.probes


REGRESSION = {
    "task": "regression",
    "labels": None,
    "actions": {"folder": "x", "stride": 2, "dim": 1, "names": ["x"], "normalisation": {"kind": "train"}},
}


def _pairs(world: Any, **fields: Any) -> None:
    world.toy()
    world.dataset(**(REGRESSION | fields))


def test_regressions_of_pairs_have_the_baseline_that_sees_one_frame(world: Any) -> None:
    _pairs(world)
    plan = world.plan(("frame-diff", "pixels"), control=True)
    assert [job.id for job in plan.extracts[4:]] == [
        "extract.toy.train.single-frame.corrected.p0",
        "extract.toy.val.single-frame.corrected.p0",
    ]
    # Last, so that the shuffled control is of the first model that was requested.
    assert [job.id.removeprefix("regress.toy.") for job in plan.probes] == [
        "frame-diff.corrected",
        "frame-diff.corrected.shuffled",
        "pixels.corrected",
        "single-frame.corrected",
    ]
    assert world.runtime.prepared == ["baseline", "probe"]


@pytest.mark.parametrize(
    ("models", "card", "request_fields"),
    [
        (("pixels",), {}, {"control": False}),
        (("pixels",), {"task": "classification", "labels": {}, "actions": None}, {"control": True}),
        (("pixels",), {"columns": {"input": "video"}}, {"control": True}),
        (("lapa",), {}, {"control": True}),
        (("no-such-model",), {}, {"control": True}),
    ],
    ids=["--no-control", "classification", "video", "another image", "nothing else"],
)
def test_elsewhere_there_is_no_such_baseline(
    world: Any, models: tuple[str, ...], card: dict[str, Any], request_fields: dict[str, Any]
) -> None:
    _pairs(world, **card)
    plan = world.plan(models, **request_fields)
    assert not any("single-frame" in job.id for job in (*plan.extracts, *plan.probes))
    assert not any("single-frame" in problem.what for problem in plan.problems)


def test_a_baseline_that_is_requested_is_planned_once(world: Any) -> None:
    _pairs(world)
    plan = world.plan(("single-frame", "pixels"), control=True)
    assert [job.id for job in plan.probes].count("regress.toy.single-frame.corrected") == 1


def test_what_a_job_is_told(world: Any) -> None:
    world.toy(train=10)
    plan = world.plan(device="cuda", threads=3, workers=4, batch_size=5, max_failed=0.5, row_timeout_s=9)
    planned = plan.extracts[0]
    job = planned.document
    assert isinstance(job, ExtractJob)
    assert (job.device, job.threads, job.workers, job.batch_size, job.max_failed) == ("cuda", 3, 4, 5, 0.5)
    assert job.row_timeout_s == 9
    assert (job.store.rows, job.source.metadata.rows, job.source.metadata.path) == (10, 10, "metadata/train.csv")
    assert job.source.host_data == str(world.workspace.data) == str(planned.mounts.data)
    assert job.image == "lary/baseline:test"
    assert not planned.mounts.weights.exists(), "a model without weights sees none"
    assert job.values.spec.time_axis is False
    assert probe_jobs(plan)[0].time_axis is False
    assert ExtractJob.model_validate_json(job.to_json()) == job


def test_out_folders_differ_by_variant_and_control(world: Any) -> None:
    world.toy()
    plan = world.plan(control=True)
    folders = [job.mounts.out.relative_to(world.workspace.results).as_posix() for job in plan.probes]
    assert folders == [
        f"{plan.run}/frame-diff/toy/classify-corrected",
        f"{plan.run}/frame-diff/toy/classify-corrected-shuffled",
    ]


def test_seeds_of_the_recipe_stand_in_the_job(world: Any) -> None:
    world.toy()
    card = load_protocol("lary-v1")
    (job,) = probe_jobs(world.plan(protocol=card))
    assert job.protocol.seeds == (0,)
    assert job.protocol.classify.seeds is None


def test_a_dataset_of_several_evaluated_splits(world: Any) -> None:
    world.dataset(splits={"train": "seen_train", "evaluate": ["seen_val", "unseen"]})
    for split in ("seen_train", "seen_val", "unseen"):
        world.csv(split)
    assert [s.name for s in probe_jobs(world.plan())[0].evaluate] == ["seen_val", "unseen"]
    assert [s.name for s in probe_jobs(world.plan(splits=("unseen",)))[0].evaluate] == ["unseen"]
    assert "evaluates no split 'val'; it has seen_val, unseen" in str(world.only_problem(splits=("val",)))


def test_images_are_prepared_and_queried_once(world: Any) -> None:
    world.toy()
    models = ("frame-diff", "pixels")
    world.plan(models)
    world.plan(models)
    assert world.runtime.prepared == ["baseline", "probe"] * 2
    assert [call[0] for call in world.runtime.queried] == ["baseline", "baseline", "probe"]


def test_another_state_of_the_image_is_queried_anew_and_makes_other_stores(world: Any) -> None:
    world.toy()
    before = world.plan()
    world.runtime.code = "beef" * 16
    after = world.plan()
    assert set(fingerprints(before)).isdisjoint(fingerprints(after))


def test_partitions_go_to_the_slots(world: Any) -> None:
    world.toy(train=10, val=2)
    plan = world.plan(slots=3, shard_rows=2)
    shards = [job.document.shards for job in plan.extracts if isinstance(job.document, ExtractJob)]
    assert shards == [(0,), (1, 2), (3, 4), (0,)]
    assert [job.id.rsplit(".")[-1] for job in plan.extracts] == ["p0", "p1", "p2", "p0"]


@given(st.sets(st.integers(0, 300)), st.integers(1, 20))
def test_partitions_cover_every_missing_shard_once(shards: set[int], slots: int) -> None:
    parts = partitions(sorted(shards), slots)
    assert [shard for part in parts for shard in part] == sorted(shards)
    assert len(parts) == min(slots, len(shards))
    sizes = [len(part) for part in parts]
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


# --- identity ---------------------------------------------------------------------------------


def test_the_run_is_named_by_what_it_computes(world: Any) -> None:
    world.toy()
    run = world.plan().run
    assert run.startswith("smoke-")
    same = {"batch_size": 3, "workers": 1, "slots": 2, "shard_rows": 2, "threads": 1, "max_failed": 0.9}
    assert world.plan(**same).run == run
    assert world.plan(control=True).run != run
    assert world.plan(protocol=load_protocol("clean")).run.startswith("clean-")


@pytest.mark.parametrize("changed", [{"decoder": "decord"}, {"precision": "bf16"}, {"dtype": "float32"}, {"seed": 1}])
def test_each_value_of_the_settings_makes_another_store(world: Any, changed: dict[str, Any]) -> None:
    world.toy()
    # The model that draws: of the others, another seed makes no other store.
    plans = [world.plan(("random-vit",), settings=ExtractionSettings(**given)) for given in ({}, changed)]
    assert set(fingerprints(plans[0])).isdisjoint(fingerprints(plans[1]))


SWAPPED = {"input": "image", "source": "tgt_img", "target": "src_img"}


def test_changed_rows_media_frames_and_columns_make_another_store(world: Any) -> None:
    world.toy()
    seen = set(fingerprints(world.plan()))
    world.csv("train", 11)
    world.csv("val", 7)
    changed = [fingerprints(world.plan())]
    for fields in ({"media": "elsewhere"}, {"frames": 5}, {"columns": SWAPPED}):
        world.dataset(**fields)
        changed.append(fingerprints(world.plan()))
    for prints in changed:
        assert seen.isdisjoint(prints)
        seen.update(prints)


def test_a_csv_of_other_bytes_and_equal_length_is_noticed(world: Any) -> None:
    world.toy()
    before = fingerprints(world.plan())
    path = world.workspace.data / "toy" / "train.csv"
    world.csv("train", text=path.read_text().replace("a1.png", "a9.png"))
    assert fingerprints(world.plan())[0] != before[0]
    assert fingerprints(world.plan())[1] == before[1]


# --- done already -----------------------------------------------------------------------------


def test_a_finished_run_has_nothing_to_do(world: Any) -> None:
    world.toy()
    plan = world.plan(control=True)
    world.finish_stores(plan)
    assert [job.verb for job in world.plan(control=True).todo] == ["classify", "classify"]
    written = world.finish_probes(plan)
    again = world.plan(control=True)
    assert again.todo == ()
    assert again.run == plan.run
    assert [probe.result for probe in again.probes] == written
    assert again.missing_bytes == 0


def test_an_equal_probe_of_another_run_counts(world: Any) -> None:
    world.toy()
    plan = world.plan()
    world.finish_stores(plan)
    world.finish_probes(plan)
    wider = world.plan(("frame-diff", "pixels"))
    assert wider.run != plan.run
    assert [job.title for job in wider.todo] == [
        "pixels (corrected) on toy/train",
        "pixels (corrected) on toy/val",
        "pixels (corrected) on toy",
    ]


def test_a_killed_extraction_goes_on_with_its_own_shards(world: Any) -> None:
    world.toy(train=10, val=4)
    plan = world.plan(shard_rows=2)
    world.finish_stores(plan)
    train = Store(world.workspace.latents / plan.stores[0].layout.path)
    train.marker(3).unlink()
    (job,) = world.plan(shard_rows=7).extracts
    assert isinstance(job.document, ExtractJob)
    assert (job.document.shards, job.document.store.shard_rows, job.reopen) == ((3,), 2, ())


def test_a_shard_that_lost_its_file_is_written_again(world: Any) -> None:
    world.toy(train=4)
    plan = world.plan(shard_rows=2)
    world.finish_stores(plan)
    root = world.workspace.latents / plan.stores[0].layout.path
    (root / "tokens/c/1/0/0/0").unlink()
    (job,) = world.plan().extracts
    assert isinstance(job.document, ExtractJob)
    assert job.document.shards == job.reopen == (1,)


def test_retrying_failed_rows_redoes_their_shards_and_the_probe(world: Any) -> None:
    world.toy(train=10)
    plan = world.plan(shard_rows=2, max_failed=0.5)
    world.finish_stores(plan, {"train": [5]})
    world.finish_probes(plan)
    stale = world.plan(max_failed=0.5)
    assert [job.verb for job in stale.todo] == ["classify"], "the result knew of no failed row"
    retried = world.plan(max_failed=0.5, retry_failed=True)
    (job,) = retried.extracts
    assert isinstance(job.document, ExtractJob)
    assert job.document.shards == job.reopen == (2,)
    assert retried.probes[0].result is None


@pytest.mark.parametrize("reason", sorted(TRANSIENT))
def test_transient_failures_are_tried_again_by_themselves(world: Any, reason: Reason) -> None:
    world.toy(train=10)
    plan = world.plan(shard_rows=2, max_failed=0.5)
    world.finish_stores(plan, {"train": [5]}, reason)
    (job,) = world.plan(max_failed=0).extracts
    assert isinstance(job.document, ExtractJob)
    assert job.document.shards == job.reopen == (2,)
    kept = world.plan(max_failed=0.5, retry_failed=False)
    assert not kept.extracts
    assert kept.stores[0].failed == 1


def test_a_finished_store_with_too_many_failures_stays_a_fault(world: Any) -> None:
    world.toy(train=10)
    world.finish_stores(world.plan(), {"train": [1, 2]})
    error = world.only_problem(max_failed=0.1)
    assert isinstance(error, TooManyFailedError)
    assert "2 of 10 rows failed" in str(error)
    assert world.plan(max_failed=0.1).exit_code == ExitCode.TOO_MANY_FAILED
    assert world.plan(max_failed=0.2).problems == ()


def test_something_else_at_the_stores_path_is_a_problem(world: Any) -> None:
    world.toy()
    plan = world.plan()
    group = world.workspace.latents / plan.stores[0].layout.path / "zarr.json"
    group.parent.mkdir(parents=True)
    group.write_text("{}")
    assert f"{group}: not the group of a latent store" in str(world.only_problem())


# --- what cannot be planned does not stop the rest --------------------------------------------


def test_unknown_models_datasets_and_variants_leave_the_others(world: Any) -> None:
    world.toy()
    plan = world.plan(("frame-dif", "frame-diff"), datasets=("tot", "toy"))
    assert [problem.what for problem in plan.problems] == ["model frame-dif", "dataset tot"]
    assert len(plan.extracts) == 2
    assert plan.exit_code == ExitCode.BAD_JOB


def test_an_unknown_variant_names_those_there_are(world: Any) -> None:
    world.toy()
    error = world.only_problem(variants=("lary-v2",))
    assert "model frame-diff has no variant 'lary-v2'; it has corrected" in str(error)


def test_a_missing_image_is_a_problem_of_each_of_its_models(world: Any) -> None:
    world.toy()
    world.runtime.missing = frozenset({"baseline"})
    plan = world.plan(("frame-diff", "pixels"))
    assert [problem.what for problem in plan.problems] == ["model frame-diff", "model pixels"]
    assert world.runtime.prepared == ["baseline"], "trying it once is enough"


def test_a_missing_probe_image_leaves_the_extractions(world: Any) -> None:
    world.toy()
    world.runtime.missing = frozenset({"probe"})
    plan = world.plan()
    assert [problem.what for problem in plan.problems] == ["probe image"]
    assert (len(plan.extracts), len(plan.probes)) == (2, 0)


def test_missing_weights_end_with_their_code(world: Any) -> None:
    world.toy()
    plan = world.plan(("univla", "frame-diff"))
    (problem,) = plan.problems
    assert isinstance(problem.error, WeightsError)
    assert "lam-stage-2.ckpt: missing (weight 'model' of univla)" in str(problem)
    assert "UNIVLA_CKPT_PATH" in str(problem)
    assert plan.exit_code == ExitCode.WEIGHTS
    assert len(plan.extracts) == 2


def test_a_model_without_the_datasets_mode(world: Any, image_folder: Callable[..., Path]) -> None:
    world.toy()
    image_folder("still", "still-model", below=world.cards)
    world.dataset(columns={"input": "video"})
    text = "video_path,sample_indices,action\na.mp4,0,c\na.mp4,0,d\n"
    world.csv("train", text=text)
    world.csv("val", text=text)
    plan = world.plan(("still-model", "frame-diff"))
    (problem,) = plan.problems
    assert str(problem) == "still-model (corrected) on toy: model still-model has no mode 'video'; it has image"
    assert {job.title for job in plan.probes} == {"frame-diff (corrected) on toy"}


def test_an_image_that_breaks_the_contract_is_named(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.toy()
    monkeypatch.setattr(world.runtime, "query", lambda prepared, *arguments: "hello")
    assert "describe of image lary/baseline:test: the reply is not JSON" in str(world.plan().problems[0])


def test_a_killed_query_changes_no_plan(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the run would go on without that model, and the control stand on another one."""
    world.toy()
    queries, reply = iter(range(99)), world.runtime.query

    def query(prepared: Any, *arguments: str) -> Any:
        if next(queries) % TRIES < TRIES - 1:
            raise KilledError("killed")
        return reply(prepared, *arguments)

    monkeypatch.setattr(world.runtime, "query", query)
    plan = world.plan(("frame-diff", "pixels"), control=True)
    assert plan.problems == ()
    monkeypatch.undo()
    assert plan.run == world.plan(("frame-diff", "pixels"), control=True).run


def test_generated_sets_are_made_in_the_workspace(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.dataset("made", generator="demo_arm", metadata="made/{split}.csv")
    made: list[tuple[str, Path]] = []

    def ensure(card: Any, workspace: Any, notify: object) -> None:
        if card.generator is None:
            return
        folder = workspace.generated
        made.append((card.generator, folder))
        for split in ("train", "val"):
            (folder / "made").mkdir(parents=True, exist_ok=True)
            (folder / "made" / f"{split}.csv").write_text("src_img,tgt_img,action\na,b,c\na,b,d\n")

    monkeypatch.setattr("lary_orch.plan.planner.make_generated", ensure)
    plan = world.plan(datasets=("made",))
    assert made == [("demo_arm", world.workspace.generated)]
    assert plan.extracts[0].mounts.data == world.workspace.generated


def test_a_slot_fills_in_device_and_threads(world: Any) -> None:
    from lary_orch.runtimes.devices import Device, Slot

    request = world.request().on([Slot(Device("cuda", ("GPU-1",), "H"), 4)] * 2)
    assert (request.device, request.slots, request.threads) == ("cuda", 2, 4)
    assert replace(request, device="cpu", slots=1, threads=None) == world.request()


def test_a_probe_shared_by_processes_takes_their_slots(world: Any) -> None:
    from lary_orch.runtimes.devices import Device, Slot

    world.toy()
    slots = [Slot(Device(), 3)] * 2
    wanted = world.request(probing=Probing(processes=2))
    plan = make_plan(wanted.on(slots), world.workspace, world.catalog(), world.runtime, lambda line: None)
    assert [(job.slots, job.document.threads) for job in plan.probes] == [(2, 6)]
    assert {job.slots for job in plan.extracts} == {1}
    alone = make_plan(world.request().on(slots), world.workspace, world.catalog(), world.runtime, lambda line: None)
    assert plan.probes[0].document.fingerprint == alone.probes[0].document.fingerprint
    with pytest.raises(ContractError, match="--probe-processes 3: jobs have 2 slots here"):
        world.request(probing=Probing(processes=3)).on(slots)
