"""The paper's averages over datasets: shown where a model has every member."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lary_results.published import PRINTED_STEP, published, tables
from lary_results.scores import Score

TITLES = {"average_3": "average of 3 tasks", "average_2": "average of 2 tasks", "average": "average of 4 sets"}
"""By the name in the paper's tables."""
METRICS = {"average_3": "top1", "average_2": "top1", "average": "mse"}
SEEN = ("val", "seen_val")
UNSEEN = ("val", "unseen")


@dataclass(frozen=True)
class Average:
    """A model's mean over the member datasets of one of the paper's averages."""

    name: str
    title: str
    metric: str
    value: float
    published: float | None
    """As printed; only where every member is comparable."""
    differences: tuple[str, ...]
    """Of all members."""


def averages(scores: Sequence[Score]) -> list[Average]:
    """Those that one model's scores (one protocol, one variant, no controls) are complete for."""
    found = {(s.dataset, s.split): s for s in scores if not s.probe}
    made = [_average(name, title, splits, found) for name, title, splits in _wanted()]
    return [average for average in made if average is not None]


def _wanted() -> Iterable[tuple[str, str, tuple[str, ...]]]:
    """An average with a seen and an unseen split among its members is made of each."""
    unnamed = set(tables()["split_not_named"])
    for name, title in TITLES.items():
        if unnamed & set(tables()["averages"][name]):
            yield name, f"{title}, seen", SEEN
            yield name, f"{title}, unseen", UNSEEN
        else:
            yield name, title, SEEN


def _average(name: str, title: str, splits: tuple[str, ...], found: Mapping[tuple[str, str], Score]) -> Average | None:
    datasets = tables()["averages"][name]
    scored = [[found[dataset, split] for split in splits if (dataset, split) in found] for dataset in datasets]
    if not all(scored):
        return None
    members = [scores[0] for scores in scored]
    differences = tuple(dict.fromkeys(reason for member in members for reason in member.differences))
    return Average(
        name=name,
        title=title,
        metric=METRICS[name],
        value=sum(member.value for member in members) / len(members),
        published=None if differences else published(METRICS[name], members[0].model, name),
        differences=differences,
    )


def misprint(name: str, model: str) -> float | None:
    """The average of the printed row, in our units, where the printed average is another number."""
    metric = METRICS[name]
    printed = published(metric, model, name)
    members = [published(metric, model, dataset) for dataset in tables()["averages"][name]]
    known = [value for value in members if value is not None]
    if printed is None or len(known) != len(members):
        return None
    mean = sum(known) / len(known)
    # Members are rounded too, so the average of the printed row may be off by up to one printed step.
    return mean if abs(mean - printed) > PRINTED_STEP[metric] else None
