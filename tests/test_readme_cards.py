"""The README's dataset cards are cards, by our own reader and by the JSON Schema that editors use."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from lary_schema.cards import DatasetCard

REPO = Path(__file__).parents[1]
CARDS = [
    yaml.safe_load(text)
    for page in ("README.md", "docs/own-data.md")
    for text in re.findall(r"^```yaml[^\n]*\n(.*?)^```$", (REPO / page).read_text(encoding="utf-8"), re.M | re.S)
]


def test_one_of_each_task() -> None:
    assert {card["task"] for card in CARDS if "task" in card} == {"classification", "regression"}


BUILT_IN = {
    "dataset-card": "orchestrator/src/lary_orch/catalog/datasets/*.yaml",
    "protocol-card": "orchestrator/src/lary_orch/catalog/protocols/*.yaml",
    "image-card": "images/*/src/*/image.yaml",
}


@pytest.mark.parametrize(("name", "pattern"), BUILT_IN.items(), ids=BUILT_IN)
def test_every_card_of_ours_fits_its_schema(name: str, pattern: str) -> None:
    schema = json.loads((REPO / f"shared/schema/schemas/{name}.schema.json").read_text())
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in REPO.glob(pattern)]
    assert len(found) > 2
    for card in found:
        jsonschema.validate(card, schema)


@pytest.mark.parametrize("card", [card for card in CARDS if "task" in card], ids=lambda card: card["key"])
def test_both_take_it(card: dict[str, Any]) -> None:
    DatasetCard.parse(card, "README")
    jsonschema.validate(card, json.loads((REPO / "shared/schema/schemas/dataset-card.schema.json").read_text()))
