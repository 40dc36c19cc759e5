"""The trainees of this image: entry points of `lary.trainees`, and what planning asks of them. Imports no torch."""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from lary_schema.base import ContractError, file_sha256, fingerprint, unknown_key
from lary_schema.cards import ImageCard, ModelCard, WeightSpec
from lary_schema.trained import CHECKPOINT
from lary_schema.training import KEY_DIGITS, Recipe, TrainValues
from lary_worker import registry
from lary_worker.sources import code_sha256

from lary_trainer.same_bytes import FIRST, SAME_BYTES
from lary_trainer.trainee import Trainee

GROUP = "lary.trainees"
_NO_VALUES = ("__main__.py", "same_bytes.py")


def find_trainee(recipe: Recipe) -> type[Trainee]:
    """The class that a recipe names. Raises ContractError for one that this image does not have."""
    point = _point(recipe.trainee)
    found = point.load()
    if not (isinstance(found, type) and issubclass(found, Trainee)):
        raise ContractError(f"entry point {point.name} = {point.value} is no lary_trainer.Trainee")
    return found


def _point(key: str) -> EntryPoint:
    image = registry.find_image()
    packages = {point.module.partition(".")[0] for point in image.points.values()}
    points = {p.name: p for p in entry_points(group=GROUP) if p.module.partition(".")[0] in packages}
    if key not in points:
        raise unknown_key(f"trainee of image {image.card.name}", key, points or ("none",))
    return points[key]


def model_card(recipe: Recipe) -> ModelCard:
    """The facts of what a recipe trains. Raises ContractError for a recipe that its trainee does not know."""
    card = find_trainee(recipe).card(recipe)
    if card.key != recipe.key:
        raise ContractError(f"recipe {recipe.key}: its trainee gave a card of {card.key!r}; correct its `card`")
    if all(spec.name != CHECKPOINT for spec in card.weights):
        own = WeightSpec(name=CHECKPOINT, path=CHECKPOINT, license=card.license)
        card = card.model_copy(update={"weights": (own, *card.weights)})
    return card


def describe_recipe(path: Path) -> ImageCard:
    """The image's card with one model, the recipe's: `code_sha256` of the model is that of the class that extracts,
    `code_sha256` of the image that of what trains."""
    recipe = _read_recipe(path)
    card = model_card(recipe)
    extracting = registry.code_of(f"{recipe.key}-{'0' * KEY_DIGITS}")
    update = {
        "models": (card.model_copy(update={"code_sha256": extracting}),),
        "libraries": registry.libraries(),
        "code_sha256": training_sha256(recipe),
    }
    return registry.find_image().card.model_copy(update=update)


def _read_recipe(path: Path) -> Recipe:
    return Recipe.load(path) if path.suffix in (".yaml", ".yml") else Recipe.read(path)


def training_sha256(recipe: Recipe) -> str:
    """Hash of the trainee's sources and of this package's, where these are not known to train the same bytes."""
    return fingerprint({"trainee": code_sha256(_point(recipe.trainee).module), "trainer": own_sources()})


def own_sources() -> dict[str, str]:
    """What stands for each file of this package in fingerprints, by name."""
    files = (file for file in sorted(Path(__file__).parent.glob("*.py")) if file.name not in _NO_VALUES)
    hashes = {file.name: file_sha256(file) for file in files}
    return {name: FIRST[name] if sha256 in SAME_BYTES else sha256 for name, sha256 in hashes.items()}


def trained_card(values: TrainValues) -> ModelCard:
    """The card of the very model that a training makes."""
    card = model_card(values.recipe).of_chunks(values.data.actions)
    return card.model_copy(update={"key": values.key, "code_sha256": None})
