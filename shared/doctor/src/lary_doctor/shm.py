"""Is there shared memory for probes on several GPUs? (Decoded frames need none: they are passed by memfd.)"""

import shutil
from pathlib import Path

from lary_terminal.tables import size_text

from lary_doctor.check import Context, Finding

NAME = "shm"
FOLDER = Path("/dev/shm")
ENOUGH = 1 << 30
"""What a container of ours gets."""


def run(context: Context) -> Finding:
    if context.runtime == "docker":
        return Finding("skip", f"each container gets {size_text(ENOUGH)}")
    if not FOLDER.is_dir():
        return Finding("skip", "this system has no /dev/shm")
    free = shutil.disk_usage(FOLDER).free
    message = f"{size_text(free)} free in {FOLDER}"
    if free < ENOUGH:
        remedy = "mount -o remount,size=2G /dev/shm (inside a container: --shm-size 2g)"
        return Finding("warn", message, remedy)
    return Finding("ok", message)
