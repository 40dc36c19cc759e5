"""What each launcher starts a task with: lists alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from lary_schema.base import ContractError
from lary_schema.linked import linked_folder
from lary_schema.mounts import Mounts
from lary_slurm.launchers import Launch, command, podman_lines
from lary_slurm.profile import Launcher, Profile
from lary_slurm.query import query_command

MOUNTS = Mounts(
    data=Path("/vol/data"),
    weights=Path("/vol/weights"),
    latents=Path("/vol/latents"),
    job=Path("/vol/jobs/@JOB@"),
    out=Path("/vol/out"),
)
EXTRACT = Launch(
    module="lary_worker",
    arguments=("extract", "--job", "/job/job.json"),
    image="baseline",
    program="PROGRAM",
    mounts=MOUNTS,
    cpus=4,
    uid=1000,
    gid=100,
)
PROBE = replace(EXTRACT, module="lary_probe", arguments=("classify", "--job", "/job/job.json"), writable="out")


def _environment(words: list[str], mark: str = "") -> dict[str, str]:
    pairs = [word.removeprefix(mark) for word in words if word.startswith(mark) and "=" in word.removeprefix(mark)]
    return dict(pair.split("=", 1) for pair in pairs)


def test_process_gets_folders_by_variables() -> None:
    words = command("process", EXTRACT)
    assert words[0] == "env"
    assert words[-6:] == ["PROGRAM", "-m", "lary_worker", "extract", "--job", "/vol/jobs/@JOB@/job.json"]
    env = _environment(words[1:-6])
    assert env["LARY_MOUNT_LATENTS"] == "/vol/latents"
    assert env["LARY_MOUNT_JOB"] == "/vol/jobs/@JOB@"
    assert env["LARY_IMAGE"] == "baseline"
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    # Slurm says which GPU: nothing here may hide it.
    assert "CUDA_VISIBLE_DEVICES" not in _environment(command("process", replace(EXTRACT, gpu=True))[1:-6])


def test_podman_is_as_shut_as_docker() -> None:
    words = command("podman", replace(EXTRACT, before=("--root", "/r"), options=("--annotation=x=y",)))
    assert words[:4] == ["podman", "--root", "/r", "run"]
    assert words[-5:] == ["--annotation=x=y", "PROGRAM", "extract", "--job", "/job/job.json"]
    for word in (
        *("--rm", "--pull=never", "@CGROUPS@", "--network=none", "--read-only", "--cap-drop=all"),
        *("--security-opt=no-new-privileges", "--user=1000:100", "--userns=keep-id", "--ulimit=nproc=4096:4096"),
        "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=1073741824,mode=1777",
    ):
        assert words.count(word) == 1, word
    assert [word for word in words if word.startswith("--mount")] == [
        "--mount=type=bind,src=/vol/data,dst=/data,ro=true",
        "--mount=type=bind,src=/vol/weights,dst=/weights,ro=true",
        "--mount=type=bind,src=/vol/jobs/@JOB@,dst=/job,ro=true",
        "--mount=type=bind,src=/vol/latents,dst=/latents,ro=false",
    ]
    env = _environment(words, "--env=")
    assert env["HOME"] == "/tmp"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert not any("nvidia" in word for word in words)
    assert "--userns=keep-id" not in command("podman", replace(EXTRACT, uid=0))


def test_podman_probe_writes_its_out_alone_and_meets_others_only_when_spread() -> None:
    words = command("podman", PROBE)
    assert "--mount=type=bind,src=/vol/latents,dst=/latents,ro=true" in words
    assert "--mount=type=bind,src=/vol/out,dst=/out,ro=false" in words
    assert "--network=none" in words
    assert "--env=RANK" not in words
    spread = command("podman", replace(PROBE, spread=True, gpu=True))
    assert "--network=host" in spread
    assert {"--env=RANK", "--env=WORLD_SIZE", "--env=LOCAL_RANK", "--env=MASTER_ADDR", "--env=MASTER_PORT"} < set(
        spread
    )
    assert {"--device=nvidia.com/gpu=all", "--env=CUDA_VISIBLE_DEVICES"} < set(spread)


def test_apptainer() -> None:
    words = command("apptainer", EXTRACT)
    assert words == [
        *("apptainer", "run", "--containall", "--cleanenv", "--no-home", "--no-privs", "--net", "--network=none"),
        *("--pwd=/tmp", "--bind=/vol/data:/data:ro", "--bind=/vol/weights:/weights:ro"),
        *("--bind=/vol/jobs/@JOB@:/job:ro", "--bind=/vol/latents:/latents:rw"),
        *("--env=HF_HUB_OFFLINE=1", "--env=TRANSFORMERS_OFFLINE=1", "--env=PYTHONHASHSEED=0"),
        *("--env=PYTHONUNBUFFERED=1", "--env=PYTHONSAFEPATH=1", "--env=PYTHONNOUSERSITE=1"),
        *("--env=HOME=/tmp", "--env=OMP_NUM_THREADS=4", "--env=MKL_NUM_THREADS=4"),
        *("--env=OPENBLAS_NUM_THREADS=4", "--env=CUDA_VISIBLE_DEVICES="),
        *("PROGRAM", "extract", "--job", "/job/job.json"),
    ]
    probe = command("apptainer", replace(PROBE, spread=True, gpu=True, options=("--fakeroot",)))
    assert {"--bind=/vol/latents:/latents:ro", "--bind=/vol/out:/out:rw", "--nv", "--fakeroot"} < set(probe)
    assert "--net" not in probe


def test_pyxis() -> None:
    words = command("pyxis", PROBE)
    assert words[:3] == ["srun", "--kill-on-bad-exit=1", "--container-image=PROGRAM"]
    assert {"--container-readonly", "--no-container-mount-home", "--no-container-remap-root"} < set(words)
    mounts = (
        "/vol/data:/data:ro,/vol/weights:/weights:ro,/vol/jobs/@JOB@:/job:ro,/vol/latents:/latents:ro,/vol/out:/out:rw"
    )
    assert f"--container-mounts={mounts}" in words
    # Pyxis does not run the image's entrypoint.
    assert words[-6:] == ["python", "-m", "lary_probe", "classify", "--job", "/job/job.json"]


@pytest.mark.parametrize("launcher", ["podman", "apptainer", "pyxis"])
def test_mounts_that_are_not_there_or_cannot_be_said(launcher: Launcher) -> None:
    words = command(launcher, replace(EXTRACT, absent=frozenset({"weights"})))
    assert not any("/weights" in word for word in words)
    assert any("/vol/data" in word for word in words)
    comma = MOUNTS.model_copy(update={"latents": Path("/vol/a,b")})
    with pytest.raises(ContractError, match="/vol/a,b: a container's mount cannot"):
        command(launcher, replace(EXTRACT, mounts=comma))
    for mark in ':"\\\n\x1b':
        odd = MOUNTS.model_copy(update={"data": Path(f"/vol/a{mark}b")})
        with pytest.raises(ContractError, match="a container's mount cannot"):
            command(launcher, replace(EXTRACT, mounts=odd))


@pytest.mark.parametrize("launcher", ["podman", "apptainer", "pyxis"])
def test_a_container_gets_each_linked_file_for_itself(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / "vitl.pt"
    file.touch()
    assert EXTRACT.mounts is not None
    mounts = EXTRACT.mounts.model_copy(update={"weights": linked_folder({"sub/vitl.pt": file}, tmp_path)})
    words = " ".join(command(launcher, replace(EXTRACT, mounts=mounts)))
    assert f"{file}" in words
    assert "/weights/sub/vitl.pt" in words
    assert str(mounts.weights) not in words
    assert f"{file.parent}:" not in words
    assert f"{file.parent}," not in words


@pytest.mark.parametrize("launcher", ["podman", "apptainer", "pyxis"])
def test_of_the_latents_volume_an_extraction_sees_its_store_alone(launcher: Launcher) -> None:
    words = " ".join(command(launcher, replace(EXTRACT, stores=("demo/train/f0.zarr",))))
    assert "/vol/latents/demo/train/f0.zarr" in words
    assert words.count("/vol/latents") == 1
    assert "dst=/latents/demo/train/f0.zarr,ro=false" in words or ":/latents/demo/train/f0.zarr:rw" in words


def test_queries_have_no_mounts() -> None:
    query = replace(EXTRACT, mounts=None, arguments=("describe",))
    profile = Profile(launcher="podman", images=Path("/i"), partition="debug", memory="1G")
    shell, flag, text = query_command(profile, query, here=True)
    assert (shell, flag) == ("bash", "-c")
    assert "podman load --quiet --input=/i/baseline.tar" in text
    assert text.endswith("PROGRAM describe")
    assert "--mount" not in text
    away = query_command(profile, query, here=False)
    assert away[:5] == ["srun", "--quiet", "--job-name=lary-describe", "--partition=debug", "--nodes=1"]
    assert away[-3:] == ["bash", "-c", text]
    pyxis = query_command(profile.model_copy(update={"launcher": "pyxis"}), query, here=False)
    assert pyxis.count("srun") == 1
    assert pyxis[-4:] == ["python", "-m", "lary_worker", "describe"]


def test_an_image_is_loaded_once_for_all_tasks_of_a_node() -> None:
    first = podman_lines("abc", Path("/i/a b.tar"), ["--root", "/r"])[0]
    assert first.startswith("podman --root /r image exists abc || flock ")
    assert "podman --root /r load --quiet" in first
