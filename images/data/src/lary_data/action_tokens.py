"""The codes that an action tokenizer gives chunks, joined to trajectories: T code numbers of each step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from lary_schema.base import ContractError
from lary_schema.datasets import DatasetFiles
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray

from lary_data.joining import begins, failed_rows, in_episodes, number_of_codes
from lary_data.labels import Arrays, Column, Labels, late_row

TOKEN, TOKEN_VALID, TOKEN_MODEL = "action_token", "action_token_valid", "action_token_model"


@dataclass(frozen=True)
class ActionTokens(Labels):
    """A chunk begins at a step t and holds the actions of t, ..., t + T - 1."""

    ends: Mapping[str, int]
    """By episode, the last step that a row of it names: of a second frame; of rows that are no pairs, of a chunk."""

    sidecar, row = "action_tokens.json", "chunk"
    flag = TOKEN_VALID

    @property
    def steps(self) -> int:
        """T."""
        return self.store.shape[0]

    @property
    def reach(self) -> int:
        return self.steps - 1

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column(TOKEN, "int64", self.steps, (self.steps,)),)

    @property
    def constants(self) -> Arrays:
        return {TOKEN_MODEL: np.array(self.facts["model"])}

    @property
    def facts(self) -> dict[str, Any]:
        values = self.store.provenance.values
        said = {"key": values.model, "variant": values.variant, "tokens": self.steps, "codes": self.codes}
        return {"model": self.fingerprint_with(), **said}

    def length(self, episode: str) -> int:
        return self.ends[episode] + 1

    def read(self, rows: NDArray[np.int64]) -> Arrays:
        return {TOKEN: self.store.indices(rows)[:, :, 0]}

    def refuse_late(self, episode: str, length: int) -> None:
        """A chunk may pass the end, where it is not valid; it cannot begin there."""
        if late := late_row(self, episode, length, 0):
            raise ContractError(
                f"episode {episode}: has {length} steps, row {late.row} begins at step {late.step}; the store is of "
                "another version of this data"
            )


def join_tokens(
    files: DatasetFiles, split: str, store: LatentReader, codes: int | None, step: str | None = None
) -> ActionTokens:
    """Of a store that was extracted over actions. `step` is a column of steps; None: the first frames' names have it.

    Raises ContractError for a store of frames or without a code for each step, and as `begins` and `in_episodes`.
    """
    values, indices, csv = store.provenance.values, store.provenance.layout.indices, files.csv[split]
    if values.mode != "actions" or indices is None or indices != (store.shape[0], 1):
        raise ContractError(
            f"{store.root}: holds no code for each step of a chunk of actions; extract with an action tokenizer"
        )
    rows = list(begins(files, csv, step))
    failed, ends = failed_rows(store), dict[str, int]()
    for row in rows:
        last = row.step + (store.shape[0] - 1 if row.distance is None else row.distance)
        ends[row.episode] = max(last, ends.get(row.episode, 0))
    return ActionTokens(store, in_episodes(csv, rows), failed, number_of_codes(store, failed, codes), ends)
