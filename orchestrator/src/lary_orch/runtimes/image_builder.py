"""Builds, lists and removes images on an engine (classic builder and BuildKit alike)."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from docker.errors import APIError
from lary_schema import commands
from lary_schema.base import ContractError

from lary_orch.runtimes.base import Notify
from lary_orch.runtimes.docker import engine_errors
from lary_orch.runtimes.images import NAME_LABEL, SOURCE_LABEL, VERSION_LABEL, Built, Recipe

TAIL_LINES = 20
BUILD_TIMEOUT_S = 3600
"""Of silence: a download of CUDA libraries says nothing for minutes."""


@dataclass(frozen=True)
class BuildReport:
    """What a build cost."""

    ref: str
    id: str
    size: int
    seconds: float


def build(client: Any, recipe: Recipe, notify: Notify, *, no_cache: bool = False) -> BuildReport:
    """Build one image; its log goes to `notify`. Raises ContractError with the log's end where it fails."""
    if not recipe.dockerfile.is_file():
        raise ContractError(f"{recipe.dockerfile}: missing, so image {recipe.name} cannot be built")
    started = time.monotonic()
    with engine_errors(f"building {recipe.ref}"):
        steps = client.api.build(
            path=str(recipe.context),
            dockerfile=str(recipe.dockerfile),
            tag=recipe.ref,
            buildargs=recipe.arguments,
            labels=recipe.labels,
            rm=True,
            forcerm=True,
            nocache=no_cache,
            timeout=BUILD_TIMEOUT_S,
            decode=True,
        )
        _follow(recipe, steps, notify)
        image = client.images.get(recipe.ref)
    return BuildReport(recipe.ref, image.id, image.attrs["Size"], time.monotonic() - started)


def _follow(recipe: Recipe, steps: Iterable[dict[str, Any]], notify: Notify) -> None:
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    for step in steps:
        for line in str(step.get("stream", "")).splitlines():
            if line.strip():
                tail.append(line)
                notify(line)
        if "error" in step:
            raise ContractError(
                f"image {recipe.ref} cannot be built from {recipe.dockerfile}: {step['error']}\n"
                + "\n".join(f"    | {line}" for line in tail)
                + _hint(str(step["error"]))
            )


def _hint(error: str) -> str:
    if "not found" in error or "pull access denied" in error or "Client.Timeout" in error or "dial tcp" in error:
        return (
            "\nThe parent image cannot be fetched: "
            f"`{commands.command('images', 'build', 'base', '--base-image', 'IMAGE')}` takes another"
        )
    return ""


def built(client: Any) -> list[Built]:
    """All images that `build` made on this engine, those without a tag too."""
    with engine_errors("listing images"):
        found = client.images.list(filters={"label": NAME_LABEL})
    return [_built(image) for image in found]


def _built(image: Any) -> Built:
    labels = image.labels
    return Built(
        id=image.id,
        tags=tuple(image.tags),
        name=labels[NAME_LABEL],
        version=labels.get(VERSION_LABEL, "?"),
        source=labels.get(SOURCE_LABEL, "?"),
        size=image.attrs["Size"],
    )


def prune(client: Any) -> Iterator[tuple[Built, str]]:
    """Remove our old images; each with what became of it. Children go before the parents that hold them."""
    for image in sorted(built(client), key=lambda image: image.size, reverse=True):
        if image.is_old:
            yield image, _remove(client, image)


def _remove(client: Any, image: Built) -> str:
    with engine_errors(f"removing {image.id}"):
        try:
            for name in image.tags or (image.id,):
                client.images.remove(name)
        except APIError as error:
            # Another image or a container needs it.
            if error.status_code != HTTPStatus.CONFLICT:
                raise
            return f"kept ({error.explanation})"
    return "removed"
