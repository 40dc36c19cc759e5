"""Are there GPUs, and can containers use them?"""

import shutil

from lary_results.tables import size_text

from lary_orch.doctor.check import Context, Finding
from lary_orch.runtimes.devices import QUERY, find_gpus

NAME = "gpu"
VENDOR = "nvidia"


def run(context: Context) -> Finding:
    gpus = find_gpus()
    if not gpus:
        if shutil.which(QUERY[0]):
            return Finding("warn", "nvidia-smi lists no GPU", "look at what nvidia-smi says; reload the driver")
        return Finding("skip", "no NVIDIA GPU; jobs run on the processor")
    message = ", ".join(f"{gpu.name} ({size_text(gpu.memory_bytes)})" for gpu in gpus)
    engine = context.engine if context.runtime in ("auto", "docker") else ""
    if isinstance(engine, str) or VENDOR in engine.runtimes:
        return Finding("ok", message)
    return Finding(
        "fail" if context.runtime == "docker" else "warn",
        f"{message}; containers cannot use it",
        "install nvidia-container-toolkit, then `nvidia-ctk runtime configure --runtime=docker` and restart the engine",
    )
