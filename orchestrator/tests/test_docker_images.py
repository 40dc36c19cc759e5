"""Which images are built, from what, in which order. Needs no engine."""

import shlex
from dataclasses import replace
from pathlib import Path

import lary_orch
import pytest
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.images import (
    TORCH_LABEL,
    Built,
    Recipes,
    choose,
    how_to_get,
    ordered,
    reference,
    sources_of,
    state,
    tag,
)
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard

VERSION = lary_orch.__version__


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    _write(
        root,
        {
            ".dockerignore": "# what the base needs\n*\n!shared\n**/__pycache__\n",
            "images/base/Dockerfile": "FROM scratch\n",
            "images/toy/Dockerfile": "FROM base\n",
            "images/toy/.dockerignore": "*\n!src\n",
            "images/toy/src/lary_toy/image.yaml": "name: toy\nkind: model\nmodule: lary_worker\n",
            "shared/worker.py": "pass\n",
        },
    )
    return root


@pytest.fixture
def toy(checkout: Path) -> ImageSource:
    return ImageSource(ImageCard(name="toy", kind="model", module="lary_worker"), checkout / "images/toy")


@pytest.fixture
def catalog(checkout: Path, toy: ImageSource) -> Catalog:
    fetched = ImageSource(ImageCard(name="far", kind="model", module="far", ref="there/far:1"), None)
    return Catalog(((checkout / "toy.yaml", toy), (checkout / "far.yaml", fetched)), ())


def test_names_carry_the_version_and_never_latest(toy: ImageSource, catalog: Catalog) -> None:
    assert reference(toy.card) == tag("toy") == f"lary/toy:{VERSION}"
    assert reference(catalog.images[1][1].card) == "there/far:1"


def test_how_to_get_an_image(toy: ImageSource, catalog: Catalog, tmp_path: Path) -> None:
    assert how_to_get(toy) == "lary-orch images build toy"
    mine = shlex.quote(f"{tmp_path}/mine")
    assert how_to_get(replace(toy, folder=tmp_path / "mine")) == f"lary-orch images build --catalog {mine} toy"
    assert how_to_get(catalog.images[1][1]) == "docker pull there/far:1"


def test_the_base_comes_first_from_the_root_and_the_others_from_their_folders(checkout: Path, catalog: Catalog) -> None:
    base, toy = choose(catalog, (), Recipes(checkout), "debian:12")
    assert (base.ref, base.context, base.arguments) == (f"lary/base:{VERSION}", checkout, {"BASE_IMAGE": "debian:12"})
    assert (toy.context, toy.arguments) == (checkout / "images/toy", {"BASE": f"lary/base:{VERSION}"})


def test_a_named_image_leaves_the_base_alone(checkout: Path, catalog: Catalog) -> None:
    """It may have been built on another base image than this call knows of."""
    names = [
        [recipe.name for recipe in choose(catalog, given, Recipes(checkout), None)] for given in (["toy"], ["base"])
    ]
    assert names == [["toy"], ["base"]]
    assert choose(catalog, ["base"], Recipes(checkout), None)[0].arguments == {}


@pytest.mark.parametrize(
    ("parent", "torch", "arguments"),
    [
        (None, "cpu", ("python:3.12-slim", "https://download.pytorch.org/whl/cpu")),
        (None, "cu126", ("nvidia/cuda:12.6.3-base-ubuntu24.04", "https://download.pytorch.org/whl/cu126")),
        ("mine:1", "cu126", ("mine:1", "https://download.pytorch.org/whl/cu126")),
        ("mine:1", "cu130", ("mine:1", "https://download.pytorch.org/whl/cu130")),
        ("mine:1", "https://mirror/whl", ("mine:1", "https://mirror/whl")),
    ],
)
def test_another_build_of_torch(
    parent: str | None, torch: str, arguments: tuple[str, str], checkout: Path, catalog: Catalog
) -> None:
    for names in ([], ["base"], ["toy"]):
        base, *rest = choose(catalog, names, Recipes(checkout), parent, torch)
        assert base.arguments == dict(zip(("BASE_IMAGE", "TORCH_INDEX"), arguments, strict=True))
        # The others inherit it.
        assert base.labels[TORCH_LABEL] == arguments[1]
        assert [recipe.name for recipe in rest] == ([] if names == ["base"] else ["toy"])
    assert TORCH_LABEL not in choose(catalog, ["base"], Recipes(checkout), parent)[0].labels


@pytest.mark.parametrize("torch", ["cu118", "https://mirror/whl"])
def test_a_build_of_torch_needs_a_parent(torch: str, checkout: Path, catalog: Catalog) -> None:
    with pytest.raises(ContractError, match=f"--torch {torch}: give its parent by --base-image"):
        choose(catalog, (), Recipes(checkout), None, torch)


def test_unknown_names_and_what_cannot_be_built(checkout: Path, catalog: Catalog, tmp_path: Path) -> None:
    recipes = Recipes(checkout)
    with pytest.raises(ContractError, match="no image tyo; known: base, toy"):
        choose(catalog, ["tyo"], recipes, None)
    with pytest.raises(ContractError, match="docker pull there/far:1"):
        recipes.of(catalog.images[1][1])
    with pytest.raises(ContractError, match="'base' is the name of the common parent"):
        recipes.of(ImageSource(ImageCard(name="base", kind="model", module="x"), tmp_path))


@pytest.mark.parametrize(
    ("file", "moves"),
    [
        ("images/toy/src/lary_toy/model.py", {"toy"}),
        ("images/toy/Dockerfile", {"toy"}),
        ("shared/worker.py", {"base", "toy"}),
        ("images/base/Dockerfile", {"base", "toy"}),
        ("images/toy/tests/test_toy.py", set()),
        ("shared/__pycache__/worker.pyc", set()),
        ("README.md", set()),
    ],
)
def test_a_source_hash_moves_with_what_goes_in(checkout: Path, catalog: Catalog, file: str, moves: set[str]) -> None:
    before = sources_of(catalog, Recipes(checkout))
    _write(checkout, {file: "something else\n"})
    after = sources_of(catalog, Recipes(checkout))
    assert {name for name in before if before[name] != after[name]} == moves


def test_a_folder_without_dockerignore_counts_no_caches(toy: ImageSource, checkout: Path) -> None:
    assert toy.folder is not None
    (toy.folder / ".dockerignore").unlink()
    before = Recipes(checkout).source(toy)
    _write(toy.folder, {"src/lary_toy/__pycache__/model.pyc": "x", "tests/test_toy.py": "x", ".git/HEAD": "x"})
    assert Recipes(checkout).source(toy) == before


def test_states_of_built_images() -> None:
    built = Built("sha256:1", (tag("toy"),), "toy", VERSION, "abc", 1)
    sources = {"toy": "abc"}
    assert state(built, sources) == "current"
    assert state(built, {"toy": "abd"}) == "stale: sources changed"
    assert state(built, {}) == "not in the catalog"
    assert state(replace(built, tags=()), sources) == "old"
    assert state(replace(built, version="0.0.0"), sources) == "old"
    assert [b.name for b in ordered([built, replace(built, name="base")])] == ["base", "toy"]
