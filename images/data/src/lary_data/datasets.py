"""The datasets that the orchestrator's catalog knows, as it hands them over."""

import os
from collections.abc import Mapping
from pathlib import Path

from lary_schema import commands
from lary_schema.base import ContractError, unknown_key
from lary_schema.datasets import DATASETS_VARIABLE, DatasetFiles, Datasets


def known_datasets(env: Mapping[str, str] = os.environ) -> tuple[DatasetFiles, ...]:
    """All datasets. Raises ContractError where `lary-orch data` is not what called."""
    path = env.get(DATASETS_VARIABLE)
    if not path:
        raise ContractError(
            f"{DATASETS_VARIABLE} is not set; call the tool by `{commands.program()} data`, which sets it"
        )
    return Datasets.read(Path(path)).datasets


def find_dataset(key: str, env: Mapping[str, str] = os.environ) -> DatasetFiles:
    """One dataset's card and files. Raises ContractError for an unknown key, with the nearest one."""
    known = {files.card.key: files for files in known_datasets(env)}
    if key not in known:
        raise unknown_key("dataset", key, known)
    return known[key]
