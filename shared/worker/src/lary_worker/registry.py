"""The models of this image: entry points of `lary.models`, with their cards from `image.yaml`."""

import importlib.resources
import os
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import NamedTuple

from lary_schema.base import ContractError
from lary_schema.cards import ImageCard, Mode, ModelCard
from lary_schema.yaml_files import parse_yaml

from lary_worker.model import Model
from lary_worker.sources import code_sha256

GROUP = "lary.models"
IMAGE_VARIABLE = "LARY_IMAGE"
_LIBRARIES = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "av": ("av",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "pillow": ("pillow",),
    "zarr": ("zarr",),
    "transformers": ("transformers",),
    "diffusers": ("diffusers",),
    "decord": ("decord",),
}
"""Name in the card -> distributions that may carry it."""


class Image(NamedTuple):
    """An image's card and the entry point of each of its cards' keys."""

    card: ImageCard
    points: dict[str, EntryPoint]


@cache
def find_image() -> Image:
    """The image of this interpreter; LARY_IMAGE says which where several are installed.

    Raises ContractError where there is none, several and no choice, or one that contradicts itself.
    """
    images = _installed()
    wanted = os.environ.get(IMAGE_VARIABLE)
    if wanted:
        images = {name: image for name, image in images.items() if name == wanted}
    if len(images) == 1:
        return next(iter(images.values()))
    found = ", ".join(sorted(_installed())) or "none"
    hint = f"image {wanted!r} is not installed here" if wanted else f"set {IMAGE_VARIABLE} to one of the images"
    raise ContractError(f"{hint}; found: {found}")


def _installed() -> dict[str, Image]:
    packages: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        packages.setdefault(point.module.partition(".")[0], {})[point.name] = point
    images = [_read(package, points) for package, points in packages.items()]
    return {image.card.name: image for image in images}


def _read(package: str, points: dict[str, EntryPoint]) -> Image:
    where = f"{package}/image.yaml"
    try:
        text = (importlib.resources.files(package) / "image.yaml").read_text(encoding="utf-8")
    except (OSError, ModuleNotFoundError):
        raise ContractError(f"{where}: missing; the package has entry points of {GROUP}, so it needs one") from None
    card = ImageCard.parse(parse_yaml(text, where), where)
    keys = {model.key for model in card.models}
    if keys != set(points):
        raise ContractError(
            f"{where}: keys and entry points of {GROUP} differ: "
            f"without a class {sorted(keys - set(points))}, without a card {sorted(set(points) - keys)}"
        )
    return Image(card, points)


def find_card(key: str) -> ModelCard:
    """The facts of a model key, resolved where a family serves it. Raises ContractError for an unknown key."""
    return find_class(key).resolve(_declared(key), key)


def find_class(key: str) -> type[Model]:
    """The class that serves a model key."""
    return _load_class(find_image().points[_declared(key).key])


def _declared(key: str) -> ModelCard:
    card = find_image().card
    found = card.card(key)
    if found is None:
        served = ", ".join(m.key if m.pattern is None else f"{m.key} ({m.pattern})" for m in card.models)
        raise ContractError(f"image {card.name} has no model {key!r}; it serves {served}")
    return found


def make_model(key: str, mode: Mode, variant: str) -> Model:
    """A model without its network."""
    return find_class(key)(find_card(key), mode, variant)


def _load_class(point: EntryPoint) -> type[Model]:
    model = point.load()
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise ContractError(f"entry point {point.name} = {point.value} is no lary_worker.Model")
    return model


def describe(key: str | None = None) -> ImageCard:
    """The image's card with source hashes and library versions; with `key`, resolved for that model alone."""
    image = find_image().card
    if key is None:
        hashed = tuple(_hashed(card, card.key) for card in image.models)
    else:
        hashed = (_hashed(find_card(key), _declared(key).key),)
    return image.model_copy(update={"models": hashed, "libraries": libraries()})


def _hashed(card: ModelCard, point: str) -> ModelCard:
    return card.model_copy(update={"code_sha256": code_sha256(find_image().points[point].module)})


def code_of(key: str) -> str:
    """The source hash of the class that serves a model key."""
    return code_sha256(find_image().points[_declared(key).key].module)


def libraries() -> dict[str, str]:
    """Versions of the installed libraries that can move a value. Imports none of them."""
    return {name: found for name, candidates in _LIBRARIES.items() if (found := _version(candidates))}


def _version(candidates: tuple[str, ...]) -> str | None:
    for name in candidates:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
