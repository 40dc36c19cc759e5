"""Recipes and studies as YAML files: the built-in ones, those of `--catalog` folders, and a file by its path."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lary_orch.catalog.cards import catalog_folders
from lary_schema.base import ContractError, unknown_key
from lary_schema.cards import _Card
from lary_schema.training import Recipe

HERE = Path(__file__).parent
SUFFIXES = (".yaml", ".yml")
C = TypeVar("C", bound=_Card)


def load_recipe(name: str, folders: Sequence[Path], env: Mapping[str, str] = os.environ) -> Recipe:
    """By its key, or by the path of its file. Raises ContractError naming the known keys or the file."""
    return load(Recipe, "recipe", name, folders, env)


def load(kind: type[C], what: str, name: str, folders: Sequence[Path], env: Mapping[str, str] = os.environ) -> C:
    """A card of `kind`: by its path, or by its file's name among the built-in ones and those of the folders."""
    path = Path(name)
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise ContractError(f"{path}: no such file")
        return kind.load(path)
    files = card_files(f"{what[:-1]}ies" if what.endswith("y") else f"{what}s", folders, env)
    if name not in files:
        raise unknown_key(what, name, list(files))
    card = kind.load(files[name])
    if getattr(card, "key", name) != name:
        raise ContractError(f"{files[name]}: has key {getattr(card, 'key', None)!r}; a file is named as its key")
    return card


def card_files(kind: str, folders: Sequence[Path], env: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Key -> file: built in, then DIR/KIND and DIR/*/KIND of every catalog folder.

    Raises ContractError for a key that two files have.
    """
    found: dict[str, Path] = {}
    for folder in (HERE, *catalog_folders(folders, env)):
        for file in sorted(path for below in (kind, f"*/{kind}") for path in folder.glob(f"{below}/*")):
            if file.suffix not in SUFFIXES:
                continue
            if file.stem in found:
                raise ContractError(f"{kind}: {file.stem!r} is given twice, by {found[file.stem]} and by {file}")
            found[file.stem] = file
    return found


def changed(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """A recipe with other values: `{"config.codes": 64, "steps": 300}`; a name that is no field of recipes is one of
    its config. Mappings are merged. Raises ContractError for values that do not fit.
    """
    document = recipe.model_dump(mode="json")
    for name, value in changes.items():
        path = name.split(".")
        _set(document, path if path[0] in Recipe.model_fields else ["config", *path], value, where)
    return Recipe.parse(document, where)


def _set(document: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    *parents, last = path
    for part in parents:
        inside = document.setdefault(part, {})
        if not isinstance(inside, dict):
            raise ContractError(f"{where}: {'.'.join(path)}: {part} is {inside!r}, which has nothing below it")
        document = inside
    old = document.get(last)
    document[last] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
