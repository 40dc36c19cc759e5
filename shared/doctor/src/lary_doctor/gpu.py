"""Are there GPUs, and can containers use them?"""

import shutil

from lary_schema.engine_gpu import REMEDY
from lary_schema.gpus import QUERY, find_gpus
from lary_terminal.tables import size_text

from lary_doctor.check import Context, Finding

NAME = "gpu"


def run(context: Context) -> Finding:
    gpus = find_gpus()
    if not gpus:
        if shutil.which(QUERY[0]):
            return Finding("warn", "nvidia-smi lists no GPU", "look at what nvidia-smi says; reload the driver")
        return Finding("skip", "no NVIDIA GPU; jobs run on the processor")
    message = ", ".join(f"{gpu.name} ({size_text(gpu.memory_bytes)})" for gpu in gpus)
    engine = context.engine if context.runtime in ("auto", "docker") else ""
    if isinstance(engine, str):
        return Finding("ok", message)
    if not isinstance(engine.gpu, str):
        return Finding("ok", f"{message}; containers get it by {engine.gpu}")
    return Finding(
        "fail" if context.runtime == "docker" else "warn",
        f"{message}; containers cannot use it: {engine.gpu}",
        REMEDY,
    )
