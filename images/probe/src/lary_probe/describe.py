"""What the image says of itself. Imports no torch."""

import platform
from importlib.metadata import version
from pathlib import Path

from lary_schema.base import file_sha256, fingerprint
from lary_schema.cards import ImageCard

LIBRARIES = ("accelerate", "numpy", "safetensors", "tensorstore", "torch")


def libraries() -> dict[str, str]:
    """Installed versions of what can move a score, and Python's."""
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def code_sha256() -> str:
    """Fingerprint of the names and sha256 of this package's .py files."""
    folder = Path(__file__).parent
    return fingerprint({path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*.py")})


def image_card() -> ImageCard:
    """`image.yaml` with the installed versions and the hash of the sources filled in."""
    card = ImageCard.load(Path(__file__).with_name("image.yaml"))
    return card.model_copy(update={"libraries": libraries(), "code_sha256": code_sha256()})
