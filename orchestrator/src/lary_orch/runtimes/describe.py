"""What an image says of itself, queried once per state of the image."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from lary_schema.atomic import publish_text
from lary_schema.base import ContractError, fingerprint
from lary_schema.cards import ImageCard, ModelCard
from lary_schema.files import file_state, visible_files
from lary_schema.jobs import minor_versions
from lary_schema.trained import CHECKPOINT
from lary_schema.training import Recipe

from lary_orch.cache import remembered
from lary_orch.runtimes.base import Folder, Runtime
from lary_orch.runtimes.jobs import Prepared
from lary_orch.runtimes.refusals import tried_again


def describe(runtime: Runtime, prepared: Prepared, key: str, cache: Path) -> ModelCard:
    """The resolved facts of one model key. Raises ContractError where the reply breaks the contract."""
    return describe_model(runtime, prepared, key, cache)[0]


def describe_model(
    runtime: Runtime, prepared: Prepared, key: str, cache: Path, weights: Path | None = None
) -> tuple[ModelCard, dict[str, str] | None]:
    """As `describe`, and the versions that are part of the fingerprint; None where the image names none.

    `weights` is the folder of a model whose facts lie in it: the image gets to see it.
    """
    card = _describe(runtime, prepared, cache, "--model", key, weights=weights)
    return _one_model(card, f"describe --model {key} of image {prepared.ref}")


def describe_recipe(
    runtime: Runtime, prepared: Prepared, recipe: Recipe, cache: Path
) -> tuple[ModelCard, str, dict[str, str] | None]:
    """The facts of the model that a recipe trains, the hash of what trains it, and the versions as above.

    Raises ContractError as above, and for a recipe that the image refuses.
    """
    where = f"describe --recipe of image {prepared.ref}"
    document = recipe.to_json()
    key = [runtime.name, prepared.source.card.name, prepared.identity, document]
    query = partial(_query_recipe, runtime, prepared, document, cache)
    reply = remembered(cache, "describe", key, lambda: _json(query(), where))
    card = ImageCard.parse(reply, where)
    if card.code_sha256 is None:
        raise ContractError(f"{where}: no code_sha256, so its checkpoints could be those of any code")
    model, libraries = _one_model(card, where)
    # The checkpoint itself is no file to look for: whoever plans knows its folder.
    others = tuple(weight for weight in model.weights if weight.name != CHECKPOINT)
    return model.model_copy(update={"weights": others}), card.code_sha256, libraries


def _query_recipe(runtime: Runtime, prepared: Prepared, document: str, cache: Path) -> str:
    file = cache / "recipes" / f"{fingerprint(document)[:32]}.json"
    publish_text(file, document)
    folder = Folder(file.absolute(), f"/recipe/{file.name}")
    path = folder.target if runtime.isolates else str(folder.source)
    return tried_again(lambda: runtime.query(prepared, "describe", "--recipe", path, folders=(folder,)))


def _one_model(card: ImageCard, where: str) -> tuple[ModelCard, dict[str, str] | None]:
    if len(card.models) != 1:
        raise ContractError(f"{where}: {len(card.models)} models in the reply, one expected")
    if card.models[0].code_sha256 is None:
        raise ContractError(f"{where}: no code_sha256, so its latents could be those of any code")
    return card.models[0], minor_versions(card.libraries) or None


def describe_probe(runtime: Runtime, prepared: Prepared, cache: Path) -> str:
    """sha256 of the probe image's sources."""
    code = _describe(runtime, prepared, cache).code_sha256
    if code is None:
        raise ContractError(f"describe of image {prepared.ref}: no code_sha256, so its scores could not be traced")
    return code


def _describe(
    runtime: Runtime, prepared: Prepared, cache: Path, *arguments: str, weights: Path | None = None
) -> ImageCard:
    where = f"describe of image {prepared.ref}"
    key: list[Any] = [runtime.name, prepared.source.card.name, prepared.identity, *arguments]
    query = partial(runtime.query, prepared, "describe", *arguments)
    if weights is not None:
        folder = Folder(weights.resolve(), f"/weights/{weights.name}")
        root = "/weights" if runtime.isolates else str(weights.parent)
        query = partial(runtime.query, prepared, "describe", *arguments, "--weights", root, folders=(folder,))
        key += [file_state(file) for file in visible_files(weights)]
    reply = remembered(cache, "describe", key, lambda: _json(tried_again(query), where))
    return ImageCard.parse(reply, where)


def parse_card(text: str, where: str) -> ImageCard:
    """The reply of `describe`. Raises ContractError where it is none."""
    return ImageCard.parse(_json(text, where), where)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ContractError(f"{where}: the reply is not JSON ({error}): {text[:200]!r}") from None
