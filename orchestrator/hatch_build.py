"""Puts the sources of the built-in images into the wheel, so that it works outside a checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "lary_orch/checkout"
"""Laid out as the repository is: `lary_orch.catalog.cards.repository` finds it there."""
LEFT_OUT = {"tests", "__pycache__", "build", "dist"}
ROOMS = ("images", "shared")
SINGLE = ("VERSION", ".dockerignore")
"""The latter says what the context of the base image holds."""


def sources(root: Path) -> dict[str, str]:
    """File -> its name in the wheel."""
    files = [path for room in ROOMS for path in sorted((root / room).rglob("*")) if path.is_file()]
    inside = {path: path.relative_to(root) for path in (*(root / name for name in SINGLE), *files)}
    return {str(path): f"{TARGET}/{name.as_posix()}" for path, name in inside.items() if _is_source(name)}


def _is_source(name: Path) -> bool:
    hidden = any(part.startswith(".") and part != ".dockerignore" for part in name.parts)
    return not (
        hidden or LEFT_OUT & set(name.parts) or any(part.endswith((".pyc", ".egg-info")) for part in name.parts)
    )


class Hook(BuildHookInterface[Any]):
    """Called by hatchling. An editable install stays in its checkout and needs none of it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root).parent
        if version != "editable" and all((root / room).is_dir() for room in ROOMS):
            build_data["force_include"].update(sources(root))
