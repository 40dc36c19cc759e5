"""Cards: what a model, an image, a dataset and a protocol declare about themselves (YAML files)."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from lary_schema.base import ContractError, Document, unknown_key
from lary_schema.groups import Grouping, grouping_of
from lary_schema.mounts import MountPath
from lary_schema.paths import normalised
from lary_schema.yaml_files import read_yaml as read_yaml

Input = Literal["video", "image"]
"""What a dataset's rows are: the sampled frames of a clip, or the two frames of a pair."""
Mode = Literal["video", "image", "actions"]
"""What a model is given of a row: its frames, or (`actions`) its chunk of physical actions and no frame."""
Reads = Literal["actions", "nuisance"]
"""What a probe predicts of a set: what the card's task says, labels or actions; or what a latent should not hold."""


def _slug(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise ValueError(f"{value!r} may hold letters, digits, '.', '_' and '-' alone (it names a folder)")
    return value


Key = Annotated[str, AfterValidator(_slug)]
"""A name that is safe as one part of a path: model keys, dataset keys, variants, splits."""


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _some(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("must name at least one")
    return _distinct(value)


def _distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({str(item) for item in value if value.count(item) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands twice; keep one")
    return value


Some = AfterValidator(_some)
"""Of a list: at least one, none twice."""
Distinct = AfterValidator(_distinct)
"""Of a list: none twice."""


def check_roles(train: str, evaluate: Sequence[str], *, some: bool = True) -> None:
    """The rules for the splits of a probe, in cards and in jobs. Raises ValueError.

    A card of data tools alone may evaluate nothing (`some=False`); the catalog and jobs want one split.
    """
    if some and not evaluate:
        raise ValueError("evaluate must name one split or more, each once")
    _distinct(tuple(evaluate))
    if train in evaluate:
        raise ValueError(f"split {train!r} trains and is evaluated: a score on the rows of training says nothing")


class _Card(Document):
    @classmethod
    def load(cls, path: Path) -> Self:
        """Parse one YAML card."""
        return cls.parse(read_yaml(path), str(path))


# --- models -----------------------------------------------------------------------------------


class TensorSpec(Document):
    """Shape and dtype of one row's array (no batch axis)."""

    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8", "int64"] = "float32"


class ModeSpec(Document):
    """What a model takes and gives for one row in one mode.

    In mode `actions` the input is a chunk, float32 (stride, dim). A recipe does not know its data's chunks: it has 0
    for both, and for T of tokens and indices, which is the stride (`ModelCard.of_chunks`).
    """

    input: TensorSpec
    """What `preprocess` returns for a row."""
    tokens: tuple[int, int, int]
    """(T, N, D): time steps, tokens per step, width."""
    indices: tuple[int, int] | None = None
    """(T, L) code indices for quantised models."""
    time_axis: bool = True
    """False: T is 1 by construction and the probe gets (N, D), as upstream does."""

    @model_validator(mode="after")
    def _flat_has_one_step(self) -> Self:
        if not self.time_axis and self.tokens[0] != 1:
            raise ValueError(f"time_axis is false, so tokens {self.tokens} must have T = 1")
        return self

    def of_chunk(self, stride: int, dim: int) -> Self:
        """The same with these sizes where they are 0."""
        steps, *rest = self.tokens
        chunk = tuple(own or found for own, found in zip(self.input.shape, (stride, dim), strict=True))
        codes = self.indices and (self.indices[0] or stride, self.indices[1])
        update = {"input": self.input.model_copy(update={"shape": chunk}), "tokens": (steps or stride, *rest)}
        return self.model_copy(update=update | {"indices": codes})


WEIGHT_VARIABLE = (
    r"^(DINO_V2|DINO_V3|SIGLIP2|[A-Z][A-Z0-9]*(_[A-Z0-9]+)*_(CKPT|MODEL|WEIGHTS|VAE|TOKENIZER|CONFIG))_PATH$"
)
"""What a variable of weights is called: LARYBench's, and others like `MINE_CKPT_PATH` or `MINE_WEIGHTS_PATH`."""


class WeightSpec(Document):
    """One file or folder of weights: where it is looked for and how it is got."""

    name: Key
    path: MountPath
    """Default path below the weights root."""
    env: str | None = Field(default=None, pattern=WEIGHT_VARIABLE)
    """Variable that names another path on the host (LARYBench's own names). What it names is mounted, so a card
    may not choose any variable of the caller (HOME, ...)."""
    repo: str | None = None
    """Hub repository for `lary-orch weights fetch`."""
    revision: str | None = None
    subfolder: MountPath | None = None
    """Folder of the repository that becomes the folder at `path`; None: its root."""
    files: tuple[str, ...] = ()
    """Files of that folder that are needed; empty means all."""
    url: str | None = Field(default=None, pattern=r"^https://")
    """Plain address of a single file, for `lary-orch weights fetch`."""
    gated: bool = False
    optional: bool = False
    """The model does without, and reads it where it is there."""
    license: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the official single file, where it is known."""
    note: str | None = None
    """How to get it when it cannot be fetched."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.url is not None and self.repo is not None:
            raise ValueError("url and repo exclude each other")
        return self


class ModelCard(_Card):
    """The facts of one model key. `describe` prints it; the planner believes nothing else."""

    key: Key
    pattern: str | None = None
    """Regular expression of a family's keys; the class resolves the facts of each (`Model.resolve`)."""
    example: Key | None = None
    """One key of a family: the one that `selftest` takes."""
    title: str
    paradigm: Literal["baseline", "semantic", "pixel", "embodied-lam", "general-lam"]
    modes: dict[Mode, ModeSpec]
    variants: Annotated[tuple[Key, ...], Some] = ("corrected",)
    """The first is the default."""
    variant_modes: dict[Key, dict[Mode, ModeSpec]] = Field(default_factory=dict)
    """Variants whose shapes differ from `modes`."""
    preprocessing: Key
    """Names the exact preprocessing; change it when a pixel could change."""
    variant_preprocessing: dict[Key, Key] = Field(default_factory=dict)
    """Variants that are fed otherwise."""
    revision: int = Field(ge=1)
    """Bump when the values could change though no source file of the model did."""
    draws: bool = True
    """False: latents do not depend on `--seed`, so that another seed makes no other store."""
    batch_size: int = Field(default=32, ge=1)
    weights: tuple[WeightSpec, ...] = ()
    license: str
    source: str
    """Paper, repository or upstream file that the model comes from."""
    code_sha256: str | None = None
    """Of the model's own source files; filled in by `describe`."""

    def serves(self, key: str) -> bool:
        """Whether this card holds for a model key."""
        return key == self.key if self.pattern is None else re.fullmatch(self.pattern, key) is not None

    def preprocessing_of(self, variant: str) -> str:
        """The name of what a variant's pixels go through."""
        return self.variant_preprocessing.get(variant, self.preprocessing)

    def spec(self, mode: Mode, variant: str) -> ModeSpec:
        """What the model takes and gives. Raises ContractError for a mode or variant it does not have."""
        if variant not in self.variants:
            raise ContractError(f"model {self.key} has no variant {variant!r}; it has {', '.join(self.variants)}")
        found = self.variant_modes.get(variant, {}).get(mode) or self.modes.get(mode)
        if found is None:
            raise ContractError(f"model {self.key} has no mode {mode!r}; it has {', '.join(self.modes) or 'none'}")
        return found

    @model_validator(mode="after")
    def _actions_are_read_alone(self) -> Self:
        named = {name for modes in (self.modes, *self.variant_modes.values()) for name in modes}
        if "actions" in named and named != {"actions"}:
            raise ValueError("a model that reads actions (mode actions) has no mode of frames")
        given = [modes["actions"].input for modes in (self.modes, *self.variant_modes.values()) if "actions" in modes]
        if any(len(spec.shape) != 2 or spec.dtype != "float32" for spec in given):
            raise ValueError("mode actions: its input is float32 (stride, dim)")
        return self

    @property
    def reads_actions(self) -> bool:
        """Whether it is given actions and no frames."""
        return "actions" in self.modes

    def of_chunks(self, actions: "Actions | None") -> Self:
        """The card of the model that is trained on these chunks; of one that reads frames, the same card."""
        if actions is None or not self.reads_actions:
            return self

        def sized(modes: dict[Mode, ModeSpec]) -> dict[Mode, ModeSpec]:
            return {m: s.of_chunk(actions.stride, actions.dim) if m == "actions" else s for m, s in modes.items()}

        variants = {name: sized(modes) for name, modes in self.variant_modes.items()}
        return self.model_copy(update={"modes": sized(self.modes), "variant_modes": variants})


class PolicyCard(_Card):
    """The facts of one policy, which answers `act` (`lary_policy`)."""

    key: Key
    pattern: str | None = None
    """Regular expression of a family's keys: trained models, whose facts lie in their checkpoint."""
    title: str
    actions: int | None = Field(default=None, ge=1)
    """Numbers of one action; None: what the simulator wants (a baseline), or what the checkpoint says."""
    weights: tuple[WeightSpec, ...] = ()
    license: str
    source: str
    """Paper, repository or upstream file that it comes from."""
    code_sha256: str | None = None
    """Of the sources of its package; filled in by `describe`."""

    def serves(self, key: str) -> bool:
        """Whether this card holds for a policy's key."""
        return key == self.key if self.pattern is None else re.fullmatch(self.pattern, key) is not None


class TaskCard(Document):
    """One task of a benchmark."""

    key: Key
    instruction: str
    states: int = Field(ge=1)
    """Fixed initial states, numbered from 0."""


class Renderer(Document):
    """What draws a simulator's pictures. Two renderers draw two pictures of the same state."""

    variable: Key
    """The environment variable that chooses one, for a user and for the simulator's process."""
    gpu: Key
    """Where a job has a GPU."""
    cpu: Key

    def chosen(self, given: str | None, *, cuda: bool) -> str:
        """By what a job draws, `given` being the variable's value. Raises ContractError for any other one."""
        if not given:
            return self.gpu if cuda else self.cpu
        if given not in (self.gpu, self.cpu):
            known = " or ".join(dict.fromkeys((self.gpu, self.cpu)))
            raise ContractError(f"{self.variable}={given}: pictures are drawn by {known}; set one of them, or unset it")
        return given


class BenchmarkCard(_Card):
    """A suite of tasks in a simulator, which runs policies by `evaluate` (`lary_policy`)."""

    key: Key
    title: str
    tasks: Annotated[tuple[TaskCard, ...], Field(min_length=1)]
    observations: dict[Key, TensorSpec]
    """What a policy sees: cameras uint8 (H, W, 3), numbers float32 (n,)."""
    actions: Annotated[tuple[str, ...], Some]
    """Names of the numbers of one action, float32."""
    idle: tuple[float, ...]
    """The action of the settle steps."""
    horizon: int = Field(ge=1)
    """Steps after which an episode has failed."""
    settle: int = Field(default=0, ge=0)
    """Idle steps before the policy sees anything."""
    scripted: bool = False
    """Whether the simulator has a policy of its own, which sees its state: the baseline `scripted`."""
    fps: int = Field(default=10, ge=1)
    """Steps of a second, of videos."""
    renderer: Renderer | None = None
    """None: its pictures are the same wherever it runs."""
    libraries: tuple[str, ...] = ()
    """Distributions whose versions decide what happens in an episode, besides the sources of its package."""
    license: str
    source: str
    code_sha256: str | None = None
    """Of the sources of its package; filled in by `describe`."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(self.idle) != len(self.actions):
            raise ValueError(f"idle has {len(self.idle)} numbers, an action {len(self.actions)}")
        _distinct(tuple(task.key for task in self.tasks))
        return self

    @property
    def camera(self) -> str | None:
        """The observation that videos show: the first one that is a picture, uint8 (H, W, 3)."""
        pictures = (n for n, o in self.observations.items() if o.dtype == "uint8" and o.shape[2:] == (3,))
        return next(pictures, None)

    def task(self, key: str) -> TaskCard:
        """Raises ContractError for a task that is not among them."""
        found = {task.key: task for task in self.tasks}
        if key not in found:
            raise unknown_key(f"task of {self.key}", key, found)
        return found[key]


class ImageCard(_Card):
    """`image.yaml`, next to an image's code: what the catalog knows of it before it is built.

    The image's `describe` prints the same document with `code_sha256` and `libraries` filled in.
    """

    name: Key
    kind: Literal["model", "probe", "tools", "simulator"]
    """What it is for: extracting latents (and acting), probing, preparing data, or a world that policies act in."""
    module: Key
    """Python module that runs the commands: `python -m MODULE describe`."""
    ref: str | None = None
    """A ready-made container image; None: built from this folder as `lary/NAME:VERSION`."""
    models: tuple[ModelCard, ...] = ()
    policies: tuple[PolicyCard, ...] = ()
    benchmarks: tuple[BenchmarkCard, ...] = ()
    libraries: dict[str, str] = Field(default_factory=dict)
    """Versions that can move a value, as installed; filled in by `describe`."""
    code_sha256: str | None = None
    """Of a probe's own source files; filled in by `describe`. A model's is in its own card."""

    def card(self, key: str) -> ModelCard | None:
        """The card that serves a model key: an exact one before a family."""
        matches = [m for m in self.models if m.serves(key)]
        return min(matches, key=lambda m: m.pattern is not None, default=None)


# --- datasets ---------------------------------------------------------------------------------


class VideoColumns(Document):
    """CSV columns of a clip."""

    input: Literal["video"] = "video"
    video: str = "video_path"
    indices: str = "sample_indices"
    implied_folder: Key | None = None
    """See `lary_schema.mounts.resolve_media`."""

    @property
    def names(self) -> tuple[str, str]:
        """The columns in the CSV."""
        return self.video, self.indices

    @model_validator(mode="after")
    def _two_columns(self) -> Self:
        _distinct(self.names)
        return self


class PairColumns(Document):
    """CSV columns of an image pair."""

    input: Literal["image"] = "image"
    source: str = "src_img"
    target: str = "tgt_img"
    implied_folder: Key | None = None
    """See `lary_schema.mounts.resolve_media`."""

    @property
    def names(self) -> tuple[str, str]:
        """The columns in the CSV."""
        return self.source, self.target

    @model_validator(mode="after")
    def _two_columns(self) -> Self:
        _distinct(self.names)
        return self


class Normalisation(Document):
    """How actions are standardised per dimension: (a - mean) / std, tiled over the chunk."""

    kind: Literal["train", "fixed", "per-robot"]
    """`train`: computed from the train split; `fixed`: given here; `per-robot`: one mean and std per robot type."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    stats: MountPath | None = None
    """`per-robot`: statistics file below the data root; None: computed from each robot's rows of train."""
    robot_column: str = "robot_type"
    """An empty cell is the robot type `nan`, as in LARYBench's statistics."""

    @model_validator(mode="after")
    def _can_divide(self) -> Self:
        bad = [value for value in (*self.mean, *self.std) if not math.isfinite(value)]
        bad += [value for value in self.std if value < 0]
        if bad:
            raise ValueError(f"mean and std must be finite, and std not below 0, not {bad[0]}")
        return self


class Actions(Document):
    """Physical actions of a regression set: `(stride, dim)` float arrays in one .npy per row."""

    column: str = "action"
    folder: MountPath
    """Below the data root; the cells are relative to it. `{split}` stands for the split."""
    implied_folder: Key | None = None
    """See `lary_schema.mounts.resolve_media`."""
    stride: int = Field(ge=1)
    dim: int = Field(ge=1)
    names: tuple[str, ...]
    groups: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    normalisation: Normalisation
    """Of absolute actions."""
    relative: Normalisation = Normalisation(kind="train")
    """Of relative ones: the last step of a chunk minus its first."""

    def folder_of(self, split: str) -> str:
        """The folder of a split's files below the data root."""
        return self.folder.replace("{split}", split)

    @model_validator(mode="after")
    def _dimensions_agree(self) -> Self:
        if len(self.names) != self.dim:
            raise ValueError(f"{len(self.names)} names for {self.dim} dimensions")
        for norm in (self.normalisation, self.relative):
            if norm.kind == "fixed" and not len(norm.mean) == len(norm.std) == self.dim:
                raise ValueError(f"fixed normalisation needs {self.dim} means and stds")
        _distinct(self.names)
        for name, group in self.groups.items():
            if not group:
                raise ValueError(f"group {name!r} names no dimension")
        _distinct(tuple(i for group in self.groups.values() for i in group))
        outside = {i for g in self.groups.values() for i in g if not 0 <= i < self.dim}
        if outside:
            raise ValueError(f"groups name dimensions {sorted(outside)} outside 0..{self.dim - 1}")
        return self


class Latents(Document):
    """Latent labels of trajectories, as `lary-orch data annotate` writes them: one .npz per episode.

    Of an episode with F steps: `latent_idx` integers (F, K), `latent_z` float32 (F, K, D), `latent_valid` bool (F,),
    `latent_dt` and `latent_model` one value each.
    """

    folder: MountPath
    """Below the data root. `{split}` stands for the split."""
    column: str = "episode"
    """The cell names the file below the folder, without `.npz`."""
    step: str | None = None
    """Column of a row's step in its episode; None: its place among the episode's rows, in the CSV's order."""
    steps: int = Field(default=1, ge=1)
    """Labels of a row: its own step's and those of the steps that follow. Beyond the episode's end: not valid."""
    dt: int = Field(ge=1)
    """Steps between the two frames that a label was made of."""
    tokens: int = Field(ge=1)
    """K."""
    width: int = Field(ge=1)
    """D."""
    codes: int = Field(ge=2)
    """Of the codebook: indices are below it."""
    model: str
    """Fingerprint of what made them. A file with another `latent_model` is refused."""

    def folder_of(self, split: str) -> str:
        """The folder of a split's files below the data root."""
        return self.folder.replace("{split}", split)


class Labels(Document):
    """Class labels of a classification set."""

    column: str = "action"
    classes: int | None = Field(default=None, ge=2)
    """Expected number in train; None: whatever train has."""


def check_target(columns: VideoColumns | PairColumns, target: Labels | Actions | None) -> None:
    """The rule for a set's columns, in cards and in jobs. Raises ValueError."""
    if target is not None and target.column in columns.names:
        raise ValueError(f"column {target.column!r} is an input and the target of the probe")


class SplitRoles(Document):
    """Which split trains the probe and which are reported."""

    train: Key = "train"
    evaluate: tuple[Key, ...] = ("val",)

    @property
    def all(self) -> tuple[str, ...]:
        return (self.train, *self.evaluate)

    @model_validator(mode="after")
    def _roles_differ(self) -> Self:
        check_roles(self.train, self.evaluate, some=False)
        return self


class DatasetCard(_Card):
    """One dataset: a YAML file, built in or in a folder given by `--catalog`."""

    key: Key
    title: str
    task: Literal["classification", "regression"]
    columns: VideoColumns | PairColumns = Field(discriminator="input")
    metadata: Annotated[
        tuple[MountPath, ...],
        BeforeValidator(_one_or_more, json_schema_input_type=MountPath | tuple[MountPath, ...]),
        Field(min_length=1),
        Distinct,
    ]
    """Names of the CSV below the metadata folder, the data root or the card's folder, the first that is there;
    `{split}` stands for the split."""
    root: str | None = None
    """The set's own data root; a relative one is below the card's folder, `.` that folder. None: --data-dir."""
    media: MountPath = "."
    """Media root below the data root; `{split}` stands for the split."""
    splits: SplitRoles = SplitRoles()
    frames: int = Field(default=9, ge=1)
    """Sampled frames of a clip: how many indices a row must give."""
    labels: Labels | None = None
    actions: Actions | None = None
    nuisance: Actions | None = None
    """A second target that no training sees: what a latent should not hold, as the motion of a distractor."""
    instruction: str | None = None
    """Column of the text that says what is done."""
    latents: Latents | None = None
    """Labels that a latent action model gave, for policies that train on them."""
    group: Annotated[Grouping | None, BeforeValidator(grouping_of, json_schema_input_type=str | Grouping | None)] = None
    """Rows that are not independent of each other; None: rows are taken as independent."""
    generator: Literal["demo_motion", "demo_arm", "demo_arm_long", "demo_arm_still"] | None = None
    """A built-in set that is made at first use."""
    license: str
    source: str

    _own_folder: Path | None = PrivateAttr(default=None)

    @property
    def own_folder(self) -> Path | None:
        """The folder of the file that the card is in, where its CSVs may lie, too; None for one from elsewhere."""
        return self._own_folder

    def in_file(self, file: Path) -> Self:
        """The card as it stands in a user's file: its root is absolute, and `own_folder` known."""
        own = None if self.root is None else str(normalised(file.parent / Path(self.root).expanduser()))
        made = self.model_copy(update={"root": own})
        made._own_folder = file.parent
        return made

    @property
    def mode(self) -> Input:
        return self.columns.input

    def media_of(self, split: str) -> str:
        """A split's media root below the data root."""
        return self.media.replace("{split}", split)

    @model_validator(mode="after")
    def _task_has_its_target(self) -> Self:
        if self.task == "classification" and (self.labels is None or self.actions is not None):
            raise ValueError("a classification set needs labels: and no actions:")
        if self.task == "regression" and (self.actions is None or self.labels is not None):
            raise ValueError("a regression set needs actions: and no labels:")
        return self

    @property
    def chunks(self) -> dict[Reads, Actions]:
        """The blocks of columns that name a file of numbers in each row."""
        named: dict[Reads, Actions | None] = {"actions": self.actions, "nuisance": self.nuisance}
        return {reads: block for reads, block in named.items() if block is not None}

    def reading(self, reads: Reads) -> Self:
        """The set as a probe sees it: of one that reads the nuisance, a regression set with that as its actions.

        Raises ContractError where the card has no nuisance.
        """
        if reads == "actions":
            return self
        if self.nuisance is None:
            raise ContractError(f"the card of dataset {self.key} has no nuisance:, so no probe can read it")
        return self.model_copy(
            update={"task": "regression", "labels": None, "actions": self.nuisance, "nuisance": None}
        )

    @model_validator(mode="after")
    def _target_is_no_input(self) -> Self:
        check_target(self.columns, self.labels or self.actions)
        return self

    @model_validator(mode="after")
    def _further_columns_are_their_own(self) -> Self:
        target = self.labels or self.actions
        taken = [*self.columns.names, *([target.column] if target else [])]
        if self.nuisance is not None and self.nuisance.column in taken:
            raise ValueError(f"column {self.nuisance.column!r} is an input or the target, and cannot be the nuisance")
        files = [*self.columns.names, *(block.column for block in self.chunks.values())]
        if self.instruction is not None and self.instruction in files:
            raise ValueError(f"column {self.instruction!r} names files, and cannot be the instruction")
        return self

    @model_validator(mode="after")
    def _splits_have_files_of_their_own(self) -> Self:
        shared = [name for name in self.metadata if "{split}" not in name]
        if shared:
            raise ValueError(f"metadata {shared[0]!r} names one file for all splits; write {{split}} where they differ")
        return self


# --- protocols --------------------------------------------------------------------------------


class ClassifyRecipe(Document):
    """How the attentive probe is trained (LARYBench: `specs` of its FeatureEvaluator)."""

    width: int = 768
    depth: int = Field(default=4, ge=1)
    """Attention blocks: depth - 1 of self-attention, then one cross-attention."""
    heads: int = 16
    optimisers: tuple[tuple[float, float], ...] = ((5e-3, 0.01), (3e-3, 0.1), (1e-3, 0.4), (3e-4, 0.8), (1e-4, 0.01))
    """(lr, weight decay) of each classifier trained side by side."""
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=1)
    label_smoothing: float = 0.1
    balanced: bool = True
    autocast: Literal["bf16", "none"] = "bf16"
    seeds: Annotated[tuple[int, ...], Some] | None = None
    """In a card: other seeds than the protocol's. The planner resolves them into the job's `protocol.seeds`."""


class DiffusionHead(Document):
    """The DiT head (LARYBench): a small diffusion transformer over the chunk's action tokens."""

    width: int = 512
    depth: int = Field(default=6, ge=1)
    heads: int = 8
    train_steps: int = Field(default=1000, ge=1)
    """DDPM steps of the squared-cosine schedule."""
    sample_steps: int = Field(default=500, ge=1)
    """Of them, how many an evaluation takes."""
    condition_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of training rows whose condition is the learned null vector."""


Head = Literal["mlp", "dit", "linear"]
Target = Literal["absolute", "relative"]
ProbeKind = Literal["classify", "regress"]


class RegressRecipe(Document):
    """How the regression head is trained."""

    head: Head = "mlp"
    """`linear` is ridge regression in closed form: of this recipe it uses the target alone."""
    target: Literal["absolute", "relative"] = "absolute"
    """`absolute`: the normalised chunk, flattened; `relative`: its last step minus its first."""
    both_targets: bool = False
    """In a card: probe the relative target too where the dataset's card gives `relative:`. The planner makes a job of
    each, in which this is false."""
    width: int = 4096
    """Of the MLP head."""
    blocks: int = 2
    """Of the MLP head."""
    dit: DiffusionHead = DiffusionHead()
    lr: float = 1e-4
    weight_decay: float = 1e-4
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of all steps over which lr rises linearly; constant afterwards."""
    huber_delta: float = 1.0
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=1)
    seeds: Annotated[tuple[int, ...], Some] | None = None
    """In a card: other seeds than the protocol's. The planner resolves them into the job's `protocol.seeds`."""

    def targets(self, actions: Actions) -> tuple[Target, ...]:
        """`target`, or both where a dataset's card gives `relative:` and its chunks have two steps."""
        both = self.both_targets and "relative" in actions.model_fields_set and actions.stride > 1
        return ("absolute", "relative") if both else (self.target,)


class ProtocolCard(_Card):
    """How probes are trained and scored. Results of different protocols are never mixed."""

    key: Key
    title: str
    select_on: Literal["holdout", "evaluated"]
    """Where epoch and head are chosen: a held-out part of train, or the reported split (as LARYBench)."""
    holdout: float = Field(default=0.1, gt=0, lt=1)
    class_ids: Literal["train", "per-split"] = "train"
    """`per-split` is LARYBench's fault of numbering each CSV's labels alone."""
    seeds: Annotated[tuple[int, ...], Some] = (0,)
    streams: Literal["independent", "upstream"] = "independent"
    """Where chance comes from: a stream of its own for each purpose of each seed, or LARYBench's `seed + epoch`."""
    bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the evaluated groups (or rows) for the 95 % interval."""
    classify: ClassifyRecipe
    regress: RegressRecipe

    def holds_out(self, kind: ProbeKind) -> bool:
        """Whether a held-out part of train chooses. The strength of a linear head is never chosen elsewhere."""
        return self.select_on == "holdout" or (kind == "regress" and self.regress.head == "linear")

    def targets(self, card: DatasetCard, target: Target | None) -> tuple[Target | None, ...]:
        """The regression targets that are probed on a set, a job each: `target` where given; None: classification."""
        if card.actions is None:
            return (None,)
        return (target,) if target else self.regress.targets(card.actions)

    def resolved(self, kind: ProbeKind, seeds: tuple[int, ...], head: Head | None, target: Target | None) -> Self:
        """As a job of one task carries it: what a request says (empty, None: nothing), then the recipe's seeds."""
        own = self.classify if kind == "classify" else self.regress
        regress: dict[str, Any] = {"seeds": None, "both_targets": False}
        if kind == "regress":
            regress |= {"head": head or self.regress.head, "target": target or self.regress.target}
        update = {
            "seeds": seeds or own.seeds or self.seeds,
            "classify": self.classify.model_copy(update={"seeds": None}),
            "regress": self.regress.model_copy(update=regress),
        }
        return self.model_copy(update=update)
