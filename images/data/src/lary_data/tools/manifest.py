"""`manifest`: a dataset of one's own, from a folder of clips or a robot dataset on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from lary_schema.base import TooManyFailedError
from lary_schema.option_types import FiniteRange

from lary_data.options import max_failed_option, timeout_option, workers_option
from lary_data.progress import notify

if TYPE_CHECKING:
    from lary_data.sampling import Method

_folder = click.Path(path_type=Path, file_okay=False)


def _facts_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--key", required=True, help="The new dataset's key."),
        click.option("--out", type=_folder, required=True, help="Folder for what is written; it is a catalog folder."),
        click.option("--title", help="For tables; default: the key."),
        click.option("--license", "licence", default="unknown", show_default=True, help="Of the data, for its card."),
        click.option("--val", type=FiniteRange(0, 1, True, True), default=0.25, show_default=True, help="Share."),
        click.option("--seed", default=42, show_default=True, help="Of the split."),
    ):
        function = option(function)
    return function


_group_option = click.option(
    "--group",
    type=click.Choice(["episode", "task"]),
    default="episode",
    show_default=True,
    help="What goes to train or val as a whole; intervals draw it, too.",
)


@click.group()
def command() -> None:
    """Make a dataset of your own: metadata CSVs and the card that `lary-orch run --catalog` takes."""


@command.command()
@click.argument("clips", type=_folder)
@_facts_options
@click.option("--frames", type=click.IntRange(min=2), default=9, show_default=True, help="Frames of a clip.")
@click.option("--method", type=click.Choice(["motion", "uniform"]), default="motion", show_default=True)
@click.option(
    "--group",
    "pattern",
    metavar="REGEX",
    help="Finds a clip's group (a video, a session) in its path, as the part (?P<group>...); groups stay whole.",
)
@workers_option
@timeout_option(300)
@max_failed_option
def folder(
    clips: Path, key: str, out: Path, title: str | None, licence: str, val: float, seed: int, frames: int,
    method: "Method", pattern: str | None, workers: int, timeout: float, max_failed: float,
) -> None:  # fmt: skip
    """Classification, from a folder with a folder of clips per class.

    Frames are sampled as by sample-frames; every class is split alike.

    \b
    lary-orch data manifest folder /data/my_clips --key my_clips --out my_clips_set
    lary-orch data manifest folder /data/my_clips --key my_clips --out my_clips_set \\
        --group '^[^/]+/(?P<group>[^/]+)/'
    """
    from lary_schema.groups import Grouping
    from lary_schema.media import CellFiles

    from lary_data.clip_folder import write_clip_manifest
    from lary_data.manifest import SetFacts
    from lary_data.owned_cards import check_key
    from lary_data.sample_frames import Sampler

    facts = SetFacts.parse({"key": key, "title": title or key, "license": licence, "val": val, "seed": seed}, "options")
    check_key(out, facts.key)
    if pattern is not None:
        Grouping.parse({"column": "path", "pattern": pattern}, "--group")
    sampler = Sampler(CellFiles(clips, clips, None), frames, method, workers, timeout)
    card, total, failed = write_clip_manifest(out, facts, sampler, pattern)
    _close(card, clips, "clips", total, failed, max_failed)


@command.command()
@click.argument("dataset", type=_folder)
@_facts_options
@click.option("--stride", type=click.IntRange(min=1), required=True, help="Steps between a pair's frames: the chunk.")
@click.option("--every", type=click.IntRange(min=1), help="Steps from one pair to the next; default: the stride.")
@click.option("--camera", help="Which one, where there are several.")
@click.option("--action", default="action", show_default=True, help="Feature that holds the actions.")
@_group_option
@click.option(
    "--tolerance",
    type=FiniteRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Seconds that a frame may be shown before or after its row's timestamp.",
)
@workers_option
@timeout_option(3600)
@max_failed_option
def lerobot(
    dataset: Path, key: str, out: Path, title: str | None, licence: str, val: float, seed: int, stride: int,
    every: int | None, camera: str | None, action: str, group: str, tolerance: float, workers: int, timeout: float,
    max_failed: float,
) -> None:  # fmt: skip
    """Regression, from a LeRobot v2 or v3 dataset on disk.

    Frames are written as PNG, action chunks as .npy; episodes (or all of one task) go to train or val as a whole. A
    killed run goes on where it was.

    \b
    lary-orch data manifest lerobot /data/aloha --key aloha --stride 10 --camera observation.images.top --out aloha_set
    """
    from lary_data.lerobot import read_lerobot
    from lary_data.lerobot_pairs import Pairs, write_pair_manifest
    from lary_data.manifest import SetFacts
    from lary_data.owned_cards import check_key

    given = {"key": key, "title": title or key, "license": licence, "val": val, "seed": seed, "group": group}
    facts = SetFacts.parse(given, "options")
    check_key(out, facts.key)
    pairs = Pairs(stride, every or stride, tolerance, workers, timeout)
    card, total, failed = write_pair_manifest(out, read_lerobot(dataset, camera, action), facts, pairs)
    _close(card, out, "episodes", total, failed, max_failed)


def _trajectories(name: str, help_line: str, action_help: str) -> None:
    """The command of one format of `lary_data.formats`."""

    @command.command(name, short_help=help_line)
    @click.argument("dataset", type=_folder)
    @_facts_options
    @click.option(
        "--stride", type=click.IntRange(min=1), required=True, help="Steps between a pair's frames: the chunk."
    )
    @click.option("--every", type=click.IntRange(min=1), help="Steps from one pair to the next; default: the stride.")
    @click.option("--camera", help="Which one, where there are several.")
    @click.option("--action", help=action_help)
    @_group_option
    @workers_option
    @timeout_option(3600)
    @max_failed_option
    def made(
        dataset: Path, key: str, out: Path, title: str | None, licence: str, val: float, seed: int, stride: int,
        every: int | None, camera: str | None, action: str | None, group: str, workers: int, timeout: float,
        max_failed: float,
    ) -> None:  # fmt: skip
        from lary_data.manifest import SetFacts
        from lary_data.owned_cards import check_key
        from lary_data.trajectories import find
        from lary_data.trajectory_manifest import Cutting, write_trajectory_manifest

        given = {"key": key, "title": title or key, "license": licence, "val": val, "seed": seed, "group": group}
        facts = SetFacts.parse(given, "options")
        check_key(out, facts.key)
        cutting = Cutting(stride, every or stride, workers, timeout)
        source = find(name, dataset, camera, action)
        card, total, failed = write_trajectory_manifest(out, source, facts, cutting)
        _close(card, out, "episodes", total, failed, max_failed)

    made.help = f"""Regression, from {help_line}

    Frames are written as PNG, action chunks as .npy; episodes go to train or val as a whole. An episode that cannot be
    read is left out with its file and the reason. A killed run goes on where it was.

    \b
    lary-orch data manifest {name} /data/{name} --key my_{name} --stride 10 --out my_{name}_set
    """


_trajectories(
    "libero", "LIBERO or robomimic: .hdf5 files of demonstrations.", "Dataset of a demonstration. [default: actions]"
)
_trajectories(
    "calvin", "CALVIN: training/ and validation/ with one .npz per step.", "Array of a step. [default: rel_actions]"
)
_trajectories(
    "rlds", "RLDS (Open X-Embodiment): TFRecord shards with features.json.",
    "Features of a step, several as A,B in the order that is wanted. [default: action]",
)  # fmt: skip
_trajectories(
    "agibot", "AgiBot World: task_info/, observations/, proprio_stats/.",
    "Datasets of proprio_stats.h5 as A,B. [default: poses and grippers of both hands]",
)  # fmt: skip
_trajectories(
    "egodex", "EgoDex: .mp4 with an .hdf5 of hand poses each.",
    "Joints whose positions are taken, as A,B. [default: leftHand,rightHand]",
)  # fmt: skip


def _close(card: Path, data: Path, unit: str, total: int, failed: int, max_failed: float) -> None:
    from lary_data.manifest import how_to_go_on
    from lary_data.set_summary import summary

    notify(f"{card}: {total:,} {unit}, {failed:,} failed")
    for line in summary(card):
        notify(line)
    notify(how_to_go_on(card, data))
    if failed > max_failed * total:
        raise TooManyFailedError(f"{failed:,} of {total:,} {unit} failed; see above")
