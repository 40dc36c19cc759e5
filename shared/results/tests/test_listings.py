"""`models KEY`: whose facts are shown."""

import pytest
from lary_results.listings import model_facts, model_page
from lary_schema.cards import ModelCard
from lary_terminal.tables import plain


@pytest.mark.parametrize("family", [True, False])
def test_facts_of_an_example_are_said_to_be_those(family: bool) -> None:
    pattern = {"pattern": "hf-.*", "example": "hf-example"} if family else {}
    card = ModelCard.model_validate(
        {
            "key": "hf-", "title": "t", "paradigm": "semantic", "preprocessing": "p", "license": "l", "source": "s",
            "revision": 1,
            "modes": {"image": {"input": {"shape": (2, 8, 8, 3)}, "tokens": (2, 4, 3)}}, "variants": ("corrected",),
        } | pattern
    )  # fmt: skip
    record = {**model_facts(card), "name": "hf-mine", "image": "hf", "weights": [], "card": "c"}
    lines = dict(model_page(record).rows)
    for name in ("tokens", "input", "variants", "preprocessing"):
        assert lines[name].endswith(" (of hf-example, as an example)") == family
    assert ("plan -m hf-mine" in lines.get("keys", "")) == family
    assert "example" not in plain(model_page(record)) or family
