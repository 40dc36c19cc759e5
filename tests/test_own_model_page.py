"""docs/own-model.md names every field of image.yaml, and no other."""

import re
from pathlib import Path

import pytest
from lary_schema.base import Document
from lary_schema.cards import ImageCard, ModelCard, WeightSpec

PAGE = (Path(__file__).parents[1] / "docs/own-model.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "document"), [("of the image", ImageCard), ("of a model", ModelCard), ("of a weight", WeightSpec)]
)
def test_every_field_stands_there(heading: str, document: type[Document]) -> None:
    table = PAGE.split(f"| {heading} | |")[1].split("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(document.model_fields)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (Path(__file__).parents[1] / "docs" / target).exists(), target
