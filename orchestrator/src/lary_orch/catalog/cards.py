"""What there is: images and datasets, found as YAML files. Nothing is imported, built or run."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lary_schema.base import ContractError, unknown_key
from lary_schema.cards import DatasetCard, ImageCard, ModelCard, check_roles, read_yaml
from lary_schema.paths import normalised

from lary_orch.catalog.source import ImageSource

BUILT_IN = Path(__file__).parent / "datasets"
YAML_SUFFIXES = {".yaml", ".yml"}
MARKS = ("images", "shared")
"""Folders that a checkout of the bench holds."""


@dataclass(frozen=True)
class Catalog:
    """The images and datasets of one call, each with the file that declares it."""

    images: tuple[tuple[Path, ImageSource], ...]
    datasets: tuple[tuple[Path, DatasetCard], ...]

    @classmethod
    def load(cls, folders: Sequence[Path] = (), env: Mapping[str, str] = os.environ) -> Self:
        """The checkout's images, the built-in datasets, then `folders` (`--catalog`) and LARY_CATALOG's.

        Raises ContractError naming the file for a card that is not valid, a YAML file that is none, and
        a key that two files declare.
        """
        own = [find for folder in sorted((repository(env) / "images").iterdir()) for find in _image_of(folder)]
        built_in = [_read_loose(file) for file in sorted(BUILT_IN.glob("*.yaml"))]
        further = (find for folder in catalog_folders(folders, env) for find in _read_folder(folder))
        found = [*own, *built_in, *further]
        images = tuple((path, item) for path, item in found if isinstance(item, ImageSource))
        datasets = tuple((path, item) for path, item in found if isinstance(item, DatasetCard))
        _refuse_repeated("image", ((source.card.name, path) for path, source in images))
        _refuse_repeated("model", ((m.key, path) for path, source in images for m in source.card.models))
        _refuse_repeated("dataset", ((card.key, path) for path, card in datasets))
        return cls(images, datasets)

    def models(self) -> Iterator[tuple[ImageSource, ModelCard]]:
        """Every model card with its image; a family of keys is one card."""
        for _, source in self.images:
            yield from ((source, card) for card in source.card.models)

    def image_for(self, model: str) -> ImageSource:
        """The image that serves a model key: one that names it before one whose family fits.

        Raises ContractError with the known keys and the nearest one.
        """
        serving = [(card.pattern is not None, source) for source, card in self.models() if card.serves(model)]
        if not serving:
            raise unknown_key("model", model, [shown_key(card) for _, card in self.models()])
        return min(serving, key=lambda pair: pair[0])[1]

    def model_card(self, model: str) -> ModelCard:
        """The card as the catalog has it: facts of a family's key are only known to its image."""
        card = self.image_for(model).card.card(model)
        assert card is not None
        return card

    def image(self, name: str) -> ImageSource:
        """Raises ContractError with the known names and the nearest one."""
        images = {source.card.name: source for _, source in self.images}
        if name not in images:
            raise unknown_key("image", name, list(images))
        return images[name]

    def dataset(self, key: str) -> DatasetCard:
        """Raises ContractError with the known keys and the nearest one."""
        cards = {card.key: card for _, card in self.datasets}
        if key not in cards:
            raise unknown_key("dataset", key, list(cards))
        return cards[key]

    def probe(self) -> ImageSource:
        """The image that scores latents. Raises ContractError where there is not exactly one."""
        return self._only("probe")

    def tools(self) -> ImageSource:
        """The image of the data tools. Raises ContractError where there is not exactly one."""
        return self._only("tools")

    def _only(self, kind: str) -> ImageSource:
        found = [(path, source) for path, source in self.images if source.card.kind == kind]
        if len(found) != 1:
            files = ", ".join(str(path) for path, _ in found) or "none"
            raise ContractError(f"the catalog needs exactly one image of kind {kind}; found: {files}")
        return found[0][1]


def shown_key(card: ModelCard) -> str:
    """A model's key as people read it: `moto-...` for a family of keys."""
    return card.key if card.pattern is None else f"{card.key.removesuffix('-')}-..."


def repository(env: Mapping[str, str] = os.environ) -> Path:
    """The checkout of the bench: LARY_REPO, else the one this package runs from, else what its wheel holds of it.

    Raises ContractError where neither holds images/ and shared/.
    """
    if given := env.get("LARY_REPO"):
        if not _is_repository(Path(given)):
            raise ContractError(f"LARY_REPO={given}: no checkout of the bench; it has no {' and '.join(MARKS)}")
        return normalised(Path(given))
    here = Path(__file__).resolve().parents
    # A wheel brings the sources along (`hatch_build.py`).
    found = next(filter(_is_repository, (*here, here[1] / "checkout")), None)
    if found is None:
        raise ContractError(
            f"{Path(__file__).parent}: not inside a checkout of the bench, so its images are not found; "
            "install with `pip install -e orchestrator` from a checkout, or name one by LARY_REPO"
        )
    return found


def _is_repository(folder: Path) -> bool:
    return all((folder / mark).is_dir() for mark in MARKS)


def catalog_folders(folders: Sequence[Path], env: Mapping[str, str]) -> list[Path]:
    """`--catalog` folders and those of LARY_CATALOG, each once. Raises ContractError for a missing one."""
    named = [Path(part) for part in env.get("LARY_CATALOG", "").split(os.pathsep) if part]
    wanted = list(dict.fromkeys(normalised(folder) for folder in (*folders, *named)))
    for folder in wanted:
        if not folder.is_dir():
            raise ContractError(f"{folder}: no such catalog folder (--catalog or LARY_CATALOG)")
    return wanted


# --- reading folders --------------------------------------------------------------------------


def _with_evaluated(card: DatasetCard, file: Path) -> DatasetCard:
    """Refuse before any extraction what the probe's job would refuse after it."""
    try:
        check_roles(card.splits.train, card.splits.evaluate)
    except ValueError as error:
        raise ContractError(f"{file}: {error}") from None
    return card


Found = tuple[Path, ImageSource | DatasetCard]


def _read_folder(folder: Path) -> list[Found]:
    """An image's folder, or one that holds image folders and YAML cards."""
    found = _image_of(folder)
    if found:
        return found
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            found += _image_of(entry)
        elif entry.suffix in YAML_SUFFIXES:
            found.append(_read_loose(entry))
    if not found:
        raise ContractError(
            f"{folder}: a catalog folder without a card; it may hold dataset cards (*.yaml), "
            "image cards with ref: (*.yaml), or image folders (NAME/src/PACKAGE/image.yaml)"
        )
    return found


def _image_of(folder: Path) -> list[Found]:
    """The image that is built from a folder, if it is one."""
    return [(file, ImageSource(ImageCard.load(file), folder)) for file in sorted(folder.glob("src/*/image.yaml"))]


def _read_loose(file: Path) -> Found:
    """A YAML card that stands alone: a dataset, or an image by reference."""
    content: Any = read_yaml(file)
    fields = content if isinstance(content, dict) else {}
    if "task" in fields:
        return file, _with_evaluated(DatasetCard.parse(content, str(file)), file).in_file(file)
    if fields.get("kind") in ("model", "probe", "tools", "simulator"):
        card = ImageCard.parse(content, str(file))
        if card.ref is None:
            raise ContractError(f"{file}: an image card outside its image's folder needs ref: (a container image)")
        return file, ImageSource(card, None)
    raise ContractError(
        f"{file}: neither a dataset card (it has no task:) nor an image card (kind: model and ref:); "
        "keep other YAML files out of a catalog folder"
    )


def _refuse_repeated(what: str, declared: Iterable[tuple[str, Path]]) -> None:
    seen: dict[str, Path] = {}
    for key, path in declared:
        if key in seen:
            raise ContractError(f"{what} {key!r} is declared twice, by {seen[key]} and by {path}; rename one of them")
        seen[key] = path
