"""`generate`: a data set of episodes."""

from pathlib import Path

import click

from lary_libero.choices import AGENT, CAMERAS, DIMENSIONS, POLICY_NAMES

MOST_TASKS = 1000


def numbers(text: str) -> tuple[int, ...]:
    """`0,2,5-7`, each once and in order. Raises ValueError, for a range without a number too: none would mean all."""
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.partition("-")
        numbers = range(int(low), int(high if dash else low) + 1)
        if not 0 < len(numbers) <= MOST_TASKS:
            raise ValueError(part)
        found |= set(numbers)
    return tuple(sorted(found))


def _numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        return numbers(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}: numbers and ranges are expected, as 0,2,5-7") from None


def _words(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    repeated = [word for word in value if value.count(word) > 1]
    if repeated:
        raise click.BadParameter(f"{repeated[0]} is given twice")
    return value


@click.command()
@click.option(
    "--suite", default="libero_object", show_default=True,
    help="Such as libero_spatial, libero_goal, libero_10; an unknown name lists all.",
)  # fmt: skip
@click.option("--tasks", callback=_numbers, help="As 0,2,5-7 [default: all].")
@click.option(
    "--episodes", default=5, show_default=True, type=click.IntRange(2, 100_000), help="Of each task."
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--size", default=128, show_default=True, type=click.IntRange(32, 640), help="Pixels of a side; even.")
@click.option("--policy", default="scripted", show_default=True, type=click.Choice(POLICY_NAMES))
@click.option(
    "--perturb", multiple=True, callback=_words, type=click.Choice(list(DIMENSIONS)), help="What is seen alone."
)
@click.option(
    "--camera", "cameras", multiple=True, callback=_words, default=(AGENT,), show_default=True,
    type=click.Choice(CAMERAS), help="The first one's pictures are those of pairs and clips.",
)  # fmt: skip
@click.option("--stride", default=5, show_default=True, type=click.IntRange(1, 100), help="Steps of a pair.")
@click.option("--horizon", default=400, show_default=True, type=click.IntRange(1, 2000), help="Most steps.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes side by side [default: one per core].")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the set.")
def command(
    suite: str,
    tasks: tuple[int, ...],
    episodes: int,
    seed: int,
    size: int,
    policy: str,
    perturb: tuple[str, ...],
    cameras: tuple[str, ...],
    stride: int,
    horizon: int,
    workers: int | None,
    out: Path,
) -> None:
    """Make a data set of episodes.

    In OUT: a LeRobot v3 dataset (lerobot/), and cards of image pairs with actions, of clips by task and of clips by
    motion phase. Killed, it goes on where it was when the same command is given again.

    \b
    lary-orch data generate libero --suite libero_object --tasks 0-2 --episodes 20 --size 64 --out objects
    lary-orch data generate libero --suite libero_goal --tasks 8 --policy noisy --perturb lighting --out dim
    """
    import os

    from lary_libero.commands.describe import installed
    from lary_libero.generate import Settings, generate
    from lary_libero.layout import Layout
    from lary_libero.suites import find_task, tasks_of
    from lary_libero.surroundings import prepare

    if size % 2:
        raise click.BadParameter("an even number is expected: videos are of pairs of lines", param_hint="--size")
    prepare()
    wanted = tasks or tuple(range(tasks_of(suite)))
    for task in wanted:
        find_task(suite, task)
    settings = Settings(
        suite=suite, tasks=wanted, episodes=episodes, seed=seed, size=size, policy=policy, perturb=perturb,
        cameras=cameras, stride=stride, horizon=horizon, libraries=installed(), renderer=os.environ["MUJOCO_GL"],
    )  # fmt: skip
    generate(Layout(out), settings, workers or len(os.sched_getaffinity(0)), lambda line: click.echo(line, err=True))
