"""What the simulator finds when it is imported, and the image's card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from lary_libero import surroundings
from lary_libero.__main__ import COMMANDS, cli
from lary_schema.base import ContractError

MACROS = "robosuite.macros_private"


@pytest.fixture(autouse=True)
def no_macros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MACROS, None)
    monkeypatch.delitem(sys.modules, MACROS)


@pytest.mark.parametrize(
    ("gpus", "given", "renderer"),
    [([], "", "osmesa"), (["a GPU"], "", "egl"), (["a GPU"], "osmesa", "osmesa"), ([], "egl", "egl")],
)
def test_pictures_are_drawn_by_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpus: list[str], given: str, renderer: str
) -> None:
    monkeypatch.setattr(surroundings, "find_gpus", lambda: gpus)
    environ = {"MUJOCO_GL": given} if given else {}
    surroundings.prepare(environ)
    assert environ["MUJOCO_GL"] == environ["PYOPENGL_PLATFORM"] == renderer


def test_a_renderer_of_another_kind_is_refused() -> None:
    with pytest.raises(ContractError, match=r"MUJOCO_GL=glfw: .* egl or osmesa"):
        surroundings.prepare({"MUJOCO_GL": "glfw"})


def test_nothing_is_written_where_it_does_not_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "find_gpus", list)
    environ: dict[str, str] = {}
    surroundings.prepare(environ)
    folder = environ["MPLCONFIGDIR"]
    assert Path(folder).is_dir()
    assert not Path(environ["LIBERO_CONFIG_PATH"]).exists()
    macros = vars(sys.modules[MACROS])
    assert macros["FILE_LOGGING_LEVEL"] is None
    assert macros["ENABLE_NUMBA"] is False
    surroundings.prepare(environ)
    assert environ["MPLCONFIGDIR"] == folder
    assert environ["HOME"] == folder
    given = {"HOME": "/home/somebody", "MPLCONFIGDIR": "/tmp/mine"}
    surroundings.prepare(given)
    assert (given["HOME"], given["MPLCONFIGDIR"]) == ("/home/somebody", "/tmp/mine")


def test_the_card_and_every_command() -> None:
    done = CliRunner().invoke(cli, ["describe"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["kind"] == "simulator"
    for name, line in COMMANDS.items():
        command = cli.get_command(None, name)
        assert command is not None
        assert (command.help or "").splitlines()[0].startswith(line.rstrip("."))


def test_help_needs_no_numpy() -> None:
    """It is shown by an interpreter that has the command line alone."""
    script = (
        "import sys\nsys.modules['numpy'] = sys.modules['av'] = sys.modules['PIL'] = None\n"
        "sys.argv = ['lary_libero', 'generate', '--help']\nfrom lary_libero.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--perturb [lighting|camera|distractor]" in done.stdout
