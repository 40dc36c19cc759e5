"""Cards that a tool writes and people may edit: what was edited is never overwritten."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import yaml
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_schema.datasets import DATASETS_VARIABLE
from lary_schema.json_schemas import documents

from lary_data.datasets import known_datasets

SCHEMA = "dataset-card.schema.json"
HEADER = f"# yaml-language-server: $schema={SCHEMA}\n"
"""Editors (VS Code's YAML extension, and what uses yaml-language-server) check and complete by it."""
MARK = "# Written by `data manifest`. Edit it freely: it is then never overwritten. sha256 of the lines above: "


def card_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.yaml"


def write_card(folder: Path, card: DatasetCard) -> Path:
    """The card as YAML, with what differs from the defaults, and the JSON Schema that its first line names.

    Raises ContractError for a card there that was edited.
    """
    path = card_path(folder, card.key)
    _refuse_edited(path)
    fields = card.model_dump(mode="json", exclude_defaults=True)
    # A union is resolved by its tag, which is a default.
    fields["columns"]["input"] = card.columns.input
    text = HEADER + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    publish_text(folder / SCHEMA, documents()[SCHEMA])
    publish_text(path, f"{text}{MARK}{_sha256(text)}\n")
    return path


def check_key(folder: Path, key: str, env: Mapping[str, str] = os.environ) -> None:
    """Before anything is made. Raises ContractError for the key of another dataset of the catalog, and where the
    folder holds a card of that key that was edited.
    """
    path = card_path(folder, key)
    _refuse_edited(path)
    known = {files.card.key: files.card for files in known_datasets(env)} if DATASETS_VARIABLE in env else {}
    if key in known and not (path.is_file() and _is(known[key], path)):
        raise ContractError(f"--key {key}: the catalog has a dataset of that key already; choose another")


def _is(card: DatasetCard, path: Path) -> bool:
    """Whether the catalog has this very card, and no other one of the key."""
    own = DatasetCard.parse(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    return own.model_copy(update={"root": card.root}) == card


def _refuse_edited(path: Path) -> None:
    if path.is_file() and not is_untouched(path.read_bytes().decode("utf-8", "replace")):
        raise ContractError(
            f"{path}: this card was edited, or written by something else, and is not overwritten. Go on with it as it "
            "is, or move it away and call again, or choose another --out or --key"
        )


def is_untouched(text: str) -> bool:
    """Whether a card's text is as a tool wrote it."""
    above, mark, sha256 = text.rpartition(MARK)
    return bool(mark) and sha256.strip() == _sha256(above)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
