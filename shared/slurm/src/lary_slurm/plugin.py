"""The slurm runtime as the command line knows it. Imports little: it is read whenever a command runs jobs."""

from pathlib import Path
from typing import Any

import click
from lary_orch.runtimes.base import Notify, Runtime
from lary_orch.runtimes.plugins import OwnOption, Plugin, Wanted
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.runs import RunPaths
from lary_terminal.tables import Table

PROFILE = OwnOption(
    "--profile",
    {
        "type": click.Path(dir_okay=False, path_type=Path),
        "help": "Of the slurm runtime: YAML of what jobs request [LARY_SLURM_PROFILE].",
    },
)


def _open(wanted: Wanted, workspace: Workspace) -> Runtime:
    """Raises ContractError for a bad profile, and for options of one machine."""
    from lary_orch.runtimes.choose import interpreters

    from lary_slurm.client import Slurm
    from lary_slurm.profile import load_profile
    from lary_slurm.runtime import SlurmRuntime

    if wanted.device != "auto" or wanted.gpus or wanted.cpu_slots is not None:
        raise ContractError(
            "--device, --gpus and --cpu-slots are of one machine; with --runtime slurm the profile says it "
            "(gpus, gres, tasks; --profile FILE)"
        )
    profile = load_profile(wanted.own.get(PROFILE.name))
    return SlurmRuntime(Slurm(), profile, interpreters(workspace, wanted.environment), workspace.root)


class Sessions:
    """Runs on the cluster, as their files and the queue show them afterwards."""

    key = "cluster"

    def state(self, run: RunPaths) -> dict[str, Any] | None:
        from lary_slurm.state import FOLDER

        if not (run.root / FOLDER).is_dir():
            return None
        from lary_slurm.client import Slurm
        from lary_slurm.report import cluster_state

        return cluster_state(run, Slurm())

    def table(self, state: dict[str, Any]) -> Table:
        from lary_slurm.report import cluster_table

        return cluster_table(state)

    def cancel(self, run: RunPaths, notify: Notify) -> str | None:
        from lary_slurm.client import Slurm
        from lary_slurm.state import Session, SessionPaths
        from lary_slurm.stop import cancel

        paths = SessionPaths.newest(run)
        if paths is None:
            return None
        cancel(Slurm(), Session.read(paths.document), paths, notify)
        return "cancelled; none of its tasks is in the queue any more"


PLUGIN = Plugin(
    name="slurm",
    open=_open,
    options=(PROFILE,),
    checks=tuple(f"lary_slurm.checks.{name}" for name in ("client", "partition", "memory", "job")),
    detached=Sessions,
)
