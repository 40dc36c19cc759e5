"""`new-model --train`: the folder that it makes trains at once, is described, and is read."""

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from lary_conformance.new_model import make_model_folder
from lary_orch.catalog.cards import repository


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, installed by hand: a dist-info is all that entry points need."""
    made = tmp_path_factory.mktemp("new") / "my-lam"
    make_model_folder("my-lam", made, repository() / "images" / "baseline", train=True)
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    info = made / "src" / "lary_my_lam-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-my-lam\nVersion: 0.1.0\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
    return made


def test_nothing_of_the_template_is_left(folder: Path) -> None:
    for path in (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"):
        assert "@" not in path.read_text().replace("@classmethod", "").replace("@staticmethod", ""), path
        assert "baseline" not in path.read_text(), path


def test_its_self_test_passes(folder: Path, warm_python: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "LARY_IMAGE": "my-lam", "OMP_NUM_THREADS": "1"}
    command = [str(warm_python), "-m", "lary_trainer", "selftest"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["ok"] is True


def test_it_trains_and_is_read(
    folder: Path, bench: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
    own = ("--catalog", str(folder))
    assert bench.run("train", "-r", "my-lam-small", "-d", "toys", "--set", "steps=20", *own, workspace="new") == 0
    key = capfd.readouterr().out.strip()
    assert key.startswith("my-lam-small-")
    result = json.loads((bench.root / "new/trained" / key / "checkpoint/training.json").read_text())
    last = result["measured"][-1]["values"]
    assert set(last) == {"rec", "copy", "shuffled"}
    code = bench.run("run", "-m", key, "-d", "toys", "--protocol", "study", "--no-control", *own, workspace="new")
    assert code == 0
