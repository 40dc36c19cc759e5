"""Sets with a data root of their own, and keys joined by commas."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from lary_orch.cli.options import request_options
from lary_orch.runtimes.tools import datasets as known_datasets


def own_set(world: Any, key: str, root: str | None, folder: Path) -> None:
    fields = {} if root is None else {"root": root}
    world.dataset(key, metadata="lists/{split}.csv", media="frames", **fields)
    for split in ("train", "val"):
        path = folder / f"lists/{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("src_img,tgt_img,action\n" + "".join(f"a{i}.png,b{i}.png,c{i % 2}\n" for i in range(4)))


def test_sets_with_several_roots_in_one_run(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    roots = {
        "beside": (".", world.cards),
        "below": ("../elsewhere", world.root / "elsewhere"),
        "far": (str(tmp_path / "far"), tmp_path / "far"),
        "home": ("~/data", tmp_path / "home/data"),
        "usual": (None, world.workspace.data),
    }
    for key, (root, folder) in roots.items():
        own_set(world, key, root, folder)
    made = world.plan(datasets=tuple(roots))
    assert made.problems == ()
    found = {job.document.values.dataset: job.mounts.data for job in made.extracts}
    assert found == {key: folder for key, (_, folder) in roots.items()}
    tools = {one.card.key: one for one in known_datasets(world.catalog(), world.workspace).datasets}
    for key, (_, folder) in roots.items():
        assert (tools[key].data, tools[key].csv["train"]) == (folder, folder / "lists/train.csv")


def test_a_card_with_its_root_does_not_look_elsewhere(world: Any) -> None:
    own_set(world, "mine", "nowhere", world.workspace.data)
    error = str(world.plan(datasets=("mine",)).problems[0].error)
    assert str(world.cards / "nowhere/lists/train.csv") in error


@pytest.mark.parametrize("root", [None, "far", "."])
def test_csvs_next_to_the_card(world: Any, root: str | None) -> None:
    own_set(world, "mine", root, world.cards)
    assert world.plan(datasets=("mine",)).problems == ()
    tools = {one.card.key: one for one in known_datasets(world.catalog(), world.workspace).datasets}
    assert tools["mine"].csv["val"] == world.cards / "lists/val.csv"
    # Where the data root has CSVs of that name, these are meant.
    data = world.workspace.data if root is None else world.cards / root
    own_set(world, "mine", root, data)
    tools = {one.card.key: one for one in known_datasets(world.catalog(), world.workspace).datasets}
    assert tools["mine"].csv["val"] == data / "lists/val.csv"


@pytest.mark.parametrize("line", ["-m a,b -d c,d", "-m a -m b -d c -d d", "-m a,,b, -d ,c,d"])
def test_keys_joined_by_commas(line: str) -> None:
    seen: list[Any] = []

    @click.command()
    @request_options
    def command(request: Any) -> None:
        seen.append((request.models, request.datasets, request.variants))

    result = CliRunner().invoke(command, [*line.split(), "--variant", "v,w", "--protocol", "smoke"])
    assert result.exit_code == 0, result.output
    assert seen == [(("a", "b"), ("c", "d"), ("v", "w"))]
