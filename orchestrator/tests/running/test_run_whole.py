"""`lary-orch run` with the real baseline and probe, in this interpreter, on a few rows."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lary_demo as demo
import pytest
import yaml
from click.testing import CliRunner, Result
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.cli import cli
from lary_schema import orphans
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError, ExitCode
from lary_schema.store.layout import Store

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lary_baseline", "lary_worker", "lary_probe")),
    reason="the images are not installed in this interpreter (make test does it)",
)


FOLDERS = ("LARY_HOME", "DATA_DIR", "LARY_LA_DIR", "MODEL_DIR", "LARY_CATALOG")


@pytest.fixture(autouse=True)
def _no_folders_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)


PYTHON = sys.executable
FEW_STARTS = ("--shard-rows", "200", "--cpu-slots", "1")


@pytest.fixture(scope="module", autouse=True)
def _warm(warm_python: Path) -> Iterator[None]:
    """Every job of a run in this interpreter is a fork of a warm one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(warm_python))
        yield


@pytest.fixture
def options(tmp_path: Path, once: Any, seed_workspace: Any) -> list[str]:
    return _options(tmp_path, once, seed_workspace)


def _options(folder: Path, once: Any, seed_workspace: Any) -> list[str]:
    """`run` in the workspace `folder`/bench."""
    smoke = load_protocol("smoke").model_dump(mode="json")
    short = smoke | {"key": "short", "regress": smoke["regress"] | {"epochs": 1, "width": 16}}
    (folder / "short.yaml").write_text(yaml.safe_dump(short))
    generated = once("demo_arm", lambda folder: demo.ensure("demo_arm", folder))
    (seed_workspace(folder / "bench") / "generated").symlink_to(generated)
    shared = ["--workspace", str(folder / "bench"), "--protocol", str(folder / "short.yaml"), "--no-control"]
    return ["run", "-d", "demo_arm", "--runtime", "process", "--env", "current", "--device", "cpu", *shared]


class Finished(NamedTuple):
    """A run of one model that is through."""

    folder: Path
    command: list[str]
    result: Result


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, once: Any, seed_workspace: Any) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    command = [*_options(folder, once, seed_workspace), "-m", "frame-diff", *FEW_STARTS]
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            patch.delenv(name, raising=False)
        return Finished(folder, command, _run(*command))


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def _logs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("bench/runs/*/logs/*.events.jsonl"))


def test_the_table_and_then_nothing_to_do(finished: Finished) -> None:
    first = finished.result
    assert first.exit_code == 0, first.output
    assert "2 extractions, 2 probes" in first.stderr
    assert "frame-diff" in first.stdout
    assert "demo_arm/val MSE" in first.stdout
    assert "demo_arm/val (relative) MSE" in first.stdout
    assert "without its baseline, what one frame shows. To add it: lary-orch run -m single-frame" in first.stdout
    logs = _logs(finished.folder)
    assert len(logs) == 4

    second = _run(*finished.command)
    assert second.exit_code == 0
    assert "nothing to do" in second.stderr
    table = first.stdout.index("protocol short")
    assert second.stdout == first.stdout[table:]
    assert _logs(finished.folder) == logs


def test_a_store_of_two_environments_is_refused_allowed_and_said(finished: Finished, tmp_path: Path) -> None:
    """One shard of two was made with another numpy; the other shard is missing."""
    command = [*finished.command, "--target", "absolute"]
    (root,) = (finished.folder / "bench/latents/demo_arm/train/frame-diff").iterdir()
    store = Store(root)
    assert store.done() == {0, 1}
    store.marker(1).unlink()
    there = store.record(0)
    assert there.made_by is not None
    other = there.made_by.model_copy(update={"libraries": there.made_by.libraries | {"numpy": "1.0.0"}})
    publish_text(store.marker(0), there.model_copy(update={"made_by": other}).sealed().to_json())

    refused = _run(*command)
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert "shard 0 was made by another environment than this one: numpy 1.0.0" in said
    assert "allow both by --mixed" in said
    assert store.done() == {0}

    allowed = _run(*command, "--mixed")
    assert allowed.exit_code == 0, allowed.stderr
    assert store.done() == {0, 1}
    assert (store.record(0).made_by, store.record(1).made_by) == (other, there.made_by)
    where = ("--workspace", str(finished.folder / "bench"))
    for table in (allowed.stdout, _run("results", *where).stdout):
        assert "# frame-diff (corrected) on demo_arm/val: made in more than one environment (--mixed): numpy " in table
        assert re.search(r"^frame-diff .*\]\S*#", table, re.MULTILINE)
    assert _run("report", *where, "--out", str(tmp_path / "page.html")).exit_code == 0
    assert "made in more than one environment" in (tmp_path / "page.html").read_text(encoding="utf-8")
    # What was mixed once stays so, and needs no option where nothing is missing.
    assert "nothing to do" in _run(*command).stderr


def _arrays(folder: Path, model: str) -> dict[str, bytes]:
    """Every file of a model's stores that holds values."""
    root = folder / "bench/latents/demo_arm"
    files = (path for path in root.glob(f"*/{model}/*.zarr/*/c/**/*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_models_of_one_image_share_decoded_rows(finished: Finished, options: list[str], tmp_path: Path) -> None:
    """`plan` says so, the latents are those of a run by itself, and nothing is kept in the end."""
    both = [*options, "-m", "frame-diff", "-m", "pixels", "--target", "absolute", *FEW_STARTS]
    planned = _run("plan", *both[1:])
    said = " ".join(planned.stdout.split())
    assert "Rows of demo_arm/train are decoded once for frame-diff, pixels;" in said
    result = _run(*both)
    assert result.exit_code == 0, result.output
    alone = _arrays(finished.folder, "frame-diff")
    assert alone
    assert _arrays(tmp_path, "frame-diff") == alone
    assert _arrays(tmp_path, "pixels")
    assert list((tmp_path / "bench/cache/frames").iterdir()) == []


def test_the_rest_is_done_where_a_part_cannot_be(options: list[str]) -> None:
    result = _run(*options, "-m", "pixels", "-m", "pixel", "--json")
    assert result.exit_code == 2
    assert "did you mean pixels?" in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["job"] for line in lines[:-1]} == {
        "regress.demo_arm.pixels.corrected.relative",
        "extract.demo_arm.train.pixels.corrected.p0",
        "extract.demo_arm.val.pixels.corrected.p0",
        "regress.demo_arm.pixels.corrected",
    }
    assert [(s["model"], s["probe"]) for s in lines[-1]["scores"]] == [("pixels", ""), ("pixels", "relative")]


def test_nothing_can_be_run(options: list[str]) -> None:
    result = _run(*options, "-m", "pixel")
    assert isinstance(result.exception, ContractError)
    assert result.exception.exit_code == ExitCode.BAD_JOB
    assert "no model 'pixel' (did you mean pixels?)" in str(result.exception)
    assert result.stdout == ""


def test_ctrl_c_leaves_nothing_and_the_same_command_goes_on(options: list[str], tmp_path: Path) -> None:
    command = [PYTHON, "-c", "from lary_orch.__main__ import main; main()", *options, "-m", "frame-diff"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "started on cpu" in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
    assert child.returncode == 130
    assert "the same command goes on from here" in said
    assert not _tasks_of(tmp_path / "bench")
    assert _run(*options, "-m", "frame-diff").exit_code == 0


def _tasks_of(workspace: Path) -> list[int]:
    if not orphans.PROC.is_dir():
        return []
    return [pid for pid in orphans._pids() if orphans._environ(pid).get(orphans.OWNER) == str(workspace)]
