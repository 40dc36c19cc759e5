"""Options that several commands share, each declared once. A decorator hands over what they mean."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from lary_schema.commands import CATALOG, FOLDERS, naming
from lary_schema.option_types import SECONDS, FiniteRange
from lary_schema.values import ExtractionSettings

from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.cli import completing
from lary_orch.plan.jobs import Probing, Request
from lary_orch.runtimes.devices import DeviceChoice
from lary_orch.runtimes.plugins import Wanted, own_options, plugins
from lary_orch.workspace import Workspace

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]

option = functools.partial(click.option, show_default=True)
FOLDER = click.Path(file_okay=False, path_type=Path)


def together(options: Sequence[Decorator]) -> Decorator:
    """One decorator of many, listed by `--help` in this order."""

    def decorate(function: Function) -> Function:
        return functools.reduce(lambda decorated, one: one(decorated), reversed(options), function)

    return decorate


def workspace_options(function: Function) -> Function:
    """Hands over `workspace: Workspace`."""

    @functools.wraps(function)
    def located(
        *args: Any,
        root: Path | None,
        data_dir: Path | None,
        latents: Path | None,
        weights_dir: Path | None,
        metadata_dir: Path | None,
        **rest: Any,
    ) -> Any:
        workspace = Workspace.locate(root, data_dir, latents, weights_dir, metadata_dir)
        with naming(zip(FOLDERS, (root, data_dir, metadata_dir, latents, weights_dir), strict=True)):
            return function(*args, workspace=workspace, **rest)

    return together(
        [
            option(
                "--workspace", "root", type=FOLDER, help="Folder of runs and results [LARY_HOME, else ./workspace]."
            ),
            option("--data-dir", type=FOLDER, help="Root of the datasets [DATA_DIR, else WORKSPACE/data]."),
            option("--metadata-dir", type=FOLDER, help="Folder of their CSVs [LARY_ROOT/data, else --data-dir]."),
            option("--latents", type=FOLDER, help="Volume of the latent stores [LARY_LA_DIR, else WORKSPACE/latents]."),
            option("--weights-dir", type=FOLDER, help="Root of the checkpoints [MODEL_DIR, else WORKSPACE/weights]."),
        ]
    )(located)


def catalog_options(function: Function) -> Function:
    """Hands over `catalog: Catalog`."""

    @functools.wraps(function)
    def loaded(*args: Any, catalog_folders: tuple[Path, ...], **rest: Any) -> Any:
        with naming((CATALOG, folder) for folder in catalog_folders):
            return function(*args, catalog=Catalog.load(catalog_folders), **rest)

    return option(
        "--catalog",
        "catalog_folders",
        type=FOLDER,
        multiple=True,
        help="Folder of your own models and datasets; repeatable [and LARY_CATALOG].",
    )(loaded)


max_failed_option = option(
    "--max-failed",
    type=FiniteRange(0, 1),
    default=0.05,
    help="Share of rows without a latent (of train, or of the evaluated rows) above which a score is not compared.",
)

json_option = option("--json", "as_json", is_flag=True, help="JSON instead of text for people.")

environment_option = option(
    "--env",
    "environment",
    type=click.Choice(["own", "current"]),
    default="own",
    help="Of the process runtime: an environment per image, or the interpreter that runs this.",
)


def _own(function: Function) -> Function:
    """The options that runtimes bring."""
    return together([option(own.flag, **own.attributes) for own in own_options()])(function)


def _runtime(help_text: str) -> Decorator:
    names = ["auto", *plugins()]
    return option("--runtime", type=click.Choice(names), default="auto", help=help_text)


def _taken(given: dict[str, Any], **fields: Any) -> Wanted:
    own = {one.name: given.pop(one.name) for one in own_options()}
    return Wanted(runtime=given.pop("runtime"), own=own, **fields)


def runtime_name_options(function: Function) -> Function:
    """Hands over `wanted: Wanted` of the runtime's name and the runtimes' own options."""

    @functools.wraps(function)
    def named(*args: Any, **given: Any) -> Any:
        return function(*args, wanted=_taken(given), **given)

    return _runtime("What jobs shall run in; auto takes a missing engine lightly.")(_own(named))


def runtime_options(function: Function) -> Function:
    """Hands over `wanted: Wanted`."""

    @functools.wraps(function)
    def chosen(
        *args: Any, environment: str, device: DeviceChoice, gpus: tuple[str, ...], cpu_slots: int | None, **given: Any
    ) -> Any:
        wanted = _taken(given, environment=environment, device=device, gpus=gpus, cpu_slots=cpu_slots)
        return function(*args, wanted=wanted, **given)

    return together(
        [
            _runtime("Where jobs run: auto takes docker where an engine is reachable and the images are built."),
            environment_option,
            option(
                "--device",
                type=click.Choice(["auto", "cpu", "cuda"]),
                default="auto",
                help="What jobs compute on: auto takes the GPUs where there are some.",
            ),
            option("--gpus", multiple=True, help="GPUs to use, by index or UUID; repeatable [all]."),
            option(
                "--cpu-slots",
                type=click.IntRange(1),
                help="Jobs at once where no GPU is used [one per core, at most 4].",
            ),
            _own,
        ]
    )(chosen)


def _listed(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Keys given one by one, or several joined by commas; no key holds one."""
    keys = tuple(key for value in values for key in (part.strip() for part in value.split(",")) if key)
    if values and not keys:
        raise click.UsageError(f"{option.opts[-1]} names no {option.opts[-1].lstrip('-')}")
    return keys


keys_option = functools.partial(option, multiple=True, callback=_listed)

_MATRIX = together(
    [
        keys_option(
            *("-m", "--model", "models"),
            required=True,
            shell_complete=completing.models,
            help="Model keys: -m a,b or -m a -m b.",
        ),
        keys_option(
            *("-d", "--dataset", "datasets"),
            required=True,
            shell_complete=completing.datasets,
            help="Dataset keys, in the same way.",
        ),
        keys_option(
            "--variant",
            "variants",
            shell_complete=completing.variants,
            help="How models are fed and read out; repeatable [their default].",
        ),
        keys_option("--split", "splits", help="Evaluated split; repeatable [all of the dataset's]."),
        option("--protocol", default="clean", help="How probes are trained and scored: a name, or a YAML file."),
        option(
            "--control/--no-control",
            default=True,
            help="Probe baselines too: shuffled targets; single-frame for regressions of pairs, if its image is used.",
        ),
    ]
)
_SETTINGS = together(
    [
        option("--decoder", type=click.Choice(["pyav", "decord"]), default="pyav", help="Video reader."),
        option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Of the model's arithmetic."),
        option("--dtype", type=click.Choice(["float16", "float32"]), default="float16", help="Of the stored latents."),
        option("--seed", type=click.IntRange(0), default=0, help="Of models that draw; probes' are in the protocol."),
    ]
)
_EXTRACTION = together(
    [
        option("--batch-size", type=click.IntRange(1), help="Rows per encoder batch [the model's]."),
        option("--workers", type=click.IntRange(1), default=2, help="Decode processes per extraction."),
        option("--row-timeout", type=SECONDS, default=60.0, help="Seconds for one row."),
        option("--stall-timeout", type=SECONDS, default=600.0, help="Seconds without progress."),
        option("--max-failed", type=FiniteRange(0, 1), default=0.01, help="Tolerated share of failed rows."),
        option(
            "--retry-failed/--keep-failed",
            default=None,
            help="Extract the shards with failed rows again, or none of them [where a row was killed, took too long, "
            "or memory or the volume failed].",
        ),
        option("--mixed", is_flag=True, help="Go on with stores that another image, libraries or device began."),
        option("--shard-rows", type=click.IntRange(1), help="Rows per shard of new stores [by size]."),
    ]
)


_PROBING = together(
    [
        option("--probe-seed", "seeds", type=int, multiple=True, help="Seed of a probe; repeatable [the protocol's]."),
        option("--head", type=click.Choice(["mlp", "dit", "linear"]), help="Of regression probes [the protocol's]."),
        option("--target", type=click.Choice(["absolute", "relative"]), help="Of regression [the protocol's]."),
        option(
            "--reads",
            type=click.Choice(["actions", "nuisance"]),
            multiple=True,
            default=("actions",),
            help="What probes predict: what the dataset's task says, its nuisance; repeatable.",
        ),
        option("--allow-unknown-robot", is_flag=True, help="Mean 0 and std 1 for robots without statistics."),
        option(
            "--probe-processes",
            "processes",
            type=click.IntRange(1),
            default=1,
            help="Processes (GPUs) that share each probe.",
        ),
        option("--ram", type=FiniteRange(0, min_open=True), default=8.0, help="GiB of latents kept in memory."),
        option(
            "--track",
            "trackers",
            type=click.Choice(["tensorboard", "wandb"]),
            multiple=True,
            help="Log scores there.",
        ),
    ]
)


def request_options(function: Function) -> Function:
    """Hands over `request: Request`; device, slots and threads are the command's to fill in."""

    @functools.wraps(function)
    def requested(*args: Any, **given: Any) -> Any:
        settings = ExtractionSettings(**{name: given.pop(name) for name in ("decoder", "precision", "dtype", "seed")})
        probing = Probing(
            ram_bytes=int(given.pop("ram") * (1 << 30)),
            **{
                name: given.pop(name)
                for name in ("seeds", "head", "target", "reads", "allow_unknown_robot", "trackers", "processes")
            },
        )
        request = Request(
            probing=probing,
            protocol=load_protocol(given.pop("protocol")),
            settings=settings,
            row_timeout_s=given.pop("row_timeout"),
            stall_timeout_s=given.pop("stall_timeout"),
            **{name: given.pop(name) for name in _SAME_NAME},
        )
        return function(*args, request=request, **given)

    return together([_MATRIX, _SETTINGS, _EXTRACTION, _PROBING])(requested)


_SAME_NAME = (
    *("models", "datasets", "variants", "splits", "control"),
    *("batch_size", "workers", "max_failed", "retry_failed", "mixed", "shard_rows"),
)
"""Options that are called as their fields of `Request`."""

attempts_option = option("--attempts", type=click.IntRange(1), default=3, help="Launches of a job that keeps dying.")
