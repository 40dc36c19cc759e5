"""The demo sets: made by a Python that has what draws and encodes them, which the orchestrator has not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import lary_demo
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard

from lary_orch.catalog.cards import repository
from lary_orch.runtimes.base import Notify
from lary_orch.runtimes.environments import Checkout, CurrentEnvironment, OwnEnvironments
from lary_orch.runtimes.process import base_env
from lary_orch.workspace import Workspace

TOOLS = ("av", "numpy", "PIL")
"""What `lary-demo[make]` brings."""


def make_generated(card: DatasetCard, workspace: Workspace, notify: Notify) -> None:
    """Have a demo set's files exist; any other set is the user's. Raises ContractError where it cannot be made."""
    if card.generator is None or lary_demo.is_complete(workspace.generated / card.generator):
        return
    command = [str(demo_python(workspace, notify)), "-m", "lary_demo", card.generator, str(workspace.generated)]
    with subprocess.Popen(
        command,
        env=base_env(os.environ, CurrentEnvironment.inherited),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            notify(line.rstrip("\n"))
        _, errors = child.communicate()
    if child.returncode:
        raise ContractError(errors.strip().removeprefix("error: ")[-2000:] or f"{' '.join(command)}: failed")


def demo_python(workspace: Workspace, notify: Notify) -> Path:
    """This interpreter where it has the tools, else that of a small environment of their own."""
    if all(importlib.util.find_spec(name) for name in TOOLS):
        return Path(sys.executable)
    checkout = Checkout(repository())
    return OwnEnvironments(workspace.envs, checkout).tool("demo", checkout.demo, "make", notify)
