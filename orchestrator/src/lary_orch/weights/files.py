"""Weights for people: which file of which model is where, and whether it is what it should be."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.cards import ModelCard, WeightSpec
from lary_schema.files import damage, visible_files

from lary_orch.catalog.cards import Catalog
from lary_orch.weights.index import (
    expected_sha256,
    how_to_get,
    is_needed,
    weight_path,
    weight_sha256,
    weights_at,
    without_own,
)

State = Literal["ok", "unknown", "missing", "bad"]
"""`unknown`: whole as far as can be seen, and no hash to compare with is known."""


@dataclass(frozen=True)
class Weight:
    """One weight of one or more models, and the path where it is looked for."""

    spec: WeightSpec
    path: Path
    models: tuple[str, ...]
    needed: bool = True
    """False: the models do without."""

    @property
    def found(self) -> bool:
        return self.path.exists()

    @property
    def size(self) -> int | None:
        """Bytes on this disk, of all files of a folder; None where it is missing."""
        return sum(file.stat().st_size for file in visible_files(self.path)) if self.found else None

    @property
    def how(self) -> str:
        return how_to_get(self.spec, self.path, self.models[0])


def chosen_cards(catalog: Catalog, models: Sequence[str]) -> dict[str, ModelCard]:
    """Key -> card, of the named models or of all. A family stands by its own key.

    Raises ContractError for an unknown key, and for one of a family: its files follow from the key in a
    way that only its image knows.
    """
    if not models:
        return {card.key: without_own(card) for _, card in catalog.models()}
    cards = {key: catalog.model_card(key) for key in models}
    for key, card in cards.items():
        if key != card.key:
            if not (own := weights_at(card, key)):
                planning = commands.command("plan", "-m", key, "-d", "DATASET")
                raise ContractError(f"{key}: its image knows its files; `{planning}` names them")
            cards[key] = card.model_copy(update={"key": key, "pattern": None, "weights": own})
    return cards


def list_weights(cards: Mapping[str, ModelCard], root: Path, env: Mapping[str, str] = os.environ) -> list[Weight]:
    """The weights of these models; one that several share (the same path and source) is listed once."""
    users: dict[tuple[Path, str | None], tuple[WeightSpec, list[str]]] = {}
    for key, card in cards.items():
        for spec in card.weights:
            path = weight_path(spec, root, env)
            users.setdefault((path, spec.repo or spec.url), (spec, []))[1].append(key)
    return [Weight(spec, path, tuple(keys), is_needed(spec, env)) for (path, _), (spec, keys) in users.items()]


def verify(weight: Weight, cache: Path) -> tuple[State, str]:
    """Look at a weight: is it there, whole, and by its hash the expected one? A sentence says why.

    Reads the whole file for its hash, which is remembered by size and time.
    """
    if not weight.found:
        return "missing", weight.how
    broken = list(problems(weight))
    if broken:
        return "bad", f"{'; '.join(broken)}. Remove it; then {weight.how}"
    sha256 = weight_sha256(weight.path.resolve(), cache)
    expected = expected_sha256(weight.spec, weight.path)
    if expected is None:
        return "unknown", f"sha256 {sha256}; no published hash to compare with"
    if sha256 != expected:
        return "bad", f"sha256 {sha256}, {expected} expected. Remove it; then {weight.how}"
    return "ok", f"sha256 {sha256}"


def problems(weight: Weight) -> Iterator[str]:
    """What is wrong with a weight that is there, as far as can be seen without its hash."""
    if weight.path.is_dir():
        missing = [name for name in weight.spec.files if not (weight.path / name).is_file()]
        if missing:
            yield f"the folder is missing {', '.join(missing)}"
    files = visible_files(weight.path)
    if not files:
        yield "the folder is empty"
    for file in files:
        problem = damage(file)
        if problem:
            yield f"{file.name}: {problem}"


def from_repo(weights: list[Weight], repo: str | None) -> list[Weight]:
    """The same weights from a repository of the caller's. Raises ContractError where a card names another source."""
    named = next(
        (weight.spec.repo or weight.spec.url for weight in weights if weight.spec.repo or weight.spec.url), None
    )
    if repo is None:
        return weights
    if named is not None:
        raise ContractError(f"the card says where these weights come from ({named}); leave out --repo")
    return [replace(one, spec=one.spec.model_copy(update={"repo": repo, "files": ()})) for one in weights]


def fetchable(weights: Sequence[Weight]) -> list[Weight]:
    """Those that are missing and have a repository or an address to come from.

    Raises ContractError where two come from different sources to one path.
    """
    wanted = [weight for weight in weights if not weight.found and (weight.spec.repo or weight.spec.url)]
    located = [weight.path for weight in wanted]
    twice = {str(path) for path in located if located.count(path) > 1}
    if twice:
        raise ContractError(f"{', '.join(sorted(twice))}: two models expect different files here; fetch by hand")
    return wanted
