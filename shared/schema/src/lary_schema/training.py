"""Training: recipes, the job `train`, and what it leaves beside its weights.

A checkpoint is a model: a folder with `model.safetensors`, `config.json`, `card.json` (a `TrainedCard`) and
`training.json` (a `TrainResult`), named after its recipe and the fingerprint of all that determines its bytes.
`extract` reads it through the weights mount as a downloaded one.
"""

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from lary_schema.base import Document, fingerprint
from lary_schema.cards import Actions, Key, Latents, ModelCard, PairColumns, VideoColumns, _Card
from lary_schema.groups import Grouping
from lary_schema.jobs import Decoder, Precision, Source, WeightFile, _Job
from lary_schema.locks import LockKind
from lary_schema.mounts import MountPath

MODEL_FILE, CONFIG_FILE, CARD_FILE, TRAINING_FILE = "model.safetensors", "config.json", "card.json", "training.json"
"""The files of a checkpoint."""
PICTURE_FILE = "reconstructions.png"
"""Of a checkpoint, where its trainee draws one: for people, not among its hashed files."""
ROWS_FILE = "held_out_rows.npz"
"""Of a checkpoint, where its trainee measures single held-out rows; not among its hashed files. `row` (n,) int64 in the
CSV; `group` (n,) int64 codes, the row where rows are taken as independent; `group_names` (groups,) by code; and each
measure under its own name, (n,) float64."""
STATE_FOLDER = "state"
"""Below the checkpoint's folder: what a killed training goes on from."""
KEY_DIGITS = 12
"""Hexadecimal digits of the fingerprint in a trained model's key."""

Supervision = Literal["none", "weak", "joint", "actions"]
"""Which action labels a model saw: none; a share of them as a target of its latent (`weak`); those of a policy that was
trained together with it (`joint`); actions are what it is trained on (`actions`: a tokenizer of them, a policy)."""


def trained_key(recipe: str, training: str) -> str:
    """The model key of a recipe's checkpoint: `moto-demo-3f9c12ab34de`."""
    return f"{recipe}-{training[:KEY_DIGITS]}"


class Optimiser(Document):
    """How parameters move. The rate at step k is `lr * scale[group] * schedule(k)`, never a product over steps."""

    kind: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the whole gradient; None: not clipped."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: down to `final` of the rate at the last step, or constant."""
    final: float = Field(default=0, ge=0, le=1)
    warmup: int = Field(default=0, ge=0)
    """Steps of a linear rise."""
    scale: dict[Key, float] = Field(default_factory=dict)
    """Factor of lr by the name of a parameter group that the trainee gives; absent: 1."""


class Recipe(_Card):
    """How a model is trained: a YAML file. Its key begins with its trainee's name (`moto-demo`)."""

    key: Key
    title: str
    trainee: Key
    """Key under the entry points `lary.trainees` of an image."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Sizes and switches; the trainee knows their names and refuses others."""
    dt: int | None = Field(default=None, ge=1)
    """Of clips: a pair is two of a row's sampled frames, so many apart. Of image pairs None: the CSV pairs them."""
    optimiser: Optimiser
    batch_size: int = Field(ge=1)
    """Rows of a step, over all processes."""
    steps: int = Field(ge=0)
    """0: the network as it is drawn (or as its start is), untrained: a baseline."""
    losses: dict[Key, float]
    """Weight of every term that the trainee computes; their weighted sum is the objective. 0: logged alone."""

    @model_validator(mode="after")
    def _named_after_its_trainee(self) -> Self:
        if self.key != self.trainee and not self.key.startswith(f"{self.trainee}-"):
            raise ValueError(f"key {self.key!r} must begin with its trainee's name: {self.trainee}-...")
        return self


class Labelled(Document):
    """The share of groups whose action labels may be seen. Drawn once, by group, from `seed`."""

    share: float = Field(gt=0, le=1)
    seed: int = 0


class TrainData(Document):
    """One split, as far as it determines what is learnt."""

    dataset: Key
    split: Key
    metadata_sha256: str
    columns: VideoColumns | PairColumns = Field(discriminator="input")
    media: MountPath
    frames: int
    group: Grouping | None = None
    actions: Actions | None = None
    """Given where labels may be seen."""
    instruction: str | None = None
    """Column of the text that goes with a row."""
    latents: Latents | None = None
    """Given where the recipe reads latent labels."""

    @model_serializer(mode="wrap")
    def _as_before_latents(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Sets without latent labels keep the document, and so the fingerprint, of the time before there were any."""
        document: dict[str, Any] = handler(self)
        if self.latents is None:
            document.pop("latents", None)
        return document


class TrainValues(Document):
    """What determines a checkpoint's bytes (on one kind of machine, thread and process count)."""

    recipe: Recipe
    data: TrainData
    held_out: TrainData | None = None
    """Rows for the measures during and after training; nothing is chosen by them."""
    labelled: Labelled | None = None
    """None: no label is read."""
    init: dict[Key, str] = Field(default_factory=dict)
    """By name: sha256 of downloaded weights (of frozen encoders), or the fingerprint of the training that made them
    (`start`: the checkpoint that this one goes on from)."""
    seed: int
    precision: Precision = "fp32"
    decoder: Decoder = "pyav"
    code_sha256: str
    """Of the trainee's and the trainer's sources."""
    libraries: dict[str, str] = Field(default_factory=dict)
    """`lary_schema.jobs.minor_versions` of the image."""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.model_dump(mode="json"))

    @property
    def key(self) -> str:
        """The trained model's key."""
        return trained_key(self.recipe.key, self.fingerprint)


class TrainJob(_Job):
    """Train one checkpoint. It writes its folder, mounted at `out`, and nothing else."""

    kind: Literal["train"] = "train"
    values: TrainValues
    source: Source
    held_out: Source | None = None
    init: tuple[WeightFile, ...] = ()
    save_every: int = Field(default=100, ge=1)
    """Steps between two states."""
    keep: int = Field(default=2, ge=1)
    """Newest states that are kept."""
    evaluate_every: int = Field(default=100, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows of one forward pass; None: the batch's. Halved where memory runs out; gradients are accumulated."""
    processes: int = Field(default=1, ge=1)
    """How many share each batch (one per GPU)."""
    workers: int = Field(default=2, ge=1)
    """Decode processes."""
    ram_bytes: int = Field(default=4 << 30, ge=0)
    """Decoded rows are kept in so much memory of each process; those beyond it are decoded each time."""
    row_timeout_s: float = Field(default=60, gt=0)
    max_failed: float = Field(default=0.01, ge=0, le=1)
    """Tolerated share of rows that cannot be read."""
    keep_states: bool = False
    """Leave the states of a finished training."""
    strict_health: bool = False
    """A collapsed codebook ends the training (exit code 7) instead of a warning."""
    locks: LockKind = "kernel"

    @property
    def fingerprint(self) -> str:
        return self.values.fingerprint

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        planned = {file.name: file.sha256 for file in self.init}
        if planned != self.values.init:
            raise ValueError(f"init names {planned}, values.init {self.values.init}")
        for name, data, source in (
            ("source", self.values.data, self.source),
            ("held_out", self.values.held_out, self.held_out),
        ):
            if (data is None) != (source is None):
                raise ValueError(f"{name} and its part of values go together")
            if (
                data
                and source
                and (data.metadata_sha256, data.columns, data.media, data.frames)
                != (
                    source.metadata.sha256,
                    source.columns,
                    source.media,
                    source.frames,
                )
            ):
                raise ValueError(f"{name} is not what values were made of")
        return self


class Measures(Document):
    """Named numbers at one step."""

    step: int
    split: Key
    """`train`: means over the steps since the last one, of each loss term and of the rates; else a split's name."""
    values: dict[str, float | None]
    """None: not a number, or not defined there."""


class TrainResult(Document):
    """`training.json`: how a checkpoint came about. Written last: where it is whole, the checkpoint is."""

    version: Literal[1] = 1
    key: Key
    """The trained model's key."""
    fingerprint: str
    values: TrainValues
    files: dict[str, str]
    """sha256 of each other file of the checkpoint, by name."""
    supervision: Supervision
    rows: int
    """Rows that were trained on."""
    failed: dict[str, int] = Field(default_factory=dict)
    """Rows that could not be read, by split."""
    labelled_rows: int = 0
    labelled_groups: int = 0
    labelled_sha256: str | None = None
    """Hash of the sorted names of the groups whose labels were seen."""
    measured: tuple[Measures, ...] = ()
    warnings: tuple[str, ...] = ()
    """Health: a collapsed codebook, rows that do not move, an alignment with a constant."""
    image: str
    image_digest: str | None = None
    code_revision: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)
    device: str
    threads: int
    processes: int
    micro_batch: int
    """The smallest that was used."""
    seconds: float
    """Of the steps of all attempts, evaluation included."""
    attempts: int = 1


class TrainedCard(Document):
    """`card.json`: the facts of the trained model, as the image's `describe --recipe` gives them."""

    image: Key
    """Name of the image that reads it."""
    card: ModelCard
    supervision: Supervision = "none"
