"""`lary-orch train`: one checkpoint."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import attempts_option, json_option, option, runtime_options, workspace_options
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.option_types import FiniteRange
from lary_schema.printable import json_text
from lary_schema.yaml_files import parse_yaml

from lary_study.options import folders_options, on_slots, settings_options
from lary_study.trainings import Settings, Training

if TYPE_CHECKING:
    from lary_schema.trained import Checkpoint
    from lary_schema.training import Labelled


@click.command()
@option("-r", "--recipe", required=True, help="Its key, or a YAML file.")
@option("-d", "--dataset", required=True, help="Dataset key; its train split is trained on.")
@option("--seed", type=click.IntRange(0), default=0, help="Of everything that is drawn.")
@option("--start", metavar="KEY", help="Go on from this trained model.")
@option("--labelled", type=FiniteRange(0, 1, min_open=True), help="Share of groups whose labels may be seen.")
@option("--labelled-seed", type=int, default=0, help="Of the draw of that share.")
@option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Another value of the recipe; repeatable.")
@option("--plan", "only_plan", is_flag=True, help="Print the job and start nothing.")
@settings_options
@folders_options
@workspace_options
@runtime_options
@attempts_option
@json_option
def command(
    recipe: str,
    dataset: str,
    seed: int,
    start: str | None,
    labelled: float | None,
    labelled_seed: int,
    changes: tuple[str, ...],
    only_plan: bool,
    settings: Settings,
    catalog: Catalog,
    folders: Sequence[Path],
    workspace: Workspace,
    wanted: Wanted,
    attempts: int,
    as_json: bool,
) -> None:
    """Train one model from a recipe; print its key.

    The key is known before it runs: recipe, data, labels, start, code and seed decide it. The same command goes on
    after a fault or Ctrl-C, and does nothing the second time. `lary-orch run -m KEY -d DATASET` probes the model.

    \b
    lary-orch train -r moto-demo -d demo_arm_long
    lary-orch train -r moto-demo -d my_set --set config.codes=64 --set steps=2000 --catalog my_cards
    lary-orch train -r lara-demo -d demo_arm_long --start moto-demo-0123456789ab --labelled 0.5
    """
    from lary_orch.run.run import notify
    from lary_orch.runtimes.choose import open_runtime

    from lary_study.recipes import changed, load_recipe
    from lary_study.trainings import Trainings, image_of

    chosen = changed(load_recipe(recipe, folders), _changes(changes), f"recipe {recipe} with --set")
    runtime, slots = open_runtime(wanted, workspace, [image_of(chosen, catalog)], notify)
    trainings = Trainings(workspace, catalog, runtime, notify, on_slots(settings, slots), dataset)
    begun = None if start is None else _start(workspace, start)
    training = trainings.plan(chosen, seed, _labelled(labelled, labelled_seed), begun)
    if only_plan:
        assert training.job.document is not None
        click.echo(json_text(training.job.document.model_dump(mode="json"), indent=2))
        return
    sys.exit(_carry_out(training, workspace, runtime, slots, attempts, as_json=as_json))


def _carry_out(
    training: Training, workspace: Workspace, runtime: Any, slots: Any, attempts: int, *, as_json: bool
) -> int:
    from lary_orch.plan.planner import Part, assemble
    from lary_orch.run.run import carry_out

    plan = assemble("train", [Part(trainings=(training.job,))], workspace)
    # People read the key on stdout; programs read events there, and the key in the last line.
    out = sys.stdout if as_json else sys.stderr
    code = carry_out(plan, workspace, runtime, slots, attempts=attempts, as_json=as_json, out=out)
    if code == 0:
        done = {"event": "trained", "key": training.key, "checkpoint": str(training.folder)}
        click.echo(json_text(done) if as_json else training.key)
    return code


def _start(workspace: Workspace, key: str) -> "Checkpoint":
    from lary_schema.trained import Checkpoint, trained_models

    found = Checkpoint.of(workspace.trained, key)
    if not found.is_whole:
        known = ", ".join(one.key for one in trained_models(workspace.trained)) or "none"
        raise ContractError(f"--start {key}: no trained model of {workspace.trained}; there are: {known}")
    return found


def _labelled(share: float | None, seed: int) -> "Labelled | None":
    from lary_schema.training import Labelled

    return None if share is None else Labelled(share=share, seed=seed)


def _changes(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set {text}: write NAME=VALUE, as config.codes=64")
        found[name] = parse_yaml(value, f"--set {name}")
    return found
