"""May a published score be shown with ours? If not, why: a few short reasons."""

from lary_schema.jobs import IMPORTED
from lary_schema.results import ProbeResult, SplitScore

from lary_results.published import PROTOCOL, VARIANT, tables

REASONS = {
    "control": "a control with shuffled targets; the paper has none of it",
    "protocol": f"another protocol; the published scores are {PROTOCOL}'s",
    "variant": f"another variant; the published scores are {VARIANT}'s",
    "probe": "another probe; the published regressions are MLPs on absolute chunks",
    "data": "the published data is unreleased, so nobody can say that these rows are the same",
    "split": "the paper does not name the split that it reports",
    "other split": "another split than the published one",
    "rows": "other rows than the published split's: their number differs by more than 1 %",
    "imported": "latents that were imported, so how they were made is not known here",
}
"""By the short name that `Score.differences` holds, in the order of the footnotes."""
SLACK = 0.01
"""Share of rows that may be missing: a broken clip does not make another dataset, half of it does."""
EVALUATED = "val"


def differences(result: ProbeResult, split: str) -> tuple[str, ...]:
    """Names of the reasons against a comparison; none is as it should be."""
    found = {
        "control": result.control != "none",
        "protocol": result.protocol != PROTOCOL,
        "variant": result.variant not in (VARIANT, IMPORTED),
        "probe": (result.head or "mlp", result.target or "absolute", result.reads) != ("mlp", "absolute", "actions"),
        "data": result.dataset in tables()["unreleased"],
        "split": result.dataset in tables()["split_not_named"],
        "other split": result.dataset not in tables()["split_not_named"] and split != EVALUATED,
        "rows": not _same_rows(result, split, result.splits[split]),
        "imported": result.variant == IMPORTED,
    }
    return tuple(name for name, differs in found.items() if differs)


def _same_rows(result: ProbeResult, split: str, score: SplitScore) -> bool:
    """By the released CSVs' numbers of rows where they are known, and by the paper's total."""
    ours = {_train_split(result): result.train_rows.used, split: score.rows.used}
    pairs = [(ours[name], count) for name, count in released_rows(result.dataset).items() if name in ours]
    total = tables()["rows"].get(result.dataset)
    # A set with seen and unseen splits need not be evaluated on both.
    if total is not None and result.dataset not in tables()["split_not_named"]:
        pairs.append((sum(ours.values()), total))
    return all(abs(mine - theirs) <= SLACK * theirs for mine, theirs in pairs)


def _train_split(result: ProbeResult) -> str:
    return result.stores[0].split if result.stores else "train"


def released_rows(dataset: str) -> dict[str, int]:
    """Split -> rows of the released CSVs, as far as they are known."""
    return dict(tables()["released_rows"].get(dataset, {}))
