"""`result.json`: a score and everything it can be traced to."""

from typing import Literal

from pydantic import Field

from lary_schema.base import Document
from lary_schema.cards import Key


class Interval(Document):
    """95 % bootstrap interval over the evaluated rows."""

    low: float
    high: float


class EpochScore(Document):
    """One seed's score on one evaluated split after one epoch."""

    epoch: int
    """Counted from 1."""
    value: float
    selection: float
    """The value that epochs are chosen by: on the held-out part, on the evaluated split itself, or, of a regression's
    unseen split, on the first evaluated one."""
    macro: float | None = None
    """Classification: mean of the per-class recalls."""
    r2: float | None = None
    """Regression: 1 - MSE / variance of the target on this split."""
    optimiser: int | None = None
    """Classification: index of the chosen (lr, weight decay) head."""


class SeedScores(Document):
    seed: int
    early: EpochScore
    """After the first epoch."""
    best: EpochScore
    last: EpochScore
    per_optimiser: tuple[float, ...] = ()
    """Classification: value of every head at the best epoch."""


class RowCount(Document):
    used: int
    failed: int
    """Rows without a latent; they are in no score."""
    clamped: int = 0
    """Rows with a sample index beyond the clip's end."""


class SplitScore(Document):
    """Scores of one evaluated split: the mean over seeds of the best epoch, and what is behind it."""

    value: float
    interval: Interval
    std: float | None = None
    """Standard deviation over seeds; None for one seed."""
    seeds: tuple[SeedScores, ...]
    floor: float
    """What a probe that saw nothing gets here: the most frequent train class, or train's mean action."""
    chance: float | None = None
    """Classification: 1 / classes."""
    per_group: dict[str, float] = Field(default_factory=dict)
    """Regression: MSE of each group of dimensions (first seed, best epoch)."""
    per_dimension: dict[str, float] = Field(default_factory=dict)
    rows: RowCount
    unknown_robots: dict[str, int] = Field(default_factory=dict)
    """Regression: rows by robot type without statistics, where the job allowed them."""


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
    protocol: Key
    control: Literal["none", "shuffled"]
    head: Literal["mlp", "dit"] | None = None
    """Regression: the network."""
    target: Literal["absolute", "relative"] | None = None
    """Regression: what was predicted."""
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
    seconds: float
