"""Is the GPU's driver new enough for the torch that images and environments get?"""

import os
import re
import shutil
import subprocess

from lary_orch.catalog.cards import repository
from lary_orch.runtimes.environments import TORCH_BACKEND
from lary_orch.runtimes.images import BASE, TORCH_LABEL, tag
from lary_schema import commands

from lary_doctor.check import Context, Finding

NAME = "driver"
QUERY = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
OLDEST = {13: 580, 12: 525}
"""CUDA's major version -> the oldest driver for it on Linux, by NVIDIA's table "CUDA minor version compatibility"."""


OLDER, BUILD = 12, "cu126"


def run(context: Context) -> Finding:
    driver = _driver()
    if driver is None:
        return Finding("skip", "no NVIDIA driver answers")
    major, wanted = int(driver.partition(".")[0]), _cuda_wanted(context)
    oldest = OLDEST[wanted]
    if major >= oldest:
        return Finding("ok", f"driver {driver}; the images' CUDA {wanted} needs {oldest} or newer")
    remedy = f"update the driver to {oldest} or newer, or use --device cpu"
    if major >= OLDEST[OLDER]:
        build = commands.command("images", "build", "--torch", BUILD)
        remedy += (
            f"; `{build}` takes torch's build for CUDA {OLDER}, and {TORCH_BACKEND}={BUILD} does for --runtime process"
        )
    return Finding(
        "fail", f"driver {driver} is too old for the images' torch, whose CUDA {wanted} needs {oldest}", remedy
    )


def _driver() -> str | None:
    if shutil.which(QUERY[0]) is None:
        return None
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"\d+(\.\d+)*", done.stdout.strip())
    return found[0] if done.returncode == 0 and found else None


def _cuda_wanted(context: Context) -> int:
    """CUDA's major version of the torch that would run: of the images that are built, or of the environments."""
    engine = context.engine if context.runtime in ("auto", "docker") else "not asked for"
    if isinstance(engine, str):
        chosen = os.environ.get(TORCH_BACKEND, "")
    else:
        chosen = (engine.labels(tag(BASE)) or {}).get(TORCH_LABEL, "")
    found = re.search(r"\bcu(\d\d)\d$", chosen.rstrip("/"))
    return int(found[1]) if found and int(found[1]) in OLDEST else cuda_of_images()


def cuda_of_images() -> int:
    """CUDA's major version that the base image's Dockerfile names; torch's own wheels are built for the same."""
    text = (repository() / "images/base/Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"nvidia/cuda:(\d+)\.", text)
    assert found is not None
    return int(found[1])
