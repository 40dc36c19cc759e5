"""An image as the catalog found it."""

from dataclasses import dataclass
from pathlib import Path

from lary_schema.cards import ImageCard


@dataclass(frozen=True)
class ImageSource:
    """An image's card, and the folder that it is built from (None: by reference)."""

    card: ImageCard
    folder: Path | None
