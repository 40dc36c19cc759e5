"""A verb is data: mounts, order, what is hopeless and what is missing follow from what jobs declare."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.verbs import CLASSIFY, EXTRACT, VERBS, Verb
from lary_orch.run.attempts import Attempts, Begun, Ended
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.docker_args import Host, mounted, task_arguments
from lary_orch.runtimes.jobs import Job, Output, Prepared, Task, link
from lary_orch.weights.index import Trained, find_weights
from lary_schema.base import Document
from lary_schema.cards import ImageCard
from lary_schema.jobs import ExtractJob
from lary_schema.linked import linked_files
from lary_schema.mounts import Mounts


class BakeJob(Document):
    """The document of a verb that the bench does not have: it reads a store and writes a checkpoint."""

    id: str
    reads_store: str
    fingerprint: str


BAKE = Verb(
    name="bake",
    document=BakeJob,
    reads=("latents",),
    writes="out",
    outputs=lambda job: (Output("out", "checkpoint.safetensors", job.fingerprint),),
    inputs=lambda job: (job.reads_store,),
    title=lambda job: f"a checkpoint of {job.reads_store}",
)
HOST = Host(uid=1, gid=1)


@pytest.fixture
def declare(tmp_path: Path) -> Callable[..., Job]:
    """`declare(BAKE, document)`."""
    image = Prepared(ImageSource(ImageCard(name="baker", kind="model", module="baker"), None), "lary/baker", None, "")

    def make(verb: Verb[Any], document: Any) -> Job:
        folders = {name: tmp_path / document.id / name for name in Mounts.model_fields}
        return verb.job(document.id, document, image, Mounts(**folders), run="r")

    return make


def test_a_verb_that_nobody_knew_takes_its_place_in_a_run(
    declare: Callable[..., Job], world: Any, tmp_path: Path
) -> None:
    """extract -> bake -> extract by the baked weights -> probe."""
    world.toy()
    plan = world.plan()
    first = plan.extracts[0]
    baked = declare(BAKE, BakeJob(id="bake", reads_store=first.outputs[0].fingerprint, fingerprint="ba" * 32))
    output = baked.outputs[0]
    card = world.catalog().model_card("frame-diff")
    folder = baked.mounts.out
    weights = find_weights(card, folder, tmp_path, trained=Trained("model", folder, output.fingerprint))
    assert weights.hashes == {"model": "ba" * 32}
    document = first.document
    assert isinstance(document, ExtractJob)
    values = document.values.model_copy(update={"weights": weights.hashes})
    # The store's fingerprint is known before the weights exist.
    assert values.fingerprint != document.values.fingerprint
    store = document.store.model_copy(update={"fingerprint": values.fingerprint})
    update = {"id": "again", "values": values, "store": store, "weights": weights.files}
    again = declare(EXTRACT, document.model_copy(update=update))
    jobs = {job.id: job for job in link([again, baked, *plan.extracts, *plan.probes])}
    assert jobs["bake"].needs == (first.id,)
    assert jobs["again"].needs == ("bake",)
    assert set(jobs[plan.probes[0].id].needs) == {job.id for job in plan.extracts}

    order = Attempts({job.id: job.needs for job in jobs.values()})
    order.handle(Begun(first.id))
    assert [(end.job, end.state) for end in order.handle(Ended(first.id, 4)) if end.job in ("bake", "again")] == [  # type: ignore[union-attr]
        ("bake", "skipped"),
        ("again", "skipped"),
    ]


def test_only_what_a_job_declares_is_mounted(declare: Callable[..., Job]) -> None:
    baked = declare(BAKE, BakeJob(id="bake", reads_store="f0", fingerprint="ba"))
    mounts = {m["Target"]: m["ReadOnly"] for m in task_arguments(baked, Slot(), HOST, {})["mounts"]}
    assert mounts == {"/job": True, "/latents": True, "/out": False}
    assert task_arguments(baked, Slot(), HOST, {})["command"] == ["bake", "--job", "/job/job.json"]


@pytest.mark.parametrize(("verb", "writable"), [(EXTRACT, "latents"), (CLASSIFY, "out")])
def test_our_verbs_see_what_they_need(world: Any, verb: Verb[Any], writable: str) -> None:
    world.toy()
    plan = world.plan()
    job = (*plan.extracts, *plan.probes)[0 if verb is EXTRACT else -1]
    assert job.verb == verb.name
    assert job.mounted == (
        ("data", "weights", "job", "latents") if verb is EXTRACT else ("data", "job", "latents", "out")
    )
    # Of the volume of latents, an extraction sees its own store alone.
    own = f"/latents/{job.outputs[0].path}" if verb is EXTRACT else f"/{writable}"
    assert [m["Target"] for m in task_arguments(job, Slot(), HOST, {})["mounts"] if not m["ReadOnly"]] == [own]


def test_what_is_missing_at_the_end_follows_from_the_outputs(declare: Callable[..., Job], world: Any) -> None:
    baked = declare(BAKE, BakeJob(id="bake", reads_store="f0", fingerprint="ba"))
    file = baked.mounts.out / "checkpoint.safetensors"
    assert baked.missing() == f"the image said that it was done, and left no {file} of this job"
    file.parent.mkdir(parents=True)
    file.touch()
    assert baked.missing() is None
    world.toy()
    plan = world.plan()
    store = plan.extracts[0]
    shards = ", ".join(map(str, store.document.shards))
    assert store.missing() == (
        f"the image said that it was done, and shards {shards} of {store.outputs[0].path} are missing"
    )
    world.finish_stores(plan)
    assert store.missing() is None
    (probe,) = plan.probes
    result = probe.mounts.out / "result.json"
    assert str(result) in str(probe.missing())
    result.parent.mkdir(parents=True)
    for text in ("not JSON", "[]", json.dumps({"fingerprint": "another"})):
        result.write_text(text)
        assert str(result) in str(probe.missing())
    world.finish_probes(plan)
    assert probe.missing() is None


def test_a_stored_document_says_what_its_job_writes(world: Any, tmp_path: Path) -> None:
    """What an older version began declares nothing itself."""
    world.toy()
    plan = world.plan()
    for job in (plan.extracts[0], plan.probes[0]):
        file = tmp_path / f"{job.id}.json"
        file.write_text(job.document.to_json())
        assert VERBS[job.verb].read_outputs(file) == job.outputs


def test_a_task_is_what_any_host_may_know(world: Any) -> None:
    world.toy()
    (part, *_), (probe,) = world.plan().extracts, world.plan().probes
    assert (part.group, part.in_parts) == ("extract.toy.train.frame-diff.corrected", True)
    assert (probe.group, probe.in_parts) == (probe.id, False)
    assert not Task("a", "bake", "a", part.mounts).in_parts


def test_a_checkpoint_is_mounted_before_and_after_it_is_there(world: Any, tmp_path: Path) -> None:
    """By its folder, with the fingerprint of its training; a container gets that folder and nothing around it."""
    world.dataset()
    card = world.catalog().model_card("frame-diff")
    folder = tmp_path / "trained" / "moto-0123456789ab" / "checkpoint"
    find = partial(find_weights, card, tmp_path, tmp_path / "cache", trained=Trained("checkpoint", folder, "ba"))
    found = find()
    assert [tuple(file.model_dump().values()) for file in found.files] == [("checkpoint", "checkpoint", "ba", True)]
    assert linked_files(found.root) == {"checkpoint": folder}
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("bytes")
    assert find() == found
    assert (found.root / "checkpoint" / "model.safetensors").read_text() == "bytes"
    assert linked_files(found.root) == {"checkpoint": folder}
    assert mounted("weights", found.root, ()) == {"/weights/checkpoint": folder}
