"""Container images: which there are, from what they are built, in which order. Imports docker when it builds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lary_schema import commands
from lary_schema.base import CONTRACT_VERSION, ContractError, file_sha256, fingerprint
from lary_schema.cards import ImageCard

import lary_orch
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.source import ImageSource

BASE = "base"
NAME_LABEL, VERSION_LABEL, SOURCE_LABEL, CONTRACT_LABEL = "lary.image", "lary.version", "lary.source", "lary.contract"
TORCH_LABEL = "lary.torch"
TORCH_INDEX = "https://download.pytorch.org/whl/"
PARENTS = {
    "cpu": "python:3.12-slim",
    "cu126": "nvidia/cuda:12.6.3-base-ubuntu24.04",
    "cu128": "nvidia/cuda:12.8.1-base-ubuntu24.04",
}
"""By build of torch: NVIDIA's images refuse to start on a driver that is older than their own CUDA."""
NEVER_SOURCE = ("**/__pycache__", "**/*.egg-info", "**/.*", "tests")
"""What changes nothing in an image, where its folder has no .dockerignore that says so."""


def reference(card: ImageCard) -> str:
    """What an image is called on an engine: its own reference, or the name that `images build` gives it."""
    return card.ref or tag(card.name)


def tag(name: str) -> str:
    return f"lary/{name}:{lary_orch.__version__}"


def how_to_get(image: ImageSource) -> str:
    """The command that brings an image onto this machine."""
    if image.folder is None:
        return commands.joined(["docker", "pull", reference(image.card)])
    # Images of the checkout are known without --catalog.
    known = (image.folder.parent / BASE / "Dockerfile").is_file()
    catalog = () if known else ("--catalog", str(image.folder))
    return commands.command("images", "build", *catalog, image.card.name)


@dataclass(frozen=True)
class Recipe:
    """How one image is built."""

    name: str
    context: Path
    dockerfile: Path
    arguments: dict[str, str]
    source: str
    """Hash of all files that go in, its parent's included."""

    @property
    def ref(self) -> str:
        return tag(self.name)

    @property
    def labels(self) -> dict[str, str]:
        """What `ls`, `prune` and the docker runtime know an image by."""
        return {
            NAME_LABEL: self.name,
            VERSION_LABEL: lary_orch.__version__,
            SOURCE_LABEL: self.source,
            CONTRACT_LABEL: str(CONTRACT_VERSION),
            **({TORCH_LABEL: self.arguments["TORCH_INDEX"]} if "TORCH_INDEX" in self.arguments else {}),
            "org.opencontainers.image.title": self.ref,
            "org.opencontainers.image.version": lary_orch.__version__,
        }


class Recipes:
    """The recipes of a checkout: the base from its root, every other image from its own folder alone."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        self._base_source: str | None = None

    def base(self, base_image: str | None, torch: str | None = None) -> Recipe:
        """The parent of all others. None leaves the Dockerfile's own choice."""
        arguments = base_arguments(base_image, torch)
        return Recipe(BASE, self._checkout, self._checkout / "images/base/Dockerfile", arguments, self._base())

    def of(self, image: ImageSource) -> Recipe:
        """Raises ContractError for an image that is not built here."""
        if image.folder is None:
            raise ContractError(f"image {image.card.name} is not built, but fetched: `{how_to_get(image)}`")
        if image.card.name == BASE:
            raise ContractError(f"{image.folder}: {BASE!r} is the name of the common parent; take another one")
        dockerfile = image.folder / "Dockerfile"
        return Recipe(image.card.name, image.folder, dockerfile, {"BASE": tag(BASE)}, self.source(image))

    def source(self, image: ImageSource) -> str:
        """Hash of what an image is built from: its context's files and the base's."""
        assert image.folder is not None
        return fingerprint([self._base(), _files(image.folder)])

    def _base(self) -> str:
        if self._base_source is None:
            dockerfile = file_sha256(self._checkout / "images/base/Dockerfile")
            self._base_source = fingerprint([dockerfile, _files(self._checkout)])
        return self._base_source


def base_arguments(base_image: str | None, torch: str | None) -> dict[str, str]:
    """The build arguments of the base. `torch` is a build of PyTorch's index (cu126), or the URL of an index.

    Raises ContractError for a build without a parent that is known.
    """
    parent = base_image or (PARENTS.get(torch) if torch else None)
    arguments = {"BASE_IMAGE": parent} if parent else {}
    if not torch:
        return arguments
    if parent is None:
        raise ContractError(
            f"--torch {torch}: give its parent by --base-image, with Python 3.11 or newer and a CUDA that the driver "
            f"knows; {', '.join(PARENTS)} have one"
        )
    return arguments | {"TORCH_INDEX": torch if "://" in torch else TORCH_INDEX + torch}


def _files(context: Path) -> dict[str, str]:
    """Relative path -> sha256 of all that a build gets to see."""
    from docker.utils.build import exclude_paths

    ignore = context / ".dockerignore"
    patterns = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else NEVER_SOURCE
    kept = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
    # The Dockerfile of the base is hashed by its own path: `exclude_paths` always keeps one at the root.
    paths = sorted(path for path in exclude_paths(str(context), kept) if (context / path).is_file())
    return {path: file_sha256(context / path) for path in paths}


def choose(
    catalog: Catalog, names: Sequence[str], recipes: Recipes, base_image: str | None, torch: str | None = None
) -> list[Recipe]:
    """The recipes of the named images, or of all, the base first.

    The base is left out where names are given and it is not among them: it may have been built on another
    `base_image` or `torch` than this call knows of. Raises ContractError for an unknown name.
    """
    known = {source.card.name: source for _, source in catalog.images if source.folder is not None}
    unknown = set(names) - {BASE, *known}
    if unknown:
        raise ContractError(f"no image {', '.join(sorted(unknown))}; known: {', '.join([BASE, *sorted(known)])}")
    wanted = [known[name] for name in dict.fromkeys(names or sorted(known)) if name != BASE]
    wants_base = not names or BASE in names or base_image or torch
    first = [recipes.base(base_image, torch)] if wants_base else []
    return [*first, *map(recipes.of, wanted)]


@dataclass(frozen=True)
class Built:
    """An image of ours on the engine."""

    id: str
    tags: tuple[str, ...]
    name: str
    version: str
    source: str
    size: int

    @property
    def is_old(self) -> bool:
        """Replaced by a newer build, or of another version of the bench."""
        return not self.tags or self.version != lary_orch.__version__


def state(built: Built, sources: dict[str, str]) -> str:
    """How an image stands to the sources; `sources` are the hashes of today, by name."""
    if built.is_old:
        return "old"
    if built.name not in sources:
        return "not in the catalog"
    return "current" if built.source == sources[built.name] else "stale: sources changed"


def sources_of(catalog: Catalog, recipes: Recipes) -> dict[str, str]:
    """Name -> hash of the sources of all images that are built from a folder."""
    chosen = choose(catalog, (), recipes, None)
    return {recipe.name: recipe.source for recipe in chosen}


def ordered(images: Iterable[Built]) -> Iterator[Built]:
    """By name, the base first."""
    yield from sorted(images, key=lambda built: (built.name != BASE, built.name, built.tags))
