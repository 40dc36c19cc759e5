"""Each check of `doctor`, on machines that are as it should be and on ones that are not."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import lary_doctor as doctor
import pytest
from click.testing import CliRunner
from lary_doctor import (
    CHECKS,
    datasets,
    disk,
    driver,
    engine,
    gpu,
    images,
    leftovers,
    mounts,
    python,
    renderer,
    shm,
    uv,
    weights,
)
from lary_doctor.check import Context, Finding, worst
from lary_doctor.command import command
from lary_orch import __version__ as VERSION
from lary_orch.catalog.cards import Catalog, repository
from lary_orch.runtimes.images import SOURCE_LABEL, TORCH_LABEL, Recipes
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError

DATASET = """
key: clips
title: t
task: classification
columns: {input: video}
metadata: clips/{split}.csv
media: clips
labels: {}
license: MIT
source: s
"""
GPU = "GPU-1234, NVIDIA H200, 143771, 0"


class FakeEngine(ThreadingHTTPServer):
    """The three responses of the Docker API that the checks read."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = "1.45"
        self.runtimes: dict[str, Any] = {"runc": {}}
        self.cdi: list[dict[str, str]] = []
        self.images: dict[str, dict[str, str]] = {}
        """Labels by reference."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeEngine

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/images/")[2].removesuffix("/json")
        if path.endswith("/version"):
            self._send(200, {"Version": "27.0", "ApiVersion": self.server.api, "MinAPIVersion": "1.24"})
        elif path.endswith("/info"):
            self._send(200, {"Runtimes": self.server.runtimes, "DiscoveredDevices": self.server.cdi})
        elif name in self.server.images:
            self._send(200, {"Id": f"sha256:{name}", "Config": {"Labels": self.server.images[name]}})
        else:
            self._send(404, {"message": "no such image"})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    server = FakeEngine()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_address[1]}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.locate(tmp_path / "bench", env={})


def put_csv(workspace: Workspace, rows: int = 3, *, media: bool = True) -> None:
    folder = workspace.data / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'{i}.mp4,wave,"0,1,2,3,4,5,6,7,8"\n' for i in range(rows)]
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("video_path,action,sample_indices\n" + "".join(lines))
    for i in range(rows if media else 0):
        (folder / f"{i}.mp4").write_bytes(b"")


@pytest.fixture
def context(workspace: Workspace, tmp_path: Path) -> Any:
    """Makes a context; the catalog has the dataset `clips` besides the built-in ones."""
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "clips.yaml").write_text(DATASET)
    catalog = Catalog.load([tmp_path / "catalog"], {})

    def make(
        models: tuple[str, ...] = (),
        sets: tuple[str, ...] = (),
        runtime: Literal["auto", "process", "docker"] = "auto",
    ) -> Context:
        return Context(workspace, catalog, models, sets, runtime)

    return make


# --- the machine ------------------------------------------------------------------------------


def test_python_and_versions(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert python.run(context()).status == "ok"
    monkeypatch.setattr("lary_orch.__version__", "9.9.9")
    stale = python.run(context())
    assert (stale.status, "9.9.9 expected" in stale.message) == ("fail", True)
    assert "pip install -e" in stale.remedy
    monkeypatch.setattr(python, "OLDEST", (99, 0))
    assert python.run(context()).status == "fail"


def test_uv(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uv.run(context()).message.startswith("uv ")
    assert uv.run(context(runtime="docker")).status == "skip"
    monkeypatch.setattr("uv.find_uv_bin", lambda: "/nonexistent/uv")
    broken = uv.run(context())
    assert (broken.status, "--env current" in broken.remedy) == ("warn", True)
    monkeypatch.setitem(__import__("sys").modules, "uv", None)
    assert "not installed" in uv.run(context()).message


@pytest.mark.usefixtures("no_docker")
def test_a_missing_engine_weighs_by_the_runtime(context: Any) -> None:
    assert engine.run(context()).status == "warn"
    assert engine.run(context(runtime="process")).status == "skip"
    wanted = engine.run(context(runtime="docker"))
    assert wanted.status == "fail"
    assert "DOCKER_HOST" in wanted.remedy
    assert images.run(context()).status == "skip"


def test_an_engine_that_is_reachable(context: Any, docker: FakeEngine) -> None:
    assert engine.run(context()) == Finding("ok", "engine 27.0, API 1.45")
    docker.api = "1.40"
    old = engine.run(context())
    assert (old.status, old.remedy) == ("warn", "update the engine")


def test_images_are_looked_for_in_this_version_and_source(context: Any, docker: FakeEngine) -> None:
    checked = context(models=("frame-diff",), runtime="docker")
    recipes = Recipes(repository())
    docker.images = {
        f"lary/{source.card.name}:{VERSION}": {SOURCE_LABEL: recipes.source(source)}
        for source in (checked.catalog.image_for("frame-diff"), checked.catalog.probe())
    }
    assert images.run(checked) == Finding("ok", f"lary/baseline:{VERSION}; lary/probe:{VERSION}")
    docker.images[f"lary/baseline:{VERSION}"] = {SOURCE_LABEL: "another"}
    stale = images.run(checked)
    assert (stale.status, stale.remedy) == ("warn", "lary-orch images build baseline")
    del docker.images[f"lary/probe:{VERSION}"]
    absent = Finding("fail", f"lary/probe:{VERSION} is not here", "lary-orch images build probe")
    assert images.run(checked) == absent
    assert images.run(context(models=("frame-diff",))).status == "warn"
    assert f"lary/lapa:{VERSION}" in images.run(context()).message
    assert images.run(context(runtime="process")).status == "skip"


def put_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, reply: str, code: int = 0) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{reply}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_no_gpu_is_no_fault(context: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.run(context()).status == "skip"


def test_a_driver_that_lists_nothing(context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_smi(tmp_path, monkeypatch, "NVIDIA-SMI has failed", code=9)
    assert gpu.run(context()).status == "warn"


@pytest.mark.parametrize(
    ("given", "gpus", "library", "status", "text"),
    [
        ("", False, True, "ok", "drawn by osmesa (MUJOCO_GL chooses otherwise)"),
        ("", True, True, "ok", "drawn by egl (MUJOCO_GL chooses otherwise)"),
        ("osmesa", True, True, "ok", "drawn by osmesa (MUJOCO_GL is set)"),
        ("egl", False, False, "warn", "libEGL is not on this machine"),
        ("", False, False, "skip", "libOSMesa is not on this machine"),
        (
            "glfw",
            False,
            True,
            "warn",
            "MUJOCO_GL=glfw: pictures are drawn by egl or osmesa; set one",
        ),
    ],
)
def test_what_draws_is_said_and_looked_for(
    context: Any, monkeypatch: pytest.MonkeyPatch, given: str, gpus: bool, library: bool, status: str, text: str
) -> None:
    monkeypatch.setenv("MUJOCO_GL", given)
    monkeypatch.setattr(renderer, "find_gpus", lambda: ["a GPU"] * gpus)
    monkeypatch.setattr("ctypes.util.find_library", lambda _: "there" if library else None)
    found = renderer.run(context(runtime="process"))
    assert (found.status, text in found.message) == (status, True), found
    assert bool(found.remedy) == (given == "glfw" or not library)
    if given != "glfw":
        assert renderer.run(context(runtime="docker")).status == "ok", "its image has the library"


def test_gpus_need_the_engines_help_in_containers(
    context: Any, docker: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_smi(tmp_path, monkeypatch, GPU)
    assert gpu.run(context(runtime="process")) == Finding("ok", "NVIDIA H200 (140.4 GiB)")
    without = gpu.run(context(runtime="docker"))
    assert (without.status, "nvidia-container-toolkit" in without.remedy) == ("fail", True)
    assert gpu.run(context()).status == "warn"
    docker.runtimes["nvidia"] = {}
    assert "by NVIDIA's runtime" in gpu.run(context(runtime="docker")).message
    assert gpu.run(context(runtime="docker")).status == "ok"
    docker.runtimes, docker.cdi = {}, [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]
    assert gpu.run(context(runtime="docker")).status == "ok"


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        ("580.65.06", "ok", "needs 580"),
        ("610.1\n610.1", "ok", "driver 610.1;"),
        ("570.133.20", "fail", "`lary-orch images build --torch cu126`"),
        ("525.60.13", "fail", "LARY_TORCH_BACKEND=cu126"),
        ("470.256.02", "fail", "update the driver"),
        ("[N/A]", "skip", "no NVIDIA driver"),
    ],
)
def test_the_driver_has_to_know_the_images_cuda(
    reply: str, status: str, said: str, context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_smi(tmp_path, monkeypatch, reply)
    finding = driver.run(context())
    assert finding.status == status
    assert said in finding.message + finding.remedy
    assert ("cu126" in finding.remedy) == (reply in ("570.133.20", "525.60.13"))


def test_an_older_build_of_torch_asks_for_less(
    context: Any, docker: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_smi(tmp_path, monkeypatch, "570.133.20")
    assert driver.run(context(runtime="docker")).status == "fail"
    # As `images build --torch cu126` labels the base.
    docker.images[f"lary/base:{VERSION}"] = {TORCH_LABEL: "https://download.pytorch.org/whl/cu126"}
    assert "CUDA 12 needs 525" in driver.run(context(runtime="docker")).message
    assert driver.run(context(runtime="process")).status == "fail"
    monkeypatch.setenv("LARY_TORCH_BACKEND", "cu126")
    assert driver.run(context(runtime="process")).status == "ok"


def test_without_a_driver(context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver.run(context()).status == "skip"
    assert driver.cuda_of_images() in driver.OLDEST


def test_shared_memory(context: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert shm.run(context(runtime="docker")).status == "skip"
    monkeypatch.setattr(shm, "FOLDER", tmp_path)
    assert shm.run(context()).status == "ok"
    monkeypatch.setattr(shm, "ENOUGH", 1 << 60)
    assert "remount" in shm.run(context()).remedy
    monkeypatch.setattr(shm, "FOLDER", tmp_path / "none")
    assert shm.run(context()).status == "skip"


# --- the plan ---------------------------------------------------------------------------------


def test_disk_is_compared_with_what_the_stores_take(
    context: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_csv(workspace, rows=1000)
    checked = context(models=("frame-diff", "pixels"), sets=("clips",), runtime="docker")
    needed = 2 * 1000 * (8 * 64 * 48 * 2 + 1 + 9 * 64 * 48 * 2 + 1)
    assert disk.needed_bytes(checked) == (needed, [])
    statuses = []
    total = needed + disk.LEAST
    for free in (total * 2, total + 1, total - 1):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: type("Usage", (), {"free": free}))
        statuses.append(disk.run(checked).status)
    assert statuses == ["ok", "warn", "fail"]
    assert "--latents" in disk.run(checked).remedy
    assert disk.run(context()).status == "warn"


def test_environments_and_demo_sets_count_where_they_are_missing(
    context: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_links", lambda _: True)
    asked = {"models": ("frame-diff", "vjepa2"), "sets": ("demo_motion", "demo_arm_long")}
    message = disk.run(context(**asked, runtime="process")).message
    assert "1.5 GiB 3 environments" in message
    assert "249.0 MiB demo sets (demo_arm_long, demo_motion)" in message
    assert " environments" not in disk.run(context(**asked, runtime="docker")).message
    # One that is there is not made again, and the others share its files.
    source = context().catalog.image_for("frame-diff")
    made = disk._environment(source, workspace.envs)
    assert made is not None
    made.mkdir(parents=True)
    (made / disk.MARKER).touch()
    assert "290.0 MiB 2 environments" in disk.run(context(**asked, runtime="process")).message
    monkeypatch.setattr(disk, "_links", lambda _: False)
    assert "2.4 GiB 2 environments" in disk.run(context(**asked, runtime="process")).message
    monkeypatch.setattr("lary_demo.is_complete", lambda _: True)
    assert "demo sets" not in disk.run(context(**asked, runtime="process")).message


@pytest.mark.parametrize("names", [{}, {"models": ("frame-diff",), "sets": ("demo_motion",)}])
def test_a_small_disk_is_a_fault(
    names: dict[str, Any], context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without names; a real one where this user may mount it."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small))
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted:
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 6 << 20}))
    try:
        made = replace(context(**names, runtime="process"), workspace=Workspace.locate(small / "ws", env={}))
        finding = disk.run(made)
        assert finding.status == "fail"
        assert f"6.0 MiB free in {small}/ws/latents" in finding.message
        assert "choose another volume" in finding.remedy
        split = replace(made, workspace=Workspace.locate(tmp_path / "big", latents=small / "l", env={}))
        assert disk.run(split).message.count(" free in ") == (2 if mounted else 1)
    finally:
        if mounted:
            subprocess.run(("umount", str(small)), check=True)


def test_what_cannot_be_counted_is_named(context: Any) -> None:
    finding = disk.run(context(models=("pixels",), sets=("demo_motion", "clips")))
    assert "demo_motion, clips not counted" in finding.message


def test_mounts(context: Any, workspace: Workspace) -> None:
    finding = mounts.run(context(sets=("clips",)))
    assert finding.status == "fail"
    assert f"{workspace.data} does not exist" in finding.message
    assert mounts.run(context(sets=("demo_motion",))).status == "ok"
    workspace.data.mkdir(parents=True)
    workspace.latents.mkdir()
    finding = mounts.run(context(sets=("clips",)))
    assert finding.status == "ok"
    assert f"latents {workspace.latents};" in finding.message
    assert list(workspace.latents.iterdir()) == []


def test_a_latents_volume_that_cannot_be_written_is_a_fault(
    context: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mounts, "sync_file", refuse)
    finding = mounts.run(context())
    assert finding.status == "fail"
    assert "Invalid argument" in finding.message
    assert "LARY_LA_DIR" in finding.remedy


def test_weights(context: Any, workspace: Workspace) -> None:
    assert weights.run(context()).status == "ok"
    assert weights.run(context(models=("frame-diff",))).message == "the chosen models need none"
    missing = weights.run(context(models=("flux2",)))
    assert (missing.status, "weights fetch" in missing.remedy) == ("fail", True)
    file = workspace.weights / "ae.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    assert "git-lfs pointer" in weights.run(context(models=("flux2",))).message
    file.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    assert weights.run(context(models=("flux2",))).status == "ok"
    assert weights.run(context(models=("dinov3-cs8_sl16_dim32_lr1e-4",))).status == "skip"


def test_datasets(context: Any, workspace: Workspace) -> None:
    assert datasets.run(context()).status == "skip"
    assert "made at first use" in datasets.run(context(sets=("demo_arm",))).message
    assert "missing (split 'train' of clips)" in datasets.run(context(sets=("clips",))).message
    put_csv(workspace, rows=30, media=False)
    lost = datasets.run(context(sets=("clips",)))
    assert "20 of the first 20 rows have no file, row 0:" in lost.message
    assert lost.remedy.startswith("correct media:")
    put_csv(workspace, rows=30)
    assert datasets.run(context(sets=("clips",))) == Finding("ok", "clips/train: 30 rows; clips/val: 30 rows")
    (workspace.data / "clips/val.csv").write_text("video_path,action,sample_indices\n../x.mp4,wave,1\n")
    assert "row 0: '../x.mp4' contains '..'" in datasets.run(context(sets=("clips",))).message


def test_leftovers(context: Any, workspace: Workspace) -> None:
    assert leftovers.run(context()) == Finding("ok", "none")
    draft = workspace.cache / "x.json.12ab.partial"
    draft.parent.mkdir(parents=True)
    draft.write_bytes(b"x" * 2048)
    os.utime(draft, (time.time() - 3600,) * 2)
    finding = leftovers.run(context())
    assert finding == Finding("warn", "1 leftovers of runs that died, 2.0 KiB", "lary-orch clean")
    assert draft.exists()


# --- all of them ------------------------------------------------------------------------------


def test_every_file_of_checks_is_run() -> None:
    folder = Path(doctor.__file__).parent
    helpers = {"__init__", "check", "engine_facts", "command"}
    assert {check.NAME for check in CHECKS} == {p.stem for p in folder.glob("*.py")} - helpers


def test_the_gravest_finding_speaks() -> None:
    fail, ok, skip = Finding("fail", "broken", "fix"), Finding("ok", "fine"), Finding("skip", "none")
    assert worst([ok, fail, skip, fail]) == Finding("fail", "broken; broken", "fix")
    assert worst([skip, ok]) == ok


@pytest.mark.usefixtures("no_docker")
def test_the_command(workspace: Workspace) -> None:
    arguments = ["--workspace", str(workspace.root)]
    done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [record["check"] for record in json.loads(done.output)] == [check.NAME for check in CHECKS]
    failing = CliRunner().invoke(command, [*arguments, "-m", "flux2"], catch_exceptions=False)
    assert failing.exit_code == 1
    assert "fail  weights: " in failing.output
    assert "\n      -> `lary-orch weights fetch flux2 --workspace " in failing.output
    with pytest.raises(ContractError, match="no model 'nonsense'"):
        CliRunner().invoke(command, [*arguments, "-m", "nonsense"], catch_exceptions=False)
    assert not workspace.root.exists()
