"""`new-model`: what it makes works at once, names nothing of its template, and touches nothing else."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from lary_conformance.new_model import ModelName, make_model_folder
from lary_conformance.new_model_command import command
from lary_orch.catalog.cards import Catalog, repository
from lary_orch.cli import cli
from lary_schema.base import ContractError

TEMPLATE = repository() / "images" / "baseline"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model_folder("my-lam", tmp_path / "my-lam", TEMPLATE)
    return tmp_path / "my-lam"


def files(folder: Path) -> dict[str, str]:
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return {p.relative_to(folder).as_posix(): p.read_text() for p in found}


def test_the_catalog_finds_one_model(folder: Path) -> None:
    catalog = Catalog.load([folder])
    source = catalog.image_for("my-lam")
    assert (source.card.name, source.folder) == ("my-lam", folder)
    assert [card.key for card in source.card.models] == ["my-lam"]


def test_nothing_of_the_template_is_left(folder: Path) -> None:
    for name, text in files(folder).items():
        cleaned = text.replace("paradigm: baseline", "")
        for word in ("baseline", "frame-diff", "frame_diff", "FrameDiff", "random", "pixels:"):
            assert word not in cleaned.replace("random_weights", "").replace("np.random", ""), f"{word} in {name}"


def test_a_name_that_holds_the_templates_names_stays_whole(tmp_path: Path) -> None:
    make_model_folder("my-baseline-2", tmp_path / "x", TEMPLATE)
    assert (tmp_path / "x/src/lary_my_baseline_2/my_baseline_2.py").is_file()
    project = tomllib.loads((tmp_path / "x/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lary.models"] == {"my-baseline-2": "lary_my_baseline_2.my_baseline_2:MyBaseline2"}


def test_it_follows_the_contract(folder: Path, tmp_path: Path, warm_python: Path) -> None:
    """Installed by hand (a dist-info is all that entry points need), without a registry."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"lary_my_lam-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "\n".join(f"{key} = {value}" for key, value in project["entry-points"]["lary.models"].items())
    (info / "entry_points.txt").write_text(f"[lary.models]\n{points}\n")

    path = os.pathsep.join([str(folder / "src"), str(tmp_path / "site")])
    env = {**os.environ, "PYTHONPATH": path, "LARY_IMAGE": "my-lam", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [warm_python, "-m", "lary_worker", "selftest"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": "my-lam", "ok": True, "problems": {}}


@pytest.mark.skipif(not (repository() / ".venv/.dev").exists(), reason="the checkout has no environment of its own")
def test_the_tests_run_as_the_readme_says(folder: Path) -> None:
    """Typed as it stands there, in the new folder."""
    blocks = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE", "PYTHONPATH"))}
    shell = ["bash", "-euo", "pipefail", "-c", blocks[1]]
    done = subprocess.run(shell, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("train", [False, True], ids=["model", "trained"])
def test_commands_of_the_readme_exist(tmp_path: Path, train: bool) -> None:
    """Each is one of lary-orch's, with options that it has, and names the new model."""
    make_model_folder("my-lam", tmp_path / "x", TEMPLATE, train=train)
    block = re.findall(r"```sh\n(.*?)```", (tmp_path / "x/README.md").read_text(), re.DOTALL)[0]
    for line in block.splitlines():
        program, name, *arguments = shlex.split(line, comments=True)
        found = cli.get_command(click.Context(cli), name)
        if isinstance(found, click.Group):
            found = found.get_command(click.Context(found), arguments.pop(0))
        assert program == "lary-orch"
        assert found is not None
        _, rest, _ = found.make_parser(click.Context(found)).parse_args(arguments)
        assert not rest
    assert "my-lam" in block


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    before = files(TEMPLATE)
    done = CliRunner().invoke(command, ["my-lam", "--to", str(tmp_path / "there")], catch_exceptions=False)
    assert done.exit_code == 0
    listed = {line for line in done.output.splitlines() if line.startswith(str(tmp_path))}
    assert listed == {str(tmp_path / "there" / name) for name in files(tmp_path / "there")}
    assert files(TEMPLATE) == before


@pytest.mark.parametrize("name", ["My-lam", "2lam", "a--b", "a_b", "../x", "", "worker", "none", "model", "a b", "-a"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ContractError, match="cannot name a model"):
        make_model_folder(name, tmp_path / "x", TEMPLATE)
    assert not (tmp_path / "x").exists()


def test_taken_names_and_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ContractError, match="already; take another name"):
        make_model_folder("vjepa2", tmp_path / "x", TEMPLATE, {"vjepa2"})
    with pytest.raises(ContractError, match="exists already"):
        make_model_folder("my-lam", folder, TEMPLATE)
    with pytest.raises(ContractError, match="--to"):
        make_model_folder("my-lam", folder / "pyproject.toml" / "x", TEMPLATE)


def test_spellings() -> None:
    name = ModelName("latent-motion2")
    assert (name.package, name.module, name.class_name) == ("lary_latent_motion2", "latent_motion2", "LatentMotion2")


def test_the_folder_is_whole_or_absent_wherever_the_machine_stops(
    tmp_path: Path, stopped_at_every_change: Callable[[Callable[[], object]], Iterator[int]]
) -> None:
    for _ in stopped_at_every_change(lambda: make_model_folder("my-lam", tmp_path / "my-lam", TEMPLATE)):
        assert not (tmp_path / "my-lam").exists()
    assert (tmp_path / "my-lam/README.md").is_file()
