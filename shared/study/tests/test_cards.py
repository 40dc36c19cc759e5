"""Recipes and studies as files: the built-in ones, a user's own, and what is refused."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from lary_schema.base import ContractError
from lary_study.card import StudyCard
from lary_study.planning import parse_arms, parse_seeds
from lary_study.recipes import card_files, changed, load, load_recipe

RECIPES = sorted(card_files("recipes", [], {}))
STRATEGIES = ["baseline", "la-align", "la-direct", "la-cond", "la-tok"]


@pytest.mark.parametrize("name", RECIPES)
def test_built_in_recipes_are_those_of_their_trainee(name: str) -> None:
    recipe = load_recipe(name, [], {})
    found = {point.name: point for point in entry_points(group="lary.trainees")}
    if recipe.trainee not in found:
        pytest.skip(f"trainee {recipe.trainee} is not installed")
    assert found[recipe.trainee].load().card(recipe).key == name


@pytest.mark.parametrize(
    ("key", "arms", "seeds"),
    [
        ("lara-demo", ["A0", "A1", "A2", "A2c", "A3", "A3c", "A4", "A5"], 5),
        ("p2t-demo", ["S1", "S1t", "S1te", "S2", "S2t", "S2t-10", "S2t-100"], 3),
        ("p2t-small", ["S1", "S1t", "S1te", "S2", "S2t", "S2t-10", "S2t-100"], 3),
        ("strategies-demo", STRATEGIES, 3),
        ("strategies-small", STRATEGIES, 3),
        ("tokenizer-demo", ["ours", "released"], 3),
        ("tokenizer-small", ["ours", "released"], 3),
        ("libero-lam", ["moto", "univla"], 3),
        ("libero-policy", ["head", "head-aligned", "head-contrastive", *STRATEGIES], 3),
    ],
)
def test_every_arm_of_the_built_in_studies_is_a_recipe_of_its_trainee(key: str, arms: list[str], seeds: int) -> None:
    card = load(StudyCard, "study", key, [], {})
    found = {point.name: point for point in entry_points(group="lary.trainees")}
    for arm in (*card.arms.values(), *card.baselines.values()):
        if arm.of is None:
            continue
        stage = card.stages[arm.of]
        recipe = changed(changed(load_recipe(stage.recipe, [], {}), stage.changes, "stage"), arm.changes, "arm")
        if recipe.trainee not in found:
            pytest.skip(f"trainee {recipe.trainee} is not installed")
        found[recipe.trainee].load().card(recipe)
    assert list(card.arms) == arms
    assert len(card.seeds) == seeds


def test_the_second_stage_has_the_sizes_of_the_first() -> None:
    for size in ("demo", "small", "b"):
        one, two = (load_recipe(f"univla-lam-{size}-{stage}", [], {}).config for stage in ("one", "two"))
        own = {"stage", "text", "text_to", "taken", "quantiser"}
        assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in two.items() if k not in own}


def test_the_stage_that_goes_on_has_the_tokenizer_of_its_start() -> None:
    """The joint recipes repeat the sizes of the tokenizers that they go on from."""
    for joint, alone in (("lara-demo", "moto-demo"), ("lara-small", "moto-small"), ("lara-gr", "moto-l")):
        one, other = (load_recipe(name, [], {}).config for name in (joint, alone))
        assert {name: one.get(name) for name in other} == other


RECIPE = load_recipe("moto-demo", [], {})


@pytest.mark.parametrize(
    ("changes", "path", "value"),
    [
        ({"codes": 64}, ("config", "codes"), 64),
        ({"config.codes": 64}, ("config", "codes"), 64),
        ({"config": {"codes": 64}}, ("config", "codes"), 64),
        ({"quantiser.kind": "gradient"}, ("config", "quantiser", "kind"), "gradient"),
        ({"steps": 0}, ("steps",), 0),
        ({"losses.pixels": 2}, ("losses", "pixels"), 2),
        ({"losses": {"lpips": 1}}, ("losses", "pixels"), RECIPE.losses["pixels"]),
        ({"optimiser": {"lr": 0.5}}, ("optimiser", "clip"), 1),
    ],
)
def test_other_values_of_a_recipe(changes: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    found: Any = changed(RECIPE, changes, "test").model_dump()
    for part in path:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser.rate": 1}, "optimiser.rate"),
        ({"steps": -1}, "steps"),
        ({"size.height": 3}, "size is 32, which has nothing below it"),
        ({"key": "other"}, "must begin with its trainee's name"),
    ],
)
def test_values_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        changed(RECIPE, changes, "test")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    """In a catalog folder, in an image's folder below one, or by its path; never twice."""
    document = RECIPE.model_dump(mode="json")
    for below in ("recipes", "my-model/recipes"):
        (tmp_path / below).mkdir(parents=True)
    (tmp_path / "recipes/moto-mine.yaml").write_text(yaml.safe_dump(document | {"key": "moto-mine"}))
    (tmp_path / "my-model/recipes/moto-own.yaml").write_text(yaml.safe_dump(document | {"key": "moto-own"}))
    assert load_recipe("moto-mine", [tmp_path], {}).key == "moto-mine"
    assert load_recipe("moto-own", [tmp_path], {}).key == "moto-own"
    assert load_recipe(str(tmp_path / "recipes/moto-mine.yaml"), [], {}).key == "moto-mine"
    with pytest.raises(ContractError, match="did you mean moto-demo"):
        load_recipe("moto-dema", [tmp_path], {})
    (tmp_path / "recipes/moto-demo.yaml").write_text("key: moto-demo")
    with pytest.raises(ContractError, match="given twice"):
        load_recipe("moto-demo", [tmp_path], {})


def _study(**changes: Any) -> StudyCard:
    document: dict[str, Any] = {
        "key": "mine", "data": {"train": "set"}, "seeds": [0, 3], "stages": {"lam": {"recipe": "moto-demo"}},
        "arms": {"A0": {"of": "lam"}},
    }  # fmt: skip
    return StudyCard.parse(document | changes, "mine.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"A0": {"of": "joint"}}}, "of 'joint' is no stage"),
        ({"stages": {"lam": {"recipe": "moto-demo", "init": "more"}}}, "init 'more' is no stage"),
        ({"stages": {"lam": {"recipe": "r", "init": "b"}, "b": {"recipe": "r", "init": "lam"}}}, "in a circle"),
        ({"stages": {"lam": {"recipe": "moto-demo", "labelled": True}}}, "data.labelled gives no share"),
        ({"compare": [["A0", "A1"]]}, "compare names A1"),
        ({"baselines": {"A0": {"of": "lam"}}}, "is an arm and a baseline"),
        ({"baselines": {"x": {}}}, "give either of"),
        ({"baselines": {"x": {"model": "pixels", "probe": False}}}, "go with a stage"),
        ({"baselines": {"x": {"model": "pixels", "once": True}}}, "go with a stage"),
        ({"seeds": []}, "must name at least one"),
    ],
)
def test_studies_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        _study(**changes)


def test_an_arm_is_probed_unless_it_says_otherwise() -> None:
    arms = _study(arms={"A0": {"of": "lam"}, "A1": {"of": "lam", "probe": False}}).arms
    assert [arm.probe for arm in arms.values()] == [True, False]


def test_seeds_and_arms_that_are_asked_for() -> None:
    card = _study()
    assert parse_seeds(None, card) == (0, 3)
    assert parse_seeds("0-2,5, 1", card) == (0, 1, 2, 5)
    assert parse_arms(None, card) == ()
    assert parse_arms("A0,A0", card) == ("A0",)
    for text in ("", "1-", "-1", "a", "1,,2"):
        with pytest.raises(ContractError, match="give numbers and ranges"):
            parse_seeds(text, card)
