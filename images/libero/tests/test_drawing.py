"""What is said where nothing can be drawn, on stand-ins for what draws."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lary_libero import __main__, simulator, suites
from lary_libero.suites import Task
from lary_schema.base import ContractError, ExitCode


class EGLError(Exception):
    """PyOpenGL's are of no kind that Python knows."""


FAILURES = {
    "no device": ImportError("Cannot initialize a EGL device display."),
    "no such device": RuntimeError("must be an integer between 0 and 0 (inclusive), got 9."),
    "a device that is no number": ValueError("invalid literal for int() with base 10: 'x'"),
    "another one is assigned": AssertionError("specified device id is not made visible"),
    "no library": AttributeError("'NoneType' object has no attribute 'eglQueryString'"),
    "OpenGL": EGLError("EGL_NOT_INITIALIZED"),
    "nothing said": OSError(),
}


class Context:
    """In place of robosuite's, which frees what it has not made."""

    fails: Exception | None = None
    freed = 0

    def __init__(self, max_width: int, max_height: int, device_id: int) -> None:
        if self.fails is not None:
            raise self.fails
        self._context: Any = (max_width, max_height)

    def make_current(self) -> None:
        pass

    def free(self) -> None:
        if self._context:
            type(self).freed += 1
        self._context = None

    def __del__(self) -> None:
        self.free()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """The sizes for which LIBERO's environment was made, on modules that are none."""
    made: list[Any] = []
    context = type("GLContext", (Context,), {})
    contents = {
        "mujoco": {
            "MjModel": SimpleNamespace(from_xml_string=str),
            "mjtFontScale": SimpleNamespace(mjFONTSCALE_100=100),
            "MjrContext": lambda *_: SimpleNamespace(free=lambda: None),
        },
        "robosuite.utils.binding_utils": {"GLContext": context},
        "libero.libero.envs.env_wrapper": {"ControlEnv": lambda **given: made.append(given)},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    task = Task("suite", 0, "name", "do it", tmp_path, np.zeros((1, 4)))
    for module in (simulator, suites):
        monkeypatch.setattr(module, "find_task", lambda *_: task)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    for name in ("PYOPENGL_PLATFORM", "LIBERO_CONFIG_PATH", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    yield made
    assert context.freed == sum(one["use_camera_obs"] for one in made)


def test_what_draws_is_tried_and_freed_before_the_simulator_is_made(drawn: list[Any]) -> None:
    simulator.Simulator.make("suite", 0, size=64)
    assert [one["camera_widths"] for one in drawn] == [64]


def test_without_cameras_nothing_has_to_draw(drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "fails", FAILURES["no device"])
    simulator.Simulator.make("suite", 0, cameras=())
    assert len(drawn) == 1


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("renderer", ["egl", "osmesa"])
def test_where_nothing_can_be_drawn_one_line_says_why_and_what_to_do(
    drawn: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], renderer: str,
    failure: Exception,
) -> None:  # fmt: skip
    monkeypatch.setenv("MUJOCO_GL", renderer)
    monkeypatch.setattr(Context, "fails", failure)
    monkeypatch.setattr(sys, "argv", ["lary_libero", "selftest"])
    monkeypatch.setattr("lary_schema.terminal.safe_output", lambda: None)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == ExitCode.BAD_JOB
    (line,) = capfd.readouterr().err.splitlines()
    assert f"MUJOCO_GL={renderer}: {str(failure) or type(failure).__name__}; " in line
    assert ("set MUJOCO_GL=osmesa" in line) == (renderer == "egl")
    assert ("libosmesa6" in line) == (renderer == "osmesa")
    assert drawn == []


@pytest.mark.parametrize("error", [ContractError("no such task"), MemoryError()])
def test_what_has_its_own_words_keeps_them(drawn: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(**_: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules["libero.libero.envs.env_wrapper"], "ControlEnv", fails)
    with pytest.raises(type(error)) as caught:
        simulator.Simulator.make("suite", 0, cameras=())
    assert caught.value is error
