"""Can the process runtime make environments?"""

import subprocess

from lary_doctor.check import Context, Finding

NAME = "uv"
REMEDY = "pip install uv; or install the images' packages yourself and use --env current"


def run(context: Context) -> Finding:
    if context.runtime == "docker":
        return Finding("skip", "containers need none")
    try:
        from uv import find_uv_bin

        done = subprocess.run([find_uv_bin(), "--version"], capture_output=True, text=True, timeout=20, check=True)
    except ImportError:
        return Finding("warn", "uv is not installed, so no environments can be made", REMEDY)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("warn", f"uv does not run: {error}", REMEDY)
    return Finding("ok", done.stdout.strip())
