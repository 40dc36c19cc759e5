"""What has to be so before robosuite and LIBERO are imported.

Both write where they like (a log in /tmp that belongs to whoever came first, numba's cache next to the code, settings
of matplotlib and LIBERO below HOME) and guess how to draw. Here they get no file to write and are told how to draw.
"""

import os
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from types import ModuleType

from lary_schema.base import ContractError
from lary_schema.gpus import find_gpus

RENDERERS = ("egl", "osmesa")
_MACROS = "robosuite.macros_private"
"""robosuite 1.4.0, macros.py: a module of this name replaces its settings."""


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Make the imports below possible for any user, without HOME and on a read-only root. Done twice, it does nothing.

    Raises ContractError for a MUJOCO_GL that this image does not draw by.
    """
    renderer = environ.get("MUJOCO_GL") or ("egl" if find_gpus() else "osmesa")
    if renderer not in RENDERERS:
        raise ContractError(f"MUJOCO_GL={renderer}: the simulator draws by {' or '.join(RENDERERS)}; set one of them")
    environ["MUJOCO_GL"] = environ["PYOPENGL_PLATFORM"] = renderer
    # Never made: nothing is to be found there, and nobody writes there.
    environ.setdefault("LIBERO_CONFIG_PATH", str(Path(tempfile.gettempdir()) / "lary-libero-has-no-settings"))
    if "MPLCONFIGDIR" not in environ:
        environ["MPLCONFIGDIR"] = _own_folder()
    # LIBERO looks for a home when it is imported, and ends where a user has none; it needs nothing of it.
    environ.setdefault("HOME", environ["MPLCONFIGDIR"])
    sys.modules.setdefault(_MACROS, _macros())


def _own_folder() -> str:
    """A folder for one process, and for those that it starts. Gone with it."""
    folder = tempfile.TemporaryDirectory(prefix="lary-libero-", ignore_cleanup_errors=True)
    _folders.append(folder)
    return folder.name


_folders: list["tempfile.TemporaryDirectory[str]"] = []


def _macros() -> ModuleType:
    macros = ModuleType(_MACROS)
    # Compiling takes 8 s of every process and saves nothing: a step takes 13 ms either way, with the same values.
    vars(macros).update(FILE_LOGGING_LEVEL=None, CONSOLE_LOGGING_LEVEL="ERROR", ENABLE_NUMBA=False)
    return macros
