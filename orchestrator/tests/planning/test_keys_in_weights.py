"""Families whose keys have a folder each below the weights root (`hf-NAME`)."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.catalog.cards import Catalog
from lary_orch.cli import models as models_command
from lary_orch.cli import weights as weights_command
from lary_orch.weights.files import chosen_cards, from_repo, list_weights
from lary_orch.weights.index import keys_found, weights_at
from lary_schema.base import ContractError


def folder(world: Any, key: str = "hf-mine") -> Path:
    path: Path = world.workspace.weights / key
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_a_folder_is_a_key(world: Any) -> None:
    card = Catalog.load([], env={}).model_card("hf-mine")
    assert keys_found(card, world.workspace.weights) == []
    path = folder(world)
    (world.workspace.weights / "other").mkdir()
    (world.workspace.weights / "hf-file").touch()
    assert keys_found(card, world.workspace.weights) == ["hf-mine"]
    assert [spec.path for spec in weights_at(card, "hf-mine")] == ["hf-mine"]
    where = ["--weights-dir", str(world.workspace.weights), "--json"]
    found = {row["name"]: row for row in json.loads(CliRunner().invoke(models_command.command, where).stdout)}
    assert found["hf-mine"]["weights"][0]["path"] == str(path)
    assert found["hf-mine"]["weights"][0]["found"]
    assert found["hf-..."]["weights"] == [], "the family itself misses nothing"


def test_the_image_sees_the_folder_that_it_describes(world: Any) -> None:
    world.toy()
    path = folder(world)
    seen: list[tuple[Any, ...]] = []
    describe = world.runtime.query

    def query(prepared: Any, *arguments: str, folders: Any = ()) -> str:
        if "--model" not in arguments:
            return str(describe(prepared, *arguments))
        seen.append((arguments, [(f.source, f.target, f.read_only) for f in folders]))
        card = prepared.source.card.card("hf-mine")
        own = card.model_copy(
            update={"key": "hf-mine", "pattern": None, "code_sha256": "c" * 64, "weights": weights_at(card, "hf-mine")}
        )
        return str(prepared.source.card.model_copy(update={"models": (own,)}).to_json())

    world.runtime.query = query
    world.runtime.isolates = True
    made = world.plan(("hf-mine",))
    assert [store.values.model for store in made.stores] == ["hf-mine", "hf-mine"]
    arguments, folders = seen[0]
    assert arguments == ("describe", "--model", "hf-mine", "--weights", "/weights")
    assert folders == [(path, "/weights/hf-mine", True)]
    (file,) = made.extracts[0].document.weights
    assert file.path == "hf-mine"
    # Another config is another reply; the same one is remembered.
    world.plan(("hf-mine",))
    assert len(seen) == 1
    (path / "config.json").write_text('{"other": 1}')
    world.plan(("hf-mine",))
    assert len(seen) == 2


def test_a_missing_folder_says_how_to_get_it(world: Any) -> None:
    world.toy()
    error = str(world.plan(("hf-none",)).problems[0].error)
    assert "hf-none: missing" in error
    assert "lary-orch weights fetch hf-NAME --repo" in error
    assert world.runtime.prepared in ([], ["probe"]), "no environment for a folder that is not there"


def test_weights_of_a_repository_of_ones_own(world: Any) -> None:
    cards = chosen_cards(Catalog.load([], env={}), ("hf-mine",))
    weights = list_weights(cards, world.workspace.weights, env={})
    assert [(weight.spec.repo, weight.path.name) for weight in weights] == [(None, "hf-mine")]
    assert [weight.spec.repo for weight in from_repo(weights, "owner/name")] == ["owner/name"]
    assert from_repo(weights, None) == weights
    other = list_weights(chosen_cards(Catalog.load([], env={}), ("vjepa2",)), world.workspace.weights, env={})
    with pytest.raises(ContractError, match="leave out --repo"):
        from_repo(other, "owner/name")
    result = CliRunner().invoke(weights_command.command, ["fetch", "--all", "--repo", "owner/name"])
    assert result.exit_code == 2
    assert "with --repo, name one" in result.stderr
