"""Whether pictures can be drawn here, found out before anything is made that would have to be taken apart again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lary_schema.base import ContractError

WHAT_TO_DO = {
    "egl": "EGL finds no device that draws; set MUJOCO_GL=osmesa to draw on the processor, or MUJOCO_EGL_DEVICE_ID to "
    "choose another device",
    "osmesa": "install Debian's libosmesa6, or run the container image libero, which has it",
}


@contextmanager
def starting() -> Iterator[None]:
    """While the simulator is made. Raises ContractError with what to do, whatever the drivers' libraries raise."""
    try:
        yield
    except (ContractError, MemoryError):
        raise
    except Exception as error:
        renderer = os.environ.get("MUJOCO_GL", "")
        said = " ".join(str(error).split()) or type(error).__name__
        raise ContractError(
            f"the simulator cannot be started with MUJOCO_GL={renderer}: {said}; {WHAT_TO_DO.get(renderer, '')}"
        ) from error


def try_to_draw(size: int) -> None:
    """Make what draws `size` x `size` pixels, for a world of nothing, and free it again.

    A simulator that fails here is half made, and complains once more, with tracebacks, when it is collected.
    """
    import mujoco
    from robosuite.utils.binding_utils import GLContext

    # Its destructor frees what a constructor that failed has not made.
    GLContext._context = None
    context = GLContext(max_width=size, max_height=size, device_id=-1)
    try:
        context.make_current()
        mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100).free()
    finally:
        context.free()
