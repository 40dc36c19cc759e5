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


@pytest.mark.parametrize("card", [card for card in CARDS if "task" in card], ids=lambda card: card["key"])
def test_both_take_it(card: dict[str, Any]) -> None:
    DatasetCard.parse(card, "README")
    jsonschema.validate(card, json.loads((REPO / "shared/schema/schemas/dataset-card.schema.json").read_text()))
