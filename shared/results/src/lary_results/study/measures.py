"""Held-out measures of the trainings of an arm, as `training.json` has them: means over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lary_schema.training import Measures, TrainResult

TRAIN = "train"
"""Split name of the measures that are means of training steps."""
COLLAPSED = 0.1
"""Perplexity below this share of the codes counts as a collapsed codebook."""


@dataclass(frozen=True)
class Column:
    """How one measure is shown."""

    name: str
    header: str
    digits: int = 3


COLUMNS = (
    Column("rec", "rec", 4),
    Column("copy", "copy", 4),
    Column("shuffled", "shuffled", 4),
    Column("perplexity", "perplexity", 1),
    Column("codes_used", "codes", 0),
    Column("effective_rank", "rank", 1),
    Column("raw_cosine", "cosine", 2),
    Column("centred_cosine", "centred", 2),
    Column("retrieval", "retrieval@1", 3),
    Column("retrieval_chance", "chance", 3),
    Column("flow", "flow", 3),
    Column("flow_permuted", "permuted", 3),
    Column("euler", "Euler MSE", 3),
    Column("mean_action", "mean action", 3),
)
"""Known measures; what else a trainee measures follows under its own name."""


def held_out(result: TrainResult) -> list[Measures]:
    """Measures on held-out rows, by step."""
    return sorted((one for one in result.measured if one.split != TRAIN), key=lambda one: one.step)


def curve(result: TrainResult, name: str, split: str | None = None) -> list[tuple[int, float]]:
    """(step, value) of one measure; `split` None: held out."""
    of = held_out(result) if split is None else [one for one in result.measured if one.split == split]
    values = [(one.step, one.values.get(name)) for one in of]
    return [(step, value) for step, value in values if value is not None and math.isfinite(value)]


def last(result: TrainResult) -> dict[str, float]:
    """The measures of the finished model; empty where nothing was held out."""
    found = held_out(result)
    return {name: value for name, value in found[-1].values.items() if value is not None} if found else {}


def means(results: Sequence[TrainResult]) -> dict[str, float]:
    """Mean over seeds of every measure that all of them have."""
    each = [last(result) for result in results]
    names = [name for name in (each[0] if each else {}) if all(name in one for one in each)]
    return {name: sum(one[name] for one in each) / len(each) for name in names}


def columns(measured: Sequence[dict[str, float]]) -> list[Column]:
    """The columns that some arm has, the known ones first."""
    there = dict.fromkeys(name for one in measured for name in one)
    known = [column for column in COLUMNS if column.name in there]
    names = {column.name for column in known}
    return [*known, *(Column(name, name.replace("_", " ")) for name in there if name not in names)]


def codes(result: TrainResult) -> int | None:
    """Codes of the codebook, where the recipe says so."""
    found = result.values.recipe.config.get("codes")
    return found if isinstance(found, int) else None


def is_collapsed(result: TrainResult) -> bool:
    """Whether few codes are in use: the latent is almost constant, whatever else is measured."""
    size, perplexity = codes(result), last(result).get("perplexity")
    # A network without steps has a codebook that nothing was assigned to.
    return bool(size and perplexity is not None and result.values.recipe.steps and perplexity < COLLAPSED * size)


def labels_seen(results: Sequence[TrainResult]) -> str:
    """`none`, or which kind and of how many rows and groups."""
    if not results:
        return "-"
    one = results[0]
    if one.supervision == "none":
        return "none"
    return f"{one.supervision}: {one.labelled_rows:,} rows of {one.labelled_groups:,} groups"
