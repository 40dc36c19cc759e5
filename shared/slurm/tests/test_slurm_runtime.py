"""From work to a session: array jobs, what their tasks request, and the scripts that `plan` shows."""

from pathlib import Path
from typing import Any

import pytest
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.verbs import VERBS
from lary_orch.runtimes.choose import open_runtime
from lary_orch.runtimes.images import tag
from lary_orch.runtimes.jobs import Job, Output, Prepared
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_schema.mounts import Mounts
from lary_slurm.client import SlurmError
from lary_slurm.export import export
from lary_slurm.images import Exported
from lary_slurm.profile import Profile
from lary_slurm.runtime import SlurmRuntime

CARD = ImageCard(name="baseline", kind="model", module="lary_worker")
PROBE_CARD = ImageCard(name="probe", kind="probe", module="lary_probe")


class Interpreter:
    """An environment on the shared volume."""

    inherited = ()

    def prepare(self, image: ImageSource, notify: object) -> Prepared:
        return Prepared(image, "env", None, "identity")

    def python(self, prepared: Prepared) -> Path:
        return Path("/vol/envs/bin/python")

    def hint(self, prepared: Prepared) -> str:
        return ""


def _runtime(profile: Profile, client: Any = None) -> SlurmRuntime:
    return SlurmRuntime(client, profile, Interpreter(), Path("/vol"))


def _works(root: Path, parts: int = 3) -> list[Job]:
    def work(job: str, verb: str, card: ImageCard, **fields: Any) -> Job:
        folder = root / "runs" / "r" / "jobs" / job
        out = root / "results" / job if verb != "extract" else folder
        mounts = Mounts(data=root, weights=root / "none", latents=root / "latents", job=folder, out=out)
        declared = VERBS[verb]
        return Job(
            id=job,
            verb=verb,
            title=job,
            mounts=mounts,
            group=job.rpartition(".p")[0] or job,
            image=Prepared(ImageSource(card, None), "env", "sha256:abc", ""),
            run="r",
            reads=declared.reads,
            writes=declared.writes,
            **fields,
        )

    store = "toy/train/a b.zarr"
    outputs = [(Output("latents", store, "f0", (n,)),) for n in range(parts)]
    extracts = [work(f"extract.a.p{n}", "extract", CARD, outputs=outputs[n]) for n in range(parts)]
    needs = tuple(job.id for job in extracts)
    return [*extracts, work("classify.a", "classify", PROBE_CARD, needs=needs)]


def test_a_store_is_one_array_and_a_probe_asks_for_its_own(tmp_path: Path) -> None:
    profile = Profile.model_validate(
        {"partition": "gpu", "gpus": 1, "cpus": 4, "max_array": 2, "probe": {"partition": "cpu", "nodes": 2}}
    )
    session = _runtime(profile).session("r", _works(tmp_path), 3, 1001)
    assert [(group.name, group.spread) for group in session.groups] == [("extract.a", False), ("classify.a", True)]
    assert [task.group for task in session.tasks] == ["extract.a"] * 3 + ["classify.a"]
    assert (session.max_array, session.attempts) == (2, 3)
    extract, probe = session.groups
    assert {"--partition=gpu", "--nodes=1", "--gpus-per-node=1"} < set(extract.options)
    assert {"--partition=cpu", "--nodes=2", "--gpus-per-node=1"} < set(probe.options)
    jobs = tmp_path / "runs" / "r" / "jobs"
    assert f"LARY_MOUNT_JOB={jobs}/@JOB@" in extract.command
    assert f"LARY_MOUNT_OUT={jobs}/@JOB@" in extract.command
    assert f"LARY_MOUNT_OUT={tmp_path}/results/classify.a" in probe.command
    assert extract.command[-3:] == ("extract", "--job", f"{jobs}/@JOB@/job.json")
    assert "CUDA_VISIBLE_DEVICES=" not in extract.command
    assert "OMP_NUM_THREADS=4" in extract.command


def test_slots_say_what_a_plan_is_for() -> None:
    slots = _runtime(Profile(tasks=5, cpus=3, gpus=1)).slots()
    assert (len(slots), slots[0].device.kind, slots[0].cpus) == (5, "cuda", 3)
    assert _runtime(Profile()).slots()[0].device.kind == "cpu"
    one, other = _runtime(Profile()).queue_name("r"), SlurmRuntime(None, Profile(), Interpreter(), Path("/w2"))  # type: ignore[arg-type]
    assert one.startswith("lary-r-")
    assert other.queue_name("r") != one


def test_preview_is_what_would_be_submitted(tmp_path: Path) -> None:
    class Away:
        def max_array(self) -> int:
            raise SlurmError("scontrol: not found")

    said: list[str] = []
    runtime = _runtime(Profile(max_array=2, at_once=1, setup=("ulimit -c 0",)), Away())
    shown = runtime.preview(Workspace.locate(tmp_path, env={}).run("r"), _works(tmp_path), said.append)
    assert said == ["scontrol: not found; taking arrays of 1001 tasks"]
    folder = f"{tmp_path}/runs/r/slurm/NEXT/submissions"
    assert [entry["command"] for entry in shown] == [
        ["sbatch", "--parsable", f"{folder}/0001.sh"],
        ["sbatch", "--parsable", f"{folder}/0002.sh"],
        ["sbatch", "--parsable", "--dependency=afterok:<1>:<2>", "--kill-on-invalid-dep=yes", f"{folder}/0003.sh"],
    ]
    assert "#SBATCH --array=0-1%1\n" in shown[0]["script"]
    assert "jobs=(extract.a.p2)\nfirsts=(1)\n" in shown[1]["script"]
    assert "#SBATCH --array" not in shown[2]["script"]
    assert "ulimit -c 0\n" in shown[2]["script"]
    assert not (tmp_path / "runs").exists()


def test_containers_come_from_exported_files(tmp_path: Path) -> None:
    runtime = _runtime(Profile(launcher="podman", images=tmp_path))
    with pytest.raises(ContractError, match="was not exported"):
        runtime.prepare(ImageSource(CARD, None), print)
    for card in (CARD, PROBE_CARD):
        exported = Exported(name=card.name, ref=f"lary/{card.name}:1", id="sha256:abc", source=None)
        (tmp_path / f"{card.name}.json").write_text(exported.to_json())
        (tmp_path / f"{card.name}.tar").touch()
    prepared = runtime.prepare(ImageSource(CARD, None), print)
    assert (prepared.ref, prepared.digest, prepared.identity) == ("lary/baseline:1", "sha256:abc", "sha256:abc")
    extract, probe = runtime.session("r", _works(tmp_path), 3, 10).groups
    assert extract.command[-4:] == ("abc", "extract", "--job", "/job/job.json")
    assert f"{tmp_path}/baseline.tar" in extract.setup[0]
    assert f"{tmp_path}/probe.tar" in probe.setup[0]
    # Of the latents volume, an extraction's container sees its own store, which the script makes.
    store = f"{tmp_path}/latents/toy/train/a b.zarr"
    assert extract.setup[-1] == f"mkdir -p '{store}'"
    bound = [word for word in extract.command if "/latents" in word]
    assert bound == [f"--mount=type=bind,src={store},dst=/latents/toy/train/a b.zarr,ro=false"]
    assert not any(line.startswith("mkdir") for line in probe.setup)
    # No weights folder is no fault of a model without weights.
    assert not any("/weights" in word for word in extract.command)


@pytest.mark.parametrize("options", [{"gpus": ("0",)}, {"cpu_slots": 2}, {"device": "cpu"}])
def test_one_machines_options_do_not_go_with_a_cluster(tmp_path: Path, options: dict[str, Any]) -> None:
    wanted = Wanted("slurm", "current", **options)
    with pytest.raises(ContractError, match="the profile says it"):
        open_runtime(wanted, Workspace.locate(tmp_path, env={}), [], print)


def test_a_profile_goes_with_slurm_alone(tmp_path: Path) -> None:
    wanted = Wanted("process", "current", device="cpu", own={"profile": tmp_path})
    with pytest.raises(ContractError, match="--profile goes with --runtime slurm"):
        open_runtime(wanted, Workspace.locate(tmp_path, env={}), [], print)


def test_export_writes_once_and_again_for_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def fake_archive(saved: object, target: Path, ref: str) -> str:
        written.append(ref)
        target.write_text(ref)
        return engine.id

    class Engine:
        """An engine with one image, which is also its list of images."""

        id, labels = "sha256:1", {"lary.source": "s1"}

        @property
        def images(self) -> "Engine":
            return self

        def get(self, ref: str) -> "Engine":
            return self

        def save(self, named: bool) -> list[bytes]:
            return []

    engine = Engine()
    monkeypatch.setattr("lary_slurm.export.write_archive", fake_archive)
    monkeypatch.setenv("PATH", "/nowhere")
    image = ImageSource(CARD, None)
    card_ref = tag("baseline")
    for _ in range(2):
        assert export(engine, image, tmp_path, print) == Exported(
            name="baseline", ref=card_ref, id="sha256:1", source="s1"
        )
    assert written == [card_ref]
    engine.id = "sha256:2"  # type: ignore[misc]
    assert export(engine, image, tmp_path, print).id == "sha256:2"
    assert len(written) == 2
    assert Exported.of(tmp_path, image).id == "sha256:2"
