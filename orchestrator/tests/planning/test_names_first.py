"""Names, weights, CSVs and room are looked at before anything is made."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from lary_orch.catalog.cards import repository
from lary_orch.cli import cli
from lary_orch.plan import names
from lary_orch.plan.names import check_request
from lary_schema.base import ContractError, WeightsError


def check(world: Any, models: tuple[str, ...] = ("frame-diff",), **fields: Any) -> list[str]:
    said: list[str] = []
    check_request(world.request(models, **fields), world.catalog(), world.workspace, said.append)
    return said


def refused(world: Any, models: tuple[str, ...] = ("frame-diff",), **fields: Any) -> str:
    """What is said; and nothing was made."""
    before = sorted(world.root.rglob("*"))
    with pytest.raises(ContractError) as caught:
        check(world, models, **fields)
    made = {path for path in world.root.rglob("*") if "cache" not in path.parts} - set(before)
    assert made == set()
    return str(caught.value)


def test_all_wrong_names_at_once(world: Any) -> None:
    world.toy()
    said = refused(world, ("frame-dif", "pixels"), datasets=("toi", "toy"), variants=("v",), splits=("vall",))
    for part in ("no model 'frame-dif' (did you mean frame-diff?)", "model pixels has no variant 'v'"):
        assert part in said
    for part in ("no dataset 'toi' (did you mean toy?)", "dataset toy evaluates no split 'vall'"):
        assert part in said


def test_missing_weights_and_csvs(world: Any) -> None:
    world.toy()
    assert "vitl.pt: missing (weight 'model' of vjepa2)" in refused(world, ("vjepa2",))
    with pytest.raises(WeightsError):
        check(world, ("vjepa2",))
    # The others can be run: the planner says what cannot.
    (said,) = check(world, ("vjepa2", "frame-diff"))
    assert said.startswith("left out: ")
    assert world.plan(("vjepa2", "frame-diff")).problems[0].what == "model vjepa2"
    assert "vjepa2" not in world.runtime.prepared, "no environment for a model that cannot be run"
    world.dataset("other")
    assert "train.csv: missing" in refused(world, datasets=("other",))
    check(world, datasets=("other", "toy"))


def test_demo_sets_and_imported_latents_need_nothing(world: Any) -> None:
    world.toy()
    check(world, datasets=("demo_arm",))
    check(world, ("of-somebody",), variants=("imported",))
    assert not world.workspace.generated.exists()


def test_room_for_what_was_never_begun(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.toy(train=100, val=50)

    class Usage(NamedTuple):
        free: int

    row = 64 * 48 * 2 + 1
    monkeypatch.setattr(names.shutil, "disk_usage", lambda _: Usage(150 * row - 1))
    assert "the latents take about" in refused(world)
    monkeypatch.setattr(names.shutil, "disk_usage", lambda _: Usage(150 * row))
    check(world)
    monkeypatch.setattr(names.shutil, "disk_usage", lambda _: Usage(50 * row))
    (world.workspace.latents / "toy/train/frame-diff").mkdir(parents=True)
    check(world)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run -m frame-dif -d demo_arm", "did you mean frame-diff"),
        ("plan -m frame-diff -d demo_am", "did you mean demo_arm"),
        ("run -m vjepa2 -d demo_arm", "missing (weight 'model' of vjepa2)"),
        ("run -m frame-diff -d demo_arm --protocol smok", "did you mean smoke"),
    ],
)
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LARY_HOME", "DATA_DIR", "MODEL_DIR", "VJEPA2_CKPT_PATH"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(cli, line.split())
    assert isinstance(result.exception, ContractError)
    assert said in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typed", ["modls", "datset", "dcotor"])
def test_commands_have_suggestions(typed: str) -> None:
    result = CliRunner().invoke(cli, [typed])
    assert result.exit_code == 2
    assert "Did you mean" in result.stderr
    assert "Did you mean" not in CliRunner().invoke(cli, ["zzzzzz"]).stderr


@pytest.mark.parametrize("line", ["data --help", "data", "data check --help", "latents import --help"])
def test_help_makes_nothing(tmp_path: Path, line: str) -> None:
    head, *rest = line.split()
    folder = ("--workspace", str(tmp_path / "ws"))
    words = [head, *folder, *rest] if head == "data" else [*line.split(), *folder]
    done = subprocess.run([sys.executable, "-m", "lary_orch", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"Usage: .* data ", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_tools_needs_no_library_of_theirs() -> None:
    """It is read by the interpreter of the command line, which has none."""
    sources = [
        repository() / "images/data/src",
        *(repository() / f"shared/{name}/src" for name in ("schema", "worker")),
    ]
    code = (
        "import sys\n"
        f"sys.path[:0] = {list(map(str, sources))!r}\n"
        "for name in ('av', 'torch', 'zarr', 'tensorstore', 'cv2', 'pyarrow', 'scipy'): sys.modules[name] = None\n"
        "from lary_data.__main__ import TOOLS, _load\n"
        "import click\n"
        "for name in TOOLS: print(_load(name).get_help(click.Context(_load(name), info_name=name)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
