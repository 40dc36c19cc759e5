"""What has to be so before robosuite and LIBERO are imported.

Both write where they like (a log in /tmp that belongs to whoever came first, numba's cache next to the code, settings
of matplotlib and LIBERO below HOME) and guess how to draw. Here they write in a folder of the process at most, and are
told how to draw.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from types import ModuleType

from lary_schema.base import ContractError
from lary_schema.gpus import find_gpus

RENDERERS = ("egl", "osmesa")
_ASSIGNED = "CUDA_VISIBLE_DEVICES"
_MACROS = "robosuite.macros_private"
"""Where robosuite 1.4.0 finds a module of this name, it opens no log. It takes no settings from there."""


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Make the imports below possible for any user, without HOME and on a read-only root. Done twice, it does nothing.

    Raises ContractError for a MUJOCO_GL that this image does not draw by.
    """
    renderer = environ.get("MUJOCO_GL") or ("egl" if _may_use_gpu(environ) else "osmesa")
    if renderer not in RENDERERS:
        raise ContractError(f"MUJOCO_GL={renderer}: the simulator draws by {' or '.join(RENDERERS)}; set one of them")
    environ["MUJOCO_GL"] = environ["PYOPENGL_PLATFORM"] = renderer
    if renderer == "egl":
        _name_egl_device(environ)
    # Never made: nothing is to be found there, and nobody writes there.
    environ.setdefault("LIBERO_CONFIG_PATH", str(Path(tempfile.gettempdir()) / "lary-libero-has-no-settings"))
    if "MPLCONFIGDIR" not in environ:
        environ["MPLCONFIGDIR"] = _own_folder()
    _keep_compiled(environ)
    # LIBERO looks for a home when it is imported, and ends where a user has none; it needs nothing of it.
    environ.setdefault("HOME", environ["MPLCONFIGDIR"])
    sys.modules.setdefault(_MACROS, ModuleType(_MACROS))


def _may_use_gpu(environ: MutableMapping[str, str]) -> bool:
    """A job that was given no GPU has an empty CUDA_VISIBLE_DEVICES, and `nvidia-smi` lists them all even then."""
    return environ.get(_ASSIGNED, "all") not in ("", "-1") and bool(find_gpus())


def _name_egl_device(environ: MutableMapping[str, str]) -> None:
    """robosuite 1.4.0 reads CUDA_VISIBLE_DEVICES as EGL's device number and breaks on a UUID or an empty text: it gets
    the number of the first GPU that was assigned, in the order of `nvidia-smi`. Nothing here computes by CUDA."""
    first = environ.pop(_ASSIGNED, "").partition(",")[0].strip()
    if not first or environ.get("MUJOCO_EGL_DEVICE_ID"):
        return
    uuids = [gpu.uuid for gpu in find_gpus()]
    number = first if first.isdigit() else next((str(n) for n, uuid in enumerate(uuids) if uuid.startswith(first)), "0")
    environ["MUJOCO_EGL_DEVICE_ID"] = number


def _keep_compiled(environ: MutableMapping[str, str]) -> None:
    """numba keeps what it compiles next to robosuite's code or in NUMBA_CACHE_DIR, and ends where it cannot write.

    There it gets a folder of this process, with a copy of what NUMBA_CACHE_DIR has: compiling takes 13 s.
    """
    given = environ.get("NUMBA_CACHE_DIR")
    code = importlib.util.find_spec("robosuite")
    folders = [given] if given else list(code.submodule_search_locations or ()) if code else []
    if all(os.access(folder, os.W_OK) for folder in folders):
        return
    own = Path(_own_folder())
    if given and Path(given).is_dir():
        shutil.copytree(given, own, dirs_exist_ok=True)
    environ["NUMBA_CACHE_DIR"] = str(own)


def _own_folder() -> str:
    """A folder for one process, and for those that it starts. Gone with it."""
    folder = tempfile.TemporaryDirectory(prefix="lary-libero-", ignore_cleanup_errors=True)
    _folders.append(folder)
    return folder.name


_folders: list["tempfile.TemporaryDirectory[str]"] = []
