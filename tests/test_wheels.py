"""The wheel of the orchestrator works outside a checkout: it brings the sources of the images along."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

REPO = Path(__file__).parents[1]
HASHES = """
import json
from lary_orch.catalog.cards import Catalog, repository
from lary_orch.runtimes.environments import Checkout, make_recipe
from lary_orch.runtimes.images import Recipes
root, catalog = repository(), Catalog.load()
recipes = Recipes(root)
print(json.dumps({
    "root": str(root),
    "models": sorted(card.key for _, card in catalog.models()),
    "images": {source.card.name: recipes.source(source) for _, source in catalog.images},
    "environments": {source.card.name: len(make_recipe(source, Checkout(root), "cpu").install)
                     for _, source in catalog.images},
    "demo": (root / "shared/demo/pyproject.toml").is_file(),
    "constraints": (root / "images/base/constraints.txt").read_text(),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `pip install --no-deps --target` makes it of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (find_uv_bin(), "build", "--quiet", "--wheel", "--no-build-isolation", "--offline")
    subprocess.run([*build, "--python", sys.executable, "--out-dir", folder, REPO / "orchestrator"], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "target")
    return folder / "target"


def python(folder: Path | None, *arguments: str) -> str:
    """Python outside the checkout, with the wheel's package or (None) with that of the checkout."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LARY_")}
    env |= {"PYTHONPATH": str(folder)} if folder is not None else {}
    argv = [sys.executable, *arguments]
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, check=True).stdout


def test_it_holds_what_images_and_environments_are_made_of(installed: Path) -> None:
    ours, theirs = (json.loads(python(folder, "-c", HASHES)) for folder in (None, installed))
    assert Path(theirs.pop("root")) == installed / "lary_orch/checkout"
    assert Path(ours.pop("root")) == REPO
    assert theirs == ours
    assert "frame-diff" in theirs["models"]


def test_it_holds_no_tests_and_nothing_built(installed: Path) -> None:
    names = [path.relative_to(installed / "lary_orch/checkout") for path in installed.rglob("*") if path.is_file()
             if path.is_relative_to(installed / "lary_orch/checkout")]  # fmt: skip
    assert len(names) > 300
    assert [name for name in names if {"tests", "__pycache__", ".venv"} & set(name.parts)] == []
    assert {name.parts[0] for name in names} == {"images", "shared", "VERSION", ".dockerignore"}


def test_commands_outside_a_checkout(installed: Path) -> None:
    records = json.loads(python(installed, "-m", "lary_orch", "models", "--json"))
    cards = {record["name"]: record["card"] for record in records}
    assert cards["frame-diff"].startswith(str(installed))
    assert "manifest" in python(installed, "-m", "lary_orch", "data")
