"""`result.json`: a score and everything it can be traced to."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from lary_schema.base import Document
from lary_schema.cards import Head, Input, Key, ProtocolCard, Reads, Target


def _from_null(value: Any) -> Any:
    return math.nan if value is None else value


def _to_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


Number = Annotated[
    float,
    BeforeValidator(_from_null, json_schema_input_type=float | None),
    PlainSerializer(_to_null, return_type=float | None, when_used="json"),
]
"""A float that JSON can hold: what is not finite is written as null, and null is read as NaN.

The field's description names the one that says why.
"""


class Interval(Document):
    """95 % interval of a score (`lary_schema.intervals`).

    Results written before intervals drew groups have no `groups`: theirs are a percentile bootstrap over rows.
    """

    low: Number
    high: Number
    """`low` and `high` are null where no interval can be given; `note` says why."""
    unit: Literal["rows", "groups"] = "rows"
    """What was drawn: the groups of the dataset card, or rows, which were taken as independent."""
    groups: int | None = None
    """How many of them there are."""
    seeds: bool = False
    """Whether the interval holds the seeds' spread besides the draw of groups."""
    note: str | None = None
    """What a reader has to know of it: too few groups, no interval."""


class Holdout(Document):
    """The part of train that chose epoch and head (first seed)."""

    rows: int
    groups: int | None = None
    """None: rows were taken as independent."""


class EpochScore(Document):
    """One seed's score on one evaluated split after one epoch."""

    epoch: int
    """Counted from 1."""
    value: Number
    selection: Number
    """The value that epochs are chosen by: on the held-out part, on the evaluated split itself, or, of a regression's
    unseen split, on the first evaluated one."""
    loss: Number | None = None
    """Classification: cross entropy where `selection` was taken, which breaks ties of it."""
    macro: Number | None = None
    """Classification: mean of the per-class recalls."""
    r2: Number | None = None
    """Regression: 1 - MSE / variance of the target on this split; None where the target does not vary."""
    optimiser: int | None = None
    """Classification: index of the chosen (lr, weight decay) head."""


class SeedScores(Document):
    seed: int
    early: EpochScore
    """After the first epoch."""
    best: EpochScore
    last: EpochScore
    per_optimiser: tuple[Number, ...] = ()
    """Classification: value of every head at the best epoch; null for those in `diverged`."""
    diverged: tuple[int, ...] = ()
    """Classification: heads whose weights or outputs stopped being finite; they are left out of the choice."""
    strength: float | None = None
    """Linear head: the chosen strength of the ridge, of the grid in `lary_probe.ridge`."""


class RowCount(Document):
    used: int
    failed: int
    """Rows without a latent; they are excluded from scores."""
    clamped: int = 0
    """Rows with a sample index beyond the clip's end."""


class SplitScore(Document):
    """Scores of one evaluated split: the mean over seeds of the best epoch, and what is behind it."""

    value: Number
    interval: Interval
    std: Number | None = None
    """Standard deviation over seeds; None for one seed."""
    seeds: tuple[SeedScores, ...]
    floor: Number
    """The baseline, what a probe that saw nothing gets here: the most frequent train class, or train's mean action."""
    beats_floor: bool | None = None
    """Whether the whole interval is better than `floor`; None in results that did not say."""
    chance: Number | None = None
    """Classification: 1 / classes."""
    per_group: dict[str, Number] = Field(default_factory=dict)
    """Regression: MSE of each group of dimensions (first seed, best epoch)."""
    per_dimension: dict[str, Number] = Field(default_factory=dict)
    """Regression: MSE of each dimension (first seed, best epoch)."""
    r2_per_dimension: dict[str, Number] = Field(default_factory=dict)
    """Regression: R2 of each dimension (first seed, best epoch); null where a dimension does not vary here."""
    rows: RowCount
    unknown_robots: dict[str, int] = Field(default_factory=dict)
    """Regression: rows by robot type without statistics, where the job allowed them."""


class StoreSettings(Document):
    """How rows were read and latents computed and stored: the settings of `lary-orch run` that decide values."""

    decoder: str
    precision: str
    dtype: str
    seed: int | None
    """None: of a model that draws nothing."""


class StoreTrace(Document):
    """Which latents a score comes from."""

    split: Key
    path: str
    fingerprint: str
    image: str
    image_digest: str | None
    code_sha256: str
    weights: dict[str, str]
    metadata_sha256: str
    settings: StoreSettings | None = None
    """None in results that did not say."""
    mixed: tuple[str, ...] = ()
    """What the environments that made the store's shards differ in (`torch 2.9 and 2.10`); empty for a single one."""


class ProbeResult(Document):
    """One cell of the table."""

    version: Literal[1] = 1
    kind: Literal["classify", "regress"]
    metric: Literal["top1", "mse"]
    """top1 in 0..1, higher is better; mse of normalised actions, lower is better."""
    run: Key
    model: Key
    variant: Key
    dataset: Key
    input: Input | None = None
    """What a row is: a clip or an image pair. None in results that did not say."""
    protocol: Key
    recipe: dict[str, Any] | None = None
    """`recipe_of` the protocol: what the key stood for in this run. None in results that did not say."""
    control: Literal["none", "shuffled"]
    measures: Literal["score", "chance", "overfitting"] = "score"
    """What the numbers are. With shuffled targets a classification gives the chance level; a regression is worse than
    the mean action by construction, and by how much is a measure of overfitting, no baseline."""
    learned: bool | None = None
    """False: the training score stayed at chance (or at the mean action) in every epoch of some seed, so the probe,
    not the latents, may be to blame. None in results that did not say."""
    group: str | None = None
    """What makes rows a group, as the dataset card says; None: rows were taken as independent."""
    holdout: Holdout | None = None
    """None where the evaluated split chose, and in results that did not say."""
    warnings: tuple[str, ...] = ()
    """What the probe warned of, in order."""
    head: Head | None = None
    """Regression: the network."""
    target: Target | None = None
    """Regression: what was predicted."""
    reads: Reads = "actions"
    """Regression: the block of the dataset card that was predicted. A low error on `nuisance` is no merit."""
    targets_sha256: str | None = None
    """Of the labels or actions as read, train first: files that changed under the same CSV show here."""
    fingerprint: str
    """Of the probe job."""
    splits: dict[str, SplitScore]
    train_rows: RowCount
    classes: tuple[str, ...] = ()
    stores: tuple[StoreTrace, ...]
    probe_image: str
    probe_image_digest: str | None
    probe_code_sha256: str
    code_revision: str | None
    device: str
    libraries: dict[str, str]
    seconds: Number


_TRAINED = {"lr", "weight_decay", "warmup", "huber_delta", "epochs", "batch_size"}
_UNUSED: dict[Head, set[str]] = {
    "mlp": {"dit"},
    "dit": {"width", "blocks"},
    "linear": {"dit", "width", "blocks"} | _TRAINED,
}
"""What a regression head does not use of its recipe."""


def recipe_of(protocol: ProtocolCard, kind: Literal["classify", "regress"]) -> dict[str, Any]:
    """Everything in a protocol that decides a score of this kind, as JSON values.

    Left out: names; the number of resamples, which moves intervals alone; head and target, which have fields of
    their own; what the choice of epochs or the head does not use.
    """
    own = (protocol.classify if kind == "classify" else protocol.regress).model_dump(mode="json")
    shared = protocol.model_dump(mode="json", exclude={"key", "title", "bootstrap", "classify", "regress"})
    unused = {"head", "target", "both_targets", "seeds"}
    if kind == "regress":
        del shared["class_ids"]
        unused |= _UNUSED[protocol.regress.head]
    if not protocol.holds_out(kind):
        del shared["holdout"]
    return shared | {name: value for name, value in own.items() if name not in unused}
