"""What the simulator finds when it is imported, and the image's card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from lary_libero import surroundings
from lary_libero.__main__ import COMMANDS, cli
from lary_libero.commands.generate import command as generate_command
from lary_libero.commands.generate import numbers
from lary_schema.base import ContractError
from lary_schema.gpus import Gpu

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


@pytest.mark.parametrize(
    ("assigned", "renderer"), [("", "osmesa"), ("-1", "osmesa"), ("0", "egl"), ("GPU-b", "egl"), ("GPU-b,GPU-a", "egl")]
)
def test_a_job_without_a_gpu_draws_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, assigned: str, renderer: str
) -> None:
    """`nvidia-smi` lists every GPU of the machine, also to a job that was given none."""
    monkeypatch.setattr(surroundings, "find_gpus", lambda: [Gpu("GPU-a", "", 0, 0), Gpu("GPU-b1", "", 0, 0)])
    environ = {"CUDA_VISIBLE_DEVICES": assigned}
    surroundings.prepare(environ)
    assert environ["MUJOCO_GL"] == renderer


@pytest.mark.parametrize(
    ("given", "device"),
    [
        ({"CUDA_VISIBLE_DEVICES": "GPU-b1"}, "1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}, "1"),
        ({"CUDA_VISIBLE_DEVICES": "3,2"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": "MIG-x"}, "0"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b1", "MUJOCO_EGL_DEVICE_ID": "5"}, "5"),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({}, None),
    ],
)
def test_egl_is_told_a_device_by_its_number(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], device: str | None
) -> None:
    """The process runtime sets UUIDs; robosuite takes CUDA_VISIBLE_DEVICES for a number, wherever it is set."""
    monkeypatch.setattr(surroundings, "find_gpus", lambda: [Gpu("GPU-a", "", 0, 0), Gpu("GPU-b1", "", 0, 0)])
    environ = {"MUJOCO_GL": "egl", **given}
    for _ in range(2):
        surroundings.prepare(environ)
        assert environ.get("MUJOCO_EGL_DEVICE_ID") == device
        assert "CUDA_VISIBLE_DEVICES" not in environ


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("writable", [True, False])
def test_numba_gets_a_folder_where_it_can_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: bool, writable: bool
) -> None:
    code, compiled = tmp_path / "robosuite", tmp_path / "compiled"
    for folder in (code, compiled):
        folder.mkdir()
    (code / "__init__.py").touch()
    (compiled / "one.nbc").write_bytes(b"machine code")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(surroundings, "find_gpus", list)
    # A read-only root refuses root as well.
    monkeypatch.setattr(surroundings.os, "access", lambda folder, _: writable and Path(folder) in (code, compiled))
    environ = {"NUMBA_CACHE_DIR": str(compiled)} if given else {}
    surroundings.prepare(environ)
    if writable:
        assert environ.get("NUMBA_CACHE_DIR") == (str(compiled) if given else None)
    else:
        found = Path(environ["NUMBA_CACHE_DIR"])
        assert found not in (code, compiled)
        assert [path.read_bytes() for path in found.iterdir()] == ([b"machine code"] if given else [])


def test_nothing_is_written_where_it_does_not_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "find_gpus", list)
    environ: dict[str, str] = {}
    surroundings.prepare(environ)
    folder = environ["MPLCONFIGDIR"]
    assert Path(folder).is_dir()
    assert not Path(environ["LIBERO_CONFIG_PATH"]).exists()
    assert MACROS in sys.modules
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


@pytest.mark.parametrize(
    ("text", "found"),
    [("3", (3,)), ("2,0,2", (0, 2)), ("0,2,5-7,6", (0, 2, 5, 6, 7)), ("4-4", (4,)), (" 1", (1,))],
)
def test_which_tasks_a_text_names(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize("text", ["", " ", "5-2", "3-", "-3", ",", "1,", "1-2-3", "a", "0-99999999999", "1.5", "0,7-6"])
def test_what_names_no_task_is_refused_and_never_taken_for_all(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        numbers(text)
    said = CliRunner().invoke(generate_command, ["--tasks", text, "--out", "x"])
    assert said.exit_code == 2
    assert "numbers and ranges are expected" in said.output
