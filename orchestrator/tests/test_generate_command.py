"""`lary-orch data generate NAME`: run by the image that simulates, with what it is given."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lary_orch.catalog.cards import Catalog
from lary_orch.runtimes.tools import run_tool
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError

COMMAND = Path(sys.executable).with_name("lary-orch")
CATALOG = Catalog.load(env={})
SAYS = """
import os, sys
print(sys.argv[1:], os.environ.get("MUJOCO_GL"), os.getcwd())
sys.exit(7)
"""


def data(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    package = tmp_path / "modules" / "lary_libero"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SAYS)
    env = os.environ | {
        "PYTHONPATH": str(package.parent), "LARY_HOME": str(tmp_path / "ws"), "MUJOCO_GL": "osmesa",
    }  # fmt: skip
    command = [COMMAND, "data", "--env", "current", *arguments]
    return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_simulators_image_gets_the_options_and_gives_the_exit_code(tmp_path: Path) -> None:
    done = data(tmp_path, "generate", "libero", "--tasks", "0-2", "--out", "set")
    assert done.returncode == 7, done.stderr
    assert done.stdout == f"['generate', '--tasks', '0-2', '--out', 'set'] osmesa {tmp_path}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate",), "name what generates, and then its options: libero"),
        (("generate", "--out", "x"), "name what generates, and then its options: libero"),
        (("generate", "libreo"), "no generator 'libreo' (did you mean libero?); known: libero"),
        (("generate", "arm"), "no generator 'arm'; known: libero"),
    ],
)
def test_another_generator_is_refused(arguments: tuple[str, ...], message: str) -> None:
    """Before anything is started."""
    with pytest.raises(ContractError, match=re.escape(message)):
        run_tool(CATALOG, Workspace.locate(None), "current", arguments, str)
