"""Models that are there to be beaten."""

from collections.abc import Iterable, Sequence

from lary_schema.cards import DatasetCard, ImageCard

BASELINE_MODELS = frozenset({"single-frame"})
"""They stand below the table. A regression of image pairs is probed on them too: one frame may show the target."""


def baselines_of(dataset: DatasetCard, requested: Iterable[str], images: Sequence[ImageCard]) -> list[str]:
    """Keys to plan for a dataset besides those requested, of images that are used anyway: none is made for them."""
    if dataset.task != "regression":
        return []
    found = {key: card for key in BASELINE_MODELS - set(requested) for image in images if (card := image.card(key))}
    return sorted(key for key, card in found.items() if dataset.mode in card.modes)
