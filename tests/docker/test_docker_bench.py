"""The main job in containers: demo sets, a kill, real robot data, a third-party model."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from lary_orch.runtimes.docker import JOB, OWNER

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
BRIDGE = REPOSITORY.parent / "shared" / "data" / "bridge_mini"
SMOKE = ("--protocol", "smoke", "--no-control", "--target", "absolute", "--device", "cpu")
CARDS = {
    "bridge_cls": """
key: bridge_cls
title: Tasks of BridgeData V2
task: classification
columns: {input: video}
metadata: metadata/bridge_mini_cls_metadata_{split}.csv
media: classification
labels: {column: action, classes: 4}
license: CC BY 4.0
source: BridgeData V2
""",
    "bridge_reg": """
key: bridge_reg
title: Actions of BridgeData V2
task: regression
columns: {input: image}
metadata: metadata/bridge_mini_reg_metadata_{split}.csv
media: regression/bridge_mini
actions:
  folder: regression/bridge_mini
  stride: 3
  dim: 7
  names: [x, y, z, roll, pitch, yaw, gripper]
  normalisation: {kind: train}
license: CC BY 4.0
source: BridgeData V2
""",
}


def _files(folder: Path) -> dict[str, bytes]:
    """Every file of a store, markers without who made them: another image, and maybe other libraries."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return files | {name: _anonymous(data) for name, data in files.items() if name.startswith("done/")}


def _anonymous(marker: bytes) -> bytes:
    record = json.loads(marker)
    assert record.pop("made_by")
    assert record.pop("sha256")
    return json.dumps(record).encode()


def test_both_demo_sets_then_nothing_left_to_do(bench: Any) -> None:
    models = ("-m", "frame-diff", "-d", "demo_motion", "-d", "demo_arm", *SMOKE)
    scores = {score["dataset"]: score for score in bench.scores(*models)}
    assert scores["demo_motion"]["value"] > 0.5
    assert scores["demo_arm"]["value"] < 0.8
    again = bench.start("run", "--runtime", "docker", *models)
    _, err = again.communicate()
    assert again.returncode == 0
    assert "nothing to do" in err


def test_a_killed_container_is_launched_again_and_the_bytes_are_the_same(
    bench: Any, client: Any, tmp_path: Path
) -> None:
    """Against the same job's JSON in a plain process: another attempt, another runtime, the same store."""
    latents = tmp_path / "latents"
    run = bench.start(
        *("run", "-m", "pixels", "-d", "demo_arm", "--shard-rows", "8", "--latents", latents, *SMOKE),
        *("--runtime", "docker", "--cpu-slots", "1", "--json"),
    )
    killed = relaunched = False
    for line in run.stdout:
        event = json.loads(line)
        if event["event"] == "shard_done" and not killed:
            job = event["job"]
            for container in client.containers.list(filters={"label": [f"{OWNER}={bench.workspace}", f"{JOB}={job}"]}):
                with suppress(APIError):  # it has just ended
                    container.kill()
                    killed = True
        relaunched = relaunched or "relaunched" in event.get("message", "")
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert killed
    assert relaunched
    _same_in_a_process(bench.workspace, latents, job, tmp_path)


def _same_in_a_process(workspace: Path, latents: Path, job: str, tmp_path: Path) -> None:
    [folder] = workspace.glob(f"runs/*/jobs/{job}")
    store = json.loads((folder / "job.json").read_text())["store"]["path"]
    mounts = {"DATA": workspace / "generated", "WEIGHTS": tmp_path, "LATENTS": tmp_path / "process", "JOB": folder}
    env = os.environ | {f"LARY_MOUNT_{name}": str(path) for name, path in mounts.items()} | {"LARY_IMAGE": "baseline"}
    command = [sys.executable, "-m", "lary_worker", "extract", "--job", folder / "job.json"]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    ours, theirs = _files(latents / store), _files(tmp_path / "process" / store)
    # Apart from the provenance, which names image and libraries.
    assert ours.pop("zarr.json")
    assert theirs.pop("zarr.json")
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_real_robot_data_by_two_yaml_files(bench: Any, tmp_path: Path) -> None:
    if not BRIDGE.is_dir():
        pytest.skip(f"needs {BRIDGE}")
    for name, card in CARDS.items():
        (tmp_path / f"{name}.yaml").write_text(card)
    data = ("--catalog", tmp_path, "--data-dir", BRIDGE)
    scores = bench.scores("-m", "frame-diff", "-d", "bridge_cls", "-d", "bridge_reg", *data, *SMOKE)
    values = {score["dataset"]: score["value"] for score in scores}
    assert 0 <= values["bridge_cls"] <= 1
    assert values["bridge_reg"] > 0


def test_a_new_model_is_one_folder(bench: Any, client: Any, tmp_path: Path) -> None:
    """Made, built, checked and run; no other file is touched."""
    folder, before = tmp_path / "my-lam", _tree()
    bench("new-model", "my-lam", "--to", folder)
    try:
        report = bench("images", "build", "my-lam", "--catalog", folder)
        assert report.startswith("lary/my-lam:")
        verdicts = json.loads(bench("conformance", "my-lam", "--catalog", folder, "--json"))
        states = {verdict["check"]: verdict["state"] for verdict in verdicts}
        assert states.pop("missing weights") == "skipped", "the template needs none"
        assert set(states.values()) == {"ok"}, verdicts
        assert {"describe", "selftest", "isolation", "bad job", "extract", "resume", "corrupt input"} <= set(states)
        [score] = bench.scores("-m", "my-lam", "-d", "demo_arm", "--catalog", folder, *SMOKE)
        assert score["value"] < 0.8
    finally:
        for image in client.images.list("lary/my-lam"):
            client.images.remove(image.id, force=True)
    assert _tree() == before


def _tree() -> str:
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        return ""
    command = ["git", "status", "--porcelain", "--ignored=no"]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def test_a_build_that_fails_shows_the_end_of_its_log(bench: Any, tmp_path: Path) -> None:
    folder = tmp_path / "broken-lam"
    bench("new-model", "broken-lam", "--to", folder)
    with (folder / "Dockerfile").open("a") as dockerfile:
        dockerfile.write("RUN echo this is the end && false\n")
    said = bench("images", "build", "broken-lam", "--quiet", "--catalog", folder, code=2)
    assert "| this is the end" in said
    assert "Traceback" not in said


def test_our_images_are_listed_as_current(bench: Any) -> None:
    listed = {image["name"]: image["state"] for image in json.loads(bench("images", "ls", "--json"))}
    assert listed["base"] == listed["baseline"] == listed["probe"] == "current"


@pytest.mark.parametrize("image", ["lapa", "vjepa2", "wan", "villa-x"])
def test_an_image_that_needs_weights_keeps_the_contract(bench: Any, image: str) -> None:
    """As far as it goes without them: described, self-tested with random weights, isolated, exit codes."""
    verdicts = json.loads(bench("conformance", image, "--json"))
    states = {(v["check"], v["of"]): v["state"] for v in verdicts}
    assert "failed" not in states.values(), verdicts
    assert {c for (c, _), state in states.items() if state == "ok"} >= {"describe", "selftest", "isolation", "bad job"}
    assert states["missing weights", ""] == "ok"


def test_an_image_that_trains_keeps_the_contract(bench: Any) -> None:
    """Trained, killed and gone on with, read, refused, and isolated; labels by a recipe that reads them."""
    recipe = REPOSITORY / "images/lara/recipes/lara-tiny.yaml"
    example = ("-m", "moto-demo-000000000000")
    verdicts = json.loads(bench("conformance", "lara", "-r", recipe, *example, "--json"))
    states = {(v["check"], v["of"]): v["state"] for v in verdicts}
    assert "failed" not in states.values(), verdicts
    done = {check for (check, _), state in states.items() if state == "ok"}
    assert done >= {"describe", "isolation", "bad job", "other version", "train", "train again", "train resume"}
    assert done >= {"trained model", "unknown config", "loss terms", "other code", "wrong start", "unreadable row"}
    assert done >= {"divergence", "train isolation", "missing labels"}
    assert {states["bad job", "train"], states["other version", "train"]} == {"ok"}
