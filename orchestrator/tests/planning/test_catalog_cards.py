"""The catalog: where cards are found, and what is said of those that are wrong."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from lary_orch.catalog.cards import Catalog, repository
from lary_orch.catalog.protocol_cards import load_protocol, protocol_names
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard

MakeImage = Callable[..., Path]


def test_the_checkout_and_the_demo_sets_are_there() -> None:
    catalog = Catalog.load(env={})
    assert catalog.image_for("frame-diff").card.name == "baseline"
    assert catalog.probe().card.kind == "probe"
    assert catalog.dataset("demo_motion").labels is not None
    arm = catalog.dataset("demo_arm").actions
    assert arm is not None
    assert (arm.stride, arm.dim, arm.names) == (4, 3, ("shoulder", "elbow", "gripper"))


def test_a_family_serves_its_keys_and_not_its_own_name() -> None:
    catalog = Catalog.load(env={})
    assert catalog.image_for("dinov3-cs8_sl16_dim32_lr1e-4").card.name == "lapa"
    assert catalog.model_card("dinov3-cs8_sl16_dim32_lr1e-4").pattern is not None
    with pytest.raises(ContractError, match="no model 'dinov3-cs'"):
        catalog.image_for("dinov3-cs")


def test_an_exact_key_goes_before_a_family(image_folder: MakeImage, tmp_path: Path) -> None:
    mine = image_folder("mine", "dinov3-cs8_sl16_dim32_lr9", below=tmp_path / "more")
    catalog = Catalog.load([mine], env={})
    assert catalog.image_for("dinov3-cs8_sl16_dim32_lr9").folder == mine
    assert catalog.image_for("dinov3-cs8_sl16_dim32_lr8").card.name == "lapa"


@pytest.mark.parametrize("what", ["image", "dataset"])
def test_an_unknown_key_names_the_nearest(what: str) -> None:
    catalog = Catalog.load(env={})
    with pytest.raises(ContractError, match=r"did you mean (frame-diff|demo_motion)\?.*known: "):
        catalog.image_for("frame-dif") if what == "image" else catalog.dataset("demo_motoin")


def test_a_name_unlike_all_keys_gets_no_guess() -> None:
    with pytest.raises(ContractError) as caught:
        Catalog.load(env={}).dataset("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "demo_arm" in str(caught.value)


def test_a_folder_of_images_an_image_itself_and_yaml_files(image_folder: MakeImage, world: Any, tmp_path: Path) -> None:
    image_folder("one", "one-model", below=tmp_path / "many")
    image_folder("two", "two-model", below=tmp_path / "many")
    alone = image_folder("alone", "alone-model")
    world.dataset("mine")
    variable = f"{tmp_path / 'many'}{os.pathsep}{world.cards}"
    catalog = Catalog.load([alone, alone], env={"LARY_CATALOG": variable})
    assert [catalog.image_for(f"{n}-model").card.name for n in ("one", "two", "alone")] == ["one", "two", "alone"]
    assert catalog.dataset("mine").title == "mine"


def test_an_image_by_reference_has_no_folder(world: Any) -> None:
    card = {"name": "far", "kind": "model", "module": "lary_worker", "ref": "registry.example/far@sha256:00"}
    world.cards.mkdir()
    (world.cards / "far.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    (source,) = [s for _, s in world.catalog().images if s.card.name == "far"]
    assert source.folder is None
    assert source.card.ref == card["ref"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: far\nkind: model\nmodule: m\n", "needs ref:"),
        ("services: {}\n", "neither a dataset card"),
        ("- a\n- b\n", "neither a dataset card"),
        ("key: [\n", "not YAML"),
        ("key: x\ntask: classification\n", "title, columns, metadata, license, source: Field required"),
        ("key: x\ntask: classification\ntypo: 1\n", "typo: Extra inputs"),
        ("", "neither a dataset card"),
    ],
)
def test_a_wrong_card_is_named_with_its_key(world: Any, text: str, said: str) -> None:
    world.cards.mkdir()
    file = world.cards / "wrong.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ContractError) as caught:
        world.catalog()
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"evaluate": []}, "must name one split or more"),
        ({"evaluate": ["train"]}, "trains and is"),
        ({"evaluate": ["a", "a"]}, "twice"),
    ],
)
def test_splits_that_no_probe_can_use_are_refused_before_any_extraction(
    world: Any, splits: dict[str, Any], said: str
) -> None:
    file = world.dataset(splits=splits)
    with pytest.raises(ContractError, match=said) as caught:
        world.catalog()
    assert str(file) in str(caught.value)


def test_a_key_declared_twice_names_both_files(world: Any, image_folder: MakeImage, tmp_path: Path) -> None:
    first = world.dataset("mine")
    second = world.cards / "other.yaml"
    second.write_bytes(first.read_bytes())
    with pytest.raises(ContractError, match="dataset 'mine' is declared twice") as caught:
        world.catalog()
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    with pytest.raises(ContractError, match="model 'frame-diff' is declared twice"):
        Catalog.load([image_folder("mine", "frame-diff", below=tmp_path / "x")], env={})
    with pytest.raises(ContractError, match="image 'baseline' is declared twice"):
        Catalog.load([image_folder("baseline", "another", below=tmp_path / "y")], env={})


def test_missing_and_empty_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such catalog folder"):
        Catalog.load([tmp_path / "absent"], env={})
    with pytest.raises(ContractError, match="without a card"):
        Catalog.load([tmp_path], env={})


def test_the_checkout_can_be_named(tmp_path: Path) -> None:
    assert (repository({}) / "orchestrator").is_dir()
    with pytest.raises(ContractError, match="LARY_REPO"):
        repository({"LARY_REPO": str(tmp_path)})
    (tmp_path / "images").mkdir()
    (tmp_path / "shared").mkdir()
    assert repository({"LARY_REPO": str(tmp_path)}) == tmp_path
    with pytest.raises(ContractError, match="exactly one image of kind probe"):
        Catalog.load(env={"LARY_REPO": str(tmp_path)}).probe()


def test_a_catalog_cannot_be_changed() -> None:
    catalog = Catalog.load(env={})
    with pytest.raises(dataclasses.FrozenInstanceError):
        catalog.images = ()  # type: ignore[misc]


# --- protocols --------------------------------------------------------------------------------


def test_the_facts_of_lary_v1() -> None:
    card = load_protocol("lary-v1")
    assert (card.select_on, card.class_ids) == ("evaluated", "per-split")
    assert card.classify.optimisers == ((5e-3, 0.01), (3e-3, 0.1), (1e-3, 0.4), (3e-4, 0.8), (1e-4, 0.01))
    assert (card.classify.width, card.classify.depth, card.classify.heads) == (768, 4, 16)
    assert (card.regress.width, card.regress.blocks, card.regress.lr, card.regress.huber_delta) == (4096, 2, 1e-4, 1.0)
    assert card.classify.epochs == card.regress.epochs == 20
    assert card.resolved("classify", (), None, None).seeds == (0,)
    assert card.resolved("regress", (), None, "absolute").seeds == (42,)
    assert card.resolved("regress", (1, 2), None, None).seeds == (1, 2)


def test_clean_differs_from_lary_v1_in_scoring_alone() -> None:
    clean, upstream = load_protocol("clean"), load_protocol("lary-v1")
    assert (clean.select_on, clean.class_ids) == ("holdout", "train")
    assert (clean.streams, upstream.streams) == ("independent", "upstream")
    # `clean` probes the relative target too; each job has one of them.
    assert (clean.regress.both_targets, upstream.regress.both_targets) == (True, False)
    assert clean.classify == upstream.classify
    assert clean.regress.model_copy(update={"both_targets": False}) == upstream.regress


@pytest.mark.parametrize(
    ("protocol", "dataset", "target", "targets"),
    [
        ("clean", "calvin", None, ("absolute", "relative")),
        ("clean", "demo_arm", None, ("absolute", "relative")),
        ("clean", "calvin", "absolute", ("absolute",)),
        ("clean", "calvin", "relative", ("relative",)),
        ("clean", "libero", None, (None,)),
        ("smoke", "demo_arm", None, ("absolute", "relative")),
        ("lary-v1", "calvin", None, ("absolute",)),
        ("lary-v1", "calvin", "relative", ("relative",)),
    ],
)
def test_relative_targets_are_probed_beside_absolute_ones(
    protocol: str, dataset: str, target: Literal["absolute", "relative"] | None, targets: tuple[str | None, ...]
) -> None:
    card = load_protocol(protocol)
    dataset_card = Catalog.load(env={}).dataset(dataset)
    assert card.targets(dataset_card, target) == targets
    kind: Literal["classify", "regress"] = "classify" if targets == (None,) else "regress"
    jobs = [card.resolved(kind, (), None, target) for target in targets]  # type: ignore[arg-type]
    assert not any(job.regress.both_targets for job in jobs)
    if kind == "regress":
        assert tuple(job.regress.target for job in jobs) == targets


def test_a_card_without_relative_or_with_one_step_has_absolute_targets_alone() -> None:
    calvin = Catalog.load(env={}).dataset("calvin").model_dump()
    silent = {name: value for name, value in calvin["actions"].items() if name != "relative"}
    short = calvin["actions"] | {"stride": 1}
    for actions in (silent, short):
        card = DatasetCard.parse(calvin | {"actions": actions}, "card")
        assert load_protocol("clean").targets(card, None) == ("absolute",)


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "key: mine\ntitle: mine\nselect_on: holdout\nclassify: {epochs: 1}\nregress: {epochs: 2}\n"
    path.write_text(text, encoding="utf-8")
    assert load_protocol(str(path)).regress.epochs == 2
    path.write_text(text.replace("key: mine", "key: clean"), encoding="utf-8")
    with pytest.raises(ContractError, match="'clean' is a built-in"):
        load_protocol(str(path))
    with pytest.raises(ContractError, match=r"no protocol 'smok'; there are clean, lary-v1, smoke"):
        load_protocol("smok")
    assert protocol_names() == ["clean", "lary-v1", "smoke", "study"]
