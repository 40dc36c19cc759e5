"""The data tools, run in an environment of their own with the terminal as theirs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lary_schema import commands
from lary_schema.base import ContractError, unknown_key
from lary_schema.datasets import DATASETS_VARIABLE, DatasetFiles, Datasets
from lary_schema.mounts import Mounts

from lary_orch.catalog.cards import Catalog, repository
from lary_orch.catalog.source import ImageSource
from lary_orch.catalog.splits import csv_path, data_root
from lary_orch.runtimes.base import Notify
from lary_orch.runtimes.choose import interpreters
from lary_orch.runtimes.process import base_env
from lary_orch.runtimes.signals import exit_at_sigterm
from lary_orch.workspace import Workspace

HELP = {"--help", "-h"}
GENERATE = "generate"
"""The one tool that is no part of the image of data tools."""
ONLY_EVALUATES = "lary_policy"
"""The module of simulators that generate nothing."""


def run_tool(catalog: Catalog, workspace: Workspace, environment: str, arguments: Sequence[str], notify: Notify) -> int:
    """Run `python -m lary_data ARGUMENTS` and wait for it; its exit code. `generate NAME` is run by the image NAME.

    Raises ContractError where its environment cannot be made, and for a generator that is no image of kind simulator.
    Relative paths in `arguments` are the caller's.
    """
    image, arguments = _chosen(catalog, arguments)
    if image.folder is not None and (not arguments or set(arguments) & HELP):
        # What a tool does is read from its source: nothing is made for it.
        sources = [image.folder / "src", *(repository() / "shared" / name / "src" for name in ("schema", "worker"))]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources))} | commands.environment()
        return subprocess.run([sys.executable, "-m", image.card.module, *arguments], env=env, check=False).returncode
    found = interpreters(workspace, environment)
    python = found.python(found.prepare(image, notify))
    exit_at_sigterm()
    with tempfile.TemporaryDirectory(prefix="lary-data-") as folder:
        known = Path(folder) / "datasets.json"
        known.write_text(datasets(catalog, workspace).to_json(), encoding="utf-8")
        env = base_env(os.environ, found.inherited) | _mounts(workspace).to_env() | {DATASETS_VARIABLE: str(known)}
        return subprocess.run([str(python), "-m", image.card.module, *arguments], env=env, check=False).returncode


def _chosen(catalog: Catalog, arguments: Sequence[str]) -> tuple[ImageSource, Sequence[str]]:
    """The image that has a tool, and what it is given."""
    if not arguments or arguments[0] != GENERATE:
        return catalog.tools(), arguments
    images = (source for _, source in catalog.images if source.card.kind == "simulator")
    simulators = {source.card.name: source for source in images if source.card.module != ONLY_EVALUATES}
    name = arguments[1] if len(arguments) > 1 else "-"
    if name.startswith("-"):
        raise ContractError(f"generate: name what generates, and then its options: {', '.join(simulators)}")
    if name not in simulators:
        raise unknown_key("generator", name, simulators)
    return simulators[name], (GENERATE, *arguments[2:])


def datasets(catalog: Catalog, workspace: Workspace) -> Datasets:
    """Every dataset of the catalog with its files on this disk."""
    return Datasets(
        datasets=tuple(
            DatasetFiles(
                card=card,
                data=data_root(card, workspace),
                csv={split: csv_path(card, split, workspace) for split in card.splits.all},
            )
            for _, card in catalog.datasets
        )
    )


def _mounts(workspace: Workspace) -> Mounts:
    here = Path.cwd()
    return Mounts(data=workspace.data, weights=workspace.weights, latents=workspace.latents, job=here, out=here)
